"""The arrays of every timed call: given ones, else the golden fixture's, else random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Signature, TensorSpec
from tidegate.bundle.dtypes import is_float, numpy_dtype
from tidegate.errors import ConfigError, InputError

Array = NDArray[Any]
Origin = Literal["file", "golden", "random"]

SEED = 20_240_229
FREE_AXIS_SIZE = 64
"""Used for a free axis behind the first when only random data is at hand."""


class InputRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What went into every call."""

    origin: Origin
    rows_per_call: int
    """size of the free first axis; 1 where the shape is fixed"""
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    """OIP datatypes by input"""
    notes: tuple[str, ...]
    """what was chosen for the user"""


@dataclass(frozen=True)
class Feeds:
    """Arrays by input name, and where they come from."""

    arrays: dict[str, Array]
    record: InputRecord


def make_feeds(
    signature: Signature,
    *,
    batch: int | None = None,
    given: Mapping[str, Array] | None = None,
    golden: Mapping[str, Array] | None = None,
) -> Feeds:
    """Choose the input of every call.

    Args:
        signature: names, dtypes and shapes that the arrays must have.
        batch: rows per call; default all rows of `given`, else 1.
        given: the user's arrays by input name.
        golden: the golden fixture's inputs by name.

    Raises:
        ConfigError: `batch` is not a positive number, or the first axis is fixed at another size.
        InputError: `given` does not fit the signature.
    """
    specs = signature.inputs
    _check_batch(specs, batch)
    notes: list[str] = []
    if given is not None:
        origin: Origin = "file"
        _check_names(specs, given)
        arrays = {spec.name: given[spec.name] for spec in specs}
        if batch is not None:
            arrays = {spec.name: _rows(spec, arrays[spec.name], batch, notes) for spec in specs}
    elif golden is not None and all(spec.name in golden for spec in specs):
        origin = "golden"
        arrays = {spec.name: _rows(spec, golden[spec.name], batch or 1, notes) for spec in specs}
    else:
        origin = "random"
        generator = np.random.default_rng(SEED)
        arrays = {spec.name: _random(spec, batch or 1, generator, notes) for spec in specs}
    for spec in specs:
        _check_fit(spec, arrays[spec.name])
    return Feeds(
        arrays=arrays,
        record=InputRecord(
            origin=origin,
            rows_per_call=_rows_per_call(specs, arrays),
            shapes={spec.name: arrays[spec.name].shape for spec in specs},
            dtypes={spec.name: spec.dtype for spec in specs},
            notes=tuple(notes),
        ),
    )


def _check_batch(specs: tuple[TensorSpec, ...], batch: int | None) -> None:
    if batch is None:
        return
    if batch < 1:
        raise ConfigError(f"the batch is {batch}; expected 1 or more", fix="correct --batch")
    for spec in specs:
        if not spec.shape or spec.shape[0] not in (-1, batch):
            raise ConfigError(
                f"input {spec.name!r} has the fixed shape {list(spec.shape)}; a batch of {batch} does not fit",
                fix="leave --batch out, or build the model with a free first axis",
            )


def _check_names(specs: tuple[TensorSpec, ...], given: Mapping[str, Array]) -> None:
    expected = {spec.name for spec in specs}
    if set(given) != expected:
        raise InputError(
            f"the input file has arrays {sorted(given)}; expected {sorted(expected)}",
            fix="name the arrays of the .npz as the model's inputs",
        )


def _check_fit(spec: TensorSpec, array: Array) -> None:
    fits = len(spec.shape) == array.ndim and all(
        wanted in (-1, found) for wanted, found in zip(spec.shape, array.shape, strict=True)
    )
    if not fits or array.dtype != numpy_dtype(spec.dtype):
        raise InputError(
            f"input {spec.name!r} is {array.dtype} {list(array.shape)}; expected {spec.dtype} {list(spec.shape)}",
            fix="give arrays of the dtype and shape that `tidegate inspect` shows",
        )


def _rows(spec: TensorSpec, array: Array, rows: int, notes: list[str]) -> Array:
    """Take the first rows of a free first axis, beginning again from the top when there are too few."""
    if not spec.shape or spec.shape[0] != -1 or array.ndim == 0 or len(array) == 0:
        return array
    if len(array) < rows:
        notes.append(f"the {len(array)} rows of {spec.name!r} are repeated to make {rows}")
    return np.ascontiguousarray(array[np.arange(rows) % len(array)])


def _random(spec: TensorSpec, rows: int, generator: np.random.Generator, notes: list[str]) -> Array:
    shape = tuple(size if size != -1 else rows if axis == 0 else FREE_AXIS_SIZE for axis, size in enumerate(spec.shape))
    if -1 in spec.shape[1:]:
        notes.append(f"free axes of {spec.name!r} behind the first are set to {FREE_AXIS_SIZE}")
    dtype = numpy_dtype(spec.dtype)
    if is_float(dtype):
        return np.asarray(generator.uniform(-1, 1, shape)).astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, b"tide", dtype=object)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.asarray(generator.integers(limits.min, limits.max, shape, endpoint=True, dtype=dtype))
    # Wider integers are often indices into a table of unknown length: 0 and 1 are the safe ones.
    return np.asarray(generator.integers(0, 1, shape, endpoint=True)).astype(dtype)


def _rows_per_call(specs: tuple[TensorSpec, ...], arrays: Mapping[str, Array]) -> int:
    for spec in specs:
        if spec.shape and spec.shape[0] == -1:
            return int(arrays[spec.name].shape[0])
    return 1
