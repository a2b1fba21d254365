"""How far a window lies from the reference: five statistics, each for many windows at once.

All are scaled so that without drift they hardly depend on the sizes of window and reference.
"""

from __future__ import annotations

import numpy as np

from tidegate.profile.measures.column import Floats

VARIED_ROWS = 30
"""So many reference rows must differ from the most frequent value before moments say anything."""

LARGEST_KURTOSIS = 8.0
"""Of the reference, for the spread to be watched (normal 3, Laplace 6). In a heavier tail few rows make the variance,
and no bootstrap of a finite reference can say how much it varies; the bins see a change of such a spread."""


def mean_shift(window_mean: Floats, reference_mean: Floats, deviation: float, rows: int, reference_rows: int) -> Floats:
    """Return |z| of the difference of means; `deviation` is the reference's."""
    return np.asarray(np.abs(window_mean - reference_mean) / deviation * np.sqrt(effective(rows, reference_rows)))


def spread_change(window_variance: Floats, reference_variance: Floats, rows: int, reference_rows: int) -> Floats:
    """Return |ln| of the ratio of standard deviations times sqrt(2 m): about |z| for normal data."""
    ratio = np.maximum(window_variance, 1e-12) / np.maximum(reference_variance, 1e-12)
    return np.asarray(np.abs(0.5 * np.log(ratio)) * np.sqrt(2.0 * effective(rows, reference_rows)))


def kolmogorov_smirnov(counts: Floats, reference: Floats) -> Floats:
    """Return the largest distance of the distribution functions at the edges times sqrt(m).

    Args:
        counts: rows of the windows by bin [b, bins].
        reference: rows of the references [b or 1, bins].
    """
    rows, reference_rows = counts.sum(axis=1), reference.sum(axis=1)
    distance = np.cumsum(counts, axis=1) / rows[:, None] - np.cumsum(reference, axis=1) / reference_rows[:, None]
    return np.asarray(np.abs(distance).max(axis=1) * np.sqrt(effective_all(rows, reference_rows)))


def chi_square(counts: Floats, reference: Floats) -> Floats:
    """Return the sum over cells of (observed - expected)² / ((expected + 1 + r) (1 + r)), r = rows / reference rows.

    1 + r, one more row in window and reference, keeps a cell that the reference hardly knows from deciding alone; the
    factor is the reference's own error. Shapes as in `kolmogorov_smirnov`.
    """
    ratio = counts.sum(axis=1)[:, None] / reference.sum(axis=1)[:, None]
    expected = reference * ratio
    return np.asarray(((counts - expected) ** 2 / ((expected + 1.0 + ratio) * (1.0 + ratio))).sum(axis=1))


def missing_change(missing: Floats, rows: int, reference_missing: int, reference_rows: int) -> Floats:
    """Return |z| of the difference of the shares of rows without a usable value."""
    pooled = (missing + reference_missing + 1.0) / (rows + reference_rows + 2.0)
    error = np.sqrt(pooled * (1.0 - pooled) / effective(rows, reference_rows))
    return np.asarray(np.abs(missing / rows - reference_missing / reference_rows) / error)


def effective(rows: int, reference_rows: int) -> float:
    """Return m, with 1/m = 1/rows + 1/reference_rows."""
    return rows * reference_rows / (rows + reference_rows)


def effective_all(rows: Floats, reference_rows: Floats) -> Floats:
    """Return m of each window."""
    return np.asarray(rows * reference_rows / (rows + reference_rows))
