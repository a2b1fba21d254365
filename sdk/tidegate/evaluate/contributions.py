"""What each row adds to a metric. Accuracy, precision, recall, F1, word error rate and mean error are all a sum over
rows divided by another sum over rows, or the mean of several such ratios; so one form serves to estimate, to resample
and to compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError
from tidegate.evaluate.answers import Answers, Classified, Estimated, Transcribed

Floats = NDArray[np.float64]

DataMetric = Literal["accuracy", "precision", "recall", "f1", "auc_pr", "word_error_rate", "mean_error"]

OF_CLASSES = ("accuracy", "precision", "recall", "f1", "auc_pr")
BY_CLASS = ("precision", "recall", "f1", "auc_pr")
LOWER_IS_BETTER = ("word_error_rate", "mean_error", "latency_p95_ms", "size_bytes", "rss_mb")


@dataclass(frozen=True)
class Ratios:
    """A metric as the mean of k ratios of sums over n rows."""

    part: Floats
    """[k, n]"""
    whole: Floats
    """[k, n]"""
    kind: Literal["share", "f1", "ratio"]
    """share: each row counts wholly or not at all; f1: of one class; ratio: anything else"""
    strata: NDArray[np.int64] | None
    """class of each row, to be kept when resampling [n]"""

    def value(self) -> float:
        """Return the metric; NaN when no row counts."""
        whole = self.whole.sum(axis=1)
        if not whole.any():
            return float("nan")
        return float(_mean_ratio(self.part.sum(axis=1)[None, :], whole[None, :])[0])

    def weighted(self, weights: Floats) -> Floats:
        """Return the metric of resamples: weights [b, n] to values [b]."""
        return _mean_ratio(weights @ self.part.T, weights @ self.whole.T)

    @property
    def counting(self) -> NDArray[np.bool_]:
        """Which rows count at all [n]."""
        return np.asarray((self.whole != 0).any(axis=0))


@dataclass(frozen=True)
class Ranking:
    """What the area under a precision-recall curve is made of."""

    positive: NDArray[np.bool_]
    score: Floats


def contributions(
    answers: Answers, metric: str, of_class: int | None, rows: NDArray[np.bool_], *, only_true: bool = False
) -> Ratios:
    """Return what the chosen rows add to a metric other than AUC-PR.

    Args:
        answers: of one model.
        metric: its name.
        of_class: index of the class; None: the mean over all classes (macro).
        rows: which rows, bool [n].
        only_true: average over the classes that occur in the truth only, so that two models have the same ones.

    Raises:
        ConfigError: the metric does not apply to such answers.
    """
    if isinstance(answers, Estimated) and metric == "mean_error":
        error = answers.absolute_error[rows][None, :]
        return Ratios(error, np.ones_like(error), "ratio", None)
    if isinstance(answers, Transcribed) and metric == "word_error_rate":
        return Ratios(answers.errors[rows][None, :], answers.words[rows][None, :], "ratio", None)
    if isinstance(answers, Classified) and metric == "accuracy":
        right = answers.right[rows].astype(np.float64)[None, :]
        return Ratios(right, np.ones_like(right), "share", answers.truth[rows])
    if isinstance(answers, Classified) and metric in ("precision", "recall", "f1"):
        return _by_class(answers, metric, of_class, rows, only_true)
    raise not_applicable(metric, answers)


def ranking(answers: Answers, of_class: int | None, rows: NDArray[np.bool_]) -> Ranking:
    """Return truth and score of one class on the chosen rows.

    Raises:
        ConfigError: the model gives no scores, or no class is asked about.
    """
    if not isinstance(answers, Classified):
        raise not_applicable("auc_pr", answers)
    if answers.scores is None:
        raise ConfigError("auc_pr needs scores; the model gives classes only", fix="name an output with score_output")
    if of_class is None:
        raise ConfigError(
            f"auc_pr is about one class; the model has {len(answers.classes)}",
            fix="add `class` to the criterion, or positive_class to the data",
        )
    return Ranking(answers.truth[rows] == of_class, answers.scores[rows, of_class])


def not_applicable(metric: str, answers: Answers) -> ConfigError:
    """Return the error for a metric that such data cannot answer."""
    needs = {"word_error_rate": "`text`", "mean_error": "`target`"}.get(metric, "`label`")
    has = {"Classified": "`label`", "Estimated": "`target`", "Transcribed": "`text`"}[type(answers).__name__]
    return ConfigError(
        f"metric {metric} needs evaluation data with {needs}; this data has {has}", fix="choose a metric that fits"
    )


def _by_class(
    answers: Classified, metric: str, of_class: int | None, rows: NDArray[np.bool_], only_true: bool
) -> Ratios:
    truth, decision = answers.truth[rows], answers.decision[rows]
    if of_class is None:
        # Classes that occur neither in the truth nor among the decisions have no ratio.
        classes = np.unique(truth) if only_true else np.union1d(truth, decision)
        classes = classes[classes >= 0]
    else:
        classes = np.array([of_class])
    is_true = (truth == classes[:, None]).astype(np.float64)
    is_said = (decision == classes[:, None]).astype(np.float64)
    hit = is_true * is_said
    kind: Literal["share", "f1", "ratio"] = "ratio" if of_class is None else "share"
    if metric == "precision":
        return Ratios(hit, is_said, kind, truth)
    if metric == "recall":
        return Ratios(hit, is_true, kind, truth)
    return Ratios(2 * hit, is_true + is_said, "ratio" if of_class is None else "f1", truth)


def _mean_ratio(part: Floats, whole: Floats) -> Floats:
    """Return the mean over k of part / whole, both [b, k]; a ratio without anything to count is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0).mean(axis=1))
