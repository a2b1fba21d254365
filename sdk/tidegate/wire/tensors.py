"""Tensors of the Open Inference Protocol to numpy and back, raw and typed.

Raw: one bytes entry per tensor, in the tensors' order, row-major, little-endian, without padding. BYTES elements have a
4-byte little-endian length in front (Triton's binary extension, which the other servers follow). Typed: repeated fields
of `InferTensorContents`. A message is raw or typed as a whole. FP16 travels raw only.

Everything found wrong is an InputError that names the tensor, what was found and what was expected.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import numpy_dtype, oip_name
from tidegate.errors import InputError

LARGEST_RANK = 32

MOST_ELEMENTS = 2**48
"""Over the axes that are not empty: numpy refuses to describe more, even where an empty axis leaves no element."""

_TYPED_FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_LENGTH_BYTES = 4


def read_inputs(request: Any) -> dict[str, NDArray[Any]]:
    """Return the inputs of a ModelInferRequest by name; raw ones share memory with the message and are read-only.

    Raises:
        InputError: a tensor is not what its datatype and shape say, or raw and typed contents are mixed.
    """
    return _read("input", request.inputs, request.raw_input_contents)


def read_outputs(response: Any) -> dict[str, NDArray[Any]]:
    """Return the outputs of a ModelInferResponse by name, raw or typed, as the server chose.

    Raises:
        InputError: as for `read_inputs`.
    """
    return _read("output", response.outputs, response.raw_output_contents)


def write_inputs(request: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Append arrays to a ModelInferRequest as raw inputs.

    Raises:
        InputError: an array's dtype has no OIP datatype, or a BYTES element is neither bytes nor str.
    """
    for name, array in arrays.items():
        _write(request.inputs.add(), request.raw_input_contents, name, array)


