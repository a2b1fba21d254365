"""From criteria and answers to verdicts: pass, fail, or wait for more data.

The bounds decide, never the estimate. A criterion over several slices, and all comparisons with the baseline of a file
together, share their risk of a false alarm by Holm's procedure.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError
from tidegate.evaluate.answers import Answers, Classified, class_index
from tidegate.evaluate.bootstrap import resamples_for
from tidegate.evaluate.comparison import holm
from tidegate.evaluate.contributions import BY_CLASS
from tidegate.evaluate.criteria import (
    EACH_VARIANT,
    Criteria,
    Criterion,
    demand,
)
from tidegate.evaluate.data import EvaluationSet
from tidegate.evaluate.estimates import sample_unit
from tidegate.evaluate.evidence import Evidence, Question, Subject, gather
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
    comparisons = sum(question.compares for question in questions)
    evidence = [
        gather(question, subjects[question.variant], resamples_for(comparisons if question.compares else 1))
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


def _surely_wrong(questions: Sequence[Question], evidence: Sequence[Evidence]) -> list[bool]:
    """Say which promises are surely broken, each family of questions sharing one risk of a false alarm."""
    families: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        if evidence[index].is_enough:
            families.setdefault("" if question.compares else question.criterion.name, []).append(index)
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
    verdict = VERDICTS[evidence.is_enough, position]
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
    if not evidence.is_enough:
        unit = sample_unit(question.criterion.metric, question.of_class)
        return f"{evidence.samples} {unit}, {evidence.minimum_samples} needed"
    if question.compares and not question.criterion.margin:
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


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unknown(where: str, what: str, name: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(known) or 'none'}"
    return ConfigError(f"{where}: no {what} {name!r}{hint}", fix=f"name a {what} that the bundle or the data has")
