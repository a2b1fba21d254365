"""Tell the precision of a model file from its weights, so that a bare model gets a telling variant id.

Both formats are read just far enough for that, without onnx or tensorflow: field numbers from onnx.proto3 (ONNX 1.17)
and from TFLite's schema.fbs (version 3c).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from tidegate.bundle.manifest import BackendName
from tidegate.runtime import flatbuffer
from tidegate.runtime.onnx_file import messages, packed_varints, varints

_ONNX_FLOATS = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}
_TFLITE_FLOATS = {0: "fp32", 1: "fp16", 10: "fp64"}
_TFLITE_INT8 = 9


def precision_of(content: bytes, backend: BackendName) -> str:
    """Return fp64, fp32, bf16, fp16, int8 (weights and activations) or dynamic-int8 (weights only), "" if unclear."""
    try:
        return _of_onnx(content) if backend == "onnx" else _of_tflite(content)
    except flatbuffer.DAMAGED:  # damaged or unusual: the runtime says so in better words
        return ""


def _of_onnx(content: bytes) -> str:
    operators: set[bytes] = set()
    floats: Counter[str] = Counter()
    for graph in messages(content, 7):
        for node in messages(graph, 1):
            operators |= {bytes(operator) for operator in messages(node, 4)}
        for initializer in messages(graph, 5):
            kinds = list(varints(initializer, 2))
            if kinds and kinds[0] in _ONNX_FLOATS:
                floats[_ONNX_FLOATS[kinds[0]]] += math.prod(_dimensions(initializer))
    if operators & {b"DynamicQuantizeLinear", b"MatMulInteger", b"ConvInteger"}:
        return "dynamic-int8"
    if operators & {b"QuantizeLinear", b"QLinearConv", b"QLinearMatMul"}:
        return "int8"
    return _most(floats)


def _dimensions(tensor: memoryview) -> Iterator[int]:
    """Yield TensorProto.dims, which some writers pack and some do not."""
    yield from varints(tensor, 1)
    for packed in messages(tensor, 1):
        yield from packed_varints(packed)


def _of_tflite(content: bytes) -> str:
    model = flatbuffer.unsigned(content, 0)
    has_data = [flatbuffer.slot(content, buffer, 0) is not None for buffer in flatbuffer.tables(content, model, 4)]
    floats: Counter[str] = Counter()
    weights_int8 = activations_int8 = False
    for graph in flatbuffer.tables(content, model, 2):
        for tensor in flatbuffer.tables(content, graph, 0):
            kind = flatbuffer.number(content, tensor, 1, "<B")
            constant = has_data[flatbuffer.number(content, tensor, 2)] if has_data else False
            if constant and kind in _TFLITE_FLOATS:
                floats[_TFLITE_FLOATS[kind]] += math.prod(flatbuffer.integers(content, tensor, 0))
            weights_int8 |= constant and kind == _TFLITE_INT8
            activations_int8 |= not constant and kind == _TFLITE_INT8
    if weights_int8:
        return "int8" if activations_int8 else "dynamic-int8"
    return _most(floats)


def _most(floats: Counter[str]) -> str:
    return floats.most_common(1)[0][0] if floats else ""
