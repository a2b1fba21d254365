"""Representative data: rows of real input, for calibration and for the comparison with the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tidegate.bundle.arrays import Array, unpack_arrays
from tidegate.bundle.dtypes import is_float, numpy_dtype
from tidegate.bundle.manifest import Signature
from tidegate.convert.fixture import random_inputs
from tidegate.convert.spec import read_bytes
from tidegate.errors import ConfigError

CALIBRATION_ROWS = 1000
"""More rows move the ranges of activations very little, and each costs a run of the model."""
PARITY_ROWS = 200
GENERATED_ROWS = 8
"""Of random input, when there is no data."""

LIMIT_BYTES = 8 << 30

Rows = dict[str, Array]


def read_rows(data: str | Path | Mapping[str, Array] | None) -> Rows:
    """Return the arrays [rows, ...] by input name; nothing when there is no data.

    Args:
        data: arrays by name, or an .npz whose members are `input/NAME`, or bare `NAME`. Where there is any
            `input/NAME`, other members (`label`, `output/NAME` ...) are left out, so that an evaluation set or a golden
            fixture will do.

    Raises:
        NotFoundError: no such file.
        InputError: not an .npz.
        ConfigError: no arrays, no rows, or arrays with different numbers of rows.
    """
    if data is None:
        return {}
    if isinstance(data, Mapping):
        origin, arrays = "the representative data", {name: _as_rows(array) for name, array in data.items()}
    else:
        origin = str(data)
        raw = read_bytes(Path(data), "representative data", fix="check the path")
        arrays = unpack_arrays(raw, origin=origin, limit_bytes=LIMIT_BYTES)
    inputs = {name.removeprefix("input/"): array for name, array in arrays.items() if name.startswith("input/")}
    rows = inputs or {name: array for name, array in arrays.items() if "/" not in name}
    if not rows:
        raise ConfigError(f"{origin} holds no inputs", fix="save one array for each input, named input/NAME")
    counts = {name: len(array) if array.ndim else 0 for name, array in rows.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        found = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise ConfigError(
            f"{origin}: the first axis of every input is the row, but there are {found} rows",
            fix="give every input the same number of rows, at least one",
        )
    return rows


def checked_rows(rows: Rows, names: list[str], origin: str) -> Rows:
    """Return the rows in the order of the model's inputs.

    Raises:
        ConfigError: they are named differently.
    """
    if rows.keys() != set(names):
        raise ConfigError(
            f"the representative data has the inputs {', '.join(map(repr, rows))}; {origin} takes "
            f"{', '.join(map(repr, names))}",
            fix="name the arrays as the model names its inputs: input/NAME",
        )
    return {name: rows[name] for name in names}


def fitted_rows(rows: Rows, signature: Signature, origin: str) -> Rows:
    """Return the rows with the dtypes of the signature, so that float64 of a notebook will do for float32.

    Raises:
        ConfigError: other names, or a kind of number that the model does not take.
    """
    checked = checked_rows(rows, [spec.name for spec in signature.inputs], origin)
    fitted: Rows = {}
    for spec in signature.inputs:
        array = _cast(checked[spec.name], numpy_dtype(spec.dtype), spec.name)
        # One value a row is a column of one.
        fitted[spec.name] = array[:, None] if array.ndim == 1 and spec.shape[1:] == (1,) else array
    return fitted


def generated_rows(signature: Signature) -> Rows:
    """Return a few seeded random rows; one alone where the first axis is not free."""
    parts = [random_inputs(signature, seed) for seed in range(GENERATED_ROWS)]
    if all(spec.shape and spec.shape[0] == -1 for spec in signature.inputs):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return parts[0]


def calls(rows: Rows, shapes: Mapping[str, tuple[int | None, ...]], limit: int = CALIBRATION_ROWS) -> Iterator[Rows]:
    """Yield the feeds of one call after another, as many rows each as the model's first axis asks for.

    Args:
        rows: arrays [rows, ...] by input name.
        shapes: of the model's inputs; None or -1 for a free axis.
        limit: rows to use.
    """
    count = min(limit, len(next(iter(rows.values()))))
    if all(rows[name].ndim == len(shape) + 1 for name, shape in shapes.items()):
        yield from ({name: np.asarray(array[row]) for name, array in rows.items()} for row in range(count))
        return
    sizes = [shape[0] for shape in shapes.values() if shape and shape[0] not in (None, -1)]
    size = sizes[0] if sizes and sizes[0] else 1
    for first in range(0, max(count - size, 0) + 1, size):
        yield {name: array[first : first + size] for name, array in rows.items()}


def _cast(array: Array, wanted: np.dtype[np.generic], name: str) -> Array:
    if array.dtype == wanted:
        return array
    if is_float(wanted) and (is_float(array.dtype) or array.dtype.kind in "iub"):
        return array.astype(wanted)
    if {array.dtype.kind, wanted.kind} <= {"i", "u"}:
        return array.astype(wanted)
    raise ConfigError(
        f"the representative data has {array.dtype} for input {name!r}; the model takes {wanted}",
        fix="save the array with the model's own dtype",
    )


def _as_rows(array: Array) -> Array:
    plain = np.asarray(array)
    if plain.dtype.kind == "U":
        plain = np.char.encode(plain, "utf-8")
    return plain.astype(object) if plain.dtype.kind == "S" else plain
