"""Table cells to rows: what is converted, what is refused, and that one bad cell spoils no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.predict.cells import Shape, column_values, vector_values
from tidegate.predict.rows import ColumnSpec, joined

GOOD: list[tuple[Any, str, Shape, list[Any]]] = [
    ([1.5, 2.5], "FP32", (), [1.5, 2.5]),
    ([1, 2], "FP64", (), [1.0, 2.0]),
    (["1.5", "-2"], "FP32", (), [1.5, -2.0]),
    (["3", "4"], "INT8", (), [3, 4]),
    (["3.0", "4"], "INT64", (), [3, 4]),
    ([3.0, 4.0], "UINT8", (), [3, 4]),
    ([2**63], "UINT64", (), [2**63]),
    ([0, 1], "BOOL", (), [False, True]),
    (["true", "0"], "BOOL", (), [True, False]),
    ([[1, 2], [3, 4]], "INT32", (2,), [[1, 2], [3, 4]]),
    (["[1, 2]", "[3, 4]"], "INT32", (2,), [[1, 2], [3, 4]]),
    ([[1, 2, 3, 4]], "FP32", (2, 2), [[[1, 2], [3, 4]]]),
    ([[[1, 2]]], "FP32", (2,), [[1, 2]]),
    ([5, 6], "FP32", (1,), [[5], [6]]),
    ([[1], [2, 3]], "INT16", (-1,), [[1], [2, 3]]),
    (["a", "[b"], "BYTES", (), [b"a", b"[b"]),
    ([b"\xff\x00"], "BYTES", (), [b"\xff\x00"]),
    ([["a", "bc"]], "BYTES", (2,), [[b"a", b"bc"]]),
    (['["a", "bc"]'], "BYTES", (-1,), [[b"a", b"bc"]]),
    (np.array(["a", "\u00e9"]), "BYTES", (), [b"a", "\u00e9".encode()]),
]  # fmt: skip

BAD: list[tuple[Any, str, Shape, str]] = [
    (None, "FP32", (), "is empty"),
    ("abc", "FP32", (), "holds text; expected a number, 'abc'"),
    (1.5, "INT32", (), "not whole"),
    (float("nan"), "INT32", (), "not whole"),
    (300, "UINT8", (), "outside UINT8, 0 to 255"),
    (-1, "UINT64", (), "outside UINT64"),
    (2.0**63, "INT64", (), "outside INT64"),
    (1e300, "FP32", (), "too large for FP32"),
    (70000, "FP16", (), "too large for FP16"),
    (2, "BOOL", (), "outside BOOL"),
    ("yes", "BOOL", (), "neither 0, 1"),
    ([1, 2, 3], "FP32", (2,), "has shape [3]; expected [2] a row"),
    ("[1, 2", "FP32", (2,), "truncated"),
    ({"a": 1}, "FP32", (), "something else than numbers"),
    (7, "BYTES", (), "int; expected text"),
    ([[1], [2, 3]], "FP32", (2, 2), "inhomogeneous"),
]


@pytest.mark.parametrize(("cells", "dtype", "shape", "expected"), GOOD, ids=str)
def test_cells_become_rows(cells: Any, dtype: str, shape: Shape, expected: list[Any]) -> None:
    values, faults = column_values(cells, "c", dtype, shape)
    assert not faults
    assert [row.tolist() for row in values] == expected if isinstance(values, list) else values.tolist() == expected


@pytest.mark.parametrize(("cell", "dtype", "shape", "reason"), BAD, ids=str)
def test_a_bad_cell_is_told_and_its_neighbours_stand(cell: Any, dtype: str, shape: Shape, reason: str) -> None:
    good: Any = "text" if dtype == "BYTES" else np.ones(shape).tolist()
    values, faults = column_values([good, cell, good], "c", dtype, shape)
    assert list(faults) == [1]
    assert faults[1].startswith("column 'c' ")
    assert reason in faults[1]
    assert [values[place].shape for place in (0, 2)] == [shape, shape]


@pytest.mark.parametrize("cell", ["x" * 10_000, b"\x01\x02" * 5_000], ids=["text", "bytes"])
def test_a_refusal_quotes_no_more_of_a_cell_than_is_readable(cell: str | bytes) -> None:
    _, faults = column_values([cell], "audio", "FP32", (-1,))
    assert "expected a number" in faults[0]
    assert len(faults[0]) < 200


def test_several_columns_make_a_vector() -> None:
    values, faults = vector_values([[1, None, 3], ["4", "5", "6"]], ["a", "b"], "FP32", (2,))
    assert faults == {1: "column 'a' is empty"}
    assert [values[0].tolist(), values[2].tolist()] == [[1, 4], [3, 6]]


def test_several_columns_must_be_as_many_as_the_input_takes() -> None:
    _, faults = vector_values([[1], [2]], ["a", "b"], "FP32", (3,))
    assert faults == {0: "2 columns are given; the input takes [3] a row"}


@given(st.lists(st.one_of(st.integers(-300, 300), st.none(), st.text("0123456789.x", max_size=4))))
def test_a_column_at_once_answers_as_its_cells_alone(cells: list[Any]) -> None:
    values, faults = column_values(cells, "c", "INT8", ())
    for place, cell in enumerate(cells):
        alone, fault = column_values([cell], "c", "INT8", ())
        assert (place in faults) == bool(fault)
        if not fault:
            assert int(values[place]) == int(alone[0])


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), max_size=8), st.integers(0, 8))
def test_rows_joined_are_the_rows(rows: list[list[int]], cut: int) -> None:
    spec = ColumnSpec("c", "INT64", 1)
    arrays = [np.array(row, np.int64) for row in rows]
    whole = joined([arrays[:cut], arrays[cut:]], spec)
    assert [row.tolist() for row in whole] == rows
