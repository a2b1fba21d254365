"""Weights of a TFLite file: a reader of the few fields of its flatbuffer that say where tensors lie, bounds-checked.

Field numbers: tensorflow/lite/schema/schema.fbs. Layout: flatbuffers.dev, "FlatBuffer Internals".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tidegate.delta.weights import UnreadableModelError, Weights

IDENTIFIER = b"TFL3"

_MODEL_SUBGRAPHS, _MODEL_BUFFERS = 2, 4
_SUBGRAPH_TENSORS = 0
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_QUANTISATION = 0, 1, 2, 3, 4
_QUANTISATION_SCALE = 2
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2

_WIDTHS = {
    0: 4,  # FLOAT32
    1: 2,  # FLOAT16
    2: 4,  # INT32
    3: 1,  # UINT8
    4: 8,  # INT64
    6: 1,  # BOOL
    7: 2,  # INT16
    8: 4,  # COMPLEX64, two floats
    9: 1,  # INT8
    10: 8,  # FLOAT64
    11: 8,  # COMPLEX128, two floats
    12: 8,  # UINT64
    15: 4,  # UINT32
    16: 2,  # UINT16
    17: 1,  # INT4, two in a byte
    18: 2,  # BFLOAT16
}
"""Bytes of an element by number of TensorType; strings and resources are absent."""

_FLOAT_BYTES = 4


def find_tflite_weights(model: bytes) -> Iterator[Weights]:
    """Yield every tensor that has a buffer with content, and the scales of every quantised tensor.

    Raises:
        UnreadableModelError: an offset leads outside of the file.
    """
    flat = _Flatbuffer(model)
    root = flat.reference(0)
    buffers = [_content(flat, table) for table in flat.tables(root, _MODEL_BUFFERS)]
    for subgraph in flat.tables(root, _MODEL_SUBGRAPHS):
        for tensor in flat.tables(subgraph, _SUBGRAPH_TENSORS):
            yield from _tensor(flat, tensor, buffers)


def _tensor(flat: _Flatbuffer, tensor: int, buffers: list[tuple[int, int]]) -> Iterator[Weights]:
    kind = flat.scalar(tensor, _TENSOR_TYPE, "b")
    index = flat.scalar(tensor, _TENSOR_BUFFER, "I")
    name = flat.text(tensor, _TENSOR_NAME)
    if index >= len(buffers):
        raise UnreadableModelError(f"tensor {name!r} uses buffer {index} of {len(buffers)}")
    offset, size = buffers[index]
    if kind in _WIDTHS and size:
        yield Weights(name, str(kind), flat.integers(tensor, _TENSOR_SHAPE), offset, size, _WIDTHS[kind])
    quantisation = flat.field(tensor, _TENSOR_QUANTISATION)
    if quantisation:
        start, count = flat.vector(flat.reference(quantisation), _QUANTISATION_SCALE, _FLOAT_BYTES)
        # One scale for each channel: a few per cent of a small int8 file, and all of them change.
        yield Weights(name, "scale", (count,), start, count * _FLOAT_BYTES, _FLOAT_BYTES)


def _content(flat: _Flatbuffer, buffer: int) -> tuple[int, int]:
    """Return where a buffer's bytes lie: in the flatbuffer, or behind it in files over 2 GB."""
    offset = flat.scalar(buffer, _BUFFER_OFFSET, "Q")
    if offset > 1:  # 0 and 1 mean: not behind
        size = flat.scalar(buffer, _BUFFER_SIZE, "Q")
        flat.check(offset, size)
        return offset, size
    return flat.vector(buffer, _BUFFER_DATA, 1)


class _Flatbuffer:
    """Reads tables; positions are offsets from the file's start."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def check(self, position: int, size: int) -> None:
        if position < 0 or position + size > len(self._data):
            raise UnreadableModelError(f"{size} bytes at {position} lie outside of the {len(self._data)} of the file")

    def reference(self, position: int) -> int:
        """Follow a 32-bit offset."""
        return position + self._read(position, "I")

    def field(self, table: int, number: int) -> int:
        """Return where a field lies, 0 when the table has not got it."""
        vtable = table - self._read(table, "i")
        entry = 4 + 2 * number
        if entry + 2 > self._read(vtable, "H"):
            return 0
        offset = self._read(vtable + entry, "H")
        return table + offset if offset else 0

    def scalar(self, table: int, number: int, kind: str) -> int:
        """Return a number, 0 when the table has not got it."""
        position = self.field(table, number)
        return self._read(position, kind) if position else 0

    def vector(self, table: int, number: int, width: int) -> tuple[int, int]:
        """Return where a vector's elements begin and how many there are; (0, 0) when the table has not got it."""
        position = self.field(table, number)
        if not position:
            return 0, 0
        start = self.reference(position)
        count = self._read(start, "I")
        self.check(start + 4, count * width)
        return start + 4, count

    def tables(self, table: int, number: int) -> list[int]:
        """Return the positions of a vector's tables."""
        start, count = self.vector(table, number, 4)
        return [self.reference(start + 4 * index) for index in range(count)]

    def integers(self, table: int, number: int) -> tuple[int, ...]:
        """Return a vector of 32-bit integers."""
        start, count = self.vector(table, number, 4)
        return struct.unpack_from(f"<{count}i", self._data, start)

    def text(self, table: int, number: int) -> str:
        """Return a string, as far as it is one."""
        start, count = self.vector(table, number, 1)
        return self._data[start : start + count].decode(errors="replace")

    def _read(self, position: int, kind: str) -> int:
        self.check(position, struct.calcsize(f"<{kind}"))
        (value,) = struct.unpack_from(f"<{kind}", self._data, position)
        return int(value)
