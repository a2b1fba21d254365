"""Which columns feed which input, and how many rows one call of the model takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import ConfigError
from tidegate.predict.rows import ColumnSpec
from tidegate.predict.settings import PredictSettings
from tidegate.predict.sources.directory import CONTENT

READ_BYTES = 4 << 20
"""Rows are read in stretches of about this size: few calls into the reader, little memory."""

MOST_BATCHES = 32

BYTES_GUESS = 64
"""Memory of one text, for the size of a stretch."""


@dataclass(frozen=True)
class Plan:
    """How rows become calls."""

    columns: Mapping[str, tuple[str, ...]]
    """by input"""
    row_shapes: Mapping[str, tuple[int, ...]]
    """of one row of each input; -1 for a free axis"""
    call_rows: int
    """rows a call; 0: each row is a call, with whole inputs"""
    padded: bool
    """whether the model takes exactly `call_rows`"""
    read_rows: int
    """rows read at a time, a multiple of `call_rows`"""
    outputs: tuple[ColumnSpec, ...]


def make_plan(signature: Signature, source_columns: Sequence[str], settings: PredictSettings) -> Plan:
    """Fit a model to a source.

    Where the first axis is free in every input, or of the same size in all, it is the row. Otherwise, or when asked
    for, each row holds whole inputs.

    Args:
        signature: of the model.
        source_columns: that can be mapped.
        settings: mapping and batch.

    Raises:
        ConfigError: an input without a column, or a mapping of an input that is not there.
    """
    columns = _mapping(signature, source_columns, settings)
    first = {spec.shape[0] if spec.shape else 0 for spec in signature.inputs}
    rows_first = len(first) == 1 and first != {0} and not settings.whole_inputs
    (fixed,) = first if rows_first else (0,)
    call_rows = settings.batch_rows if fixed == -1 else fixed
    shapes = {spec.name: spec.shape[1:] if rows_first else spec.shape for spec in signature.inputs}
    return Plan(
        columns=columns,
        row_shapes=shapes,
        call_rows=call_rows,
        padded=fixed > 0,
        read_rows=_read_rows(signature, shapes, max(call_rows, 1)),
        outputs=tuple(
            ColumnSpec(spec.name, spec.dtype, max(0, len(spec.shape) - (1 if rows_first else 0)))
            for spec in signature.outputs
        ),
    )


def _mapping(
    signature: Signature, source_columns: Sequence[str], settings: PredictSettings
) -> dict[str, tuple[str, ...]]:
    names = [spec.name for spec in signature.inputs]
    for name in settings.columns:
        if name not in names:
            raise ConfigError(
                f"there is no input {name!r} to map; the model's inputs are {', '.join(map(repr, names))}",
                fix="map inputs as INPUT=COLUMN",
            )
    mapped = {name: settings.columns.get(name, (name,)) for name in names}
    if names and len(names) == 1 and not settings.columns and names[0] not in source_columns:
        # The files of a directory have no names but their own, so the only input takes what is in them.
        mapped = {names[0]: (CONTENT,)} if CONTENT in source_columns else mapped
    missing = [(name, column) for name, columns in mapped.items() for column in columns if column not in source_columns]
    if missing:
        name, column = missing[0]
        raise ConfigError(
            f"input {name!r} has no column {column!r}; there are {', '.join(map(repr, source_columns)) or 'none'}",
            fix=f"map it with --column {name}=COLUMN, or {name}=COLUMN,COLUMN for a vector",
        )
    return mapped


def _read_rows(signature: Signature, shapes: Mapping[str, tuple[int, ...]], call_rows: int) -> int:
    """Return how many rows to read at a time; one batch where the size of a row cannot be told."""
    if any(-1 in shape for shape in shapes.values()):
        return call_rows
    row_bytes = sum(_bytes(spec, shapes[spec.name]) for spec in signature.inputs)
    return call_rows * max(1, min(MOST_BATCHES, READ_BYTES // max(1, row_bytes * call_rows)))


def _bytes(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * (BYTES_GUESS if spec.dtype == "BYTES" else numpy_dtype(spec.dtype).itemsize)
