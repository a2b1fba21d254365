"""ONNX Runtime's tensors as the signature states them: types by name, strings as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.bundle.dtypes import BF16, NUMPY_BY_NAME, numpy_dtype
from tidegate.bundle.manifest import TensorSpec
from tidegate.errors import InputError, ModelError
from tidegate.runtime.backends.protocol import Array, Shape

OIP_BY_ONNX = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": BF16,
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

ONNX_BFLOAT16 = 16
"""TensorProto.DataType in onnx.proto3."""


def tensor_spec(tensor: Any, origin: str) -> TensorSpec:
    """Return what the signature says of a tensor of the session.

    Args:
        tensor: onnxruntime.NodeArg.
        origin: how messages call the model.

    Raises:
        ModelError: it is of a type that the Open Inference Protocol does not know.
        DependencyError: it is BF16, and `ml_dtypes` is not installed.
    """
    dtype = OIP_BY_ONNX.get(tensor.type)
    if dtype is None:
        raise ModelError(
            f"{origin}: tensor {tensor.name!r} is of type {tensor.type}, which is no datatype of the Open Inference "
            f"Protocol; expected one of {', '.join(OIP_BY_ONNX)}",
            fix="cast it to FP32 inside the model"
            if tensor.type.startswith("tensor(")
            else "export the model with tensors",
        )
    numpy_dtype(dtype)  # what is missing is told before the first call
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(name=tensor.name, dtype=dtype, shape=shape)


def zeros(spec: TensorSpec, shape: Shape) -> Array:
    """Return memory for one tensor."""
    return np.zeros(shape, numpy_dtype(spec.dtype))


def element_type(dtype: str) -> Any:
    """Return how ONNX Runtime is told an OIP datatype: by numpy's type, or BF16 by ONNX's number."""
    return ONNX_BFLOAT16 if dtype == BF16 else NUMPY_BY_NAME[dtype].type


def text_in(name: str, array: Array) -> Array:
    """Return an object array of `str`, the only form in which the runtime takes strings unharmed.

    Raises:
        InputError: bytes that are not UTF-8.
    """
    text = np.empty(array.shape, object)
    try:
        text.reshape(-1)[:] = [item.decode("utf-8") for item in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise InputError(
            f"input {name!r} holds bytes that are not UTF-8 ({error}); ONNX strings are UTF-8",
            fix="encode the text as UTF-8",
        ) from error
    return text


def readable(array: Array) -> Array:
    """Return the array, or a copy where it has gaps or begins at an odd address, as one cut out of a message may."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy()


def array_out(value: Any, spec: TensorSpec) -> Array:
    """Return an output as the signature states it: BYTES as an object array of `bytes`."""
    array = np.asarray(value)
    if spec.dtype != "BYTES":
        return array
    encoded = np.empty(array.shape, object)
    encoded.reshape(-1)[:] = [item.encode("utf-8") for item in array.reshape(-1)]
    return encoded
