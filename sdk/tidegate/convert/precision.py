"""Tell the precision of a model file from its weights, so that a bare model gets a telling variant id.

Both formats are read just far enough for that, without onnx or tensorflow: field numbers from onnx.proto3 (ONNX 1.17)
and from TFLite's schema.fbs (version 3c).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator

from tidegate.bundle.manifest import BackendName

_ONNX_FLOATS = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}
_TFLITE_FLOATS = {0: "fp32", 1: "fp16", 10: "fp64"}
_TFLITE_INT8 = 9


def precision_of(content: bytes, backend: BackendName) -> str:
    """Return fp64, fp32, bf16, fp16, int8 (weights and activations) or dynamic-int8 (weights only), "" if unclear."""
    try:
        return _of_onnx(content) if backend == "onnx" else _of_tflite(content)
    except (IndexError, struct.error):  # damaged or unusual: the runtime says so in better words
        return ""


def _of_onnx(content: bytes) -> str:
    operators: set[bytes] = set()
    floats: Counter[str] = Counter()
    for graph in _fields(content, 7):
        for node in _fields(graph, 1):
            operators |= {bytes(operator) for operator in _fields(node, 4)}
        for initializer in _fields(graph, 5):
            kinds = list(_varints(initializer, 2))
            if kinds and kinds[0] in _ONNX_FLOATS:
                floats[_ONNX_FLOATS[kinds[0]]] += math.prod(_dimensions(initializer))
    if operators & {b"DynamicQuantizeLinear", b"MatMulInteger", b"ConvInteger"}:
        return "dynamic-int8"
    if operators & {b"QuantizeLinear", b"QLinearConv", b"QLinearMatMul"}:
        return "int8"
    return _most(floats)


def _dimensions(tensor: memoryview) -> Iterator[int]:
    """Yield TensorProto.dims, which some writers pack and some do not."""
    yield from _varints(tensor, 1)
    for packed in _fields(tensor, 1):
        position = 0
        while position < len(packed):
            value, position = _varint(packed, position)
            yield value


def _fields(message: bytes | memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in _walk(memoryview(message)) if number == wanted and isinstance(value, memoryview))


def _varints(message: memoryview, wanted: int) -> Iterator[int]:
    return (value for number, value in _walk(message) if number == wanted and isinstance(value, int))


def _walk(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield field number and value of a protobuf message, as its encoding guide describes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
        elif kind == 2:
            length, position = _varint(message, position)
            yield tag >> 3, message[position : position + length]
            position += length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise IndexError(position)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise IndexError(position)


def _of_tflite(content: bytes) -> str:
    model = _unsigned(content, 0)
    has_data = [_slot(content, buffer, 0) is not None for buffer in _tables(content, model, 4)]
    floats: Counter[str] = Counter()
    weights_int8 = activations_int8 = False
    for graph in _tables(content, model, 2):
        for tensor in _tables(content, graph, 0):
            kind_at, buffer_at = _slot(content, tensor, 1), _slot(content, tensor, 2)
            kind = content[kind_at] if kind_at is not None else 0
            constant = buffer_at is not None and has_data[_unsigned(content, buffer_at)]
            if constant and kind in _TFLITE_FLOATS:
                floats[_TFLITE_FLOATS[kind]] += math.prod(_integers(content, tensor, 0))
            weights_int8 |= constant and kind == _TFLITE_INT8
            activations_int8 |= not constant and kind == _TFLITE_INT8
    if weights_int8:
        return "int8" if activations_int8 else "dynamic-int8"
    return _most(floats)


def _slot(content: bytes, table: int, field: int) -> int | None:
    """Return where a field of a flatbuffers table lies, None when it has its default."""
    vtable = table - struct.unpack_from("<i", content, table)[0]
    position = 4 + 2 * field
    if vtable < 0 or position >= struct.unpack_from("<H", content, vtable)[0]:
        return None
    offset = int(struct.unpack_from("<H", content, vtable + position)[0])
    return table + offset if offset else None


def _vector(content: bytes, table: int, field: int) -> tuple[int, int]:
    """Return where a vector's elements begin, and how many there are; a count beyond the file is damage."""
    slot = _slot(content, table, field)
    if slot is None:
        return 0, 0
    start = slot + _unsigned(content, slot)
    count = _unsigned(content, start)
    if 4 * count > len(content):
        raise IndexError(count)
    return start + 4, count


def _tables(content: bytes, table: int, field: int) -> Iterable[int]:
    start, count = _vector(content, table, field)
    return [at + _unsigned(content, at) for at in range(start, start + 4 * count, 4)]


def _integers(content: bytes, table: int, field: int) -> Iterable[int]:
    start, count = _vector(content, table, field)
    return struct.unpack_from(f"<{count}i", content, start)


def _unsigned(content: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", content, position)[0])


def _most(floats: Counter[str]) -> str:
    return floats.most_common(1)[0][0] if floats else ""
