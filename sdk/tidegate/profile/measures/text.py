"""Text, a string a row: length and shares of character classes."""

from __future__ import annotations

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.profile.measures.column import Column, Floats

CLASSES = ("letter", "digit", "space", "other")


def text_columns(array: Array) -> dict[str, Column]:
    """Measure strings.

    Args:
        array: object [rows] of bytes (UTF-8; what is not becomes a replacement character) or str.

    Returns:
        `length` in characters, `share/CLASS` for letters, digits, white space and the rest, `share/non_ascii`, and
        `value`, the string itself. An empty string is missing.
    """
    texts = [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in array.tolist()]
    missing = np.array([not text for text in texts], dtype=np.bool_)
    known = {text: _measure(text) for text in set(texts)}
    measured = np.array([known[text] for text in texts], dtype=np.float64).reshape(len(texts), 6).T
    names = ("length", *(f"share/{name}" for name in CLASSES), "share/non_ascii")
    columns = {name: Column(values, missing) for name, values in zip(names, measured, strict=True)}
    return columns | {"value": Column(array, missing)}


def _measure(text: str) -> Floats:
    counts = np.zeros(6)
    if not text:
        return counts
    for letter in text:
        place = 1 if letter.isalpha() else 2 if letter.isdigit() else 3 if letter.isspace() else 4
        counts[place] += 1
        counts[5] += not letter.isascii()
    counts /= len(text)
    counts[0] = len(text)
    return counts
