"""criteria.toml: what is read, and what is refused with which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigError, NotFoundError
from tidegate.evaluate import Criterion, parse_criteria, read_criteria
from tidegate.evaluate.criteria import Metric

DOCUMENT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def parse(text: str) -> object:
    return parse_criteria(text.encode(), origin="criteria.toml")


def test_a_file_is_read_with_its_defaults() -> None:
    criteria = parse_criteria(
        b"""
        schema = "tidegate.criteria/1"
        confidence = 0.9
        [[criterion]]
        name = "stop is heard"
        metric = "recall"
        class = "stop"
        tag = "noisy"
        at_least = 0.9
        minimum_samples = 300
        confidence = 0.99
        [[criterion]]
        metric = "accuracy"
        slice = "room"
        not_worse_than = "baseline"
        margin = 0.02
        """,
        origin="criteria.toml",
    )
    first, second = criteria.criterion
    assert criteria.confidence == 0.9
    assert (first.name, first.of_class, first.tag, first.minimum_samples, first.confidence) == (
        "stop is heard", "stop", "noisy", 300, 0.99,
    )  # fmt: skip
    assert second.name == "accuracy on slice room: not worse than the baseline by more than 0.02"
    assert (second.confidence, second.minimum_samples) == (None, None)


ACCURACY = '[[criterion]]\nmetric = "accuracy"\nat_least = 0.9\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no [[criterion]]"),
        ("criterion = 3", "has no [[criterion]]"),
        ("[[criterion", "is not TOML"),
        ("[[criteria]]\n", "unknown key 'criteria'; did you mean 'criterion'?"),
        ('schema = "tidegate.criteria/2"\n' + ACCURACY, "Invalid enum value 'tidegate.criteria/2'"),
        ("confidence = 95\n" + ACCURACY, "confidence is 95.0; expected above 0.5 and below 1"),
        (ACCURACY + "confidence = 0.5", "criterion 1: confidence is 0.5"),
        (ACCURACY + "minimum_sample = 3", "criterion 1: unknown key 'minimum_sample'; did you mean 'minimum_samples'?"),
        (ACCURACY + "minimum_samples = 0", "minimum_samples is 0"),
        (ACCURACY + 'minimum_samples = "3"', "Expected `int | null`"),
        ('[[criterion]]\nmetric = "acuracy"', "metric is 'acuracy'; did you mean 'accuracy'?"),
        ("[[criterion]]\nat_least = 0.9", "metric is None; expected one of accuracy"),
        ('[[criterion]]\nmetric = "accuracy"', "has no bound; expected one of at_least, at_most, not_worse_than"),
        (ACCURACY + "at_most = 0.95", "has at_least and at_most"),
        ('[[criterion]]\nmetric = "accuracy"\nat_most = 0.9', "accuracy is better the higher it is; use at_least"),
        ('[[criterion]]\nmetric = "word_error_rate"\nat_least = 0.9', "better the lower it is; use at_most"),
        ('[[criterion]]\nmetric = "accuracy"\nat_least = 90', "at_least is 90; accuracy lies within 0 and 1"),
        ('[[criterion]]\nmetric = "rss_mb"\nat_most = -1', "at_most is -1; rss_mb is never negative"),
        ('[[criterion]]\nmetric = "rss_mb"\nat_most = nan', "expected a finite number"),
        ('[[criterion]]\nmetric = "f1"\nnot_worse_than = "last"', "Invalid enum value 'last'"),
        ('[[criterion]]\nmetric = "f1"\nnot_worse_than = "baseline"\nmargin = -0.1', "margin is -0.1"),
        (ACCURACY + "margin = 0.1", "margin goes with not_worse_than only"),
        (ACCURACY + 'slice = "a"\ntag = "b"', "has both slice and tag"),
        (ACCURACY + 'class = "stop"', "class goes with precision, recall, f1, auc_pr; not with accuracy"),
        ('[[criterion]]\nmetric = "size_bytes"\nat_most = 1\nslice = "a"', "has no slice, no tag and no baseline"),
        (
            '[[criterion]]\nmetric = "latency_p95_ms"\nnot_worse_than = "baseline"',
            "has no slice, no tag and no baseline",
        ),
        (ACCURACY + ACCURACY, "two criteria are called 'accuracy: at least 0.9'"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert complaint in caught.value.message
    assert caught.value.fix


@given(st.text(max_size=80))
def test_any_text_is_criteria_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_the_file_in_the_document_is_one() -> None:
    match = re.search(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match is not None
    criteria = parse_criteria(match[1].encode(), origin="docs/evaluation.md")
    assert [criterion.metric for criterion in criteria.criterion] == [
        "recall", "accuracy", "latency_p95_ms", "size_bytes",
    ]  # fmt: skip
    keys = {field.encode_name for field in msgspec.structs.fields(Criterion)}
    assert {key for key in keys if key not in match[1]} == set()
    assert {metric for metric in get_args(Metric) if f"`{metric}`" not in DOCUMENT} == set()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no criteria file"):
        read_criteria(tmp_path / "criteria.toml")
    with pytest.raises(NotFoundError):
        read_criteria(tmp_path)
