"""What a window says about one feature: whole numbers only, so that merging is exact in any order.

A number x enters as q, the nearest whole number to 1024 (x - centre) / scale, held within ±(2^20 - 1); centre and scale
are the reference's mean and standard deviation. The sums of q and q² give mean and variance; a single value more than
1024 standard deviations off counts as 1024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.errors import InputError
from tidegate.profile.cells import Ints, bins_of, cells_of
from tidegate.profile.document import CategoryFeature, Feature, NumberFeature
from tidegate.profile.measures.column import Column, Floats

STEPS = 1024
LARGEST_STEP = (1 << 20) - 1


@dataclass(frozen=True)
class Summary:
    """Counts and moments of one feature; for a category the moments stay 0."""

    missing: int
    null: int
    counts: tuple[int, ...]
    """rows by bin or cell, as in the profile's feature"""
    total: int = 0
    """sum of q"""
    squares: int = 0
    """sum of q²"""
    least: int = 0
    """of q; 0 without values, as `largest`"""
    largest: int = 0

    @property
    def present(self) -> int:
        """Rows with a value."""
        return sum(self.counts)

    @property
    def rows(self) -> int:
        """All rows."""
        return self.present + self.missing + self.null

    def merge(self, other: Summary) -> Summary:
        """Return the summary of both windows' rows; exact, associative and commutative.

        Raises:
            InputError: the summaries are of different features.
        """
        if len(self.counts) != len(other.counts):
            raise InputError(
                f"summaries of {len(self.counts)} and {len(other.counts)} cells cannot be merged",
                fix="merge windows of the same feature of the same profile",
            )
        extremes = [part for part in (self, other) if part.present]
        return Summary(
            missing=self.missing + other.missing,
            null=self.null + other.null,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            total=self.total + other.total,
            squares=self.squares + other.squares,
            least=min((part.least for part in extremes), default=0),
            largest=max((part.largest for part in extremes), default=0),
        )

    def moments(self, feature: NumberFeature) -> tuple[float, float]:
        """Return mean and variance in the feature's own unit; (0, 0) without values."""
        if not self.present:
            return 0.0, 0.0
        mean = self.total / self.present / STEPS
        variance = max(self.squares / self.present / STEPS**2 - mean**2, 0.0)
        return feature.centre + mean * feature.scale, variance * feature.scale**2


def empty(feature: Feature) -> Summary:
    """Return the summary of no rows."""
    return Summary(missing=0, null=0, counts=(0,) * len(feature.counts))


def summarise(feature: Feature, column: Column) -> Summary:
    """Return the summary of some rows."""
    if isinstance(feature, CategoryFeature):
        values, missing, null = column.categories()
        return Summary(missing, null, counts_of(category_cells(feature, values), len(feature.counts)))
    numbers, missing, null = column.numbers()
    counts = counts_of(bins_of(numbers, np.array(feature.edges)), len(feature.counts))
    if not len(numbers):
        return Summary(missing, null, counts)
    steps = quantised(numbers, feature.centre, feature.scale)
    return Summary(
        missing, null, counts, int(steps.sum()), int(sum((steps**2).tolist())), int(steps.min()), int(steps.max())
    )


def quantised(values: Floats, centre: float, scale: float) -> Ints:
    """Return q of each value."""
    with np.errstate(over="ignore"):
        exact = (values / scale - centre / scale) * STEPS
    return np.clip(np.rint(exact), -LARGEST_STEP, LARGEST_STEP).astype(np.int64)


def category_cells(feature: CategoryFeature, values: Sequence[str]) -> Ints:
    """Return the cell of each category."""
    return cells_of(values, {category.value: place for place, category in enumerate(feature.top)})


def counts_of(cells: Ints, size: int) -> tuple[int, ...]:
    """Return how often each cell occurs."""
    return tuple(np.bincount(cells, minlength=size).tolist())
