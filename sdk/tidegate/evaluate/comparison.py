"""Is this model worse than another on the same rows?

Both models saw the same rows, so only rows on which they differ tell anything; a paired test needs far fewer rows than
two separate intervals. Differences are turned so that positive means better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tidegate.evaluate import binomial
from tidegate.evaluate.answers import Answers
from tidegate.evaluate.bootstrap import RESAMPLES, Floats, bootstrap
from tidegate.evaluate.contributions import LOWER_IS_BETTER, Ranking, Ratios, contributions, ranking
from tidegate.evaluate.estimates import SEED, Bound
from tidegate.evaluate.metrics import average_precision, average_precisions, weighted_average_precision

_CHUNK_ELEMENTS = 2_000_000
_HALVINGS = 60
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Difference:
    """How much better a model is than the baseline on the same rows."""

    value: float
    """positive is better; NaN when no sample counts"""
    candidate: float
    baseline: float
    samples: int
    lower: Bound
    upper: Bound
    p_worse: Callable[[], float]
    """how likely an equal model is to look at least this bad"""
    method: str


def compare(
    candidate: Answers,
    baseline: Answers,
    metric: str,
    of_class: int | None,
    rows: NDArray[np.bool_],
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two models on the chosen rows.

    Accuracy and recall: McNemar's exact test, and bounds by Tango's score interval. Everything else: approximate
    randomisation for the test, the paired bootstrap for the bounds.

    Args:
        candidate: what the new model said.
        baseline: what the released one said of the same rows, in the candidate's classes (see `answers.aligned`).
        metric: its name.
        of_class: index of the class; None: the mean over the classes that occur in the truth.
        rows: which rows, bool [n].
        seed: of the draws.
        resamples: of bootstrap and randomisation.

    Raises:
        ConfigError: the metric does not apply to such answers.
    """
    if metric == "auc_pr":
        return _of_rankings(ranking(candidate, of_class, rows), ranking(baseline, of_class, rows), seed, resamples)
    new = contributions(candidate, metric, of_class, rows, only_true=True)
    old = contributions(baseline, metric, of_class, rows, only_true=True)
    if math.isnan(new.value()) or math.isnan(old.value()):
        return _nothing(new.value(), old.value())
    if new.kind == "share" and np.array_equal(new.whole, old.whole):
        return _of_shares(new, old)
    return _of_ratios(new, old, -1.0 if metric in LOWER_IS_BETTER else 1.0, seed, resamples)


def mcnemar_p(lost: int, won: int) -> float:
    """Return how likely two equal models are to lose at least so many of the rows on which they differ.

    McNemar, Psychometrika 12 (1947), in its exact form: each row on which only one is right is a fair coin.
    """
    return binomial.at_least(lost, lost + won, 0.5)


def tango_lower(won: int, lost: int, rows: int, confidence: float) -> float:
    """Return the one-sided lower bound on the difference of two paired shares, (won - lost) / rows.

    Tango, Statistics in Medicine 17 (1998): the difference at which the score test would just not object. Unlike the
    plain normal interval it stays honest when the models hardly differ.

    Args:
        won: rows that only the candidate got right.
        lost: rows that only the baseline got right.
        rows: all rows.
        confidence: of the bound.
    """
    limit = _NORMAL.inv_cdf(confidence)
    low, high = -1.0, (won - lost) / rows
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _tango_score(won, lost, rows, middle) < limit else (middle, high)
    return low


def holm(shown: Sequence[Callable[[float], bool]], alphas: Sequence[float]) -> list[bool]:
    """Say which of several claims stand, so that the risk of any false one stays at the level of a single one.

    Holm, Scandinavian Journal of Statistics 6 (1979): all claims are tried at their level divided by the number of
    claims; those that stand are set aside, and the rest is tried again at a level divided by fewer.

    Args:
        shown: for each claim, whether it is shown at a confidence.
        alphas: for each claim, its level when it stands alone, such as 0.05.
    """
    standing = [False] * len(shown)
    while not all(standing):
        left = [index for index, stands in enumerate(standing) if not stands]
        new = [index for index in left if shown[index](1.0 - alphas[index] / len(left))]
        if not new:
            break
        for index in new:
            standing[index] = True
    return standing


def _of_shares(new: Ratios, old: Ratios) -> Difference:
    counting = new.counting
    won = int((new.part > old.part).sum())
    lost = int((new.part < old.part).sum())
    rows = int(counting.sum())
    return Difference(
        (won - lost) / rows,
        new.value(),
        old.value(),
        rows,
        lambda confidence: tango_lower(won, lost, rows, confidence),
        lambda confidence: -tango_lower(lost, won, rows, confidence),
        lambda: mcnemar_p(lost, won),
        f"paired: {won} rows won, {lost} lost",
    )


