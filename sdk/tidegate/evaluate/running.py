"""Run a model on all rows, in batches where the model takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tidegate.bundle import Signature
from tidegate.bundle.arrays import Array
from tidegate.errors import InputError, ModelError
from tidegate.runtime import Model

BATCH_ROWS = 32
"""Of a model whose first axis is free. A larger batch is hardly faster on a CPU and takes more memory."""

Progress = Callable[[int], None]
"""Receives how many rows are behind us."""


def run_rows(model: Model, inputs: Mapping[str, Array], origin: str, progress: Progress) -> dict[str, Array]:
    """Return every output [rows, ...] by name.

    Three kinds of models: the first axis is free (batches of `BATCH_ROWS`), fixed (batches of that size, the last one
    filled up with its last row and cut off again), or no row axis at all, when the data has one axis more than the
    model (one call a row).

    Raises:
        InputError: the arrays do not fit the model.
        ModelError: the runtime failed, or an output has another number of rows than the input.
    """
    rows = len(next(iter(inputs.values())))
    size, has_row_axis = _call_size(model.signature, inputs, origin)
    parts: dict[str, list[Array]] = {spec.name: [] for spec in model.signature.outputs}
    for first, feeds, count in _calls(inputs, rows, size, has_row_axis, padded=_is_fixed(model.signature)):
        outputs = model.run(feeds)
        for name, pieces in parts.items():
            pieces.append(_rows_of(outputs[name], count, size if has_row_axis else 0, name))
        progress(first + count)
    return {name: _joined(pieces, name) for name, pieces in parts.items()}


def _call_size(signature: Signature, inputs: Mapping[str, Array], origin: str) -> tuple[int, bool]:
    """Return the rows of one call, and whether the model's inputs have a row axis."""
    extra = {spec.name: inputs[spec.name].ndim - len(spec.shape) for spec in signature.inputs}
    if set(extra.values()) == {1}:
        return 1, False
    for spec in signature.inputs:
        if extra[spec.name] != 0:
            raise InputError(
                f"{origin}: input/{spec.name} has shape {list(inputs[spec.name].shape)}; the model takes "
                f"{list(spec.shape)}, and the first axis of the data is the row",
                fix="reshape the array to [rows, ...]",
            )
    first = {spec.shape[0] for spec in signature.inputs if spec.shape}
    fixed = sorted(first - {-1})
    if len(fixed) > 1:
        raise InputError(
            f"{origin}: the model's inputs have different first axes ({fixed}), so rows cannot be told apart",
            fix="give the data one axis more, so that each row is one call",
        )
    return (fixed[0] if fixed else BATCH_ROWS), True


def _is_fixed(signature: Signature) -> bool:
    return any(spec.shape and spec.shape[0] > 0 for spec in signature.inputs)


def _calls(
    inputs: Mapping[str, Array], rows: int, size: int, has_row_axis: bool, *, padded: bool
) -> Iterator[tuple[int, dict[str, Array], int]]:
    """Yield the first row, the feeds and the number of rows of each call."""
    for first in range(0, rows, size):
        count = min(size, rows - first)
        if not has_row_axis:
            # np.asarray, because numpy hands out an element of a vector as a scalar.
            yield first, {name: np.asarray(array[first]) for name, array in inputs.items()}, 1
            continue
        feeds = {name: array[first : first + count] for name, array in inputs.items()}
        if padded and count < size:
            feeds = {
                name: np.concatenate([part, part[-1:].repeat(size - count, axis=0)]) for name, part in feeds.items()
            }
        yield first, feeds, count


def _rows_of(output: Array, count: int, called: int, name: str) -> Array:
    """Return an output of one call as [count, ...]; `called` is 0 when the model has no row axis."""
    if called == 0 or (called == 1 and (output.ndim == 0 or len(output) != 1)):
        return output[None]
    if output.ndim == 0 or len(output) not in (count, called):
        raise ModelError(
            f"output {name!r} has shape {list(output.shape)} for {count} rows; expected [{count}, ...]",
            fix="export the model with a free first axis, or with one row a call",
        )
    return output[:count]


def _joined(pieces: list[Array], name: str) -> Array:
    shapes = {piece.shape[1:] for piece in pieces}
    if len(shapes) > 1:
        found = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise ModelError(
            f"output {name!r} changes its shape from row to row: {found}",
            fix="evaluate a model whose outputs have a fixed shape",
        )
    return np.concatenate(pieces)
