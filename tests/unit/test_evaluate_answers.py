"""From raw outputs to decisions, and how near two variants come to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidegate.bundle import Signature, TensorSpec
from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import oip_name
from tidegate.errors import ConfigError, InputError, ModelError
from tidegate.evaluate import EvaluationSet
from tidegate.evaluate.answers import Answers, Classified, Estimated, Transcribed, aligned
from tidegate.evaluate.parity import agreement, parity
from tidegate.evaluate.reading import answers_of


def answer(
    outputs: dict[str, Array], classes: tuple[str, ...] = (), names: tuple[str, ...] | None = None, **data: Any
) -> Answers:
    rows = len(next(iter(outputs.values())))
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1,)),),
        outputs=tuple(
            TensorSpec(name=name, dtype=oip_name(array.dtype), shape=(-1, *array.shape[1:]))
            for name, array in outputs.items()
        ),
    )
    known: dict[str, Any] = {"task": "classification"} | data
    evaluation = EvaluationSet("e.npz", "0" * 64, rows, inputs={}, **known)
    return answers_of(outputs, evaluation, signature, classes, classes if names is None else names)


def classified(*arguments: Any, **data: Any) -> Classified:
    found = answer(*arguments, **data)
    assert isinstance(found, Classified)
    return found


SCORES = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], np.float32)


def test_the_largest_score_decides() -> None:
    found = classified({"y": SCORES}, ("a", "b", "c"), labels=("a", "c", 2))
    assert (found.decision.tolist(), found.truth.tolist(), found.right.tolist()) == (
        [0, 1, 2], [0, 2, 2], [True, False, True],
    )  # fmt: skip
    assert found.positive is None
    assert classified({"y": SCORES}, labels=(0, 1, 2)).classes == ("0", "1", "2")


def test_a_row_answered_with_nan_has_no_decision() -> None:
    scores = SCORES.copy()
    scores[1, 0] = np.nan
    found = classified({"y": scores}, ("a", "b", "c"), labels=("a", "b", "c"))
    assert found.decision.tolist() == [0, -1, 2]
    assert found.right.tolist() == [True, False, True]
    assert found.scores is not None
    assert np.isneginf(found.scores[1]).all()


def test_a_classifier_with_labels_and_probabilities_keeps_both() -> None:
    """As skl2onnx writes them: classes sorted, the class output first."""
    said = np.array([b"ham", b"spam", b"spam"], dtype=object)
    scores = np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], np.float32)
    found = classified({"label": said, "probabilities": scores}, labels=("ham", "ham", "spam"))
    assert (found.classes, found.decision.tolist(), found.positive) == (("ham", "spam"), [0, 1, 1], 1)
    assert found.scores is not None
    moved = classified({"label": said, "probabilities": scores}, labels=("ham", "ham", "spam"), threshold=0.65)
    assert moved.decision.tolist() == [0, 1, 0]
    contradicting = classified({"label": said, "probabilities": scores[:, ::-1]}, labels=("ham", "ham", "spam"))
    assert contradicting.scores is None, "columns in an unknown order tell nothing"
    assert contradicting.decision.tolist() == [0, 1, 1]


def test_another_output_can_be_named() -> None:
    outputs = {"features": np.zeros((3, 5), np.float32), "y": SCORES}
    assert classified(outputs, labels=(0, 1, 2), score_output="y").decision.tolist() == [0, 1, 2]
    assert len(classified(outputs, labels=(0, 1, 2)).classes) == 5, "without labels the first that can"
    assert classified(outputs, ("a", "b", "c"), labels=(0, 1, 2)).decision.tolist() == [0, 1, 2], "the one that fits"
    with pytest.raises(ModelError, match="gives 5 scores a row; expected 3"):
        answer(outputs, ("a", "b", "c"), labels=(0, 1, 2), score_output="features")
    with pytest.raises(ConfigError, match="outputs are features, y"):
        answer(outputs, labels=(0, 1, 2), score_output="z")


def test_what_cannot_be_answered_is_said() -> None:
    with pytest.raises(ModelError, match="no output gives a class or a score"):
        answer({"y": np.zeros((2, 3, 4), np.float32)}, labels=(0, 1))
    with pytest.raises(ConfigError, match="threshold decides between two classes; the model has 3"):
        answer({"y": SCORES}, ("a", "b", "c"), labels=(0, 1, 2), threshold=0.5)
    with pytest.raises(ConfigError, match="there is no class 'd'"):
        answer({"y": SCORES}, ("a", "b", "c"), labels=(0, 1, 2), positive_class="d")
    with pytest.raises(InputError, match="row 1 has the unknown label 'bb'; did you mean 'b'"):
        answer({"y": SCORES}, ("a", "b", "c"), labels=("a", "bb", "c"))
    target = np.zeros((3, 1))
    with pytest.raises(InputError, match="target has 1 values a row; output 'y' has 3"):
        answer({"y": SCORES}, task="regression", target=target)
    with pytest.raises(ModelError, match="NaN or infinite in 1 rows, first in row 2"):
        answer({"y": np.array([1, 2, np.inf])}, task="regression", target=target)
    with pytest.raises(ModelError, match="no float output"):
        answer({"y": np.array([1, 2, 3])}, task="regression", target=target)
    with pytest.raises(ModelError, match="neither a decoder nor a string output"):
        answer({"y": SCORES}, task="transcription", texts=("a", "b", "c"))


def test_a_baseline_is_read_by_the_names_of_its_classes() -> None:
    """The candidate knows `c`, which the baseline does not; the baseline knows `old`."""
    names = ("a", "b", "c")
    candidate = answer({"y": SCORES}, names, labels=(0, 1, 2))
    baseline = answer({"y": SCORES[:, [1, 0, 2]]}, ("b", "a", "old"), names, labels=(0, 1, 2))
    turned = aligned(baseline, candidate)
    assert isinstance(turned, Classified)
    assert turned.classes == names
    assert turned.decision.tolist() == [0, 1, -1]
    assert turned.right.tolist() == [True, True, False]
    assert turned.scores is not None
    assert np.isneginf(turned.scores[:, 2]).all()


def test_parity_takes_all_outputs_together() -> None:
    one = {"y": np.array([[1.0, 2.0], [np.nan, np.inf]]), "z": np.array([1, 2]), "s": np.array([b"a"], dtype=object)}
    other = {"y": np.array([[1.0, 2.5], [np.nan, np.inf]]), "z": np.array([1, 5]), "s": np.array([b"b"], dtype=object)}
    found = parity("first", 2, one, other, 0.5)
    assert (found.maximum_error, found.agreement) == (3.0, 0.5)
    assert found.mean_error == pytest.approx(3.5 / 6)
    same = parity("first", 2, one, one, None)
    assert (same.maximum_error, same.mean_error, same.agreement) == (0.0, 0.0, None)


@pytest.mark.parametrize(
    "other",
    [np.array([np.nan, 1.0]), np.array([np.inf, 1.0]), np.array([[0.0, 1.0]])],
    ids=["nan", "infinite", "shape"],
)
def test_parity_without_a_finite_difference_is_null(other: Array) -> None:
    found = parity("first", 2, {"y": np.array([0.0, 1.0])}, {"y": other}, None)
    assert (found.maximum_error, found.mean_error) == (None, None)


def test_agreement_is_about_decisions() -> None:
    one = classified({"y": SCORES}, ("a", "b", "c"), labels=(0, 1, 2))
    other = classified({"y": SCORES[[0, 1, 1]]}, ("a", "b", "c"), labels=(0, 1, 2))
    assert agreement(one, other) == pytest.approx(2 / 3)
    texts = [Transcribed((), text, np.zeros(2), np.zeros(2)) for text in (("a", "b"), ("a", "c"))]
    assert agreement(*texts) == 0.5
    numbers = Estimated(np.zeros((1, 1)), np.zeros((1, 1)))
    assert agreement(numbers, numbers) is None