def _of_ratios(new: Ratios, old: Ratios, sign: float, seed: int, resamples: int) -> Difference:
    rows = new.part.shape[1]
    differs = ~_same_rows(new, old)
    drawn = bootstrap(
        lambda weights: sign * (new.weighted(weights) - old.weighted(weights)),
        rows,
        strata=new.strata,
        seed=seed,
        resamples=resamples,
    )
    value = sign * (new.value() - old.value())
    counting = int((new.counting | old.counting).sum())

    def p_worse() -> float:
        return _randomisation_p(value, sign, new, old, np.flatnonzero(differs), seed, resamples)

    return Difference(
        value,
        new.value(),
        old.value(),
        counting,
        lambda confidence: _unseen(drawn.lower(confidence), counting, confidence) if drawn.is_degenerate
        else drawn.lower(confidence),
        lambda confidence: drawn.upper(confidence),
        p_worse,
        f"paired: {int(differs.sum())} rows differ",
    )  # fmt: skip


def _of_rankings(new: Ranking, old: Ranking, seed: int, resamples: int) -> Difference:
    positives = int(new.positive.sum())
    if positives == 0:
        return _nothing(math.nan, math.nan)
    # Ranks, because two models need not speak on the same scale; a rank is all that the area looks at.
    left, right = _ranks(new.score), _ranks(old.score)
    drawn = bootstrap(
        lambda weights: (
            weighted_average_precision(new.positive, left, weights)
            - weighted_average_precision(new.positive, right, weights)
        ),
        len(left),
        strata=new.positive.astype(np.int64),
        seed=seed,
        resamples=resamples,
    )
    candidate, baseline = average_precision(new.positive, left), average_precision(new.positive, right)

    def p_worse() -> float:
        return _ranking_p(candidate - baseline, new.positive, left, right, seed, resamples)

    return Difference(
        candidate - baseline,
        candidate,
        baseline,
        positives,
        lambda confidence: _unseen(drawn.lower(confidence), positives, confidence) if drawn.is_degenerate
        else drawn.lower(confidence),
        lambda confidence: drawn.upper(confidence),
        p_worse,
        "paired: ranks exchanged",
    )  # fmt: skip


def _nothing(candidate: float, baseline: float) -> Difference:
    return Difference(
        math.nan, candidate, baseline, 0, lambda _: -math.inf, lambda _: math.inf, lambda: 1.0, "no sample counts"
    )


def _unseen(bound: float, samples: int, confidence: float) -> float:
    """Widen a bound that no resample could move: a share of rows may still differ that n rows did not show."""
    return bound - (1.0 - binomial.lower_bound(samples, samples, confidence))


def _same_rows(new: Ratios, old: Ratios) -> NDArray[np.bool_]:
    return np.asarray(((new.part == old.part) & (new.whole == old.whole)).all(axis=0))


def _randomisation_p(
    observed: float, sign: float, new: Ratios, old: Ratios, differing: NDArray[np.int64], seed: int, resamples: int
) -> float:
    """Return the share of random exchanges of the two models' answers, row by row, that look at least this bad.

    Approximate randomisation (Noreen, 1989; Yeh, COLING 2000): exact for equal models, whatever the metric. The
    observed assignment counts as one, so the value is never 0.
    """
    if not len(differing):
        return 1.0
    rng = np.random.default_rng(seed)
    parts, wholes = [new.part.sum(axis=1), old.part.sum(axis=1)], [new.whole.sum(axis=1), old.whole.sum(axis=1)]
    change_part = (old.part - new.part)[:, differing].T
    change_whole = (old.whole - new.whole)[:, differing].T
    bad, chunk = 0, max(1, _CHUNK_ELEMENTS // len(differing))
    for first in range(0, resamples, chunk):
        swap = rng.integers(0, 2, (min(chunk, resamples - first), len(differing))).astype(np.float64)
        part, whole = swap @ change_part, swap @ change_whole
        left = _mean(parts[0] + part, wholes[0] + whole)
        right = _mean(parts[1] - part, wholes[1] - whole)
        bad += int((sign * (left - right) <= observed + 1e-12).sum())
    return (bad + 1) / (resamples + 1)


def _ranking_p(
    observed: float, positive: NDArray[np.bool_], left: Floats, right: Floats, seed: int, resamples: int
) -> float:
    """Approximate randomisation of the two models' ranks."""
    rng = np.random.default_rng(seed)
    bad, chunk = 0, max(1, _CHUNK_ELEMENTS // (4 * len(left)))
    for first in range(0, resamples, chunk):
        swap = rng.integers(0, 2, (min(chunk, resamples - first), len(left))).astype(bool)
        one = average_precisions(positive, np.where(swap, right, left))
        other = average_precisions(positive, np.where(swap, left, right))
        bad += int((one - other <= observed + 1e-12).sum())
    return (bad + 1) / (resamples + 1)


def _ranks(score: Floats) -> Floats:
    """Return mid-ranks: tied scores share one [n]."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place], np.float64)


def _mean(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0).mean(axis=1))


def _tango_score(won: int, lost: int, rows: int, difference: float) -> float:
    """Return the score statistic at a supposed difference; it falls as the difference rises."""
    a = 2.0 * rows
    b = -won - lost + (2.0 * rows - won + lost) * difference
    c = -lost * difference * (1.0 - difference)
    # The likeliest probability of "only the baseline is right", given the difference.
    share = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = rows * (2.0 * share + difference * (1.0 - difference))
    distance = won - lost - rows * difference
    if variance <= 1e-12:
        return 0.0 if abs(distance) < 1e-12 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)
