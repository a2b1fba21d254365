"""The result of an evaluation: schema `tidegate.evaluation/1`. Figures that do not exist are null."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.bundle import Parity

SCHEMA = "tidegate.evaluation/1"

Verdict = Literal["pass", "fail", "wait"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its one-sided bounds."""

    value: float | None
    lower: float | None
    upper: float | None
    samples: int


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One variant on all rows."""

    id: str
    status: Literal["evaluated", "not runnable", "failed"]
    runtime: str
    provider: str
    size_bytes: int
    problem: str
    """why it was not evaluated, and what to do; empty otherwise"""
    metrics: dict[str, Figure]
    """the main figures by metric"""
    parity: Parity | None
    """against the reference; null for the reference itself"""


class ClassResult(msgspec.Struct, frozen=True, kw_only=True):
    """One class of the judged variant."""

    name: str
    rows: int
    precision: Figure
    recall: Figure
    f1: Figure
    average_precision: float | None
    no_skill_average_precision: float
    """what a model that knows nothing gets: the share of the class"""


class SliceResult(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one slice."""

    slice: str
    value: str
    metrics: dict[str, Figure]


class TagResult(msgspec.Struct, frozen=True, kw_only=True):
    """One tag: how much of the error is found there, and how likely a row is wrong there."""

    tag: str
    rows: int
    share_of_rows: float
    share_of_error: float | None
    """of the total error (wrong rows, word errors, or absolute error); null when there is no error"""
    error_rate: Figure
    """inside the tag: wrong rows, word error rate, or mean error"""
    error_rate_elsewhere: float | None


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A precision-recall curve."""

    label: str
    """the class"""
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    average_precision: float
    no_skill: float
    """precision of a model that knows nothing: the share of the class"""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The released model on the same rows."""

    name: str
    version: str
    variant: str
    metrics: dict[str, Figure]
    curves: tuple[Curve, ...]
    """of the same classes as the judged variant's, in the same order"""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion on one set of rows and one variant."""

    name: str
    metric: str
    of_class: str | None
    scope: str
    """`all`, `tag NAME` or `slice NAME=VALUE`"""
    variant: str
    demand: str
    verdict: Verdict
    estimate: float | None
    """with `not_worse_than`: the difference, positive is better"""
    lower: float | None
    upper: float | None
    candidate: float | None
    """with `not_worse_than`: the metric of this model; else null"""
    baseline: float | None
    """with `not_worse_than`: the metric of the released one; else null"""
    samples: int
    sample_unit: str
    minimum_samples: int
    confidence: float
    reason: str


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation."""

    schema: str
    name: str
    version: str
    data: str
    data_sha256: str
    rows: int
    task: Literal["classification", "regression", "transcription"]
    variant: str
    """the one that everything below `variants` is about"""
    reference: str
    """the one that parity is measured against"""
    confidence: float
    """of each one-sided bound outside the criteria"""
    verdict: Verdict | None
    """null without criteria"""
    variants: tuple[VariantResult, ...]
    no_skill: dict[str, float]
    """what a model that knows nothing but this data's truth gets, by metric"""
    classes: tuple[str, ...]
    positive_class: str | None
    confusion: tuple[tuple[int, ...], ...]
    """rows: the truth; columns: the decision, the last one "no decision"; empty without classes"""
    by_class: tuple[ClassResult, ...]
    calibration_error: float | None
    """of scores that are probabilities; null otherwise"""
    slices: tuple[SliceResult, ...]
    tags: tuple[TagResult, ...]
    curves: tuple[Curve, ...]
    baseline: Baseline | None
    criteria: tuple[Judgement, ...]


def encode(evaluation: Evaluation) -> bytes:
    """Return the JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(evaluation), indent=2) + b"\n"


def decode(raw: bytes) -> Evaluation:
    """Parse a report; msgspec.DecodeError says what is missing or of the wrong type."""
    return msgspec.json.decode(raw, type=Evaluation)
