"""The model that requests are made for: what its metadata says, and requests that fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.bundle.manifest import TensorSpec
from tidegate.errors import ConfigError
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs, write_typed

RAW_ONLY = frozenset({"FP16", "BF16"})


@dataclass(frozen=True)
class Subject:
    """A model by its metadata."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batched(self) -> bool:
        """Whether the first axis of every input is free."""
        return all(spec.shape[:1] == (-1,) for spec in self.inputs)

    @property
    def typed_possible(self) -> bool:
        """Whether every input has a typed form."""
        return all(spec.dtype not in RAW_ONLY for spec in self.inputs)

    def feeds(self, rows: int = 1) -> dict[str, NDArray[Any]]:
        """Return an array of ones for each input; free axes have size 1, the first of a batched model `rows`."""
        shapes = {spec.name: self.shape(spec, rows) for spec in self.inputs}
        return {spec.name: ones(spec.dtype, shapes[spec.name]) for spec in self.inputs}

    def shape(self, spec: TensorSpec, rows: int = 1) -> tuple[int, ...]:
        """Return a concrete shape for an input."""
        sizes = [1 if size < 0 else size for size in spec.shape]
        if self.batched and sizes:
            sizes[0] = rows
        return tuple(sizes)

    def request(self, rows: int = 1, **fields: Any) -> Any:
        """Return a good ModelInferRequest with raw contents."""
        return with_raw(self.name, self.feeds(rows), **fields)

    def typed_request(self, rows: int = 1, **fields: Any) -> Any:
        """Return the same with typed contents."""
        request = messages.ModelInferRequest(model_name=self.name, **fields)
        for name, array in self.feeds(rows).items():
            write_typed(request.inputs.add(), name, array)
        return request

    def changed(self, change: Callable[[Any], object], *, typed: bool = False) -> Any:
        """Return a good request after one thing in it was made wrong."""
        request = self.typed_request() if typed else self.request()
        change(request)
        return request


def with_raw(model: str, feeds: Mapping[str, NDArray[Any]], **fields: Any) -> Any:
    """Return a ModelInferRequest with these arrays as raw inputs, in this order."""
    request = messages.ModelInferRequest(model_name=model, **fields)
    write_inputs(request, feeds)
    return request


def ones(datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return an array of ones; of BYTES, of the text `1`."""
    if datatype == "BYTES":
        array = np.empty(tuple(shape), object)
        array.fill(b"1")
        return array
    return np.ones(tuple(shape), numpy_dtype(datatype))


def subject_of(metadata: Any, overrides: Mapping[str, TensorSpec]) -> Subject:
    """Return the subject that a ModelMetadataResponse describes; `overrides` replace inputs by name, or add some."""
    inputs = {spec.name: spec for spec in _specs(metadata.inputs)}
    return Subject(
        metadata.name, tuple(metadata.versions), tuple({**inputs, **overrides}.values()), _specs(metadata.outputs)
    )


def parse_input(text: str) -> TensorSpec:
    """Return the input written as NAME:DATATYPE:SIZE,SIZE.

    Raises:
        ConfigError: it is not.
    """
    name, datatype, sizes = ["", "", *text.rsplit(":", 2)][-3:]
    if not name or datatype not in NAMES or not all(_is_size(size) for size in sizes.split(",")):
        raise ConfigError(f"--input {text!r}; expected NAME:DATATYPE:SIZES", fix="write it like x:FP32:1,64")
    return TensorSpec(name=name, dtype=datatype, shape=tuple(int(size) for size in sizes.split(",")))


def _is_size(text: str) -> bool:
    return text.lstrip("-").isdecimal() and int(text) >= -1


def _specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=tensor.name, dtype=tensor.datatype, shape=tuple(tensor.shape)) for tensor in tensors)
