"""Read an ONNX file's protobuf just far enough, without the onnx package: a walk over fields, and what lies outside.

Field numbers are those of onnx.proto3 (ONNX 1.17); the wire format is that of protobuf's encoding guide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_EXTERNAL = 1

# Which fields of a message hold messages that may, at some depth, hold tensors.
_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


class Field(NamedTuple):
    """One field of a message as it stands in the file."""

    number: int
    value: memoryview | int
    start: int
    """where its tag begins, from the start of the message"""
    end: int
    """where the next field begins"""


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose data is said to lie in another file."""

    tensor: str
    location: str
    """as the model states it; nothing has been checked"""


def walk(message: bytes | memoryview) -> Iterator[Field]:
    """Yield the fields of a message that are varints or have a length; numbers of fixed width are passed over.

    Raises:
        IndexError: the message is cut short or no protobuf.
    """
    view = memoryview(message)
    position, length = 0, len(view)
    while position < length:
        start = position
        tag, position = _varint(view, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(view, position)
            yield Field(tag >> 3, value, start, position)
        elif kind == 2:
            size, position = _varint(view, position)
            if position + size > length:
                raise IndexError(position + size)
            yield Field(tag >> 3, view[position : position + size], start, position + size)
            position += size
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind not in (3, 4):  # a group's begin and end have no content of their own
            raise IndexError(position)


def messages(message: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """Yield the content of every field `number` that has a length.

    Raises:
        IndexError: as `walk`.
    """
    return (field.value for field in walk(message) if field.number == number and isinstance(field.value, memoryview))


def varints(message: bytes | memoryview, number: int) -> Iterator[int]:
    """Yield the value of every field `number` that is a varint, packed ones left out.

    Raises:
        IndexError: as `walk`.
    """
    return (field.value for field in walk(message) if field.number == number and isinstance(field.value, int))


def packed_varints(content: memoryview) -> Iterator[int]:
    """Yield the varints of a packed field.

    Raises:
        IndexError: it is cut short.
    """
    position = 0
    while position < len(content):
        value, position = _varint(content, position)
        yield value


def external_tensors(model: bytes) -> tuple[ExternalTensor, ...]:
    """Return every tensor of a model, in whatever subgraph, function or attribute, that refers to another file.

    Raises:
        IndexError: the model is damaged.
    """
    # The key of every reference is this word; searching for it costs a thousandth of the walk.
    if b"location" not in model:
        return ()
    found: list[ExternalTensor] = []
    waiting = [("model", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        if kind == "tensor":
            found += _external(message)
            continue
        inner = _INNER[kind]
        waiting += [
            (inner[field.number], field.value)
            for field in walk(message)
            if field.number in inner and isinstance(field.value, memoryview)
        ]
    return tuple(found)


def entry(message: memoryview) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto; bytes that are not UTF-8 are replaced.

    Raises:
        IndexError: as `walk`.
    """
    key = b"".join(list(messages(message, 1))[-1:])
    value = b"".join(list(messages(message, 2))[-1:])
    return key.decode(errors="replace"), value.decode(errors="replace")


def length_delimited(number: int, content: bytes) -> bytes:
    """Return a field of a message or a text, tag and length included."""
    return _varint_bytes(number << 3 | 2) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _external(tensor: memoryview) -> list[ExternalTensor]:
    if _EXTERNAL not in varints(tensor, 14):
        return []
    name = b"".join(list(messages(tensor, 8))[-1:]).decode(errors="replace")
    entries = dict(entry(item) for item in messages(tensor, 13))
    return [ExternalTensor(name, entries.get("location", ""))]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise IndexError(position)
