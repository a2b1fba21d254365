"""The binomial distribution and exact bounds on a share. Pure arithmetic, so that a device needs no SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable

_SMALLEST = 1e-300
_PRECISION = 1e-14
_STEPS = 2_000
_HALVINGS = 60


def at_most(successes: int, trials: int, share: float) -> float:
    """Return P(X <= successes) for X binomial(trials, share)."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    return incomplete_beta(trials - successes, successes + 1, 1.0 - share)


def at_least(successes: int, trials: int, share: float) -> float:
    """Return P(X >= successes) for X binomial(trials, share)."""
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    return incomplete_beta(successes, trials - successes + 1, share)


def lower_bound(successes: int, trials: int, confidence: float) -> float:
    """Return the exact one-sided lower bound on a share.

    Clopper and Pearson, Biometrika 26 (1934): the share at which so many successes, or more, would be seen with a
    probability of only 1 - confidence. 0 when there are no successes.
    """
    if successes == 0:
        return 0.0
    return _root(lambda share: at_least(successes, trials, share) - (1.0 - confidence))


def upper_bound(successes: int, trials: int, confidence: float) -> float:
    """Return the exact one-sided upper bound on a share; 1 when every trial succeeded."""
    return 1.0 - lower_bound(trials - successes, trials, confidence)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), a and b positive.

    By its continued fraction (Abramowitz and Stegun 26.5.8), evaluated with Lentz's method; the fraction converges
    fast on one side of the mean, so the other side goes through I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _continued_fraction(a, b, x))


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return 1 + d1/(1 + d2/(1 + ...)), the denominator of the series."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1.0 / _not_zero(1.0 + term * denominator)
        numerator = _not_zero(1.0 + term / numerator)
        change = numerator * denominator
        value *= change
        if abs(change - 1.0) < _PRECISION:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _SMALLEST else _SMALLEST


def _root(rising: Callable[[float], float]) -> float:
    """Return where a function that rises over [0, 1] crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
