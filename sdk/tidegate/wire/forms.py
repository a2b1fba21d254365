"""Messages of one form: whoever calls a model again and again sends the same bytes, but for the numbers.

A ModelInferRequest says its names, types and shapes in its head; its raw contents (field 7, the highest) come last from
every encoder there is. Fields that follow one another merge, so equal heads with tails of equal lengths mean the same:
a request is compared with those that were read before, which takes a tenth of the time that parsing takes. An answer
is put together the other way round. What has no such form is parsed and encoded as any message.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.wire import messages
from tidegate.wire.tensors import describe, to_raw

About = TypeVar("About")

FORMS_KEPT = 256

FORMS_OF_ONE_LENGTH = 4

LARGEST_HEAD_BYTES = 4096
"""So that nobody fills the memory with what is kept."""

_RAW_INPUT = b"\x3a"
"""Field 7, with a length (https://protobuf.dev/programming-guides/encoding/)."""

_ID = b"\x1a"
"""Field 3."""

_RAW_OUTPUT = b"\x32"
"""Field 6."""

_READ_EACH_TIME = frozenset({"BOOL", "BYTES"})
"""Datatypes of which not every sequence of bytes is a tensor."""


class _Tensor(NamedTuple):
    name: str
    prefix: bytes
    """in front of its bytes: tag and length"""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class _Form(Generic[About]):
    # Not a NamedTuple as above: before Python 3.11 those cannot be generic.
    head: bytes
    tensors: tuple[_Tensor, ...]
    about: About


class RequestForms(Generic[About]):
    """Forms of ModelInferRequests that were read. Safe for several threads; at worst one is learnt twice."""

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[_Form[About], ...]] = {}

    def read(self, raw: bytes) -> tuple[About, dict[str, NDArray[Any]]] | None:
        """Return what was learnt with a request of this form, and this one's inputs by name; None for a new form.

        Args:
            raw: a serialised ModelInferRequest, or anything else.
        """
        for form in self._by_length.get(len(raw), ()):
            if raw.startswith(form.head):
                arrays = _arrays(raw, len(form.head), form.tensors)
                if arrays is not None:
                    return form.about, arrays
        return None

    def learn(self, raw: bytes, request: Any, about: About) -> None:
        """Keep the form of a request, if it has one.

        Args:
            raw: serialised.
            request: the same, parsed; its inputs have been read without an error.
            about: what all requests of this form have in common; it must not depend on their contents.
        """
        # An id is another one in each request.
        if request.id or not request.raw_input_contents or sys.byteorder != "little":
            return
        contents = request.raw_input_contents
        if any(tensor.datatype in _READ_EACH_TIME for tensor in request.inputs):
            return
        tensors = tuple(
            _Tensor(
                tensor.name,
                _RAW_INPUT + varint(len(content)),
                numpy_dtype(tensor.datatype),
                tuple(tensor.shape),
                len(content),
            )
            for tensor, content in zip(request.inputs, contents, strict=True)
        )
        head_bytes = len(raw) - sum(len(tensor.prefix) + tensor.size_bytes for tensor in tensors)
        if head_bytes > LARGEST_HEAD_BYTES or not _ends_with(raw, head_bytes, tensors, contents):
            return
        known = self._by_length.get(len(raw), ())
        if len(self._by_length) >= FORMS_KEPT and not known:
            self._by_length.clear()
        self._by_length[len(raw)] = (_Form(raw[:head_bytes], tensors, about), *known)[:FORMS_OF_ONE_LENGTH]


class AnswerForms:
    """Encodes ModelInferResponses with raw contents. Safe for several threads."""

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def encoded(self, model: str, version: str, request_id: str, outputs: Mapping[str, NDArray[Any]]) -> bytes:
        """Return a serialised answer; the arrays' bytes are copied once, into it.

        Args:
            model: its name.
            version: that answered.
            request_id: of the request; may be empty.
            outputs: array by output name.

        Raises:
            InputError: an array's dtype has no OIP datatype, or a BYTES element is neither bytes nor str.
        """
        key = (model, version, *[(name, array.dtype, array.shape) for name, array in outputs.items()])
        head = self._heads.get(key)
        if head is None:
            head = self._learnt(key, model, version, outputs)
        parts: list[Any] = [head]
        if request_id:
            text = request_id.encode()
            parts += (_ID, varint(len(text)), text)
        for name, array in outputs.items():
            content = _content(name, array)
            parts += (_RAW_OUTPUT, varint(len(content) if isinstance(content, bytes) else content.nbytes), content)
        return b"".join(parts)

    def _learnt(self, key: tuple[Any, ...], model: str, version: str, outputs: Mapping[str, NDArray[Any]]) -> bytes:
        response = messages.ModelInferResponse(model_name=model, model_version=version)
        for name, array in outputs.items():
            describe(response.outputs.add(), name, array)
        if len(self._heads) >= FORMS_KEPT:
            self._heads.clear()
        head: bytes = response.SerializeToString()
        self._heads[key] = head
        return head


def varint(number: int) -> bytes:
    """Return a number from 0 as protobuf writes it: seven bits a byte, the lowest first."""
    if number < 0x80:
        return _SMALL[number]
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_SMALL = tuple(bytes([number]) for number in range(0x80))


def _arrays(raw: bytes, start: int, tensors: tuple[_Tensor, ...]) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a tail; None where it is not made of these tensors."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, prefix, dtype, shape, size_bytes in tensors:
        if not raw.startswith(prefix, start):
            return None
        start += len(prefix)
        # Bytes of their own: within the message they would lie at any address, which runtimes do not take.
        arrays[name] = np.frombuffer(raw[start : start + size_bytes], dtype).reshape(shape)
        start += size_bytes
    return arrays


def _ends_with(raw: bytes, start: int, tensors: Sequence[_Tensor], contents: Sequence[bytes]) -> bool:
    """Say whether the bytes from `start` are these contents, each with its prefix."""
    for tensor, content in zip(tensors, contents, strict=True):
        if not raw.startswith(tensor.prefix, start) or not raw.startswith(content, start + len(tensor.prefix)):
            return False
        start += len(tensor.prefix) + len(content)
    return True


def _content(name: str, array: NDArray[Any]) -> Any:
    """Return the raw form of one array: itself where its memory is that form already."""
    if array.dtype.kind in "fiub" and array.flags.c_contiguous and array.dtype.isnative and sys.byteorder == "little":
        return array
    return to_raw(array, name)
