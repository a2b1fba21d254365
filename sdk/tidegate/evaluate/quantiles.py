"""Bounds on a percentile of a sample, without any assumption about its distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tidegate.evaluate import binomial

Floats = NDArray[np.float64]


def percentile(ordered: Floats, share: float) -> float:
    """Return the nearest-rank percentile of ascending values [n >= 1]: a measured one, not interpolated."""
    return float(ordered[max(math.ceil(round(share * len(ordered), 9)), 1) - 1])


def lower_bound(ordered: Floats, share: float, confidence: float) -> float:
    """Return a one-sided lower confidence bound on the percentile; -inf when there are too few values.

    The k-th smallest value lies above the percentile only if fewer than k values lie below it, and the number of those
    is binomial (David and Nagaraja, Order Statistics, section 7.1). It assumes independent values.
    """
    n = len(ordered)
    # Largest k with P(X <= k - 1) <= 1 - confidence.
    k = _first(lambda count: binomial.at_most(count, n, share) > 1.0 - confidence, n)
    return float(ordered[k - 1]) if k >= 1 else -math.inf


def upper_bound(ordered: Floats, share: float, confidence: float) -> float:
    """Return a one-sided upper confidence bound on the percentile; inf when there are too few values."""
    n = len(ordered)
    # Smallest k with P(X <= k - 1) >= confidence.
    k = _first(lambda count: binomial.at_most(count, n, share) >= confidence, n) + 1
    return float(ordered[k - 1]) if k <= n else math.inf


def _first(holds: Callable[[int], bool], last: int) -> int:
    """Return the smallest count of 0 to `last` for which a condition holds that, once true, stays true."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
