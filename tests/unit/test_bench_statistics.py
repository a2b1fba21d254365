import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.bench.statistics import (
    binomial_at_most,
    bound,
    minimum_calls,
    slow_calls_allowed,
    summarise,
    summarise_undisturbed,
)
from tidegate.runtime.timing import percentile_ns


def int64(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(values, dtype=np.int64)


@pytest.mark.parametrize(
    ("percentile", "confidence", "calls"),
    [
        # 64 and 662 are what LoadGen's own log prints for its single-stream and server scenarios.
        (90, 0.99, 64),
        (95, 0.99, 130),
        (99, 0.99, 662),
        (99.9, 0.99, 6636),
        # By hand: (n + 1) / 2^n is 0.0107 for n = 10 and 0.0059 for n = 11.
        (50, 0.99, 11),
    ],
)
def test_fewest_calls_for_a_bound(percentile: float, confidence: float, calls: int) -> None:
    assert minimum_calls(percentile, confidence) == calls


@pytest.mark.parametrize("percentile", [50, 90, 99])
@pytest.mark.parametrize("calls", [64, 700, 5000])
def test_one_more_slow_call_would_prove_nothing(calls: int, percentile: int) -> None:
    slow = slow_calls_allowed(calls, percentile)
    if slow:
        assert chance_at_most(slow, calls, percentile) <= Fraction(1, 100)
    assert chance_at_most(slow + 1, calls, percentile) > Fraction(1, 100)


def chance_at_most(slow: int, calls: int, percentile: int) -> Fraction:
    """In whole numbers: at most `slow` of `calls` lie above the percentile."""
    ways = sum(math.comb(calls, k) * (100 - percentile) ** k * percentile ** (calls - k) for k in range(slow + 1))
    return Fraction(ways, 100**calls)


@settings(deadline=None, max_examples=500)
@example(trials=280, successes=165, probability=0.00390625)
@given(
    trials=st.integers(1, 300),
    successes=st.integers(0, 300),
    probability=st.floats(0.001, 0.999),
)
def test_binomial_tail_agrees_with_the_plain_sum(trials: int, successes: int, probability: float) -> None:
    successes = min(successes, trials)
    assert binomial_at_most(successes, trials, probability) == pytest.approx(
        exact_at_most(successes, trials, probability), rel=1e-9
    )


def exact_at_most(successes: int, trials: int, probability: float) -> float:
    return math.fsum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(successes + 1)
    )


def test_the_bound_holds_as_often_as_promised() -> None:
    generator = np.random.default_rng(3)
    runs = np.sort(generator.integers(0, 1_000_000, size=(2000, 700)), axis=1)
    wrong = sum(1 for ordered in runs if (bound(ordered, 90).upper_ns or 0) < 900_000)
    assert wrong <= 2000 * 0.01


@pytest.mark.parametrize(("calls", "missing"), [(1, 661), (661, 1), (662, 0), (100_000, 0)])
def test_too_few_calls_are_counted(calls: int, missing: int) -> None:
    found = bound(np.arange(calls, dtype=np.int64), 99)
    assert found.calls_missing == missing
    assert (found.upper_ns is None) == (missing > 0)


def test_fewest_calls_give_the_slowest_as_bound() -> None:
    assert bound(np.arange(662, dtype=np.int64), 99).upper_ns == 661


@pytest.mark.parametrize(
    ("values", "percentile", "expected"),
    [
        (int64(7), 50, 7),
        (int64(1, 2), 50, 1),
        (int64(1, 2, 3), 50, 2),
        (np.arange(1, 101), 99, 99),
        (np.arange(1, 101), 100, 100),
        (np.arange(1, 1001), 99.9, 999),
        (np.arange(1, 11), 90, 9),
    ],
)
def test_nearest_rank(values: np.ndarray[tuple[int], np.dtype[np.int64]], percentile: float, expected: int) -> None:
    assert percentile_ns(values, percentile) == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_percentile_is_a_measured_value_with_enough_at_or_below(values: list[int], percentile: float) -> None:
    ordered = np.sort(np.asarray(values, dtype=np.int64))
    found = percentile_ns(ordered, percentile)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percentile * len(values) - 1e-6
    assert sum(value < found for value in values) * 100 < percentile * len(values) + 1e-6


def test_summary_of_known_values() -> None:
    latency = summarise(int64(*range(100, 0, -1)))
    assert (latency.calls, latency.mean_ns, latency.minimum_ns, latency.maximum_ns) == (100, 50.5, 1, 100)
    assert (latency.p50_ns, latency.p90_ns, latency.p99_ns) == (50, 90, 99)
    assert latency.bounds["p99"].calls_missing == 562


def test_undisturbed_keeps_only_blocks_without_a_switch() -> None:
    found = summarise_undisturbed(int64(10, 20, 999, 999, 30), int64(2, 2, 1), int64(0, 3, 0))
    assert (found.calls, found.share, found.p50_ns) == (3, 0.6, 20)


def test_undisturbed_without_any_quiet_block() -> None:
    found = summarise_undisturbed(int64(10, 20), int64(1, 1), int64(1, 1))
    assert (found.calls, found.share, found.p50_ns) == (0, 0.0, None)
