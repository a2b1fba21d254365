"""How far a statistic of a finite sample may lie from the truth: the seeded, stratified bootstrap.

Rows are drawn with replacement, within strata, so that each class keeps its size. A statistic takes weights (how often
each row was drawn) and not rows, so that a thousand resamples are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights [b, n] to values [b]."""

RESAMPLES = 2000
MOST_RESAMPLES = 20_000
_JACKKNIFE_GROUPS = 100
_CHUNK_ELEMENTS = 2_000_000

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Bootstrap:
    """A statistic, its replicates and what is needed to read bounds from them."""

    value: float
    replicates: Floats
    """ascending [b]"""
    bias: float
    """z0: how far the value lies off the replicates' median, in normal deviations"""
    acceleration: float
    """how the spread changes with the value, from the jackknife"""

    @property
    def is_degenerate(self) -> bool:
        """Whether every resample gave the same: then the replicates say nothing about the spread."""
        return bool(self.replicates[-1] - self.replicates[0] <= 1e-12)

    def lower(self, confidence: float) -> float:
        """Return the one-sided lower bound."""
        return self._quantile(1.0 - confidence)

    def upper(self, confidence: float) -> float:
        """Return the one-sided upper bound."""
        return self._quantile(confidence)

    def _quantile(self, level: float) -> float:
        """Return a quantile, corrected for bias and acceleration (BCa; Efron, JASA 82, 1987)."""
        count = len(self.replicates)
        if min(level, 1.0 - level) * (count + 1) < 1.0:  # so few resamples cannot speak of so rare an event
            return -math.inf if level < 0.5 else math.inf
        shifted = self.bias + _NORMAL.inv_cdf(level)
        room = 1.0 - self.acceleration * shifted
        corrected = _NORMAL.cdf(self.bias + shifted / room) if room > 0 else float(level > 0.5)
        rank = corrected * (count + 1)
        # Rounded outwards: a finite number of resamples never makes the interval narrower.
        place = math.floor(rank) - 1 if level < 0.5 else math.ceil(rank) - 1
        return float(self.replicates[min(max(place, 0), count - 1)])


def bootstrap(
    statistic: Statistic, rows: int, *, strata: NDArray[np.int64] | None, seed: int, resamples: int = RESAMPLES
) -> Bootstrap:
    """Resample a statistic.

    Args:
        statistic: weights [b, n] to values [b].
        rows: n, at least 1.
        strata: class of each row, int64 [n]; None: one stratum.
        seed: of the draws; the same seed gives the same bounds.
        resamples: b.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(np.ones((1, rows)))[0])
    parts = [statistic(weights) for weights in _draws(rows, strata, rng, resamples)]
    replicates = np.sort(np.concatenate(parts))
    below = float(np.mean(replicates < value) + np.mean(replicates == value) / 2)
    edge = 0.5 / len(replicates)
    bias = _NORMAL.inv_cdf(min(max(below, edge), 1.0 - edge))
    return Bootstrap(value, replicates, bias, _acceleration(statistic, rows, rng))


def resamples_for(tests: int) -> int:
    """Return how many resamples it takes to tell anything at a level divided by so many tests."""
    return min(max(RESAMPLES, 100 * tests), MOST_RESAMPLES)


def _draws(rows: int, strata: NDArray[np.int64] | None, rng: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """Yield weights [b, n] in chunks, `resamples` in all."""
    labels = np.zeros(rows, np.int64) if strata is None else strata
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chunk = max(1, _CHUNK_ELEMENTS // rows)
    for first in range(0, resamples, chunk):
        count = min(chunk, resamples - first)
        drawn = np.concatenate([group[rng.integers(0, len(group), (count, len(group)))] for group in groups], axis=1)
        drawn += np.arange(count)[:, None] * rows
        flat = np.bincount(drawn.ravel(), minlength=count * rows)
        yield flat.reshape(count, rows).astype(np.float64)


def _acceleration(statistic: Statistic, rows: int, rng: np.random.Generator) -> float:
    """Return BCa's a from the statistic without each row, or, of many rows, without each of 100 random groups."""
    groups = min(rows, _JACKKNIFE_GROUPS)
    member = rng.permutation(rows) % groups
    values = np.concatenate([statistic((member != group).astype(np.float64)[None, :]) for group in range(groups)])
    differences = values.mean() - values
    spread = float(np.sum(differences**2))
    if not math.isfinite(spread) or spread <= 1e-24:
        return 0.0
    return float(np.sum(differences**3) / (6.0 * spread**1.5))
