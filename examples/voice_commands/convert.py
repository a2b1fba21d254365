"""Keras -> the variants: front end inside, input ``audio``, output ``probabilities``.

What is int8: in both int8 variants the convolutions (weights per channel) and
the activations between them, and the last dense layer.  The front end (power
spectrum and logarithm span 13 orders of magnitude) and the soft-max stay
float32, and so do input and output.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import frontend
import numpy as np
from numpy.typing import NDArray
from words import LABELS, UNKNOWN

NAME = "voice-commands"
CLOUD_NAME = "voice-commands-cloud"
OPSET = 17
CALIBRATION_WINDOWS = 200
UNKNOWN_SHIFT_NEPER = 1.5
# Keras puts the name of the model in front of every tensor of the network part;
# the layer "normalise" still belongs to the front end.
NETWORK_SCOPE = "^(?!.*normalise).*functional"

Float = NDArray[np.float32]

VARIANT_FILES: dict[str, str] = {
    "tflite-fp32": "device/variants/tflite-fp32.tflite",
    "tflite-int8": "device/variants/tflite-int8.tflite",
    "onnx-fp32": "device/variants/onnx-fp32.onnx",
    "onnx-int8": "device/variants/onnx-int8.onnx",
    "cloud-onnx-fp16": "cloud/variants/onnx-fp16.onnx",
}
"""Each folder below the output is laid out like the bundle that is made of it, so unpacking a bundle gives it back."""


def convert_all(work: Path, out: Path) -> None:
    """Write every variant of both networks to ``out``."""
    from evaluate import calibration_windows

    for name in VARIANT_FILES.values():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    windows = calibration_windows(work, CALIBRATION_WINDOWS)
    small, cloud = (favour_commands(load_network(work / f"{n}.keras")) for n in ("small", "cloud"))
    saved = save_with_frontend(small, work / "saved-small")
    to_tflite(saved, out / VARIANT_FILES["tflite-fp32"])
    to_tflite_int8(out / VARIANT_FILES["tflite-fp32"], out / VARIANT_FILES["tflite-int8"], windows)
    to_onnx(small, out / VARIANT_FILES["onnx-fp32"])
    to_onnx_int8(out / VARIANT_FILES["onnx-fp32"], out / VARIANT_FILES["onnx-int8"], windows, work)
    to_onnx(cloud, out / VARIANT_FILES["cloud-onnx-fp16"], halve_weights=True)


def load_network(path: Path) -> Any:
    """Load a trained network; its layer classes come into being with the builder."""
    import keras
    import network

    size = network.CLOUD if path.stem == "cloud" else network.SMALL
    model = network.build_network(size)
    trained = keras.models.load_model(path, compile=False)
    model.set_weights(trained.get_weights())
    return model


def favour_commands(network_model: Any, shift_neper: float = UNKNOWN_SHIFT_NEPER) -> Any:
    """Lower the logit of ``unknown``: correct the prior from training to use.

    Every second training window is ``unknown``; behind a gate, in front of a
    device that waits for commands, far fewer are.
    """
    layer = network_model.get_layer("probabilities")
    kernel, bias = layer.get_weights()
    bias[LABELS.index(UNKNOWN)] -= shift_neper
    layer.set_weights([kernel, bias])
    return network_model


def serving_function(network_model: Any) -> Any:
    """Return the TensorFlow function audio [-1, 16000] -> {"probabilities": [-1, labels]}.

    The weights are frozen into constants, so that converters fold the batch
    normalisation into the convolutions.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec([None, frontend.WINDOW_SAMPLES], tf.float32, "audio")]

    @tf.function(input_signature=signature)
    def network_with_frontend(audio: Any) -> Any:
        return network_model(frontend.graph_log_mel(audio), training=False)

    frozen = convert_variables_to_constants_v2(network_with_frontend.get_concrete_function())

    @tf.function(input_signature=signature)
    def serve(audio: Any) -> dict[str, Any]:
        (probabilities,) = frozen(audio)
        return {"probabilities": probabilities}

    return serve


