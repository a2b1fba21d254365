"""Where the weights lie: which stretch of the new file is the difference to which stretch of the old one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.delta.format import malformed
from tidegate.delta.source import Source

WIDTHS = (1, 2, 4, 8)
"""Bytes of an element, in the order in which the planes are stored."""

MAXIMUM_REGIONS = 1 << 16
"""Also bounds the memory that a plan takes once it is read, some 20 MB."""
REGION_BYTES = 32
COLUMNS = 4
_WORD = 1 << 64


@dataclass(frozen=True)
class Region:
    """Elements of the new file that are stored as differences to elements of the old file."""

    old_offset: int
    new_offset: int
    count: int
    """elements"""
    width: int
    """bytes of an element"""

    @property
    def size_bytes(self) -> int:
        """Return its length in both files."""
        return self.count * self.width


@dataclass(frozen=True)
class Plan:
    """All regions, sorted by their place in the new file, disjoint in both files."""

    regions: tuple[Region, ...]

    def plane_bytes(self, width: int) -> int:
        """Return the length of each plane of this width: one byte of every element."""
        return sum(region.count for region in self.regions if region.width == width)

    @property
    def covered_bytes(self) -> int:
        """Return how much of the new file are differences."""
        return sum(region.size_bytes for region in self.regions)

    def old_gaps(self, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield offset and length of what lies between the regions in the old file."""
        return _gaps(sorted((region.old_offset, region.size_bytes) for region in self.regions), size_bytes)

    def new_gaps(self, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield offset and length of what lies between the regions in the new file."""
        return _gaps([(region.new_offset, region.size_bytes) for region in self.regions], size_bytes)

    def encode(self) -> bytes:
        """Return four columns of little-endian 64-bit numbers: gap before, shift, count, width of each region."""
        table = np.zeros((COLUMNS, len(self.regions)), "<u8")
        position = 0
        for index, region in enumerate(self.regions):
            shift = (region.old_offset - region.new_offset) % _WORD
            table[:, index] = region.new_offset - position, shift, region.count, region.width
            position = region.new_offset + region.size_bytes
        return table.tobytes()


def decode_plan(raw: bytes, *, old_bytes: int, new_bytes: int) -> Plan:
    """Read the columns and check every region against the sizes of both files.

    Raises:
        IntegrityError: a region lies outside, overlaps another, or has a width that there is not.
    """
    if len(raw) % REGION_BYTES:
        raise malformed(f"its plan has {len(raw)} bytes, which is no multiple of {REGION_BYTES}")
    table: NDArray[np.uint64] = np.frombuffer(raw, "<u8").reshape(COLUMNS, -1)
    regions = []
    position = 0
    for gap, shift, count, width in table.T.tolist():  # Python integers: no sum of them can overflow
        new_offset = position + gap
        region = Region((new_offset + shift) % _WORD, new_offset, count, width)
        if width not in WIDTHS:
            raise malformed(f"its plan has an element width of {width} bytes; expected one of {WIDTHS}")
        position = new_offset + region.size_bytes
        if position > new_bytes or region.old_offset + region.size_bytes > old_bytes:
            raise malformed(f"its plan names {region.size_bytes} bytes outside of the files")
        regions.append(region)
    _check_disjoint([(region.old_offset, region.size_bytes) for region in regions])
    return Plan(tuple(regions))


def read_gaps(source: Source, gaps: Iterator[tuple[int, int]]) -> bytes:
    """Return what lies between the regions, in one piece."""
    return b"".join(source.read_at(offset, size) for offset, size in gaps)


def _check_disjoint(stretches: Sequence[tuple[int, int]]) -> None:
    end = 0
    for offset, size in sorted(stretches):
        if offset < end:
            raise malformed("its plan has regions that overlap in the old file")
        end = offset + size


def _gaps(stretches: Sequence[tuple[int, int]], size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield what the sorted stretches leave over; the last one may be empty."""
    position = 0
    for offset, size in stretches:
        yield position, offset - position
        position = offset + size
    yield position, size_bytes - position
