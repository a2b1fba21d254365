"""Make deltas. Every one is applied once before it is handed out, so one that does not lead back is never published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidegate.delta.apply import PLANE_WINDOW_BYTES, Limits, apply
from tidegate.delta.differences import to_planes
from tidegate.delta.format import METHODS, Header, Identity, Method, encode_section
from tidegate.delta.frames import LARGEST_WINDOW_LOG, compress, compress_patch, window_log
from tidegate.delta.pairing import pair
from tidegate.delta.plan import WIDTHS, Plan, read_gaps
from tidegate.delta.source import BytesSource
from tidegate.delta.weights import find_weights
from tidegate.errors import InputError

MAXIMUM_PERCENT = 80
"""A delta larger than this share of the full file is not worth its risk."""


@dataclass(frozen=True)
class Delta:
    """A delta file, and what it is for."""

    header: Header
    data: bytes
    """the whole file, header included"""

    @property
    def percent(self) -> float:
        """Return its size as a share of the full file; infinite when that is empty."""
        full = self.header.full.size_bytes
        return 100 * len(self.data) / full if full else float("inf")


def make(base: bytes, full: bytes, method: Method) -> Delta:
    """Return the delta from `base` to `full`; the same inputs and the same zstd give the same bytes.

    Raises:
        InputError: typed: one of the two is not a model, or they have no weights in common; zstd-patch: too large.
        DependencyError: zstandard is not installed.
    """
    header = Header(method, Identity.of(base), Identity.of(full))
    sections = _patch(base, full) if method == "zstd-patch" else _typed(base, full)
    data = header.encode() + b"".join(encode_section(section) for section in sections)
    if apply(base, data, limits=Limits(full_bytes=len(full))) != full:
        raise AssertionError("a delta led to another file with the same SHA-256")
    return Delta(header, data)


def choose(base: bytes, full: bytes, *, maximum_percent: int = MAXIMUM_PERCENT) -> Delta | None:
    """Return the smallest delta of all methods that take these files, or None when it saves too little.

    Args:
        base: the old file.
        full: the new file.
        maximum_percent: largest share of the full file that a delta may have.

    Raises:
        DependencyError: zstandard is not installed.
    """
    made = []
    for method in METHODS:
        try:
            made.append(make(base, full, method))
        except InputError:  # this method does not take these files
            continue
    smallest = min(made, key=lambda delta: len(delta.data), default=None)
    return smallest if smallest is not None and smallest.percent <= maximum_percent else None


def _patch(base: bytes, full: bytes) -> list[bytes]:
    return [compress_patch(base, full)]


def _typed(base: bytes, full: bytes) -> list[bytes]:
    """Return the sections: plan, rest, then the planes of each width."""
    plan = pair(find_weights(base), find_weights(full))
    if not plan.regions:
        raise InputError("the two models have no weights in common", fix="use zstd-patch, which takes any file")
    old_rest = read_gaps(BytesSource(base), plan.old_gaps(len(base)))
    new_rest = read_gaps(BytesSource(full), plan.new_gaps(len(full)))
    planes = [plane for width in WIDTHS for plane in _planes(base, full, plan, width)]
    return [
        compress(plan.encode(), LARGEST_WINDOW_LOG),
        compress_patch(old_rest, new_rest),
        *(compress(plane, window_log(PLANE_WINDOW_BYTES)) for plane in planes),
    ]


def _planes(base: bytes, full: bytes, plan: Plan, width: int) -> list[bytes]:
    """Return each plane of all regions of one width, in the order of the regions; none when there are no such."""
    parts = [
        to_planes(
            base[region.old_offset : region.old_offset + region.size_bytes],
            full[region.new_offset : region.new_offset + region.size_bytes],
            width,
        )
        for region in plan.regions
        if region.width == width
    ]
    if not parts:
        return []
    return [np.concatenate(plane).tobytes() for plane in zip(*parts, strict=True)]
