"""Models for the serving benchmarks: a perceptron, a loop of any length, and one with large answers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bundle import Manifest, Signature, TensorSpec, Variant, digest, write_bundle
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

UNITS = (64, 256, 256, 10)
"""Of the perceptron's layers."""

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, dtype, shape."""


def write_perceptron(scratch: Path) -> tuple[Path, Path, Path]:
    """Write a perceptron, its bundle and a request with gRPC's 5 bytes in front; return the three paths."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    nodes, weights, last = [], [], "x"
    for layer, (rows, columns) in enumerate(pairwise(UNITS)):
        weights += [
            numpy_helper.from_array(random.standard_normal((rows, columns)).astype(np.float32) * 0.1, f"w{layer}"),
            numpy_helper.from_array(np.zeros(columns, np.float32), f"b{layer}"),
        ]
        is_last = layer == len(UNITS) - 2
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], ["y" if is_last else f"h{layer}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"h{layer}"], [f"r{layer}"]))
            last = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", UNITS[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", UNITS[-1]])],
        weights,
    )
    made = _serialised(graph)
    bundle = _bundle(scratch, "mlp", made, ("x", "FP32", (-1, UNITS[0])), ("y", "FP32", (-1, UNITS[-1])))
    model, body = scratch / "mlp.onnx", scratch / "body.bin"
    model.write_bytes(made)
    request = messages.ModelInferRequest(model_name="mlp")
    write_inputs(request, {"x": random.standard_normal((1, UNITS[0])).astype(np.float32)})
    message = request.SerializeToString()
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    return model, bundle, body


def loop_bundle(scratch: Path) -> Path:
    """Write `loop`: `turns` INT64 [1] -> `sum` FP64 [1], which adds 1 so many times, some microsecond each."""
    from onnx import TensorProto, helper, numpy_helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["go_on"]), helper.make_node("Add", ["sum_in", "one"], ["sum_out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.DOUBLE, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.DOUBLE, [1]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["turns"], ["count"]),
            helper.make_node("Loop", ["count", "yes", "zero"], ["sum"], body=body),
        ],
        "loop",
        [helper.make_tensor_value_info("turns", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("sum", TensorProto.DOUBLE, [1])],
        [
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.zeros(1), "zero"),
            numpy_helper.from_array(np.ones(1), "one"),
        ],
    )
    return _bundle(scratch, "loop", _serialised(graph), ("turns", "INT64", (1,)), ("sum", "FP64", (1,)))


def zeros_bundle(scratch: Path) -> Path:
    """Write `zeros`: `size` INT64 [1] -> `y` FP32 [-1], so many zeros: a small question with a large answer."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["y"])],
        "zeros",
        [helper.make_tensor_value_info("size", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return _bundle(scratch, "zeros", _serialised(graph), ("size", "INT64", (1,)), ("y", "FP32", (-1,)))


def _serialised(graph: Any) -> bytes:
    from onnx import helper

    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def _bundle(scratch: Path, name: str, model: bytes, given: Tensor, found: Tensor) -> Path:
    file = "variants/model.onnx"
    variant = Variant(
        id="onnx-fp32", backend="onnx", precision="fp32", file=file, sha256=digest(model), size_bytes=len(model)
    )
    inputs, outputs = ((TensorSpec(name=tensor, dtype=dtype, shape=shape),) for tensor, dtype, shape in (given, found))
    signature = Signature(inputs=inputs, outputs=outputs)
    manifest = Manifest(
        schema="tidegate.bundle/1", name=name, version="1.0.0", signature=signature, variants=(variant,)
    )
    path = scratch / f"{name}-1.0.0.tide"
    write_bundle(manifest, {file: model}, path)
    return path
