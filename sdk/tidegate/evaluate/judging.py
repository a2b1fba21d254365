"""From criteria and answers to verdicts: pass, fail, or wait for more data.

The bounds decide, never the estimate. A criterion over several slices, and all comparisons with the baseline of a file
together, share their risk of a false alarm by Holm's procedure.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError
from tidegate.evaluate import quantiles
from tidegate.evaluate.answers import Answers, Classified, class_index
from tidegate.evaluate.bootstrap import resamples_for
from tidegate.evaluate.comparison import compare, holm
from tidegate.evaluate.contributions import BY_CLASS
from tidegate.evaluate.criteria import (
    EACH_VARIANT,
    MEASURED_ELSEWHERE,
    MINIMUM_SAMPLES,
    Criteria,
    Criterion,
    demand,
)
from tidegate.evaluate.data import EvaluationSet
from tidegate.evaluate.estimates import Bound, estimate, sample_unit
from tidegate.evaluate.measurements import Measurement
from tidegate.evaluate.report import Judgement, Verdict

Position = Literal["clear", "wrong", "open"]

VERDICTS: dict[tuple[bool, Position], Verdict] = {
    # enough samples, where the interval lies: verdict
    (True, "clear"): "pass",  # the bound on the favourable side keeps the promise
    (True, "wrong"): "fail",  # the whole interval breaks it
    (True, "open"): "wait",  # the interval holds both answers
    (False, "clear"): "wait",
    (False, "wrong"): "wait",
    (False, "open"): "wait",
}
"""The only place where a verdict is given."""

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


def judge(
    criteria: Criteria, subjects: Mapping[str, Subject], *, variant: str, data: EvaluationSet
) -> tuple[Judgement, ...]:
    """Judge every criterion, in the file's order, one judgement for each value of a slice.

    Args:
        criteria: the promises.
        subjects: every variant of the bundle by id.
        variant: which one a criterion means that names none.
        data: for tags and slices.

    Raises:
        ConfigError: a criterion names a variant, class, slice or tag that is not there, or a metric that does not fit.
    """
    questions = _questions(criteria, subjects, variant, data)
    comparisons = sum(question.criterion.not_worse_than is not None for question in questions)
    evidence = [
        _evidence(question, subjects[question.variant], resamples_for(comparisons if _compares(question) else 1))
        for question in questions
    ]
    wrong = _surely_wrong(questions, evidence)
    return tuple(
        _judgement(question, found, is_wrong)
        for question, found, is_wrong in zip(questions, evidence, wrong, strict=True)
    )


def overall(judgements: Sequence[Judgement]) -> Verdict:
    """Return the verdict on the release: one failure fails it, else one wait holds it back."""
    verdicts = {judgement.verdict for judgement in judgements}
    return "fail" if "fail" in verdicts else "wait" if "wait" in verdicts else "pass"


def _questions(
    criteria: Criteria, subjects: Mapping[str, Subject], variant: str, data: EvaluationSet
) -> list[Question]:
    questions = []
    for criterion in criteria.criterion:
        where = f"criterion {criterion.name!r}"
        for name in _variants(criterion, subjects, variant, where):
            answers = subjects[name].answers
            of_class = _class(criterion, answers, where)
            class_name = answers.classes[of_class] if isinstance(answers, Classified) and of_class is not None else None
            for scope, rows in _scopes(criterion, data, where):
                questions.append(
                    Question(
                        criterion, criterion.confidence or criteria.confidence, name, scope, rows, of_class, class_name
                    )
                )
    return questions


def _variants(criterion: Criterion, subjects: Mapping[str, Subject], variant: str, where: str) -> list[str]:
    if criterion.variant is None:
        return [variant]
    if criterion.variant == EACH_VARIANT:
        return list(subjects)
    if criterion.variant not in subjects:
        raise _unknown(where, "variant", criterion.variant, [*subjects, EACH_VARIANT])
    return [criterion.variant]


def _class(criterion: Criterion, answers: Answers | None, where: str) -> int | None:
    if not isinstance(answers, Classified) or criterion.metric not in BY_CLASS:
        return None
    if criterion.of_class is not None:
        return class_index(criterion.of_class, answers.classes, where)
    return answers.positive


def _scopes(criterion: Criterion, data: EvaluationSet, where: str) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return each set of rows that a criterion is about, with its name."""
    if criterion.tag is not None:
        if criterion.tag not in data.tags:
            raise _unknown(where, "tag", criterion.tag, list(data.tags))
        return [(f"tag {criterion.tag}", data.tags[criterion.tag])]
    if criterion.slice is None:
        return [("all", np.ones(data.rows, np.bool_))]
    name, equals, value = criterion.slice.partition("=")
    if name not in data.slices:
        raise _unknown(where, "slice", name, list(data.slices))
    values = [value] if equals else np.unique(data.slices[name]).tolist()
    return [(f"slice {name}={one}", data.slices[name] == one) for one in values]


