"""Checks of the caller's arrays against a signature, before any runtime sees them.

Nothing is cast: an array of another dtype is an error that names both, so that a float64 never becomes a float32
unnoticed and a wrong integer type never reads as noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import is_bfloat16, is_float, numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import InputError
from tidegate.runtime.backends.protocol import Array


def checked_feeds(signature: Signature, feeds: Mapping[str, Any]) -> list[Array]:
    """Return the arrays in the signature's order, after checking names, dtypes, shapes and numbers.

    Raises:
        InputError: a name is missing or unknown, or an array does not fit its input.
    """
    expected = [spec.name for spec in signature.inputs]
    missing = [name for name in expected if name not in feeds]
    unknown = [name for name in feeds if name not in expected]
    if missing or unknown:
        raise InputError(
            "; ".join(
                [f"input {name!r} is missing" for name in missing] + [f"there is no input {name!r}" for name in unknown]
            )
            + f"; the model's inputs are {', '.join(map(repr, expected))}",
            fix="give one array for each input, by its name",
        )
    return [checked_array(spec, feeds[spec.name]) for spec in signature.inputs]


def checked_array(spec: TensorSpec, value: Any) -> Array:
    """Return one input as an array of the stated dtype and a shape that fits.

    Raises:
        InputError: not an array, or its dtype, rank, a fixed dimension or a NaN does not fit.
    """
    array = _array_of_dtype(spec, value)
    if array.ndim != len(spec.shape) or any(
        fixed not in (-1, size) for fixed, size in zip(spec.shape, array.shape, strict=True)
    ):
        raise InputError(
            f"input {spec.name!r} has shape {list(array.shape)}; expected {describe_shape(spec.shape)}",
            fix="reshape the array, or add the batch axis",
        )
    if spec.finite:
        check_finite(spec, array)
    return array


def check_finite(spec: TensorSpec, array: Array) -> None:
    """Refuse NaN and infinities; integers, booleans and strings hold none.

    Raises:
        InputError: says how many of each.
    """
    if is_float(array.dtype) and not np.isfinite(array).all():
        raise InputError(
            f"input {spec.name!r} holds {_count_not_finite(array)}; expected finite numbers only",
            fix="find out where they come from; a bad sensor or a division by zero is the usual cause",
        )


def describe_shape(shape: tuple[int, ...]) -> str:
    """Return a shape for people: `[any, 64]`."""
    return "[" + ", ".join("any" if size == -1 else str(size) for size in shape) + "]"


def _array_of_dtype(spec: TensorSpec, value: Any) -> Array:
    expected = numpy_dtype(spec.dtype)
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"input {spec.name!r} is a {type(value).__name__}; expected a numpy array of {_describe(expected)}",
            fix=f"np.asarray(value, dtype={_in_code(expected)})",
        )
    array = value if type(value) is np.ndarray else np.asarray(value)
    if spec.dtype == "BYTES":
        return _strings(spec, array)
    if array.dtype != expected:
        raise InputError(
            f"input {spec.name!r} has dtype {array.dtype}; expected {_describe(expected)}",
            fix=f"array.astype({_in_code(expected)}), if that is what you mean",
        )
    return array


def _strings(spec: TensorSpec, array: Array) -> Array:
    """Return an object array of `bytes`, from numpy strings or from objects that are all `bytes` or `str`."""
    if array.dtype.kind not in "SUO":
        raise InputError(
            f"input {spec.name!r} has dtype {array.dtype}; expected BYTES: an object array of bytes",
            fix="np.array([b'...'], dtype=object)",
        )
    items = array.reshape(-1).tolist()
    strangers = {type(item).__name__ for item in items if not isinstance(item, bytes | str)}
    if strangers:
        raise InputError(
            f"input {spec.name!r} holds {', '.join(sorted(strangers))}; expected bytes or str in every place",
            fix="np.array([b'...'], dtype=object)",
        )
    encoded = np.empty(array.shape, object)
    encoded.reshape(-1)[:] = [item.encode() if isinstance(item, str) else item for item in items]
    return encoded


def _describe(dtype: np.dtype[Any]) -> str:
    return "BYTES (dtype object)" if dtype.kind == "O" else str(dtype)


def _in_code(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "O":
        return "object"
    return f"{'ml_dtypes' if is_bfloat16(dtype) else 'np'}.{dtype}"


def _count_not_finite(array: Array) -> str:
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    return " and ".join(text for count, text in ((nan, f"{nan} NaN"), (infinite, f"{infinite} infinite")) if count)
