"""The metrics. Pure numpy; undefined values are NaN, and nothing is hidden behind a zero.

Averages over classes ("macro") leave out classes that occur neither in the truth nor among the decisions, and count a
class without any decision with precision 0, as scikit-learn does with `zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_matrix(truth: Ints, decision: Ints, classes: int) -> Ints:
    """Return counts [classes, classes + 1]: rows the truth, columns the decision, the last one "no decision".

    Args:
        truth: class index [n], 0 to classes - 1.
        decision: class index [n], or -1 where the model decided nothing.
        classes: how many there are.
    """
    column = np.where(decision < 0, classes, decision)
    flat = np.bincount(truth * (classes + 1) + column, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1).astype(np.int64)


def accuracy(matrix: Ints) -> float:
    """Return the share of rows decided rightly."""
    return _ratio(float(np.trace(matrix)), float(matrix.sum()))


def precision(matrix: Ints) -> Floats:
    """Return, by class, the share of its decisions that were right; NaN for a class that was never decided."""
    return _ratios(np.diagonal(matrix), matrix.sum(axis=0)[:-1])


def recall(matrix: Ints) -> Floats:
    """Return, by class, the share of its rows that were found; NaN for a class without rows."""
    return _ratios(np.diagonal(matrix), matrix.sum(axis=1))


def f1(matrix: Ints) -> Floats:
    """Return, by class, the harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
    return _ratios(2 * np.diagonal(matrix), matrix.sum(axis=0)[:-1] + matrix.sum(axis=1))


def macro(by_class: Floats, matrix: Ints) -> float:
    """Return the mean over the classes that occur at all."""
    occurs = (matrix.sum(axis=0)[:-1] + matrix.sum(axis=1)) > 0
    values = np.nan_to_num(by_class[occurs], nan=0.0)
    return float(values.mean()) if values.size else float("nan")


def precision_recall_curve(positive: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and threshold [k], for each distinct score from the highest down.

    Args:
        positive: the truth [n].
        score: higher means more surely positive [n].
    """
    order = np.argsort(-score, kind="stable")
    ends = _tie_ends(score[order])
    found = np.cumsum(positive[order])[ends].astype(np.float64)
    total = float(positive.sum())
    return found / (ends + 1.0), found / total if total else np.full(len(ends), np.nan), score[order][ends]


def average_precision(positive: NDArray[np.bool_], score: Floats) -> float:
    """Return the area under the precision-recall curve as a sum of steps: precision, weighted by the gain in recall.

    No interpolation between the points, which would be too kind (Davis and Goadrich, ICML 2006).
    """
    points, gained, _ = precision_recall_curve(positive, score)
    return float(np.sum(points * np.diff(gained, prepend=0.0)))


def weighted_average_precision(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Return the average precision of resamples, [b], where `weights` [b, n] says how often each row was drawn."""
    order = np.argsort(-score, kind="stable")
    ends = _tie_ends(score[order])
    drawn = weights[:, order]
    found = np.cumsum(drawn * positive[order], axis=1)[:, ends]
    seen = np.cumsum(drawn, axis=1)[:, ends]
    gained = np.diff(found, prepend=0.0, axis=1)
    total = found[:, -1]
    steps = np.divide(gained * found, seen, out=np.zeros_like(found), where=seen > 0).sum(axis=1)
    return np.asarray(np.divide(steps, total, out=np.zeros_like(steps), where=total > 0))


def average_precisions(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return the average precision of several models on the same rows: scores [b, n] to values [b]."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    hits = positive[order]
    precision = np.cumsum(hits, axis=1) / np.arange(1.0, scores.shape[1] + 1)
    # Each row counts with the precision at the end of its run of equal scores.
    last = scores.shape[1] - 1
    is_end = np.concatenate([np.diff(ordered, axis=1) != 0, np.ones((len(scores), 1), np.bool_)], axis=1)
    ends = np.where(is_end, np.arange(last + 1), last)
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((np.take_along_axis(precision, ends, axis=1) * hits).sum(axis=1) / positive.sum())


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Return the fewest word substitutions, insertions and deletions that turn one into the other, and the words of
    the reference. Words are what white space separates; case and punctuation count."""
    wanted, heard = reference.split(), hypothesis.split()
    row = list(range(len(heard) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1], len(wanted)


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return all word errors by all words of the references."""
    counts = [word_errors(wanted, heard) for wanted, heard in zip(references, hypotheses, strict=True)]
    return _ratio(float(sum(errors for errors, _ in counts)), float(sum(words for _, words in counts)))


def calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015): how far the stated confidence lies from the
    share of right decisions, averaged over bins of equal width.

    Args:
        confidence: the probability given to the decision, 0 to 1 [n].
        right: whether it was right [n].
        bins: of equal width over 0 to 1.
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(confidence)) if len(confidence) else float("nan")


def _tie_ends(ordered: Floats) -> NDArray[np.int64]:
    """Return the last index of each run of equal values: rows with the same score cannot be told apart."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _ratios(part: Ints, whole: Ints) -> Floats:
    out = np.full(part.shape, np.nan)
    return np.asarray(np.divide(part, whole, out=out, where=whole > 0))
