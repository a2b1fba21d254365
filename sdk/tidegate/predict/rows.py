"""What moves through a batch run: rows as they were read, and rows as they were answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import numpy_dtype

Cells = Array | Sequence[Any]
"""One column of some rows: an array [rows, ...], or a value a row, with None where there is none."""

Values = Array | list[Array]
"""One column of some answered rows: an array [rows, ...], or an array a row where their shapes differ."""


@dataclass(frozen=True)
class Rows:
    """Some rows of the input, in order."""

    first: int
    """number of the first of them in the input, from 0"""
    count: int
    cells: Mapping[str, Cells]
    """by column"""
    done: int
    """steps of the source that are behind us once these rows are"""
    faults: Mapping[int, str] = field(default_factory=dict)
    """what is wrong with a row itself, by its place in here; its cells are None"""


@dataclass(frozen=True)
class ColumnSpec:
    """One column of the output."""

    name: str
    dtype: str
    """name in the Open Inference Protocol"""
    rank: int
    """axes of one row's value; 0 for a single value"""


@dataclass(frozen=True)
class Fault:
    """A row that has no answer."""

    row: int
    """number in the input, from 0"""
    reason: str
    keys: Mapping[str, Any]
    """its key columns, as far as they could be read"""


def joined(parts: Sequence[Values], spec: ColumnSpec) -> Values:
    """Return the rows of several stretches as one; an array where all rows have one shape."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return np.empty((0,) * (spec.rank + 1), numpy_dtype(spec.dtype))
    shapes = {shape for part in filled for shape in shapes_of(part)}
    if len(shapes) > 1:
        return [row for part in filled for row in part]
    return np.concatenate([part if isinstance(part, np.ndarray) else stacked(part) for part in filled])


def shapes_of(values: Values) -> set[tuple[int, ...]]:
    """Return the shapes of single rows that occur."""
    if isinstance(values, np.ndarray):
        return {values.shape[1:]}
    return {row.shape for row in values}


def stacked(rows: Sequence[Array]) -> Array:
    """Return rows of one shape as an array [rows, ...]; unlike np.stack it takes objects as they are."""
    whole = np.empty((len(rows), *rows[0].shape), rows[0].dtype)
    for place, row in enumerate(rows):
        whole[place] = row if row.ndim else row[()]
    return whole


def chosen(values: Values, places: Sequence[int]) -> Values:
    """Return some of the rows."""
    if isinstance(values, np.ndarray):
        return values if len(places) == len(values) else values[np.asarray(places, np.intp)]
    return [values[place] for place in places]
