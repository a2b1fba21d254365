"""Verdicts: the literal table, and what a gate does with equal, better and worse models in simulation."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.errors import ConfigError
from tidegate.evaluate import Criteria, Criterion, EvaluationSet, Judgement, Measurement
from tidegate.evaluate.answers import Answers, Classified, Estimated, Transcribed
from tidegate.evaluate.comparison import mcnemar_p
from tidegate.evaluate.evidence import Subject
from tidegate.evaluate.judging import VERDICTS, judge, overall

DOCUMENT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")

RUNS = 200
SLACK = 2 * math.sqrt(0.05 * 0.95 / RUNS)
"""Two standard errors of a share of 0.05 in so many runs."""


def data_of(rows: int, slices: int = 1, **changes: Any) -> EvaluationSet:
    groups = {"room": np.array([f"r{row % slices}" for row in range(rows)])}
    settings: dict[str, Any] = {"tags": {"noisy": np.arange(rows) % 2 == 0}, "slices": groups} | changes
    return EvaluationSet("e.npz", "0" * 64, rows, "classification", {}, **settings)


def subject(answers: Answers | None = None, baseline: Answers | None = None, **changes: Any) -> Subject:
    known: dict[str, Any] = {"problem": "", "size_bytes": 1000, "measurement": None} | changes
    return Subject(answers=answers, baseline=baseline, **known)


def answers_with(right: NDArray[np.bool_]) -> Classified:
    """Return a model of two classes that is right on the given rows."""
    truth = np.arange(len(right)) // 2 % 2
    decision = np.where(right, truth, 1 - truth)
    return Classified(("a", "b"), truth, decision, None, 1)


def ask(one: Subject, data: EvaluationSet, **criterion: Any) -> tuple[Judgement, ...]:
    asked = Criterion(**{"name": "asked", "metric": "accuracy"} | criterion)
    return judge(Criteria(criterion=(asked,)), {"v": one}, variant="v", data=data)


def test_the_table_of_verdicts_is_complete() -> None:
    assert set(VERDICTS) == set(product((True, False), ("clear", "wrong", "open")))
    assert [position for (enough, position), verdict in VERDICTS.items() if verdict == "pass"] == ["clear"]
    assert [(enough, position) for (enough, position), v in VERDICTS.items() if v == "fail"] == [(True, "wrong")]


@pytest.mark.parametrize(
    ("right", "rows", "minimum", "verdict"),
    [
        # lower bounds at 0.95: 49 of 50: .909, 48 of 50: .879; upper bounds: 42 of 50: .918, 40 of 50: .887
        (49, 50, None, "pass"),
        (48, 50, None, "wait"),
        (42, 50, None, "wait"),
        (40, 50, None, "fail"),
        (50, 50, 51, "wait"),
        (0, 50, 51, "wait"),
        (28, 28, None, "wait"),
        (29, 29, None, "pass"),
    ],
)
def test_the_bound_decides_and_not_the_estimate(right: int, rows: int, minimum: int | None, verdict: str) -> None:
    one = subject(answers_with(np.arange(rows) < right))
    (found,) = ask(one, data_of(rows), at_least=0.9, minimum_samples=minimum)
    assert found.verdict == verdict
    assert found.estimate == pytest.approx(right / rows)
    assert found.reason


def test_the_table_in_the_document_is_right() -> None:
    found = re.findall(r"^\| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\w+) \|$", DOCUMENT, re.MULTILINE)
    assert len(found) == 7
    for right, rows, *stated, verdict in found:
        one = subject(answers_with(np.arange(int(rows)) < int(right)))
        (said,) = ask(one, data_of(int(rows)), at_least=0.9)
        assert said.verdict == verdict
        assert [f"{value:.3f}" for value in (said.estimate, said.lower, said.upper)] == stated


def test_error_rates_are_bounded_from_above() -> None:
    texts = Transcribed((), (), np.zeros(100), np.ones(100))
    (found,) = ask(subject(texts), data_of(100), metric="word_error_rate", at_most=0.05)
    assert found.verdict == "pass"
    assert found.upper == pytest.approx(1 - 0.05**0.01)
    (found,) = ask(subject(texts), data_of(100), metric="word_error_rate", at_most=0.02)
    assert found.verdict == "wait"
    numbers = Estimated(np.zeros((100, 1)), np.linspace(0.9, 1.1, 100)[:, None])
    verdicts = [
        ask(subject(numbers), data_of(100), metric="mean_error", at_most=bound)[0].verdict for bound in (0.9, 1.0, 1.1)
    ]
    assert verdicts == ["fail", "wait", "pass"]


def test_size_latency_and_memory() -> None:
    fast = Measurement(latencies_ms=np.linspace(1, 2, 1000), rss_mb=80.0, trust="clean")
    known, unknown = subject(measurement=fast), subject()
    rows = data_of(4)

    def verdict(one: Subject, metric: str, bound: float) -> str:
        return ask(one, rows, metric=metric, at_most=bound)[0].verdict

    assert [verdict(known, "latency_p95_ms", bound) for bound in (1.9, 1.95, 2.0)] == ["fail", "wait", "pass"]
    assert [verdict(known, "rss_mb", bound) for bound in (79.9, 80.0)] == ["fail", "pass"]
    assert [verdict(unknown, "size_bytes", bound) for bound in (999, 1000)] == ["fail", "pass"]
    (found,) = ask(unknown, rows, metric="latency_p95_ms", at_most=1)
    assert (found.verdict, found.samples) == ("wait", 0)
    assert "--bench" in found.reason
    placed = Measurement(np.linspace(1, 2, 1000), 80.0, "disturbed", machine="Cortex-A72, 4 cores")
    (found,) = ask(subject(measurement=placed), rows, metric="latency_p95_ms", at_most=2)
    assert found.reason == "the bound is kept; 1000 calls on Cortex-A72, 4 cores; the machine was disturbed"
    bare = Measurement(latencies_ms=None, rss_mb=None, trust="unknown")
    assert "--no-samples" in ask(subject(measurement=bare), rows, metric="latency_p95_ms", at_most=1)[0].reason


def test_a_slice_is_judged_value_by_value_and_the_worst_verdict_counts() -> None:
    data = data_of(900, slices=3)
    right = np.ones(900, np.bool_)
    right[np.flatnonzero(data.slices["room"] == "r1")[:150]] = False
    found = ask(subject(answers_with(right)), data, slice="room", at_least=0.9)
    assert [(one.scope, one.verdict) for one in found] == [
        ("slice room=r0", "pass"), ("slice room=r1", "fail"), ("slice room=r2", "pass"),
    ]  # fmt: skip
    assert overall(found) == "fail"
    assert [one.scope for one in ask(subject(answers_with(right)), data, slice="room=r2", at_least=0.9)] == [
        "slice room=r2"
    ]
    (absent,) = ask(subject(answers_with(right)), data, slice="room=attic", at_least=0.9)
    assert (absent.verdict, absent.samples) == ("wait", 0)
    (tagged,) = ask(subject(answers_with(right)), data, tag="noisy", at_least=0.9)
    assert tagged.samples == 450


def test_what_is_not_there_is_a_mistake_or_a_reason_to_wait() -> None:
    one, data = subject(answers_with(np.ones(60, np.bool_))), data_of(60)
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"slice": "rom"}, "no slice 'rom'; did you mean 'room'"),
        ({"tag": "nosy"}, "no tag 'nosy'; did you mean 'noisy'"),
        ({"variant": "w"}, "no variant 'w'; there is v, each"),
        ({"metric": "recall", "of_class": "c"}, "there is no class 'c'"),
        ({"metric": "word_error_rate", "at_least": None, "at_most": 0.1}, "needs evaluation data with `text`"),
        ({"metric": "auc_pr"}, "auc_pr needs scores"),
    ]
    for criterion, complaint in mistakes:
        with pytest.raises(ConfigError) as caught:
            ask(one, data, **{"at_least": 0.5, **criterion})
        assert complaint in caught.value.message
    (found,) = ask(one, data, not_worse_than="baseline")
    assert (found.verdict, found.reason) == ("wait", "no baseline to compare with")
    (found,) = ask(subject(None, problem="no runtime"), data, at_least=0.5)
    assert (found.verdict, found.reason) == ("wait", "the variant was not run: no runtime")


def test_an_identical_model_passes_every_comparison() -> None:
    right = np.random.default_rng(0).random(200) < 0.9
    truth = np.arange(200) // 2 % 2
    score = np.where(right, truth, 1 - truth) + np.random.default_rng(1).normal(0, 0.1, 200)
    same = Classified(("a", "b"), truth, (score > 0.5).astype(np.int64), np.stack([-score, score], 1), 1)
    for metric in ("accuracy", "precision", "recall", "f1", "auc_pr"):
        for margin in (0.0, 0.1):
            (found,) = ask(subject(same, same), data_of(200), metric=metric, not_worse_than="baseline", margin=margin)
            assert (found.verdict, found.estimate) == ("pass", 0.0), metric
            assert found.lower is not None
            assert found.lower < 0, "that 200 rows agree does not prove that all do"


def pair(rng: np.random.Generator, rows: int, lost: float, won: float) -> tuple[Classified, Classified]:
    """Return candidate and baseline: 85 % right in common, and on some rows only one of them."""
    draw = rng.random(rows)
    both, only_old, only_new = draw < 0.85, (draw >= 0.85) & (draw < 0.85 + lost), draw >= 1 - won
    return answers_with(both | only_new), answers_with(both | only_old)


def verdicts(rows: int, slices: int, lost: float, won: float, **criterion: Any) -> Counter[str]:
    """Return how often a gate says what in so many runs."""
    rng, data = np.random.default_rng(42), data_of(rows, slices)
    counts: Counter[str] = Counter()
    for _ in range(RUNS):
        candidate, baseline = pair(rng, rows, lost, won)
        found = ask(subject(candidate, baseline), data, slice="room", not_worse_than="baseline", **criterion)
        counts[overall(found)] += 1
    return counts


@pytest.mark.parametrize("slices", [1, 5, 20])
def test_equal_models_are_blocked_in_no_more_than_one_case_of_twenty(slices: int) -> None:
    counts = verdicts(100 * slices, slices, lost=0.05, won=0.05)
    assert counts["fail"] <= RUNS * 0.05
    assert counts["wait"] == 0


def test_better_models_are_not_blocked() -> None:
    assert verdicts(500, 5, lost=0.02, won=0.08) == {"pass": RUNS}


def test_a_regression_is_missed_no_more_often_than_the_power_of_the_test_says() -> None:
    rows, lost, won = 300, 0.09, 0.03
    counts = verdicts(rows, 1, lost, won)
    rng = np.random.default_rng(7)
    drawn = rng.multinomial(rows, [lost, won, 1 - lost - won], 2000)
    power = np.mean([mcnemar_p(int(one), int(other)) <= 0.05 for one, other, _ in drawn])
    assert power > 0.85
    assert counts["pass"] / RUNS <= 1 - power + 0.05
    assert counts["fail"] >= RUNS * (power - 0.05)


@pytest.mark.parametrize("slices", [1, 4])
def test_with_a_margin_a_loss_of_just_that_much_is_let_through_once_in_twenty(slices: int) -> None:
    counts = verdicts(400 * slices, slices, lost=0.08, won=0.03, margin=0.05)
    assert counts["pass"] / RUNS <= 0.05 + SLACK
    assert counts["fail"] / RUNS <= 0.05 + SLACK


def test_with_a_margin_equal_models_pass_given_enough_rows_and_wait_before() -> None:
    assert verdicts(3000, 1, lost=0.05, won=0.05, margin=0.03)["pass"] >= 0.95 * RUNS
    few = verdicts(150, 1, lost=0.05, won=0.05, margin=0.03)
    assert few["fail"] <= 0.02 * RUNS
    assert few["wait"] >= 0.5 * RUNS


def test_a_model_exactly_at_the_bound_passes_and_fails_once_in_twenty_each() -> None:
    rng, data, counts = np.random.default_rng(3), data_of(300), Counter[str]()
    for _ in range(RUNS):
        found = ask(subject(answers_with(rng.random(300) < 0.9)), data, at_least=0.9)
        counts[overall(found)] += 1
    assert counts["pass"] / RUNS <= 0.05 + SLACK
    assert counts["fail"] / RUNS <= 0.05 + SLACK


def test_all_comparisons_of_a_file_share_one_risk() -> None:
    """Ten criteria without correction would block an equal model in two cases of five."""
    rng, data = np.random.default_rng(9), data_of(1000, 10)
    criteria = Criteria(
        criterion=tuple(
            Criterion(name=str(index), metric="accuracy", slice=f"room=r{index}", not_worse_than="baseline")
            for index in range(10)
        )
    )
    blocked = 0
    for _ in range(RUNS):
        candidate, baseline = pair(rng, 1000, lost=0.075, won=0.075)
        found = judge(criteria, {"v": subject(candidate, baseline)}, variant="v", data=data)
        blocked += overall(found) == "fail"
    assert blocked <= 0.05 * RUNS


@pytest.mark.parametrize("metric", ["precision", "f1", "auc_pr", "word_error_rate", "mean_error"])
def test_resampled_comparisons_block_few_equal_and_most_worse_models(metric: str) -> None:
    rng, runs, data = np.random.default_rng(1), 40, data_of(200)
    blocked = Counter[str]()
    for kind, _ in product(("equal", "worse"), range(runs)):
        extra = 0.25 if kind == "worse" else 0.0
        new, old = model_for(metric, rng, extra), model_for(metric, rng, 0.0)
        (found,) = ask(subject(new, old), data, metric=metric, not_worse_than="baseline")
        blocked[kind] += found.verdict == "fail"
    assert blocked["equal"] <= runs * 0.05 + 2 * math.sqrt(runs * 0.05 * 0.95)
    assert blocked["worse"] >= runs * 0.8


def model_for(metric: str, rng: np.random.Generator, extra: float) -> Answers:
    """Return answers on the same 200 rows; `extra` is how much worse than usual."""
    if metric == "mean_error":
        return Estimated(np.zeros((200, 1)), rng.exponential(1.0 + 2 * extra, (200, 1)))
    if metric == "word_error_rate":
        return Transcribed((), (), (rng.random((200, 3)) < 0.1 + extra).sum(axis=1).astype(float), np.full(200, 3.0))
    truth = np.arange(200) // 2 % 2
    score = truth + rng.normal(0, 0.4 + 2 * extra, 200)
    return Classified(("a", "b"), truth, (score > 0.5).astype(np.int64), np.stack([-score, score], axis=1), 1)
