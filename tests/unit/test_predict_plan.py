"""Which columns feed which input, and what a call takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tidegate.bundle import Signature, TensorSpec
from tidegate.errors import ConfigError
from tidegate.predict import PredictSettings
from tidegate.predict.plan import make_plan
from tidegate.predict.settings import checked_output


def signature(*shapes: tuple[int, ...]) -> Signature:
    inputs = tuple(TensorSpec(name=f"x{at}", dtype="FP32", shape=shape) for at, shape in enumerate(shapes))
    return Signature(inputs=inputs, outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 3)),))


CASES: list[tuple[tuple[tuple[int, ...], ...], dict[str, Any], int, bool, list[tuple[int, ...]]]] = [
    (((-1, 4),), {}, 32, False, [(4,)]),
    (((-1, 4),), {"batch_rows": 5}, 5, False, [(4,)]),
    (((8, 4),), {}, 8, True, [(4,)]),
    (((1, 4),), {}, 1, True, [(4,)]),
    (((8, 4),), {"whole_inputs": True}, 0, False, [(8, 4)]),
    (((-1, 4), (2,)), {}, 0, False, [(-1, 4), (2,)]),
    (((),), {}, 0, False, [()]),
    (((-1, 4), (-1,)), {}, 32, False, [(4,), ()]),
]


@pytest.mark.parametrize(("shapes", "changes", "call_rows", "padded", "row_shapes"), CASES, ids=str)
def test_the_first_axis_is_the_row_where_it_can_be(
    shapes: tuple[tuple[int, ...], ...],
    changes: dict[str, Any],
    call_rows: int,
    padded: bool,
    row_shapes: list[tuple[int, ...]],
) -> None:
    plan = make_plan(signature(*shapes), ("x0", "x1"), PredictSettings(**changes))
    assert (plan.call_rows, plan.padded) == (call_rows, padded)
    assert list(plan.row_shapes.values()) == row_shapes
    assert plan.read_rows % max(call_rows, 1) == 0


def test_large_rows_are_read_a_batch_at_a_time() -> None:
    assert make_plan(signature((-1, 1 << 20)), ("x0",), PredictSettings()).read_rows == 32
    assert make_plan(signature((-1, 4)), ("x0",), PredictSettings()).read_rows == 1024


def test_the_only_input_takes_what_is_in_the_files_of_a_directory() -> None:
    plan = make_plan(signature((-1, 4)), ("file", "path", "content"), PredictSettings())
    assert plan.columns == {"x0": ("content",)}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"columns": {"x": ("a",)}}, "there is no input 'x' to map; the model's inputs are 'x0'"),
    ({"columns": {"x0": ("b",)}}, "input 'x0' has no column 'b'; there are 'a'"),
    ({}, "input 'x0' has no column 'x0'; there are 'a'"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_an_input_without_a_column_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_plan(signature((-1, 4)), ("a",), PredictSettings(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_rows": 0},
        {"checkpoint_rows": 0},
        {"checkpoint_s": float("nan")},
        {"on_error": "ignore"},
        {"keys": ("a", "a")},
        {"columns": {"x": ()}},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PredictSettings(**changes)


@pytest.mark.parametrize("name", ["out", "out.xlsx", "missing/out.csv"])
def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        checked_output(tmp_path / name)
