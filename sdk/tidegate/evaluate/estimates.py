"""A metric on some rows, with bounds on what it would be on all rows like these.

Each bound is one-sided: "at confidence 0.95 the truth is not below `lower`" and "... not above `upper`" are two
statements, each wrong in at most one case of twenty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.evaluate import binomial
from tidegate.evaluate.answers import Answers
from tidegate.evaluate.bootstrap import RESAMPLES, bootstrap
from tidegate.evaluate.contributions import LOWER_IS_BETTER, Ranking, Ratios, contributions, ranking
from tidegate.evaluate.metrics import average_precision, weighted_average_precision

Bound = Callable[[float], float]
"""Confidence to bound."""

SEED = 20_240_229


@dataclass(frozen=True)
class Estimate:
    """One figure and how sure it is."""

    value: float
    """NaN when no sample counts"""
    samples: int
    """what the bounds rest on; see `sample_unit`"""
    lower: Bound
    upper: Bound
    method: str
    """where the bounds come from"""


def estimate(
    answers: Answers,
    metric: str,
    of_class: int | None,
    rows: NDArray[np.bool_],
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate a metric on the chosen rows.

    Accuracy, precision and recall are shares: exact bounds (Clopper and Pearson). F1 of one class is a rising function
    of a share, that of true positives among all rows with TP, FP or FN, so its bounds are exact too. Everything else
    is bootstrapped.

    Args:
        answers: of one model.
        metric: its name.
        of_class: index of the class; None: the mean over classes.
        rows: which rows, bool [n].
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ConfigError: the metric does not apply to such answers.
    """
    if metric == "auc_pr":
        return _of_ranking(ranking(answers, of_class, rows), seed, resamples)
    ratios = contributions(answers, metric, of_class, rows)
    if math.isnan(ratios.value()):
        return nothing()
    if ratios.kind == "share":
        return of_share(round(float(ratios.part.sum())), round(float(ratios.whole.sum())))
    if ratios.kind == "f1":
        return _of_f1(round(float(ratios.part.sum()) / 2), int(ratios.counting.sum()))
    return _of_ratios(ratios, seed, resamples, capped=metric not in LOWER_IS_BETTER, floor=metric == "word_error_rate")


def of_share(successes: int, trials: int) -> Estimate:
    """Return an exact estimate of a share."""
    if trials == 0:
        return nothing()
    return Estimate(
        successes / trials,
        trials,
        lambda confidence: binomial.lower_bound(successes, trials, confidence),
        lambda confidence: binomial.upper_bound(successes, trials, confidence),
        "exact",
    )


def nothing() -> Estimate:
    """Return the estimate of something that no sample speaks of."""
    return Estimate(math.nan, 0, lambda _: -math.inf, lambda _: math.inf, "none")


def sample_unit(metric: str, of_class: int | None) -> str:
    """Return what is counted as one sample of a metric, for people."""
    if metric == "f1" and of_class is not None:
        return "rows that are or are decided to be of the class"
    if metric in ("recall", "auc_pr") and of_class is not None:
        return "rows of the class"
    if metric == "precision" and of_class is not None:
        return "decisions for the class"
    return {"word_error_rate": "utterances", "latency_p95_ms": "calls"}.get(metric, "rows")


def _of_f1(hits: int, trials: int) -> Estimate:
    def f1(share: float) -> float:
        return 2 * share / (1 + share)

    return Estimate(
        f1(hits / trials),
        trials,
        lambda confidence: f1(binomial.lower_bound(hits, trials, confidence)),
        lambda confidence: f1(binomial.upper_bound(hits, trials, confidence)),
        "exact",
    )


def _of_ratios(ratios: Ratios, seed: int, resamples: int, *, capped: bool, floor: bool) -> Estimate:
    """Bootstrap a ratio, or the mean of several.

    Args:
        ratios: what the rows add.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        capped: the metric lies within 0 and 1 and more is better.
        floor: rows with any error at all may be rare, so the bound on their share is watched too.
    """
    rows = ratios.part.shape[1]
    drawn = bootstrap(ratios.weighted, rows, strata=ratios.strata, seed=seed, resamples=resamples)
    faulty = int((ratios.part != 0).any(axis=0).sum())

    def lower(confidence: float) -> float:
        bound = drawn.lower(confidence)
        if capped and drawn.is_degenerate:  # all alike: as many rows in a row may still hide a few of another kind
            return min(bound, drawn.value * binomial.lower_bound(rows, rows, confidence))
        return max(bound, 0.0)

    def upper(confidence: float) -> float:
        bound = drawn.upper(confidence)
        if capped:
            if drawn.is_degenerate:
                return max(bound, 1 - (1 - drawn.value) * binomial.lower_bound(rows, rows, confidence))
            return min(bound, 1.0)
        if floor:
            # Resampling cannot see an error that has not happened yet. The share of faulty rows has an exact bound;
            # each is taken to be as bad as those seen, or wholly wrong when none was.
            share = binomial.upper_bound(faulty, rows, confidence)
            each = float(ratios.part.sum() / ratios.whole.sum()) * rows / faulty if faulty else 1.0
            return max(bound, share * each)
        return bound

    return Estimate(drawn.value, rows, lower, upper, "bootstrap")


def _of_ranking(ranks: Ranking, seed: int, resamples: int) -> Estimate:
    positives = int(ranks.positive.sum())
    if positives == 0:
        return nothing()
    drawn = bootstrap(
        lambda weights: weighted_average_precision(ranks.positive, ranks.score, weights),
        len(ranks.positive),
        strata=ranks.positive.astype(np.int64),
        seed=seed,
        resamples=resamples,
    )

    def lower(confidence: float) -> float:
        bound = drawn.lower(confidence)
        # The area is a mean over the positives. When nothing varies, as with a perfect order, one unlike the others
        # may still exist.
        exact = drawn.value * binomial.lower_bound(positives, positives, confidence)
        return max(min(bound, exact) if drawn.is_degenerate else bound, 0.0)

    def upper(confidence: float) -> float:
        return 1.0 if drawn.is_degenerate else min(drawn.upper(confidence), 1.0)

    return Estimate(average_precision(ranks.positive, ranks.score), positives, lower, upper, "bootstrap")
