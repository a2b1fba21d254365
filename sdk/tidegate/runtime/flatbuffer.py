"""Read a flatbuffer's tables, as far as TFLite files need it; nothing is trusted, damage is an error and not a crash.

The layout is that of the flatbuffers internals page: little-endian, a table points back to its vtable, and every
reference points forward.
"""

from __future__ import annotations

import struct

DAMAGED = (IndexError, struct.error, UnicodeDecodeError)
"""What these functions raise on bytes that are no flatbuffer."""


def unsigned(content: bytes, position: int) -> int:
    """Return the uint32 at `position`."""
    return int(struct.unpack_from("<I", content, position)[0])


def field_count(content: bytes, table: int) -> int:
    """Return how many fields the table's vtable has room for."""
    return max(0, (int(struct.unpack_from("<H", content, _vtable(content, table))[0]) - 4) // 2)


def slot(content: bytes, table: int, field: int) -> int | None:
    """Return where a field of a table lies, None when it has its default."""
    vtable = _vtable(content, table)
    position = 4 + 2 * field
    if position >= struct.unpack_from("<H", content, vtable)[0]:
        return None
    offset = int(struct.unpack_from("<H", content, vtable + position)[0])
    return table + offset if offset else None


def target(content: bytes, table: int, field: int) -> int | None:
    """Return where the string, vector or table lies that a field refers to, None when the field is absent."""
    at = slot(content, table, field)
    return None if at is None else at + unsigned(content, at)


def vector(content: bytes, table: int, field: int, width: int = 4) -> tuple[int, int]:
    """Return where a vector's elements of `width` bytes begin, and how many there are."""
    start = target(content, table, field)
    if start is None:
        return 0, 0
    count = unsigned(content, start)
    if width * count > len(content):
        raise IndexError(count)
    return start + 4, count


def tables(content: bytes, table: int, field: int) -> list[int]:
    """Return where the tables of a vector of tables lie."""
    start, count = vector(content, table, field)
    return [at + unsigned(content, at) for at in range(start, start + 4 * count, 4)]


def integers(content: bytes, table: int, field: int) -> tuple[int, ...]:
    """Return a vector of int32."""
    start, count = vector(content, table, field)
    return struct.unpack_from(f"<{count}i", content, start)


def data(content: bytes, table: int, field: int) -> bytes:
    """Return a vector of bytes, b"" when the field is absent."""
    start, count = vector(content, table, field, width=1)
    if start + count > len(content):
        raise IndexError(start + count)
    return content[start : start + count]


def text(content: bytes, table: int, field: int) -> str:
    """Return a string, "" when the field is absent."""
    return data(content, table, field).decode()


def number(content: bytes, table: int, field: int, form: str = "<I") -> int:
    """Return a scalar, 0 when the field has its default."""
    at = slot(content, table, field)
    return 0 if at is None else int(struct.unpack_from(form, content, at)[0])


def _vtable(content: bytes, table: int) -> int:
    vtable = table - int(struct.unpack_from("<i", content, table)[0])
    if vtable < 0:
        raise IndexError(vtable)
    return vtable
