"""Make the tiny TFLite models of this folder: `python tests/data/make_models.py`, with the `train` extra installed.

They are checked in because the tests must not need TensorFlow. `tests/models.py` makes their ONNX twins (dense.onnx is
kept for `make bench`), and
`tidegate.testing.backend_contract` says what each of them computes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

HERE = Path(__file__).parent
WEIGHTS = ((np.arange(640) % 7 - 3) / 8).reshape(64, 10).astype(np.float32)
BIAS = (np.arange(10) / 4).astype(np.float32)

DTYPES = {
    "BOOL": tf.bool,
    "UINT8": tf.uint8,
    "UINT16": tf.uint16,
    "UINT32": tf.uint32,
    "UINT64": tf.uint64,
    "INT8": tf.int8,
    "INT16": tf.int16,
    "INT32": tf.int32,
    "INT64": tf.int64,
    "FP16": tf.float16,
    "BF16": tf.bfloat16,
    "FP32": tf.float32,
    "FP64": tf.float64,
    "BYTES": tf.string,
}


def main() -> None:
    """Write every model."""
    for name, content in models():
        (HERE / f"{name}.tflite").write_bytes(content)
        print(f"{name}.tflite {len(content)} bytes")


def models() -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of each model."""
    dense = converted(lambda x: {"y": tf.matmul(x, WEIGHTS) + BIAS}, x=([1, 64], tf.float32))
    yield "dense", dense
    yield "no_signature", without_signature(dense)
    yield "dense_int8", quantised(lambda x: {"y": tf.matmul(x, WEIGHTS) + BIAS}, x=([1, 64], tf.float32))
    yield "batch", converted(lambda x: {"y": tf.matmul(x, WEIGHTS) + BIAS}, x=([None, 64], tf.float32))
    yield (
        "two",
        converted(
            lambda a, b: {"sum": a + b, "difference": a - b},
            a=([None, 3], tf.float32),
            b=([None, 3], tf.float32),
        ),
    )
    yield (
        "mixed",
        converted(
            lambda values, indices: {"picked": tf.gather(values, indices)},
            values=([4], tf.float32),
            indices=([2], tf.int32),
        ),
    )
    for dtype in (tf.uint8, tf.int16):
        matrix = lambda x: {"y": tf.matmul(x, WEIGHTS) + BIAS}  # noqa: E731
        yield f"dense_{dtype.name}", quantised(matrix, dtype, x=([1, 64], tf.float32))
    yield (
        "signatures",
        with_signatures(
            {
                "double": (lambda x: {"y": x * 2.0}, {"x": ([3], tf.float32)}),
                "total": (lambda a, b: {"sum": a + b}, {"a": ([2], tf.float32), "b": ([2], tf.float32)}),
            }
        ),
    )
    yield (
        "branches",
        converted(
            lambda x: {"y": tf.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0)}, x=([3], tf.float32)
        ),
    )
    yield (
        "text",
        converted(
            lambda words, lengths: {"joined": tf.gather(words, lengths), "lengths": lengths + 1},
            words=([None], tf.string),
            lengths=([2], tf.int32),
        ),
    )
    yield "scalar", converted(lambda x: {"y": x * 2.0}, x=([], tf.float32))
    for name, dtype in DTYPES.items():
        yield f"column_{name}", converted(lambda x: {"y": tf.reshape(x, [3, 1])}, x=([3], dtype))


def converted(function: Callable[..., dict[str, Any]], **inputs: tuple[list[int | None], tf.DType]) -> bytes:
    """Return the TFLite model of a function of named tensors."""
    content: bytes = _converter(function, inputs).convert()
    return content


def quantised(
    function: Callable[..., dict[str, Any]], dtype: tf.DType = tf.int8, **inputs: tuple[list[int | None], tf.DType]
) -> bytes:
    """Return it with int8 weights, and inputs and outputs of `dtype`, calibrated for inputs between -1 and 1."""
    converter = _converter(function, inputs)
    ramp = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.roll(ramp, shift)] for shift in range(64))
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        if dtype == tf.int16
        else tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    ]
    converter.inference_input_type = converter.inference_output_type = dtype
    content: bytes = converter.convert()
    return content


def with_signatures(
    functions: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, tuple[list[int | None], tf.DType]]]],
) -> bytes:
    """Return one model with a signature, and so a graph, for each function."""
    module = tf.Module()
    concrete = {}
    for name, (function, inputs) in functions.items():
        specs = {key: tf.TensorSpec(shape, dtype, name=key) for key, (shape, dtype) in inputs.items()}
        concrete[name] = tf.function(function).get_concrete_function(**specs)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=concrete)
        content: bytes = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions)).convert()
    return content


def without_signature(content: bytes) -> bytes:
    """Return the model as converters before 2020 left it: names only on the tensors."""
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    model.signatureDefs = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _converter(function: Callable[..., Any], inputs: dict[str, tuple[list[int | None], tf.DType]]) -> Any:
    module = tf.Module()
    module.call = tf.function(function)
    specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()}
    return tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function(**specs)], module)


if __name__ == "__main__":
    main()
