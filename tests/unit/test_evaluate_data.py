"""Evaluation files: what is read, and what is refused with which words."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bundle import Signature, TensorSpec
from tidegate.errors import InputError
from tidegate.evaluate import read_evaluation_set
from tidegate.evaluate.data import check_inputs

X = np.zeros((3, 2), np.float32)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    named: dict[str, Any] = {name.replace("__", "/"): np.asarray(array) for name, array in arrays.items()}
    np.savez(buffer, **named)
    return buffer.getvalue()


def test_everything_that_a_file_may_hold_is_read() -> None:
    data = read_evaluation_set(
        npz(
            input__x=X,
            label=np.array(["stop", "go", "größer"]),
            tag__noisy=[True, False, True],
            slice__room=["hall", "car", "hall"],
            slice__floor=[1, 2, 1],
            positive_class="go",
            threshold=0.25,
            score_output="y",
        ),
        origin="eval.npz",
    )
    assert (data.rows, data.task) == (3, "classification")
    assert data.labels == ("stop", "go", "größer")
    assert data.tags["noisy"].tolist() == [True, False, True]
    assert data.slices["room"].tolist() == ["hall", "car", "hall"]
    assert data.slices["floor"].tolist() == ["1", "2", "1"]
    assert (data.positive_class, data.threshold, data.score_output) == ("go", 0.25, "y")
    assert len(data.sha256) == 64


def test_targets_and_texts_tell_the_task() -> None:
    assert read_evaluation_set(npz(input__x=X, target=[1, 2, 3]), origin="e").target.tolist() == [[1], [2], [3]]
    spoken = read_evaluation_set(npz(input__x=X, text=["a b", "", "c"], length__x=[2, 1, 2]), origin="e")
    assert (spoken.task, spoken.texts, spoken.lengths["x"].tolist()) == ("transcription", ("a b", "", "c"), [2, 1, 2])


LABEL = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"label": LABEL}, "has no input/NAME array"),
        ({"input__x": X}, "has no truth; expected exactly one of label, target, text"),
        ({"input__x": X, "label": LABEL, "target": LABEL}, "has label, target; expected exactly one"),
        ({"input__x": X[:2], "label": LABEL}, "has 2 rows of input/x and 3 of label"),
        ({"input__x": X, "label": LABEL, "tag__a": [True]}, "has 1 rows of tag/a and 3 of label"),
        ({"input__x": X[:0], "label": LABEL[:0]}, "has no rows"),
        ({"input__x": np.float32(1), "label": LABEL}, "has input/x without rows"),
        ({"input__x": X, "label": LABEL / 2}, "e.npz: label has dtype float64"),
        ({"input__x": X, "label": X.astype(int)}, "label has shape [3, 2]"),
        ({"input__x": X, "target": [0.0, np.nan, 1.0]}, "target has NaN or an infinity in row 1"),
        ({"input__x": X, "target": ["1", "2", "3"]}, "target has dtype object"),
        ({"input__x": X, "label": LABEL, "tag__a": [0, 1, 1]}, "tag/a has dtype int64"),
        ({"input__x": X, "label": LABEL, "slice__a": [0.5, 1, 1]}, "slice/a has dtype float64"),
        ({"input__x": X, "label": LABEL, "labels": LABEL}, "an array 'labels' that means nothing here; did you mean"),
        ({"input__x": X, "label": LABEL, "slices__a": LABEL}, "did you mean 'slice/NAME'"),
        ({"input__x": X, "label": LABEL, "threshold": [0.1, 0.2]}, "threshold holds 2 values"),
        ({"input__x": X, "label": LABEL, "threshold": "high"}, "threshold is 'high'"),
        ({"input__x": X, "label": LABEL, "score_output": 1}, "score_output is 1"),
        ({"input__x": X, "text": ["a", "b", "c"], "length__x": [0, 1, 2]}, "length/x is not within 1 and 2"),
        ({"input__x": X, "label": LABEL, "length__x": [1, 1, 2]}, "length/x has no padded input"),
    ],
)
def test_what_cannot_be_meant_is_refused(arrays: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        read_evaluation_set(npz(**arrays), origin="e.npz")
    assert complaint in caught.value.message
    assert caught.value.fix


def test_pickles_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, label=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="pickled objects"):
        read_evaluation_set(buffer.getvalue(), origin="e.npz")


@given(st.binary(max_size=300))
def test_any_bytes_are_data_or_an_input_error(raw: bytes) -> None:
    with pytest.raises(InputError):
        read_evaluation_set(raw, origin="e.npz")


def signature(*, finite: bool = True) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 2), finite=finite),),
        outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 3)),),
    )


def test_inputs_are_held_against_the_signature() -> None:
    broken = X.copy()
    broken[2, 1] = np.nan
    data = read_evaluation_set(npz(input__x=broken, label=LABEL), origin="e.npz")
    with pytest.raises(InputError, match=r"NaN or an infinity in row 2 of input/x"):
        check_inputs(data, signature())
    check_inputs(data, signature(finite=False))
    stranger = read_evaluation_set(npz(input__x=X, input__xs=X, label=LABEL), origin="e.npz")
    with pytest.raises(InputError, match=r"has input/xs, which the model does not know; did you mean 'x'"):
        check_inputs(stranger, signature())
    other = read_evaluation_set(npz(input__z=X, label=LABEL), origin="e.npz")
    with pytest.raises(InputError, match=r"has input/z"):
        check_inputs(other, signature())