def _evidence(question: Question, subject: Subject, resamples: int) -> Evidence:
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
    difference = compare(
        subject.answers, subject.baseline, criterion.metric, question.of_class, question.rows, resamples=resamples
    )
    margin = criterion.margin
    if margin:
        is_wrong: Callable[[float], bool] = lambda confidence: difference.upper(confidence) < -margin  # noqa: E731
        is_clear: Callable[[float], bool] = lambda confidence: difference.lower(confidence) >= -margin  # noqa: E731
    else:
        # Only a loss can be shown, never that there is none: what is not wrong is clear.
        p_worse = difference.p_worse() if difference.samples else 1.0
        is_wrong = lambda confidence: p_worse <= 1.0 - confidence  # noqa: E731
        is_clear = lambda _: True  # noqa: E731
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
        return _absent(criterion, "not measured; hand in a report of `tidegate bench` with --bench")
    if criterion.metric == "rss_mb":
        if measurement.rss_mb is None:
            return _absent(criterion, "the bench report has no memory figure")
        return _exactly(criterion, measurement.rss_mb, "peak of one process")
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
        note="" if measurement.trust == "clean" else f"the bench calls its machine {measurement.trust}",
    )


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


def _surely_wrong(questions: Sequence[Question], evidence: Sequence[Evidence]) -> list[bool]:
    """Say which promises are surely broken, each family of questions sharing one risk of a false alarm."""
    families: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        if _is_enough(evidence[index]):
            families.setdefault("" if _compares(question) else question.criterion.name, []).append(index)
    wrong = [False] * len(questions)
    for members in families.values():
        found = holm(
            [evidence[index].is_wrong for index in members], [1.0 - questions[index].confidence for index in members]
        )
        for index, is_wrong in zip(members, found, strict=True):
            wrong[index] = is_wrong
    return wrong


def _judgement(question: Question, evidence: Evidence, is_wrong: bool) -> Judgement:
    criterion, confidence = question.criterion, question.confidence
    clear = not is_wrong and evidence.is_clear(confidence)
    position: Position = "wrong" if is_wrong else "clear" if clear else "open"
    verdict = VERDICTS[_is_enough(evidence), position]
    return Judgement(
        name=criterion.name,
        metric=criterion.metric,
        of_class=question.class_name,
        scope=question.scope,
        variant=question.variant,
        demand=demand(criterion),
        verdict=verdict,
        estimate=_or_none(evidence.value),
        lower=_or_none(evidence.lower(confidence)),
        upper=_or_none(evidence.upper(confidence)),
        candidate=_or_none(evidence.candidate),
        baseline=_or_none(evidence.baseline),
        samples=evidence.samples,
        sample_unit=sample_unit(criterion.metric, question.of_class),
        minimum_samples=evidence.minimum_samples,
        confidence=confidence,
        reason=_reason(question, evidence, verdict),
    )


def _reason(question: Question, evidence: Evidence, verdict: Verdict) -> str:
    """Return why, in one sentence."""
    note = f"; {evidence.note}" if evidence.note else ""
    if evidence.absent:
        return evidence.absent
    if not _is_enough(evidence):
        unit = sample_unit(question.criterion.metric, question.of_class)
        return f"{evidence.samples} {unit}, {evidence.minimum_samples} needed"
    if _compares(question) and not question.criterion.margin:
        if verdict == "fail":
            return f"a loss is shown{note}"
        loss = -evidence.lower(question.confidence)
        return f"no loss is shown; one of more than {max(loss, 0.0):.3g} is ruled out{note}"
    if verdict == "wait":
        return f"the interval holds both answers{_samples_to_decide(question, evidence)}{note}"
    return ("the bound is kept" if verdict == "pass" else "the whole interval breaks the bound") + note


def _samples_to_decide(question: Question, evidence: Evidence) -> str:
    """Return roughly how many samples would decide if the figure stayed, as an interval shrinks with their root."""
    criterion = question.criterion
    bound = criterion.at_least if criterion.at_least is not None else criterion.at_most
    target = -criterion.margin if bound is None else bound
    gap = evidence.value - target
    reach = (
        evidence.value - evidence.lower(question.confidence)
        if gap > 0
        else evidence.upper(question.confidence) - evidence.value
    )
    if gap == 0 or not math.isfinite(reach) or reach <= abs(gap):
        return ""
    return f"; about {math.ceil(evidence.samples * (reach / gap) ** 2):,} samples would decide, if the figure stayed"


def _is_enough(evidence: Evidence) -> bool:
    return evidence.samples >= evidence.minimum_samples and not evidence.absent


def _compares(question: Question) -> bool:
    return question.criterion.not_worse_than is not None


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unknown(where: str, what: str, name: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(known) or 'none'}"
    return ConfigError(f"{where}: no {what} {name!r}{hint}", fix=f"name a {what} that the bundle or the data has")
