"""Tensors in HTTP bodies: JSON, and the binary tensor data extension (Triton, docs/protocol/extension_binary_data.md).

A body is one JSON document. With the header `Inference-Header-Content-Length` it is that many bytes of JSON, and behind
them the raw data of those tensors that have the parameter `binary_data_size`, in their order.

JSON data are a flat list, or nested lists of the tensor's shape. Numbers are exact where the datatype holds them;
one that it cannot hold is refused. BYTES are texts, sent as UTF-8. JSON has no NaN and no infinity: an answer that has
one must be asked for as binary data. BF16 has no JSON form, as it has no typed one in gRPC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import BF16, is_bfloat16, numpy_dtype, oip_name
from tidegate.errors import InputError
from tidegate.wire.tensors import LARGEST_RANK, MOST_ELEMENTS, from_raw, to_raw

Parameters = dict[str, Any]

_LIST_TYPES: dict[str, Any] = {"b": list[bool], "i": list[int], "u": list[int], "f": list[float], "O": list[str]}
"""What JSON data are, by numpy's kind."""

_LISTS: dict[str, Any] = {kind: msgspec.json.Decoder(type_) for kind, type_ in _LIST_TYPES.items()}

_KIND_TEXT = {"b": "true or false", "i": "whole numbers", "u": "whole numbers", "f": "numbers", "O": "texts"}


class InputTensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: Parameters = {}


class OutputTensor(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: Parameters = {}


class InferBody(msgspec.Struct):
    """The JSON of an inference request; unknown members are ignored, as Triton does."""

    inputs: list[InputTensor]
    outputs: list[OutputTensor] = []
    id: str = ""
    parameters: Parameters = {}


@dataclass
class Written:
    """The body of an answer."""

    body: bytes
    json_bytes: int
    """length of the JSON in front; all of it when there are no binary data"""


_BODY = msgspec.json.Decoder(InferBody)
_ENCODER = msgspec.json.Encoder()


def read_body(body: bytes, json_bytes: int | None) -> tuple[InferBody, dict[str, NDArray[Any]]]:
    """Return the JSON of a request and its inputs by name; binary ones share memory with `body` and are read-only.

    Args:
        body: decompressed.
        json_bytes: value of `Inference-Header-Content-Length`; None where it was not sent.

    Raises:
        InputError: not the JSON that is expected, or a tensor is not what its datatype and shape say.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise InputError(
            f"Inference-Header-Content-Length is {json_bytes}; the body has {len(body)} bytes",
            fix="send the length of the JSON in front of the binary data",
        )
    asked = _decoded(body if json_bytes is None else memoryview(body)[:json_bytes])
    rest = memoryview(body)[len(body) if json_bytes is None else json_bytes :]
    feeds: dict[str, NDArray[Any]] = {}
    for tensor in asked.inputs:
        if tensor.name in feeds:
            raise InputError(f"input {tensor.name!r} occurs more than once", fix="send each input once")
        size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
        if size is None:
            feeds[tensor.name] = _from_json(tensor)
        else:
            raw, rest = _cut(tensor, size, rest)
            feeds[tensor.name] = from_raw(raw, tensor.datatype, tensor.shape, f"input {tensor.name!r}")
    if rest:
        raise InputError(
            f"{len(rest)} bytes follow the inputs' data", fix="give each binary input its binary_data_size"
        )
    return asked, feeds


def write_body(
    head: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]], binary: Mapping[str, bool], *, default_binary: bool
) -> Written:
    """Return the body of an answer.

    Args:
        head: members before `outputs`.
        outputs: array by name.
        binary: by output, what the request says of it.
        default_binary: for the others.

    Raises:
        InputError: an output that JSON cannot hold was not asked for as binary data.
    """
    entries, raws = [], []
    for name, array in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": oip_name(array.dtype), "shape": array.shape}
        if binary.get(name, default_binary):
            raw = to_raw(array, name)
            entry["parameters"] = {"binary_data_size": len(raw)}
            raws.append(raw)
        else:
            entry["data"] = _to_json(name, array)
        entries.append(entry)
    text = _ENCODER.encode({**head, "outputs": entries})
    return Written(b"".join([text, *raws]) if raws else text, len(text))


def _decoded(text: bytes | memoryview) -> InferBody:
    try:
        return _BODY.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the body is not an inference request: {error}", fix="send JSON with `inputs`") from error


def _cut(tensor: InputTensor, size: Any, rest: memoryview) -> tuple[bytes, memoryview]:
    """Return the first `size` bytes, and what follows them."""
    if tensor.data:
        raise InputError(f"input {tensor.name!r} has both data and binary_data_size", fix="send one of the two")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
        raise InputError(
            f"input {tensor.name!r} has binary_data_size {size!r}; {len(rest)} bytes are left in the body",
            fix="send the number of bytes of this input behind the JSON, and Inference-Header-Content-Length",
        )
    raw = rest[:size]
    return bytes(raw) if tensor.datatype == "BYTES" else raw, rest[size:]  # type: ignore[return-value]


def _from_json(tensor: InputTensor) -> NDArray[Any]:
    name = f"input {tensor.name!r}"
    if not tensor.data:
        found = next((key for key in tensor.parameters if key.startswith("shared_memory")), "")
        raise InputError(
            f"{name} has no data" + (f" but {found}" if found else ""),
            fix="send `data`, or binary data with the parameter binary_data_size",
        )
    if tensor.datatype == BF16:
        raise InputError(f"{name} is BF16 with JSON data; BF16 travels as binary data only", fix=_SEND_BINARY)
    dtype = numpy_dtype(tensor.datatype)
    shape = tensor.shape
    count = _element_count(name, shape)
    try:
        values = _LISTS[dtype.kind].decode(tensor.data)
    except msgspec.DecodeError:
        values = _flattened(name, tensor, dtype.kind)
    if len(values) != count:
        raise InputError(
            f"{name} has {len(values)} elements; {tensor.datatype} {shape} takes {count}",
            fix="send each element once, row-major",
        )
    if dtype.kind == "O":
        array = np.empty(count, object)
        array[:] = [text.encode() for text in values]
        return array.reshape(shape)
    return _exact(name, tensor.datatype, values, dtype).reshape(shape)


def _element_count(name: str, shape: Sequence[int]) -> int:
    if len(shape) > LARGEST_RANK:
        raise InputError(f"{name} has {len(shape)} dimensions; at most {LARGEST_RANK} are supported", fix="reshape it")
    if any(size < 0 for size in shape):
        raise InputError(f"{name} has shape {list(shape)}; sizes are 0 or more", fix="send the tensor's real shape")
    if math.prod([size or 1 for size in shape]) > MOST_ELEMENTS:
        raise InputError(f"{name} has shape {list(shape)}; that is more than {MOST_ELEMENTS} elements", fix="send less")
    return math.prod(shape)


def _flattened(name: str, tensor: InputTensor, kind: str) -> list[Any]:
    """Return the elements of nested lists, whose form has to be the tensor's shape."""
    try:
        nested = msgspec.json.decode(tensor.data)
        flat = _flat(nested, tensor.shape)
        values: list[Any] = msgspec.convert(flat, _LIST_TYPES[kind])
        return values
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{name} is {tensor.datatype} {tensor.shape}; its data are not {_KIND_TEXT[kind]} in a flat list or in "
            f"lists of that shape: {error}",
            fix=f"send {_KIND_TEXT[kind]}",
        ) from error


