"""Tensor dtypes: the Open Inference Protocol's names are the canonical ones, numpy's are what runs.

BYTES is an array of `bytes` objects (numpy `object`), as the protocol's clients use it. BF16 has no numpy dtype of its
own: it is in the table of names so that a signature may state it, and is refused where an array is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.errors import InputError

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

NAMES: frozenset[str] = frozenset(NUMPY_BY_NAME) | {"BF16"}

_NAME_BY_NUMPY = {dtype: name for name, dtype in NUMPY_BY_NAME.items()}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype that carries the OIP datatype `name`.

    Raises:
        InputError: `name` is not an OIP datatype, or numpy has no dtype for it (BF16).
    """
    dtype = NUMPY_BY_NAME.get(name)
    if dtype is None:
        raise InputError(
            f"datatype {name!r} has no numpy dtype; expected one of {', '.join(NUMPY_BY_NAME)}",
            fix="use a datatype of the Open Inference Protocol that numpy can hold",
        )
    return dtype


def oip_name(dtype: np.dtype[Any]) -> str:
    """Return the OIP datatype for a numpy dtype; numpy strings (`S`, `U`) and objects are BYTES.

    Raises:
        InputError: the dtype has no OIP datatype (complex, datetime, structured).
    """
    if dtype.kind in "SU":
        return "BYTES"
    name = _NAME_BY_NUMPY.get(dtype.newbyteorder("="))
    if name is None:
        raise InputError(
            f"numpy dtype {dtype} has no datatype in the Open Inference Protocol",
            fix=f"convert the array to one of {', '.join(NUMPY_BY_NAME)}",
        )
    return name
