"""Whether the rows of a model's inputs are independent of each other: the condition for requests to share a run.

A free first axis does not say so: it may be time, or the model may normalise over the batch. So it is tried out before
the first request: each row's answer must be the same whether other rows are there or not.
"""

from __future__ import annotations

import numpy as np

from tidegate.bundle import GoldenFixture, Signature
from tidegate.bundle.dtypes import is_float, numpy_dtype
from tidegate.cloud.queueing import Arrays
from tidegate.errors import InputError, ModelError
from tidegate.runtime import Model

TRIED_SIZE = 4
"""Of free axes other than the first."""

RELATIVE_TOLERANCE = 1e-3
"""Runtimes add up in another order for another number of rows."""

ABSOLUTE_TOLERANCE = 1e-5


def has_batch_axis(signature: Signature) -> bool:
    """Say whether every input and output has a free first axis."""
    return all(spec.shape and spec.shape[0] == -1 for spec in (*signature.inputs, *signature.outputs))


def rows_are_independent(model: Model, golden: GoldenFixture | None) -> bool:
    """Try the model with two requests apart and joined, and say whether the answers are the same.

    Args:
        model: loaded; it runs three times or not at all.
        golden: gives the rows where the bundle has a fixture; otherwise they are made up.
    """
    signature = model.signature
    if not has_batch_axis(signature):
        return False
    first, second = _two_requests(signature, golden)
    if first[0].shape[0] == 0 or any(a.shape[0] != first[0].shape[0] for a in first):
        return False
    names = [spec.name for spec in signature.inputs]
    try:
        apart = [model.run(dict(zip(names, arrays, strict=True))) for arrays in (first, second)]
        joined = model.run({name: np.concatenate(pair) for name, *pair in zip(names, first, second, strict=True)})
    except (InputError, ModelError):
        # Made-up numbers, such as an index that is out of range, or a model that cannot take two rows.
        return False
    for spec in signature.outputs:
        pair = [outputs[spec.name] for outputs in apart]
        whole = joined[spec.name]
        if any(part.shape[0] != first[0].shape[0] or part.shape[1:] != whole.shape[1:] for part in pair):
            return False
        expected = np.concatenate(pair)
        if whole.shape != expected.shape:
            return False
        if is_float(whole.dtype):
            if not np.allclose(whole, expected, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE, equal_nan=True):
                return False
        elif not np.array_equal(whole, expected):
            return False
    return True


def _two_requests(signature: Signature, golden: GoldenFixture | None) -> tuple[Arrays, Arrays]:
    """Return two requests of the same shapes with unlike rows."""
    if golden is not None:
        arrays = tuple(golden.inputs[spec.name] for spec in signature.inputs)
        # Other rows in another order: what carries over from row to row, or from the whole batch, is found out.
        return arrays, tuple(np.roll(array[::-1], 1, axis=-1) if array.ndim > 1 else array[::-1] for array in arrays)
    random = np.random.default_rng(1)
    requests = []
    for scale in (1, 3):
        made = []
        for spec in signature.inputs:
            shape = [2, *(TRIED_SIZE if size == -1 else size for size in spec.shape[1:])]
            if spec.dtype == "BYTES":
                array = np.full(shape, str(scale).encode(), object)
            else:
                array = (random.random(shape) * scale).astype(numpy_dtype(spec.dtype))
            made.append(array)
        requests.append(tuple(made))
    return requests[0], requests[1]
