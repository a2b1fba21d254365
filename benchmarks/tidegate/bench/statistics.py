"""Percentiles, and how sure a finite number of calls makes us of them. Pure functions over numbers.

The bound is LoadGen's early stopping (MLCommons inference, loadgen/early_stopping.cc; Reddi et al., "MLPerf Inference
Benchmark", ISCA 2020): it needs no distribution, only calls that are independent of each other.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidegate.runtime.timing import percentile_ns

PERCENTILES: tuple[int, ...] = (50, 90, 99)
CONFIDENCE = 0.99
"""LoadGen's."""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls prove about one percentile."""

    upper_ns: int | None
    """the true percentile lies below this, with the stated confidence; null when there were too few calls"""
    confidence: float
    calls_needed: int
    """fewest calls that can give a bound"""
    calls_missing: int
    """how many more would have been needed; 0 when there is a bound"""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One set of call latencies in numbers."""

    calls: int
    mean_ns: float
    minimum_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    maximum_ns: int
    bounds: dict[str, Bound]
    """by percentile: `p50`, `p90`, `p99`"""


class Undisturbed(msgspec.Struct, frozen=True, kw_only=True):
    """The calls in blocks during which no thread of the process was switched out against its will."""

    calls: int
    share: float
    """of all calls, 0 to 1"""
    p50_ns: int | None
    """null when no call is left"""


def summarise(latencies_ns: NDArray[np.int64]) -> Latency:
    """Describe latencies [n >= 1] in nanoseconds."""
    ordered = np.sort(latencies_ns)
    p50_ns, p90_ns, p99_ns = (percentile_ns(ordered, percentile) for percentile in PERCENTILES)
    return Latency(
        calls=len(ordered),
        mean_ns=float(ordered.mean()),
        minimum_ns=int(ordered[0]),
        p50_ns=p50_ns,
        p90_ns=p90_ns,
        p99_ns=p99_ns,
        maximum_ns=int(ordered[-1]),
        bounds={f"p{percentile}": bound(ordered, percentile) for percentile in PERCENTILES},
    )


def summarise_undisturbed(
    latencies_ns: NDArray[np.int64], block_calls: NDArray[np.int64], block_switches: NDArray[np.int64]
) -> Undisturbed:
    """Set aside every block with an involuntary context switch and describe the rest.

    Args:
        latencies_ns: [n], in the order of the calls, block after block.
        block_calls: [blocks], number of latencies in each block; their sum is n.
        block_switches: [blocks], involuntary context switches of the process during each block.
    """
    kept = np.sort(latencies_ns[np.repeat(block_switches == 0, block_calls)])
    return Undisturbed(
        calls=len(kept),
        share=len(kept) / len(latencies_ns),
        p50_ns=percentile_ns(kept, 50) if len(kept) else None,
    )


def bound(ordered: NDArray[np.int64], percentile: float, confidence: float = CONFIDENCE) -> Bound:
    """Return a one-sided upper confidence bound on a percentile of ascending values [n]."""
    needed = minimum_calls(percentile, confidence)
    slow = slow_calls_allowed(len(ordered), percentile, confidence)
    return Bound(
        upper_ns=int(ordered[len(ordered) - slow]) if slow else None,
        confidence=confidence,
        calls_needed=needed,
        calls_missing=max(needed - len(ordered), 0),
    )


def minimum_calls(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the fewest calls after which a percentile has a bound: 64 for p90, 662 for p99 at 99 % confidence.

    It is the smallest n such that a system whose percentile lies exactly at the bound would show at most one slower
    call in n with a probability of no more than 1 - confidence.
    """
    high = 2
    while not _proves(high, 1, percentile, confidence):
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _proves(middle, 1, percentile, confidence) else (middle, high)
    return high


def slow_calls_allowed(calls: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return how many of `calls` may be slower than a limit while they still prove that the percentile is within it.

    The t-th slowest latency is then the bound: the t - 1 worst are discarded, as LoadGen does. (The t-th itself counts
    as slow, which makes the bound safe by one call.) 0 means that so few calls prove nothing.
    """
    if calls < minimum_calls(percentile, confidence):
        return 0
    slow_share = 1 - percentile / 100
    mean = calls * slow_share
    # Cantelli's inequality: so many standard deviations below the mean, the tail is surely small enough.
    deviations = math.sqrt(confidence / (1 - confidence)) * math.sqrt(mean * (1 - slow_share))
    low, high = max(1, math.floor(mean - deviations)), math.ceil(mean) + 1
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if _proves(calls, middle, percentile, confidence) else (low, middle)
    return low


def binomial_at_most(successes: int, trials: int, probability: float) -> float:
    """Return P(X <= successes) for X binomial(trials, probability).

    The lower tail is summed downwards from its largest term, until a term no longer counts. Above the mean, the largest
    term lies inside the sum and the first may be too small for a float; there the other tail is taken from 1.
    """
    if successes >= trials:
        return 1.0
    if successes > trials * probability:
        return 1.0 - binomial_at_most(trials - successes - 1, trials, 1 - probability)
    log_term = (
        math.lgamma(trials + 1)
        - math.lgamma(successes + 1)
        - math.lgamma(trials - successes + 1)
        + successes * math.log(probability)
        + (trials - successes) * math.log1p(-probability)
    )
    term = math.exp(log_term)
    total = 0.0
    for count in range(successes, -1, -1):
        total += term
        term *= count * (1 - probability) / ((trials - count + 1) * probability)
        if term < total * 1e-16:
            break
    return min(total, 1.0)


def _proves(calls: int, slow: int, percentile: float, confidence: float) -> bool:
    return binomial_at_most(slow, calls, 1 - percentile / 100) <= 1 - confidence
