"""Tables, and arrays of any other form."""

from __future__ import annotations

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.profile.measures.column import Column, flat, in_chunks
from tidegate.profile.measures.text import text_columns

COLUMNS = 64
"""An array with more values a row is measured as a whole."""


def table_columns(array: Array) -> dict[str, Column]:
    """Return each value of a row [rows, ...] as `column/INDEX`, or as `value` when there is one."""
    values = flat(array)
    if values.shape[1] == 1:
        return {"value": Column.full(values[:, 0])}
    return {f"column/{index}": Column.full(values[:, index]) for index in range(values.shape[1])}


def text_table_columns(array: Array) -> dict[str, Column]:
    """Return the measures of each string of a row [rows, ...], after `column/INDEX/` when there are several."""
    values = flat(array)
    if values.shape[1] == 1:
        return text_columns(values[:, 0])
    return {
        f"column/{index}/{name}": column
        for index in range(min(values.shape[1], COLUMNS))
        for name, column in text_columns(values[:, index]).items()
    }


def array_columns(array: Array) -> dict[str, Column]:
    """Return `mean`, `deviation`, `minimum` and `maximum` of all values of a row; NaN inside makes a row null."""
    values = flat(array)
    measured = np.zeros((4, len(values)))
    empty = np.full(len(values), values.shape[1] == 0)
    for rows in in_chunks(len(values), values.shape[1]) if values.shape[1] else []:
        with np.errstate(invalid="ignore", over="ignore"):
            part = values[rows].astype(np.float64)
            measured[:, rows] = (part.mean(axis=1), part.std(axis=1), part.min(axis=1), part.max(axis=1))
    names = ("mean", "deviation", "minimum", "maximum")
    return {name: Column(column, empty) for name, column in zip(names, measured, strict=True)}
