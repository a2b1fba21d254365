"""What is kept of requests: settings, confidence, and tables that give back every value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tidegate.bundle import Manifest
from tidegate.cloud.request_log_record import LoggedRequest, LoggedSegment, Record, check_record, confidence_of
from tidegate.cloud.request_log_settings import RequestLogSettings, with_reasons
from tidegate.cloud.request_log_table import nested, shape_of, table
from tidegate.errors import ConfigError

HERE = Path("kept")


@pytest.mark.parametrize(
    "fields",
    [
        {"share": -0.1},
        {"share": 1.1},
        {"share": float("nan")},
        {"uncertain_below": 2},
        {"maximum_age_s": 0},
        {"maximum_disk_bytes": 0},
        {"maximum_queue_records": 0},
        {"hook": "module"},
        {"hook": "module:"},
        {"hook": "a b:c"},
    ],
)
def test_settings_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        RequestLogSettings(HERE, **fields)


def test_reasons() -> None:
    settings = with_reasons(RequestLogSettings(HERE), ["error", "uncertain:0.6"])
    assert (settings.errors, settings.uncertain_below, settings.share) == (True, 0.6, 0.01)
    for wrong in ("", "errors", "uncertain", "uncertain:", "uncertain:x", "uncertain:7", "error:1"):
        with pytest.raises(ConfigError):
            with_reasons(RequestLogSettings(HERE), [wrong])


def test_which_models_and_inputs() -> None:
    settings = RequestLogSettings(HERE, models=frozenset({"a"}), never=frozenset({"face", "a/name"}))
    assert settings.keeps("a")
    assert not settings.keeps("b")
    assert RequestLogSettings(HERE).keeps("b")
    assert [settings.leaves_out(*pair) for pair in (("a", "face"), ("a", "name"), ("b", "name"), ("a", "x"))] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("labels", "outputs", "expected"),
    [
        ((), {"y": np.array([[0.7, 0.3], [0.4, 0.6]], np.float32)}, 0.6),
        ((), {"y": np.array([0.1, 0.9])}, 0.9),
        (("a", "b"), {"features": np.ones((1, 3)), "y": np.array([[0.2, 0.8]])}, 0.8),
        (("a", "b", "c"), {"y": np.array([[0.2, 0.8]])}, None),
        ((), {"y": np.array([[3.0, -1.0]])}, None),
        ((), {"y": np.array([[np.nan, 0.5]])}, None),
        ((), {"y": np.array([[1, 0]])}, None),
        ((), {"y": np.array([[0.5]])}, None),
        ((), {"y": np.zeros((0, 2))}, None),
        ((), {"y": np.full((), 0.5)}, None),
        ((), {}, None),
    ],
)
def test_confidence(
    tone_manifest: Manifest, labels: tuple[str, ...], outputs: dict[str, Any], expected: float | None
) -> None:
    found = confidence_of(msgspec.structs.replace(tone_manifest, labels=labels), outputs)
    assert found == (None if expected is None else pytest.approx(expected))


DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


@given(st.data())
def test_nested_lists_give_back_every_value(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    axes = data.draw(st.integers(0, 3))
    shapes = hnp.array_shapes(min_dims=axes, max_dims=axes, min_side=0, max_side=3) if axes else st.just(())
    cells = data.draw(st.lists(hnp.arrays(np.dtype(dtype), shapes), min_size=1, max_size=4))
    column = nested(cells)
    assert len(column) == len(cells)
    for found, cell in zip(column.to_pylist(), cells, strict=True):
        np.testing.assert_array_equal(np.array(found, cell.dtype).reshape(cell.shape), cell)


@given(st.data())
def test_stacked_rows_give_back_every_value(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    shapes = hnp.array_shapes(min_dims=axes, max_dims=axes, min_side=0, max_side=3)
    stacks = data.draw(st.lists(hnp.arrays(np.dtype("i4"), shapes), min_size=1, max_size=4))
    rows = [row for stack in stacks for row in stack]
    for found, row in zip(nested(stacks, stacked=True).to_pylist(), rows, strict=True):
        np.testing.assert_array_equal(np.array(found, np.int32).reshape(row.shape), row)


def test_text_becomes_bytes() -> None:
    cells = [np.array([[b"a", "ö"]], object), np.array([[b"", b"\xff"]], object)]
    assert nested(cells).to_pylist() == [[[b"a", "ö".encode()]], [[b"", b"\xff"]]]


def logged(rows: int, **fields: Any) -> LoggedRequest:
    values: dict[str, Any] = {
        "model": "m",
        "version": "1.0.0",
        "time_ns": 1_700_000_000_123_456_789,
        "reasons": ("random",),
        "share": 0.5,
        "inputs": {"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)},
        "outputs": {"y": np.arange(rows, dtype=np.int64).reshape(rows, 1)},
    }
    return LoggedRequest(**(values | fields))


def test_each_row_of_a_request_is_a_row_of_the_table() -> None:
    found = table([logged(2, id="a", rows_first=True), logged(1, id="b", rows_first=True)])
    assert found.column("x").to_pylist() == [[0, 1], [2, 3], [0, 1]]
    assert found.column("output.y").to_pylist() == [[0], [1], [0]]
    assert found.column("log.id").to_pylist() == ["a", "a", "b"]
    assert found.column("log.row").to_pylist() == [0, 1, 0]
    assert found.column("log.reasons").to_pylist() == [["random"]] * 3
    assert found.column("log.time").to_pylist()[0].isoformat() == "2023-11-14T22:13:20.123456+00:00"


def test_a_request_without_rows_is_one_row() -> None:
    found = table([logged(2)])
    assert found.column("x").to_pylist() == [[[0, 1], [2, 3]]]


def test_an_input_never_hides_what_the_log_says() -> None:
    record = logged(1, inputs={"log.model": np.zeros((1, 1)), "output.y": np.ones((1, 1))})
    found = table([record])
    assert found.column("log.model").to_pylist() == ["m"]
    assert found.column("input.log.model").to_pylist() == [[[0.0]]]
    assert found.column("input.output.y").to_pylist() == [[[1.0]]]


def test_unlike_requests_never_share_a_table() -> None:
    records: list[Record] = [
        logged(1),
        logged(1, rows_first=True),
        logged(1, inputs={"z": np.zeros((1, 2), np.float32)}),
        logged(1, inputs={"x": np.zeros((1, 2), np.float64)}),
        logged(1, inputs={"x": np.zeros((1, 2, 1), np.float32)}),
        LoggedSegment("m", "1.0.0", 0, (), 0.5, b"", 16_000, "", 0.0),
    ]
    assert len({shape_of(record) for record in records}) == len(records)


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        "text",
        logged(1, inputs={"x": [1, 2]}),
        logged(1, inputs={3: np.zeros(1)}),
        logged(1, model=None),
    ],
)
def test_what_a_hook_must_not_return(wrong: object) -> None:
    with pytest.raises(TypeError):
        check_record(wrong)
    check_record(None)
    check_record(logged(1))
