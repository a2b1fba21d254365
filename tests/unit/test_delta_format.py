"""A second reader of deltas, written from docs/delta-format.md alone and as plainly as can be, agrees with ours."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.delta import METHODS, Method, make
from tidegate.delta.weights import find_weights

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "delta-format.md").read_text(encoding="utf-8")
MODELS = [ROOT / "tests" / "data" / name for name in ("dense_int8.tflite", "dense.tflite")]


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def inflate(frame: bytes, dictionary: bytes = b"") -> bytes:
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=raw).decompress(frame)


def apply_plainly(old: bytes, delta: bytes) -> bytes:
    """Follow the page, with Python's integers, and no check but the digests."""
    assert delta[24:56] == hashlib.sha256(old).digest()
    assert number(delta[16:24]) == len(old)
    sections, position = [], 96
    while position < len(delta):
        size = number(delta[position : position + 8])
        sections.append(delta[position + 8 : position + 8 + size])
        position += 8 + size
    new = inflate(sections[0], old) if delta[9] == 1 else add_plainly(old, number(delta[56:64]), sections)
    assert delta[64:96] == hashlib.sha256(new).digest()
    return new


def add_plainly(old: bytes, new_size: int, sections: list[bytes]) -> bytes:
    plan = inflate(sections[0])
    numbers = [number(plan[at : at + 8]) for at in range(0, len(plan), 8)]
    count = len(numbers) // 4
    gaps, shifts, counts, widths = (numbers[column * count : (column + 1) * count] for column in range(4))

    new, in_new, in_old = bytearray(new_size), bytearray(new_size), bytearray(len(old))
    regions, position = [], 0
    for gap, shift, elements, width in zip(gaps, shifts, counts, widths, strict=True):
        to = position + gap
        position = to + elements * width
        regions.append(((to + shift) % 2**64, to, elements, width))
        in_new[to:position] = b"\1" * (elements * width)
        in_old[regions[-1][0] : regions[-1][0] + elements * width] = b"\1" * (elements * width)

    old_rest = bytes(octet for octet, covered in zip(old, in_old, strict=True) if not covered)
    rest = iter(inflate(sections[1], old_rest))
    for at, covered in enumerate(in_new):
        if not covered:
            new[at] = next(rest)
    planes = {}
    following = iter(sections[2:])
    for width in (1, 2, 4, 8):
        if width in widths:
            planes[width] = [iter(inflate(next(following))) for _ in range(width)]
    for source, to, elements, width in regions:
        for at in range(0, elements * width, width):
            code = number(bytes(next(plane) for plane in planes[width]))
            value = number(old[source + at : source + at + width]) + ((code >> 1) ^ -(code & 1))
            new[to + at : to + at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(new)


@pytest.mark.parametrize("method", METHODS)
@given(path=st.sampled_from(MODELS), seed=st.integers(0, 2**32), extra=st.binary(max_size=40))
@settings(max_examples=20, deadline=None)
def test_the_page_is_the_format(method: Method, path: Path, seed: int, extra: bytes) -> None:
    old = path.read_bytes()
    rng = np.random.default_rng(seed)
    changed = bytearray(old)
    for weights in find_weights(old):
        changed[weights.offset : weights.offset + weights.size_bytes] = rng.bytes(weights.size_bytes)
    new = bytes(changed) + extra
    assert apply_plainly(old, make(old, new, method).data) == new


def test_the_header_stands_on_the_page() -> None:
    written = re.search(r"\| 0 \| 8 \| `([0-9A-F ]+)` \|", PAGE)
    assert written is not None
    model = MODELS[0].read_bytes()
    for index, method in enumerate(METHODS):
        data = make(model, model, method).data
        assert data[:8] == bytes.fromhex(written[1])
        assert (data[8], data[9], data[10:16]) == (1, index + 1, bytes(6))
        assert f"| `{method}` | {index + 1} |" in PAGE
