"""Integer differences of weights, as byte planes: small changes give high planes that are nearly all zero.

The difference is taken of the bit patterns as unsigned integers of the element's width, modulo 2^n, so it is exact for
floats and integers alike. Zig-zag coding (Protocol Buffers, "signed integers") gives small numbers of either sign a
small code. Plane k holds byte k of every code, the lowest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNSIGNED: dict[int, np.dtype[Any]] = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}
SIGNED: dict[int, np.dtype[Any]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}


def to_planes(old: bytes, new: bytes, width: int) -> list[NDArray[np.uint8]]:
    """Return `width` planes of uint8 [n], for n elements of `width` bytes in both."""
    difference = np.frombuffer(new, UNSIGNED[width]) - np.frombuffer(old, UNSIGNED[width])
    signed = difference.view(SIGNED[width])
    codes = (signed << 1) ^ (signed >> (8 * width - 1))
    octets = codes.view(np.uint8).reshape(-1, width)
    return [np.ascontiguousarray(octets[:, index]) for index in range(width)]


def from_planes(old: bytes, planes: Sequence[bytes]) -> bytes:
    """Return the new elements, given the old ones and one plane for each byte of an element."""
    width = len(planes)
    octets = np.empty((len(old) // width, width), np.uint8)
    for index, plane in enumerate(planes):
        octets[:, index] = np.frombuffer(plane, np.uint8)
    codes = octets.view(UNSIGNED[width]).ravel()
    one = codes.dtype.type(1)
    difference = (codes >> one) ^ (np.zeros_like(codes) - (codes & one))
    result: NDArray[Any] = np.frombuffer(old, UNSIGNED[width]) + difference
    return result.tobytes()
