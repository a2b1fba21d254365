"""Table cells to arrays: numbers, text and nested lists as they stand in files become what an input takes.

A table does not know float32 from float64, so numbers are converted as long as they stay what they are: any number to a
float, a whole number to an integer that can hold it, 0 and 1 to a boolean. Text that spells a number counts as that
number, and text that begins with `[` as a JSON list, since CSV has nothing else. Whole columns are converted at once;
where that fails, cell by cell, so that one bad row does not touch the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import is_float, numpy_dtype
from tidegate.errors import InputError
from tidegate.predict.rows import Cells, Values
from tidegate.runtime.validation import describe_shape

Shape = tuple[int, ...]

_FIX = "mend the row, or leave bad rows out with on_error skip"

SHOWN = 20
"""Letters or bytes of a cell that a refusal quotes."""

_UNFIT = (InputError, ValueError, TypeError, OverflowError, msgspec.DecodeError)
"""What numpy and the JSON reader raise on cells that are not what was expected."""


def column_values(cells: Cells, name: str, dtype: str, shape: Shape) -> tuple[Values, dict[int, str]]:
    """Return one column as rows of a dtype and shape.

    Args:
        cells: as they were read.
        name: of the column, for reasons.
        dtype: name in the Open Inference Protocol.
        shape: of one row; -1 for a free axis.

    Returns:
        The rows, and the reason of each that has none, by place. Such a row's value is an empty array.
    """
    try:
        return _fitted(_converted(cells, dtype), shape), {}
    except _UNFIT:
        return _one_by_one(cells, name, dtype, shape)


def vector_values(
    columns: Sequence[Cells], names: Sequence[str], dtype: str, shape: Shape
) -> tuple[Values, dict[int, str]]:
    """Return several columns of single values as rows that are vectors; otherwise as `column_values`."""
    parts: list[Array] = []
    faults: dict[int, str] = {}
    for cells, name in zip(columns, names, strict=True):
        values, wrong = column_values(cells, name, dtype, ())
        faults = wrong | faults
        parts.append(values if isinstance(values, np.ndarray) else _scalars(values, wrong, dtype))
    whole: Array = np.stack(parts, axis=1)
    if len(shape) != 1 or shape[0] not in (-1, len(names)):
        reason = f"{len(names)} columns are given; the input takes {describe_shape(shape)} a row"
        return whole, dict.fromkeys(range(len(whole)), reason)
    return whole, faults


def _one_by_one(cells: Cells, name: str, dtype: str, shape: Shape) -> tuple[Values, dict[int, str]]:
    rows: list[Array] = []
    faults: dict[int, str] = {}
    for place, cell in enumerate(cells):
        try:
            opened = _opened(cell) if dtype != "BYTES" or shape else cell
            # With the ellipsis a single value stays an array.
            rows.append(_fitted(_converted([opened], dtype), shape)[0, ...])
        except _UNFIT as error:
            found = error.message if isinstance(error, InputError) else str(error)
            faults[place] = f"column {name!r} {'is empty' if cell is None else found}"
            rows.append(np.empty(0, numpy_dtype(dtype)))
    return rows, faults


def _opened(cell: Any) -> Any:
    return msgspec.json.decode(cell) if isinstance(cell, str) and cell.lstrip().startswith("[") else cell


def _converted(cells: Cells, dtype: str) -> Array:
    """Return cells as an array [rows, ...] of a dtype; raises what is in `_UNFIT`."""
    if dtype == "BYTES":
        return _texts(cells)
    target = numpy_dtype(dtype)
    array = cells if isinstance(cells, np.ndarray) else np.asarray(cells)
    if array.dtype.kind == "O":
        # Numbers in an array of objects are numbers all the same; what is not stays an object.
        array = np.asarray(array.tolist())
    if array.dtype.kind in "SU":
        array = _spelt(array, target)
    if array.dtype.kind not in "biu" and not is_float(array.dtype):
        raise InputError(f"holds something else than numbers; expected {dtype}", fix=_FIX)
    return _cast(array, target, dtype)


def _spelt(array: Array, target: np.dtype[Any]) -> Array:
    """Return the numbers that text spells."""
    if target.kind == "b":
        words = np.char.lower(array.astype(np.str_))
        if not np.isin(words, ("0", "1", "true", "false")).all():
            raise InputError("is neither 0, 1, true nor false", fix=_FIX)
        return np.isin(words, ("1", "true"))
    if target.kind in "iu":
        try:
            return array.astype(np.uint64 if target == np.uint64 else np.int64)
        except ValueError:  # perhaps "3.0"
            return _floats(array)
    return _floats(array)


def _floats(array: Array) -> Array:
    """Return the numbers that text spells; a refusal shows the beginning of one cell, which may be very long."""
    try:
        return array.astype(np.float64)
    except ValueError as error:
        cells = array.reshape(-1).tolist()
        kind = "bytes" if array.dtype.kind == "S" else "text"
        quoted = f", {cells[0][:SHOWN]!r}{'...' if len(cells[0]) > SHOWN else ''}" if len(cells) == 1 else ""
        raise InputError(f"holds {kind}; expected a number{quoted}", fix=_FIX) from error


def _cast(array: Array, target: np.dtype[Any], dtype: str) -> Array:
    if array.dtype == target:
        return array
    if is_float(target):
        with np.errstate(over="ignore"):
            converted = array.astype(target)
        if (np.isinf(converted) & np.isfinite(array)).any():
            raise InputError(f"holds a number that is too large for {dtype}", fix=_FIX)
        return converted
    if is_float(array.dtype) and not (array == np.floor(array)).all():
        raise InputError(f"holds a number that is not whole; expected {dtype}", fix=_FIX)
    lowest, highest = (0, 1) if target.kind == "b" else (int(np.iinfo(target).min), int(np.iinfo(target).max))
    # A float cannot hold the highest 64-bit integer, but it holds the one after it.
    if array.size and (array.min() < lowest or array.max() >= highest + 1):
        raise InputError(f"holds a number outside {dtype}, {lowest} to {highest}", fix=_FIX)
    return array.astype(target)


def _texts(cells: Cells) -> Array:
    """Return text as an object array of `bytes`."""
    array = cells if isinstance(cells, np.ndarray) else _objects(cells)
    if array.dtype.kind not in "SUO":
        raise InputError(f"is {array.dtype}; expected text", fix=_FIX)
    found = np.empty(array.size, object)
    found[:] = [_encoded(item) for item in array.reshape(-1).tolist()]
    return found.reshape(array.shape)


def _objects(cells: Sequence[Any]) -> Array:
    """Return values or nested lists of them as an object array; numpy would take the letters of text for a width."""
    if all(isinstance(cell, str | bytes) for cell in cells):
        flat = np.empty(len(cells), object)
        flat[:] = cells
        return flat
    return np.array(cells, dtype=object)


def _encoded(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str):
        raise InputError(f"holds {'nothing' if item is None else type(item).__name__}; expected text", fix=_FIX)
    return item.encode()


def _fitted(array: Array, shape: Shape) -> Array:
    """Return rows in the shape asked for; a flat list is taken row-major where the shape is fixed."""
    row = array.shape[1:]
    if _matches(row, shape):
        return array
    if -1 not in shape and len(row) <= 1 and math.prod(row) == math.prod(shape):
        return array.reshape(len(array), *shape)
    if row[:1] == (1,) and _matches(row[1:], shape):
        return array.reshape(len(array), *row[1:])
    raise InputError(f"has shape {list(row)}; expected {describe_shape(shape)} a row", fix=_FIX)


def _matches(row: Shape, shape: Shape) -> bool:
    return len(row) == len(shape) and all(fixed in (-1, size) for fixed, size in zip(shape, row, strict=True))


def _scalars(values: list[Array], faults: dict[int, str], dtype: str) -> Array:
    """Return single values as a vector; places without one hold zero or nothing."""
    whole: Array = np.zeros(len(values), numpy_dtype(dtype))
    for place, value in enumerate(values):
        if place not in faults:
            whole[place] = value[()]
    return whole
