"""Where the errors are: by class, by slice, by tag, beside what a model that knows nothing would get."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tidegate.evaluate import metrics
from tidegate.evaluate.answers import Answers, Classified, Estimated, Transcribed
from tidegate.evaluate.data import EvaluationSet
from tidegate.evaluate.estimates import Estimate, estimate, of_share
from tidegate.evaluate.report import ClassResult, Curve, Figure, SliceResult, TagResult

MOST_CURVES = 6
_MOST_POINTS = 400


def figure(found: Estimate, confidence: float) -> Figure:
    """Return an estimate with its bounds at one confidence; what does not exist is null."""
    return Figure(
        value=_or_none(found.value),
        lower=_or_none(found.lower(confidence)),
        upper=_or_none(found.upper(confidence)),
        samples=found.samples,
    )


def main_metrics(
    answers: Answers, rows: NDArray[np.bool_], confidence: float, *, brief: bool = False
) -> dict[str, Figure]:
    """Return the figures that sum up a model on some rows.

    Args:
        answers: what it said.
        rows: which rows, bool [n].
        confidence: of each bound.
        brief: without those that take a bootstrap over all classes, for the many slices.
    """
    names = {Estimated: ["mean_error"], Transcribed: ["word_error_rate"]}.get(type(answers))
    of_class = None
    if isinstance(answers, Classified):
        of_class = answers.positive
        names = ["accuracy"]
        if of_class is not None:
            names += ["precision", "recall", "f1"] + (["auc_pr"] if answers.scores is not None and not brief else [])
        elif not brief:
            names += ["precision", "recall", "f1"]
    return {name: figure(estimate(answers, name, of_class, rows), confidence) for name in names or []}


def no_skill(answers: Answers) -> dict[str, float]:
    """Return what a model gets that ignores its input: the largest class, always "positive", the median, or silence."""
    if isinstance(answers, Estimated):
        return {"mean_error": float(np.abs(answers.truth - np.median(answers.truth, axis=0)).mean())}
    if isinstance(answers, Transcribed):
        return {"word_error_rate": 1.0}
    shares = np.bincount(answers.truth, minlength=len(answers.classes)) / len(answers.truth)
    result = {"accuracy": float(shares.max())}
    if answers.positive is None:
        present = int((shares > 0).sum())
        largest = float(shares.max())
        result |= {
            "precision": largest / present,
            "recall": 1 / present,
            "f1": 2 * largest / (1 + largest) / present,
        }
    else:
        share = float(shares[answers.positive])
        result |= {"precision": share, "recall": 1.0, "f1": 2 * share / (1 + share), "auc_pr": share}
    return result


def confusion(answers: Answers) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix; empty without classes."""
    if not isinstance(answers, Classified):
        return ()
    matrix = metrics.confusion_matrix(answers.truth, answers.decision, len(answers.classes))
    return tuple(tuple(int(count) for count in row) for row in matrix)


def by_class(answers: Answers, confidence: float) -> tuple[ClassResult, ...]:
    """Return precision, recall, F1 and average precision of each class that occurs."""
    if not isinstance(answers, Classified):
        return ()
    everything = np.ones(len(answers.truth), np.bool_)
    results = []
    for index, name in enumerate(answers.classes):
        is_true = answers.truth == index
        if not is_true.any() and not (answers.decision == index).any():
            continue
        area = None
        if answers.scores is not None and is_true.any():
            area = metrics.average_precision(is_true, answers.scores[:, index])
        results.append(
            ClassResult(
                name=name,
                rows=int(is_true.sum()),
                precision=figure(estimate(answers, "precision", index, everything), confidence),
                recall=figure(estimate(answers, "recall", index, everything), confidence),
                f1=figure(estimate(answers, "f1", index, everything), confidence),
                average_precision=area,
                no_skill_average_precision=float(is_true.mean()),
            )
        )
    return tuple(results)


def calibration_error(answers: Answers) -> float | None:
    """Return the expected calibration error if the scores are probabilities: not negative and summing to 1."""
    if not isinstance(answers, Classified) or answers.scores is None:
        return None
    scores = answers.scores
    if not (np.isfinite(scores).all() and (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3)):
        return None
    given = scores[np.arange(len(scores)), answers.decision]
    return metrics.calibration_error(given, answers.right)


def by_slice(answers: Answers, data: EvaluationSet, confidence: float) -> tuple[SliceResult, ...]:
    """Return the main figures of each value of each slice."""
    return tuple(
        SliceResult(
            slice=name, value=str(value), metrics=main_metrics(answers, values == value, confidence, brief=True)
        )
        for name, values in data.slices.items()
        for value in np.unique(values)
    )


def by_tag(answers: Answers, data: EvaluationSet, confidence: float) -> tuple[TagResult, ...]:
    """Return each tag's share of the total error and the error rate inside it, the largest share first."""
    error, whole = _error_by_row(answers)
    results = [
        TagResult(
            tag=name,
            rows=int(flags.sum()),
            share_of_rows=float(flags.mean()),
            share_of_error=_or_none(_ratio(float(error[flags].sum()), float(error.sum()))),
            error_rate=figure(_error_rate(answers, flags), confidence),
            error_rate_elsewhere=_or_none(_ratio(float(error[~flags].sum()), float(whole[~flags].sum()))),
        )
        for name, flags in data.tags.items()
    ]
    return tuple(sorted(results, key=lambda result: -(result.share_of_error or 0.0)))


def curves(answers: Answers) -> tuple[Curve, ...]:
    """Return the precision-recall curve of the positive class, or of the classes with the smallest area."""
    if not isinstance(answers, Classified) or answers.scores is None:
        return ()
    indices = [answers.positive] if answers.positive is not None else range(len(answers.classes))
    found = [_curve(answers, index) for index in indices if (answers.truth == index).any()]
    return tuple(sorted(found, key=lambda curve: curve.average_precision)[:MOST_CURVES])


def curves_like(answers: Answers, others: tuple[Curve, ...]) -> tuple[Curve, ...]:
    """Return this model's curves of the same classes, in the same order."""
    if not isinstance(answers, Classified) or answers.scores is None:
        return ()
    return tuple(_curve(answers, answers.classes.index(other.label)) for other in others)


def _curve(answers: Classified, index: int) -> Curve:
    assert answers.scores is not None
    is_true, score = answers.truth == index, answers.scores[:, index]
    precision, recall, _ = metrics.precision_recall_curve(is_true, score)
    kept = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), _MOST_POINTS)).round().astype(int))
    return Curve(
        label=answers.classes[index],
        recall=tuple(recall[kept].tolist()),
        precision=tuple(precision[kept].tolist()),
        average_precision=metrics.average_precision(is_true, score),
        no_skill=float(is_true.mean()),
    )


def _error_by_row(answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each row's part of the total error, and what it is divided by for a rate."""
    if isinstance(answers, Classified):
        return (~answers.right).astype(np.float64), np.ones(len(answers.truth))
    if isinstance(answers, Transcribed):
        return answers.errors, answers.words
    return answers.absolute_error, np.ones(len(answers.truth))


def _error_rate(answers: Answers, rows: NDArray[np.bool_]) -> Estimate:
    if isinstance(answers, Classified):
        return of_share(int((~answers.right[rows]).sum()), int(rows.sum()))
    metric = "word_error_rate" if isinstance(answers, Transcribed) else "mean_error"
    return estimate(answers, metric, None, rows)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