def write_outputs(response: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Append arrays to a ModelInferResponse as raw outputs.

    Answers are raw, whatever the request was, as Triton's are: the protocol leaves the choice to the server, every
    client of it reads raw, and FP16 could not travel otherwise.

    Raises:
        InputError: as for `write_inputs`.
    """
    for name, array in arrays.items():
        _write(response.outputs.add(), response.raw_output_contents, name, array)


def write_typed(tensor: Any, name: str, array: NDArray[Any]) -> None:
    """Fill one InferInputTensor or InferOutputTensor with typed contents.

    Raises:
        InputError: the array is FP16, which has no typed form, or has no OIP datatype.
    """
    datatype = describe(tensor, name, array)
    field = _TYPED_FIELD.get(datatype)
    if field is None:
        raise InputError(f"tensor {name!r} is {datatype}, which has no typed contents", fix="send it raw")
    values = _elements(name, array) if datatype == "BYTES" else array.ravel().tolist()
    getattr(tensor.contents, field).extend(values)


def to_raw(array: NDArray[Any], name: str = "tensor") -> bytes:
    """Return the raw wire form of one array.

    Raises:
        InputError: a BYTES element is neither bytes nor str.
    """
    if oip_name(array.dtype) == "BYTES":
        return b"".join(len(item).to_bytes(_LENGTH_BYTES, "little") + item for item in _elements(name, array))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def from_raw(raw: bytes, datatype: str, shape: Sequence[int], name: str = "tensor") -> NDArray[Any]:
    """Return one array over raw bytes, without a copy where the datatype has a fixed size.

    Raises:
        InputError: the number of bytes differs from shape times size, or a BYTES length runs past the end.
    """
    count = _element_count(name, shape)
    dtype = numpy_dtype(datatype)
    if datatype == "BYTES":
        return _objects(_split_bytes(raw, count, name), shape)
    expected = count * dtype.itemsize
    if len(raw) != expected:
        raise InputError(
            f"{name} has {len(raw)} raw bytes; {datatype} {list(shape)} takes {expected}",
            fix="send each element once, row-major, without padding",
        )
    if datatype == "BOOL" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise InputError(f"{name} is BOOL and holds a byte other than 0 and 1", fix="send 0 or 1 for each element")
    if sys.byteorder == "little":
        # The very dtype object, by which `Model` knows an array again.
        return np.frombuffer(raw, dtype).reshape(shape)
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def _read(kind: str, tensors: Sequence[Any], raws: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"{kind} {', '.join(map(repr, repeated))} occurs more than once", fix=f"send each {kind} once")
    if not raws:
        return {tensor.name: _from_typed(tensor, f"{kind} {tensor.name!r}") for tensor in tensors}
    _check_raw_only(kind, tensors, raws)
    return {
        tensor.name: from_raw(raw, tensor.datatype, tensor.shape, f"{kind} {tensor.name!r}")
        for tensor, raw in zip(tensors, raws, strict=True)
    }


def _check_raw_only(kind: str, tensors: Sequence[Any], raws: Sequence[bytes]) -> None:
    for tensor in tensors:
        if tensor.HasField("contents"):
            raise InputError(
                f"{kind} {tensor.name!r} has typed contents and the message has raw contents; expected one of the two",
                fix="send all tensors raw, or all typed",
            )
    if len(raws) != len(tensors):
        raise InputError(
            f"found {len(raws)} raw contents for {len(tensors)} {kind}s; expected one each",
            fix=f"send one raw entry per {kind}, in the order of the {kind}s",
        )


def _from_typed(tensor: Any, name: str) -> NDArray[Any]:
    datatype, shape = tensor.datatype, tensor.shape
    count = _element_count(name, shape)
    dtype = numpy_dtype(datatype)
    field = _TYPED_FIELD.get(datatype)
    if field is None:
        raise InputError(f"{name} is {datatype} with typed contents; {datatype} has none", fix="send all inputs raw")
    others = [found.name for found, _ in tensor.contents.ListFields() if found.name != field]
    if others:
        raise InputError(f"{name} is {datatype} and has {', '.join(others)}; expected {field}", fix=f"fill {field}")
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise InputError(
            f"{name} has {len(values)} elements in {field}; {datatype} {list(shape)} takes {count}",
            fix="send each element once, row-major",
        )
    if datatype == "BYTES":
        return _objects(values, shape)
    return _narrowed(np.array(values, _WIDE.get(datatype, dtype)), dtype, name, datatype).reshape(shape)


_WIDE = {name: np.dtype(np.int32) for name in ("INT8", "INT16")} | {
    name: np.dtype(np.uint32) for name in ("UINT8", "UINT16")
}
"""Datatypes that the wire carries in a wider field."""


def _narrowed(values: NDArray[Any], dtype: np.dtype[Any], name: str, datatype: str) -> NDArray[Any]:
    narrow = values.astype(dtype, copy=False)
    if datatype in _WIDE and not np.array_equal(narrow, values):
        limits = np.iinfo(dtype)
        raise InputError(
            f"{name} is {datatype} and holds values from {values.min()} to {values.max()}",
            fix=f"send values from {limits.min} to {limits.max}, or another datatype",
        )
    return narrow


def _element_count(name: str, shape: Sequence[int]) -> int:
    if len(shape) > LARGEST_RANK:
        raise InputError(f"{name} has {len(shape)} dimensions; at most {LARGEST_RANK} are supported", fix="reshape it")
    sizes = list(shape)
    if sizes and min(sizes) < 0:
        raise InputError(f"{name} has shape {list(shape)}; sizes are 0 or more", fix="send the tensor's real shape")
    if math.prod([size or 1 for size in sizes]) > MOST_ELEMENTS:
        raise InputError(f"{name} has shape {list(shape)}; that is more than {MOST_ELEMENTS} elements", fix="send less")
    return math.prod(sizes)


def _split_bytes(raw: bytes, count: int, name: str) -> list[bytes]:
    """Split length-prefixed elements."""
    fix = "put a 4-byte little-endian length in front of each element"
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH_BYTES
        end = start + int.from_bytes(raw[position:start], "little")
        if start > len(raw) or end > len(raw):
            raise InputError(
                f"{name} is BYTES; element {len(elements)} at byte {position} runs past the {len(raw)} bytes sent",
                fix=fix,
            )
        elements.append(raw[start:end])
        position = end
    if len(elements) != count:
        raise InputError(f"{name} has {len(elements)} BYTES elements; its shape takes {count}", fix=fix)
    return elements


def _objects(elements: Iterable[bytes], shape: Sequence[int]) -> NDArray[Any]:
    items = list(elements)
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def _write(tensor: Any, raws: Any, name: str, array: NDArray[Any]) -> None:
    describe(tensor, name, array)
    raws.append(to_raw(array, name))


def describe(tensor: Any, name: str, array: NDArray[Any]) -> str:
    """Fill in the name, datatype and shape of one tensor of a message, and return the datatype.

    Raises:
        InputError: the array's dtype has no OIP datatype.
    """
    datatype = oip_name(array.dtype)
    tensor.name = name
    tensor.datatype = datatype
    tensor.shape.extend(array.shape)
    return datatype


def _elements(name: str, array: NDArray[Any]) -> list[bytes]:
    """Return the elements of a BYTES array; str is sent as UTF-8."""
    items = array.ravel().tolist()
    return [item if isinstance(item, bytes) else _encoded(item, name) for item in items]


def _encoded(item: object, name: str) -> bytes:
    if not isinstance(item, str):
        raise InputError(
            f"tensor {name!r} holds a {type(item).__name__}; BYTES elements are bytes or str", fix="convert it"
        )
    return item.encode()