def save_with_frontend(network_model: Any, folder: Path) -> Path:
    """Write a SavedModel whose signature ``serving_default`` takes audio."""
    import tensorflow as tf

    shutil.rmtree(folder, ignore_errors=True)
    module = tf.Module()
    module.serve = serving_function(network_model)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def to_tflite(saved: Path, path: Path) -> None:
    """Write the float32 TFLite variant."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
    path.write_bytes(converter.convert())


def to_tflite_int8(float_path: Path, path: Path, windows: Float) -> None:
    """Quantise the network part of a float32 TFLite file with static ranges.

    Ops are chosen by kind: the front end has none of these kinds except dense
    products, which are recognised by their place in front of the logarithm.
    """
    from ai_edge_quantizer import qtyping, quantizer

    kinds = qtyping.TFLOperationName
    tool = quantizer.Quantizer(str(float_path))
    for kind in (
        kinds.CONV_2D,
        kinds.DEPTHWISE_CONV_2D,
        kinds.ADD,
        kinds.RELU,
        kinds.AVERAGE_POOL_2D,
        kinds.MAX_POOL_2D,
        kinds.CONCATENATION,
        kinds.FULLY_CONNECTED,
        kinds.RESHAPE,
    ):
        tool.add_static_config(NETWORK_SCOPE, kind, activation_num_bits=8, weight_num_bits=8)
    # One calibration per window: over many windows the tool keeps a moving
    # average of the ranges, which clips loud activations.
    each = [tool.calibrate({"serving_default": [{"audio": w[None]}]}) for w in windows]
    quantised = tool.quantize(whole_range(each), enable_progress_report=False)
    path.write_bytes(bytes(quantised.quantized_model))


def whole_range(calibrations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the smallest minimum and the largest maximum of every tensor."""
    return {
        tensor: {
            **calibrations[0][tensor],
            "min": np.min([c[tensor]["min"] for c in calibrations], axis=0),
            "max": np.max([c[tensor]["max"] for c in calibrations], axis=0),
        }
        for tensor in calibrations[0]
    }


def to_onnx(network_model: Any, path: Path, *, halve_weights: bool = False) -> None:
    """Write the ONNX variant with plain names; its weights as float16 if asked for."""
    import onnx
    import tf2onnx

    function = serving_function(network_model)
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    named = plain_names(model)
    onnx.save(weights_as_float16(named) if halve_weights else named, str(path))


def weights_as_float16(model: Any, smallest: int = 256) -> Any:
    """Store the large weights of an ONNX model as float16; a Cast brings each back to float32 when the model loads.

    The runtime folds the casts away once, so the model computes in float32 at the speed of float32 and takes half the
    room.  The front end keeps its own constants.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    kept = {name for node in graph.node if node.name in set(frontend_nodes(graph)) for name in node.input}
    casts = []
    for constant in list(graph.initializer):
        values = numpy_helper.to_array(constant)
        if constant.name in kept or values.dtype != np.float32 or values.size < smallest:
            continue
        stored = f"{constant.name}/half"
        casts.append(helper.make_node("Cast", [stored], [constant.name], f"{constant.name}/cast", to=TensorProto.FLOAT))
        graph.initializer.remove(constant)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def plain_names(model: Any) -> Any:
    """Name input and output of an ONNX model as the signature does, and free the batch.

    Tensors in between lose the prefixes of the tools, which take kilobytes.
    """
    renames = {model.graph.input[0].name: "audio", model.graph.output[0].name: "probabilities"}
    for node in model.graph.node:
        node.name = short(node.name)
        node.input[:] = [renames.get(name, short(name)) for name in node.input]
        node.output[:] = [renames.get(name, short(name)) for name in node.output]
    for constant in model.graph.initializer:
        constant.name = short(constant.name)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.name = renames[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    return model


def short(name: str) -> str:
    """Return a tensor or node name without the prefixes of Keras and TensorFlow."""
    for prefix in ("StatefulPartitionedCall/", "PartitionedCall/", "functional_1/", "functional/"):
        name = name.replace(prefix, "")
    return name


def to_onnx_int8(float_path: Path, path: Path, windows: Float, work: Path) -> None:
    """Quantise convolutions and what lies between them, as QDQ pairs with static ranges."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationMethod
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """One window at a time."""

        def __init__(self) -> None:
            self.rows: Iterator[Float] = iter(windows)

        def get_next(self) -> dict[str, Float] | None:
            row = next(self.rows, None)
            return None if row is None else {"audio": row[None]}

    prepared = work / "prepared.onnx"
    quant_pre_process(str(float_path), str(prepared), skip_symbolic_shape=True)
    graph = onnx.load(str(prepared)).graph
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        nodes_to_exclude=frontend_nodes(graph),
        op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool", "AveragePool", "Concat", "MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )


def frontend_nodes(graph: Any) -> list[str]:
    """Return the names of all nodes before the first convolution (in topological order)."""
    names = []
    for node in graph.node:
        if node.op_type == "Conv":
            break
        names.append(node.name)
    return names
