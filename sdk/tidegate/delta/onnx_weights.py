"""Weights of an ONNX file: a walk over the few Protocol Buffers fields that say where tensors lie, bounds-checked.

Field numbers: onnx/onnx.proto. Encoding: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.delta.weights import UnreadableModelError, Weights

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_MODEL_IR_VERSION, _MODEL_GRAPH = 1, 7
_GRAPH_NODE, _GRAPH_INITIALISER = 1, 5
_NODE_OUTPUT, _NODE_ATTRIBUTE = 2, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 5, 6, 11
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_DOUBLES = 1, 2, 4, 8, 9, 10

_WIDTHS = {
    1: 4,  # FLOAT
    2: 1,  # UINT8
    3: 1,  # INT8
    4: 2,  # UINT16
    5: 2,  # INT16
    6: 4,  # INT32
    7: 8,  # INT64
    9: 1,  # BOOL
    10: 2,  # FLOAT16
    11: 8,  # DOUBLE
    12: 4,  # UINT32
    13: 8,  # UINT64
    14: 4,  # COMPLEX64, two floats
    15: 8,  # COMPLEX128, two doubles
    16: 2,  # BFLOAT16
    17: 1,  # FLOAT8E4M3FN
    18: 1,  # FLOAT8E4M3FNUZ
    19: 1,  # FLOAT8E5M2
    20: 1,  # FLOAT8E5M2FNUZ
    21: 1,  # UINT4, two in a byte
    22: 1,  # INT4, two in a byte
}
"""Bytes of an element of raw_data by number of TensorProto.DataType; strings are absent."""

_PACKED_WIDTHS = {_TENSOR_FLOATS: 4, _TENSOR_DOUBLES: 8}
_DEEPEST = 32
_VARINT_BYTES = 10


def find_onnx_weights(model: bytes) -> Iterator[Weights]:
    """Yield every tensor with content: initialisers, and attributes of nodes, in subgraphs too.

    Raises:
        UnreadableModelError: not a serialised ModelProto.
    """
    fields = list(_fields(model, 0, len(model)))
    if not any(number == _MODEL_IR_VERSION for number, *_ in fields):
        raise UnreadableModelError("it names no ir_version, as every ONNX model does")
    for number, wire, start, end in fields:
        if (number, wire) == (_MODEL_GRAPH, _LENGTH):
            yield from _graph(model, start, end, 0)


def _graph(model: bytes, start: int, end: int, depth: int) -> Iterator[Weights]:
    if depth > _DEEPEST:
        raise UnreadableModelError(f"graphs nest deeper than {_DEEPEST}")
    for number, wire, inner, after in _fields(model, start, end):
        if (number, wire) == (_GRAPH_INITIALISER, _LENGTH):
            yield from _tensor(model, inner, after, "")
        elif (number, wire) == (_GRAPH_NODE, _LENGTH):
            yield from _node(model, inner, after, depth)


def _node(model: bytes, start: int, end: int, depth: int) -> Iterator[Weights]:
    fields = list(_fields(model, start, end))
    outputs = [
        model[inner:after].decode(errors="replace") for number, _, inner, after in fields if number == _NODE_OUTPUT
    ]
    name = outputs[0] if outputs else ""
    for number, wire, inner, after in fields:
        if (number, wire) != (_NODE_ATTRIBUTE, _LENGTH):
            continue
        for part, kind, first, last in _fields(model, inner, after):
            if (part, kind) == (_ATTRIBUTE_TENSOR, _LENGTH):
                yield from _tensor(model, first, last, name)
            elif kind == _LENGTH and part in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                yield from _graph(model, first, last, depth + 1)


def _tensor(model: bytes, start: int, end: int, node: str) -> Iterator[Weights]:
    shape: list[int] = []
    dtype, name = 0, node
    contents: list[tuple[int, int, int]] = []
    for number, wire, inner, after in _fields(model, start, end):
        if number == _TENSOR_DIMS and wire == _VARINT:
            shape.append(_varint(model, inner, after)[0])
        elif number == _TENSOR_DIMS and wire == _LENGTH:
            shape.extend(_varints(model, inner, after))
        elif number == _TENSOR_TYPE and wire == _VARINT:
            dtype = _varint(model, inner, after)[0]
        elif number == _TENSOR_NAME and wire == _LENGTH:
            name = model[inner:after].decode(errors="replace") or node
        elif wire == _LENGTH and number in (_TENSOR_RAW, *_PACKED_WIDTHS):
            contents.append((number, inner, after))
    for number, inner, after in contents:
        width = _PACKED_WIDTHS.get(number) or _WIDTHS.get(dtype)
        if width:
            yield Weights(name, f"{dtype}/{number}", tuple(shape), inner, after - inner, width)


def _fields(model: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, begin and end of each field's content; of a varint, of its own bytes."""
    position = start
    while position < end:
        tag, position = _varint(model, position, end)
        number, wire = tag >> 3, tag & 7
        if wire == _LENGTH:
            size, position = _varint(model, position, end)
            after = position + size
        elif wire == _VARINT:
            after = _varint(model, position, end)[1]
        elif wire in (_FIXED32, _FIXED64):
            after = position + (4 if wire == _FIXED32 else 8)
        else:
            raise UnreadableModelError(f"wire type {wire} at {position}")
        if number == 0 or after > end:
            raise UnreadableModelError(f"field {number} at {position} ends outside of what holds it")
        yield number, wire, position, after
        position = after


def _varint(model: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a number and the position behind it."""
    value = 0
    for index in range(_VARINT_BYTES):
        if position + index >= end:
            break
        octet = model[position + index]
        value |= (octet & 0x7F) << (7 * index)
        if octet < 0x80:
            return value, position + index + 1
    raise UnreadableModelError(f"a number at {position} has no end")


def _varints(model: bytes, start: int, end: int) -> Iterator[int]:
    position = start
    while position < end:
        value, position = _varint(model, position, end)
        yield value
