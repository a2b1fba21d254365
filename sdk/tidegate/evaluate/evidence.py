"""What the data says to one question: a figure, its bounds, and whether the promise is surely kept or broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.evaluate import quantiles
from tidegate.evaluate.answers import Answers
from tidegate.evaluate.comparison import compare
from tidegate.evaluate.criteria import MEASURED_ELSEWHERE, MINIMUM_SAMPLES, Criterion
from tidegate.evaluate.estimates import Bound, estimate
from tidegate.evaluate.measurements import Measurement

P95 = 0.95


@dataclass(frozen=True)
class Subject:
    """One variant, as far as it is known here."""

    answers: Answers | None
    """None when it could not be run"""
    problem: str
    """why it could not be run"""
    size_bytes: int
    measurement: Measurement | None
    baseline: Answers | None
    """what the released model said, in this one's classes"""


@dataclass(frozen=True)
class Question:
    """One criterion on one set of rows and one variant."""

    criterion: Criterion
    confidence: float
    variant: str
    scope: str
    rows: NDArray[np.bool_]
    of_class: int | None
    class_name: str | None

    @property
    def compares(self) -> bool:
        """Whether it is about the difference to the baseline."""
        return self.criterion.not_worse_than is not None


@dataclass(frozen=True)
class Evidence:
    """What the data says to a question."""

    value: float
    samples: int
    lower: Bound
    upper: Bound
    is_wrong: Callable[[float], bool]
    """confidence to whether the promise is surely broken"""
    is_clear: Callable[[float], bool]
    """confidence to whether it is surely kept"""
    minimum_samples: int
    candidate: float = math.nan
    baseline: float = math.nan
    absent: str = ""
    """why there are no figures at all"""
    note: str = ""

    @property
    def is_enough(self) -> bool:
        """Whether there are as many samples as the criterion asks for."""
        return self.samples >= self.minimum_samples and not self.absent


def gather(question: Question, subject: Subject, resamples: int) -> Evidence:
    """Measure what a question asks.

    Raises:
        ConfigError: the metric does not apply to such answers.
    """
    criterion = question.criterion
    if criterion.metric in MEASURED_ELSEWHERE:
        return _measured(criterion, subject)
    if subject.answers is None:
        return _absent(criterion, f"the variant was not run: {subject.problem}")
    if criterion.not_worse_than is None:
        found = estimate(subject.answers, criterion.metric, question.of_class, question.rows, resamples=resamples)
        return _bounded(criterion, found.value, found.samples, found.lower, found.upper, found.method)
    if subject.baseline is None:
        return _absent(criterion, "no baseline to compare with")
    return _compared(question, subject.answers, subject.baseline, resamples)


def _compared(question: Question, answers: Answers, baseline: Answers, resamples: int) -> Evidence:
    """Return the evidence on the difference to the released model."""
    criterion, margin = question.criterion, question.criterion.margin
    difference = compare(answers, baseline, criterion.metric, question.of_class, question.rows, resamples=resamples)
    p_worse = 1.0 if margin or not difference.samples else difference.p_worse()

    def is_wrong(confidence: float) -> bool:
        return difference.upper(confidence) < -margin if margin else p_worse <= 1.0 - confidence

    def is_clear(confidence: float) -> bool:
        # Without a margin only a loss can be shown, never that there is none: what is not wrong is clear.
        return difference.lower(confidence) >= -margin if margin else True

    return Evidence(
        difference.value,
        difference.samples,
        difference.lower,
        difference.upper,
        is_wrong,
        is_clear,
        criterion.minimum_samples or MINIMUM_SAMPLES["compared"],
        difference.candidate,
        difference.baseline,
        note=difference.method,
    )


def _measured(criterion: Criterion, subject: Subject) -> Evidence:
    """Return the evidence on size, latency or memory."""
    if criterion.metric == "size_bytes":
        return _exactly(criterion, float(subject.size_bytes), "size of the model file")
    measurement = subject.measurement
    if measurement is None:
        return _absent(criterion, "not measured here; hand in a report of `tidegate bench` with --bench")
    if criterion.metric == "rss_mb":
        if measurement.rss_mb is None:
            return _absent(criterion, "the bench report has no memory figure")
        return _exactly(criterion, measurement.rss_mb, f"peak of one process{_place(measurement)}")
    calls = measurement.latencies_ms
    if calls is None:
        return _absent(criterion, "the bench report has no samples; write it without --no-samples")
    return _bounded(
        criterion,
        quantiles.percentile(calls, P95),
        len(calls),
        lambda confidence: quantiles.lower_bound(calls, P95, confidence),
        lambda confidence: quantiles.upper_bound(calls, P95, confidence),
        "exact",
        note=f"{len(calls)} calls{_place(measurement)}"
        + ("" if measurement.trust == "clean" else f"; the machine was {measurement.trust}"),
    )


def _place(measurement: Measurement) -> str:
    """Say where a figure was measured: it holds for no other machine."""
    return f" on {measurement.machine}" if measurement.machine else ""


def _exactly(criterion: Criterion, value: float, note: str) -> Evidence:
    return _bounded(criterion, value, 1, lambda _: value, lambda _: value, "exact", note)


def _bounded(
    criterion: Criterion, value: float, samples: int, lower: Bound, upper: Bound, method: str, note: str = ""
) -> Evidence:
    """Return the evidence for a bound that is stated as a number."""
    least, most = criterion.at_least, criterion.at_most
    return Evidence(
        value,
        samples,
        lower,
        upper,
        lambda confidence: upper(confidence) < least if least is not None else lower(confidence) > _number(most),
        lambda confidence: lower(confidence) >= least if least is not None else upper(confidence) <= _number(most),
        criterion.minimum_samples or MINIMUM_SAMPLES["resampled" if method == "bootstrap" else "exact"],
        note=note,
    )


def _absent(criterion: Criterion, reason: str) -> Evidence:
    return Evidence(
        math.nan,
        0,
        lambda _: -math.inf,
        lambda _: math.inf,
        lambda _: False,
        lambda _: False,
        criterion.minimum_samples or 1,
        absent=reason,
    )


def _number(value: float | None) -> float:
    return math.inf if value is None else value
