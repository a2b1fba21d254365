"""One measured value a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import is_float

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LARGEST = 1e150
"""A magnitude above it counts as null: squares must stay finite."""


@dataclass(frozen=True)
class Column:
    """Values of one feature, a row each."""

    values: NDArray[Any]
    """[rows]: numbers, or objects of bytes or str"""
    missing: Flags
    """[rows]: there is no value; what stands in `values` means nothing"""

    @classmethod
    def full(cls, values: NDArray[Any]) -> Column:
        """Return a column in which no value is missing."""
        return cls(values, np.zeros(len(values), np.bool_))

    def numbers(self) -> tuple[Floats, int, int]:
        """Return the values that are there as float64, the number of missing rows and of null rows."""
        present = self.values[~self.missing].astype(np.float64)
        good = np.abs(present) <= LARGEST  # False for NaN
        return present[good], int(self.missing.sum()), int(len(present) - good.sum())

    def categories(self) -> tuple[list[str], int, int]:
        """Return the values that are there as text, the number of missing rows and of null rows."""
        present = self.values[~self.missing]
        if is_float(present.dtype):
            good = np.isfinite(present)
            return [f"{value:g}" for value in present[good].tolist()], int(self.missing.sum()), int((~good).sum())
        return [category_text(value) for value in present.tolist()], int(self.missing.sum()), 0


def category_text(value: object) -> str:
    """Return how a category is written: text as it is, true and false, whole numbers in decimal."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def width(array: NDArray[Any]) -> int:
    """Return how many values a row has; of an array without rows as well."""
    return math.prod(array.shape[1:])


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as [rows, values]."""
    return array.reshape(len(array), width(array))


def in_chunks(rows: int, row_elements: int) -> list[slice]:
    """Return slices of rows whose float64 copy takes some 8 MB, so that memory does not grow with the data."""
    step = max(1, (1 << 20) // max(row_elements, 1))
    return [slice(first, first + step) for first in range(0, rows, step)]
