"""Bounds on shares, percentiles and anything else: known values, and coverage as promised."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.evaluate import binomial, quantiles
from tidegate.evaluate.answers import Answers, Classified, Estimated, Transcribed
from tidegate.evaluate.bootstrap import bootstrap
from tidegate.evaluate.comparison import holm, mcnemar_p, tango_lower
from tidegate.evaluate.estimates import estimate, of_share


@given(st.integers(1, 60), st.data())
def test_binomial_tails_are_the_sums_of_their_terms(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    share = Fraction(data.draw(st.integers(1, 99)), 100)
    exact = sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes + 1))
    assert binomial.at_most(successes, trials, float(share)) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)
    above = 1 - sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes))
    assert binomial.at_least(successes, trials, float(share)) == pytest.approx(float(above), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "lower", "upper"),
    [
        (8, 10, 0.975, 0.44390, 0.97479),  # the usual two-sided 95 % interval of tables
        (0, 10, 0.975, 0.0, 0.30850),
        (10, 10, 0.95, 0.05**0.1, 1.0),
        (0, 300, 0.95, 0.0, 1 - 0.05 ** (1 / 300)),  # the "rule of three"
        (50, 100, 0.975, 0.39832, 0.60168),
    ],
)
def test_exact_bounds_on_a_share(successes: int, trials: int, confidence: float, lower: float, upper: float) -> None:
    assert binomial.lower_bound(successes, trials, confidence) == pytest.approx(lower, abs=1e-5)
    assert binomial.upper_bound(successes, trials, confidence) == pytest.approx(upper, abs=1e-5)


def test_exact_bounds_hold_for_many_trials() -> None:
    bound = binomial.lower_bound(950_000, 1_000_000, 0.95)
    normal = 0.95 - 1.645 * math.sqrt(0.95 * 0.05 / 1e6)
    assert bound == pytest.approx(normal, abs=2e-6)


def test_percentile_bounds_are_order_statistics() -> None:
    values = np.arange(1.0, 101.0)
    assert quantiles.percentile(values, 0.95) == 95
    # P(X <= 90) = 0.028 and P(X <= 91) = 0.063 for 100 values, each below p95 with 0.95.
    assert quantiles.lower_bound(values, 0.95, 0.95) == 91
    # P(X <= 97) = 0.88 and P(X <= 98) = 0.963.
    assert quantiles.upper_bound(values, 0.95, 0.95) == 99
    # 0.95 ** 58 > 0.05 > 0.95 ** 59: no bound from 58 values.
    assert quantiles.upper_bound(values[:58], 0.95, 0.95) == math.inf
    assert quantiles.upper_bound(values[:59], 0.95, 0.95) == 59
    assert quantiles.lower_bound(values[:1], 0.95, 0.95) == -math.inf


def test_mcnemar_counts_coins() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 0) == pytest.approx(1 / 32)
    assert mcnemar_p(4, 1) == pytest.approx(6 / 32)
    assert mcnemar_p(0, 5) == 1.0


@pytest.mark.parametrize(("won", "lost", "rows"), [(3, 9, 100), (0, 4, 50), (9, 3, 100), (40, 55, 400), (1, 0, 30)])
def test_tango_bound_is_where_the_score_test_turns(won: int, lost: int, rows: int) -> None:
    """The constrained maximum of the likelihood is searched for, not computed by the closed form of the code."""
    bound = tango_lower(won, lost, rows, 0.95)
    shares = np.linspace(max(0.0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 400_001)  # "only the baseline is right"
    likelihood = (
        lost * np.log(shares) + won * np.log(shares + bound) + (rows - won - lost) * np.log(1 - 2 * shares - bound)
    )
    best = shares[np.argmax(likelihood)]
    score = (won - lost - rows * bound) / math.sqrt(rows * (2 * best + bound * (1 - bound)))
    assert score == pytest.approx(1.645, abs=0.01)


def test_tango_bound_without_a_differing_row_is_not_zero() -> None:
    assert -0.04 < tango_lower(0, 0, 100, 0.95) < -0.02


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=8))
def test_holm_is_the_step_down_of_sorted_p_values(p_values: list[float]) -> None:
    def shown(p: float) -> Callable[[float], bool]:
        return lambda confidence: p <= 1 - confidence

    found = holm([shown(p) for p in p_values], [0.05] * len(p_values))
    expected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > 1 - (1 - 0.05 / (len(p_values) - step)):
            break
        expected[index] = True
    assert found == expected


def test_bootstrap_is_seeded_and_keeps_strata() -> None:
    strata = np.array([0] * 3 + [1] * 7)
    seen = []

    def share_of_first(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        seen.append(weights)
        return np.asarray((weights * np.arange(10)).sum(axis=1))

    one = bootstrap(share_of_first, 10, strata=strata, seed=3, resamples=50)
    drawn = np.concatenate([weights for weights in seen if weights.sum() >= 10 * 50])
    assert (drawn[:, :3].sum(axis=1) == 3).all()
    assert (drawn[:, 3:].sum(axis=1) == 7).all()
    two = bootstrap(share_of_first, 10, strata=strata, seed=3, resamples=50)
    assert one.replicates.tolist() == two.replicates.tolist()
    assert one.value == 45
    assert one.lower(0.9) < 45 < one.upper(0.9)


def test_few_resamples_do_not_speak_of_rare_events() -> None:
    drawn = bootstrap(lambda weights: weights[:, 0], 10, strata=None, seed=0, resamples=20)
    assert drawn.lower(0.99) == -math.inf
    assert drawn.upper(0.99) == math.inf


EVERY = np.ones(60, np.bool_)


def perfect() -> Classified:
    truth = np.arange(60) % 2
    scores = np.stack([1.0 - truth, truth], axis=1)
    return Classified(("a", "b"), truth, truth, scores, 1)


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1", "auc_pr"])
def test_a_flawless_sample_proves_no_flawless_model(metric: str) -> None:
    found = estimate(perfect(), metric, 1, EVERY)
    assert found.value == 1.0
    assert 0.8 < found.lower(0.95) < 0.96
    assert found.upper(0.95) == 1.0


def test_no_word_error_seen_is_not_none_to_come() -> None:
    answers = Transcribed((), (), np.zeros(60), np.full(60, 3.0))
    found = estimate(answers, "word_error_rate", None, EVERY)
    assert found.value == 0.0
    assert found.lower(0.95) == 0.0
    assert found.upper(0.95) == pytest.approx(1 - 0.05 ** (1 / 60))


def test_a_metric_without_samples_has_no_bounds() -> None:
    found = estimate(perfect(), "recall", 1, np.arange(60) % 2 == 0)
    assert math.isnan(found.value)
    assert (found.samples, found.lower(0.95), found.upper(0.95)) == (0, -math.inf, math.inf)


TRUE_SHARES = [0.5, 0.9, 0.98]


@pytest.mark.parametrize("share", TRUE_SHARES)
def test_exact_bounds_err_no_more_than_promised(share: float) -> None:
    rng = np.random.default_rng(11)
    draws = rng.binomial(80, share, 400)
    estimates = {count: of_share(count, 80) for count in set(draws.tolist())}
    too_high = np.mean([estimates[count].lower(0.95) > share for count in draws.tolist()])
    too_low = np.mean([estimates[count].upper(0.95) < share for count in draws.tolist()])
    assert too_high <= 0.065  # 0.05 and two standard errors of 400 draws
    assert too_low <= 0.065


def classified(rng: np.random.Generator) -> Answers:
    truth = np.arange(200) % 4
    wrong = rng.random(200) < 0.1
    decision = np.where(wrong, (truth + rng.integers(1, 4, 200)) % 4, truth)
    return Classified(tuple("abcd"), truth, decision, None, None)


def ranked(rng: np.random.Generator) -> Answers:
    truth = (np.arange(200) < 50).astype(np.int64)
    score = np.where(truth == 1, rng.integers(0, 4, 200), rng.integers(0, 2, 200)).astype(float)
    return Classified(("n", "p"), truth, (score > 1).astype(np.int64), np.stack([-score, score], axis=1), 1)


def heard(rng: np.random.Generator) -> Answers:
    return Transcribed((), (), (rng.random(200) < 0.08).astype(float), np.full(200, 2.0))


def measured(rng: np.random.Generator) -> Answers:
    return Estimated(np.zeros((200, 1)), rng.exponential(1.0, (200, 1)))


@pytest.mark.parametrize(
    ("make", "metric", "truth"),
    [
        (classified, "f1", 0.9),
        # Levels 3, 2: precision 1, recall 1/4 each. Level 1: (37.5 + 0) hits with 75 of the other class. Level 0: all.
        (ranked, "auc_pr", 0.25 + 0.25 + 0.25 * 37.5 / 112.5 + 0.25 * 50 / 200),
        (heard, "word_error_rate", 0.04),
        (measured, "mean_error", 1.0),
    ],
)
def test_bootstrapped_bounds_err_about_as_promised(
    make: Callable[[np.random.Generator], Answers], metric: str, truth: float
) -> None:
    rng = np.random.default_rng(5)
    of_class = 1 if metric == "auc_pr" else None
    found = [estimate(make(rng), metric, of_class, np.ones(200, np.bool_), resamples=400) for _ in range(150)]
    # The bootstrap is approximate: 0.05 promised, and two standard errors of 150 draws on top.
    assert np.mean([one.lower(0.95) > truth for one in found]) <= 0.09
    assert np.mean([one.upper(0.95) < truth for one in found]) <= 0.09
