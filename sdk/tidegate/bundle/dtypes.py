"""Tensor dtypes: the Open Inference Protocol's names are the canonical ones, numpy's are what runs.

BYTES is an array of `bytes` objects (numpy `object`), as the protocol's clients use it. BF16 is the bfloat16 of
`ml_dtypes`, which is imported when a BF16 tensor is first met: numpy alone has no such dtype. `ai-edge-litert`, `onnx`
and TensorFlow bring that package; beside `onnxruntime` alone it is 24 MB for a type that most models do not have.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tidegate.errors import DependencyError, InputError

NUMPY_BY_NAME: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""Those of numpy itself: all but BF16."""

BF16 = "BF16"

NAMES: frozenset[str] = frozenset(NUMPY_BY_NAME) | {BF16}

_NAME_BY_NUMPY = {dtype: name for name, dtype in NUMPY_BY_NAME.items()}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype that carries the OIP datatype `name`; the same object each time.

    Raises:
        InputError: `name` is not an OIP datatype.
        DependencyError: it is BF16, and `ml_dtypes` is not installed.
    """
    dtype = NUMPY_BY_NAME.get(name)
    if dtype is not None:
        return dtype
    if name == BF16:
        return _bfloat16()
    raise InputError(
        f"datatype {name!r} has no numpy dtype; expected one of {', '.join(NUMPY_BY_NAME)}, {BF16}",
        fix="use a datatype of the Open Inference Protocol",
    )


def oip_name(dtype: np.dtype[Any]) -> str:
    """Return the OIP datatype for a numpy dtype; numpy strings (`S`, `U`) and objects are BYTES.

    Raises:
        InputError: the dtype has no OIP datatype (complex, datetime, structured, float8, int4).
    """
    if dtype.kind in "SU":
        return "BYTES"
    if is_bfloat16(dtype):
        return BF16
    name = _NAME_BY_NUMPY.get(dtype.newbyteorder("="))
    if name is None:
        raise InputError(
            f"numpy dtype {dtype} has no datatype in the Open Inference Protocol",
            fix=f"convert the array to one of {', '.join(NUMPY_BY_NAME)}",
        )
    return name


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype is that of BF16, without importing `ml_dtypes`."""
    # To numpy it is a type of no kind of its own; asking for the kind first is twenty times faster.
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_float(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype holds floating-point numbers, NaN among them: FP16, FP32, FP64, BF16."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def is_bare_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype is what numpy's `.npy` format makes of bfloat16: two bytes without a name (`V2`)."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.fields is None and dtype.name != "bfloat16"


@cache
def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as error:
        raise DependencyError(
            f"BF16 needs ml_dtypes, which does not import here: {error}", fix='pip install "tidegate[bf16]"'
        ) from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