def _flat(value: Any, shape: Sequence[int]) -> list[Any]:
    if not shape:
        return [value]
    if not isinstance(value, list) or len(value) != shape[0]:
        found = f"{len(value)} elements" if isinstance(value, list) else type(value).__name__
        raise msgspec.ValidationError(f"found {found} where a list of {shape[0]} is expected")
    return [item for inner in value for item in _flat(inner, shape[1:])]


def _exact(name: str, datatype: str, values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers as an array, after a look whether the datatype holds them."""
    if dtype.kind in "iu" and values:
        limits = np.iinfo(dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise InputError(
                f"{name} is {datatype} and holds values from {min(values)} to {max(values)}",
                fix=f"send values from {limits.min} to {limits.max}, or another datatype",
            )
    with np.errstate(over="ignore"):
        array = np.array(values, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{name} holds a number too large for {datatype}", fix="send smaller numbers, or FP64")
    return array


def _to_json(name: str, array: NDArray[Any]) -> list[Any]:
    if is_bfloat16(array.dtype):
        raise InputError(f"output {name!r} is BF16, which travels as binary data only", fix=_AS_BINARY)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"output {name!r} holds NaN or an infinity, which JSON has not", fix=_AS_BINARY)
    values: list[Any] = array.ravel().tolist()
    if array.dtype.kind != "O":
        return values
    try:
        return [item.decode() if isinstance(item, bytes) else item for item in values]
    except UnicodeDecodeError as error:
        raise InputError(f"output {name!r} holds BYTES that are no UTF-8 text", fix=_AS_BINARY) from error


_SEND_BINARY = "send binary data with the parameter binary_data_size"
_AS_BINARY = "ask for it as binary data: `outputs` with the parameter binary_data, or binary_data_output for all"
