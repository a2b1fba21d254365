"""A window in bytes: at most 100 for a feature. docs/reference-profile.md describes every byte.

Numbers are LEB128 varints (seven bits a byte, least first, the high bit says that more follow); signed ones are
zig-zagged (0, -1, 1, -2 … become 0, 1, 2, 3 …).
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.errors import InputError
from tidegate.profile.document import CategoryFeature, Feature
from tidegate.profile.summary import LARGEST_STEP, Summary

NUMBER, CATEGORY = 1, 2
LARGEST_ROWS = (1 << 21) - 1
"""Rows of one encoded window: a count takes three bytes at most."""
BOUND_BYTES = 100

_LARGEST_VARINT_BYTES = 10


def encode_summary(feature: Feature, summary: Summary) -> bytes:
    """Return the record of one feature.

    Raises:
        InputError: more than 2,097,151 rows.
    """
    if summary.rows > LARGEST_ROWS:
        raise InputError(
            f"a window of {summary.rows} rows is too long to encode; expected at most {LARGEST_ROWS}",
            fix="report more often",
        )
    head = [summary.missing, summary.null]
    if isinstance(feature, CategoryFeature):
        return bytes([CATEGORY]) + varints([*head, *summary.counts])
    signed = [_zigzag(summary.total), summary.squares, _zigzag(summary.least), _zigzag(summary.largest)]
    return bytes([NUMBER]) + varints([*head, *signed, *summary.counts])


def decode_summary(feature: Feature, raw: bytes, position: int) -> tuple[Summary, int]:
    """Return the record that starts at `position`, and where the next one starts.

    Raises:
        InputError: truncated, of another kind than the feature, or impossible values.
    """
    expected = CATEGORY if isinstance(feature, CategoryFeature) else NUMBER
    if position >= len(raw):
        raise _damaged(f"ends before feature {feature.name!r}")
    if raw[position] != expected:
        raise _damaged(f"has a record of kind {raw[position]} for feature {feature.name!r}; expected {expected}")
    moments = 0 if expected == CATEGORY else 4
    values, after = read_varints(raw, position + 1, 2 + moments + len(feature.counts))
    counts = tuple(values[2 + moments :])
    if not moments:
        summary = Summary(values[0], values[1], counts)
    else:
        total, squares, least, largest = _unzigzag(values[2]), values[3], _unzigzag(values[4]), _unzigzag(values[5])
        summary = Summary(values[0], values[1], counts, total, squares, least, largest)
    _check_possible(feature, summary)
    return summary, after


def varints(values: Iterable[int]) -> bytes:
    """Return whole numbers of 0 or more, one after the other."""
    out = bytearray()
    for value in values:
        rest = value
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def read_varints(raw: bytes, position: int, count: int) -> tuple[list[int], int]:
    """Return so many whole numbers, and where the next byte is.

    Raises:
        InputError: truncated, or a number longer than ten bytes.
    """
    values = []
    for _ in range(count):
        value = shift = 0
        while True:
            if position >= len(raw) or shift >= 7 * _LARGEST_VARINT_BYTES:
                raise _damaged("is truncated, or holds a number of more than ten bytes")
            byte = raw[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        values.append(value)
    return values, position


def _check_possible(feature: Feature, summary: Summary) -> None:
    """Refuse moments that no rows can have: they would make nonsense of every window merged with this one."""
    present, ends = summary.present, (summary.least, summary.largest)
    possible = (
        summary.rows <= LARGEST_ROWS
        and all(abs(end) <= LARGEST_STEP for end in ends)
        and present * summary.least <= summary.total <= present * summary.largest
        and summary.total**2 <= present * summary.squares
        and summary.squares <= present * max(end**2 for end in ends)
    )
    if not possible:
        raise _damaged(f"holds impossible values for feature {feature.name!r}")


def _zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def _unzigzag(value: int) -> int:
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


def _damaged(problem: str) -> InputError:
    return InputError(
        f"the window summary {problem}", fix="it is damaged, or was made with another profile; send it again"
    )
