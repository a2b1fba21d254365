"""The ways to call an ONNX Runtime session, all of which let go of the interpreter's lock while the model runs.

- `plain_run`: arrays in, fresh arrays out. The session reads the caller's memory.
- `value_run`: the same through OrtValues, for BF16, which the runtime does not turn into numpy arrays.
- `BoundMemory`: arrays that are bound to the session once. Inputs are copied in and outputs out, which saves a
  microsecond a call as long as the tensors are small.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import BF16, numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import ModelError
from tidegate.runtime.backends.onnx_tensors import array_out, element_type, readable, text_in, zeros
from tidegate.runtime.backends.protocol import Array, Bound, Shape


def run_of(session: Any, signature: Signature, origin: str) -> Bound:
    """Return the call that takes inputs of any shape. What the runtime raises passes.

    Raises:
        ModelError: BF16 tensors and an input of text, which the runtime's Python interface cannot be given together.
    """
    if all(spec.dtype != BF16 for spec in (*signature.inputs, *signature.outputs)):
        return plain_run(session, signature)
    texts = [spec.name for spec in signature.inputs if spec.dtype == "BYTES"]
    if texts:
        raise ModelError(
            f"{origin}: the model has BF16 tensors and takes text in {texts[0]!r}; onnxruntime takes no such pair",
            fix="cast the BF16 tensors to FP32 inside the model",
        )
    return value_run(session, signature)


def plain_run(session: Any, signature: Signature) -> Bound:
    """Return `InferenceSession.run` as a call by position.

    The public method looks on every call for inputs that are missing, for OrtValues, and for a WebGPU graph that is
    being captured: a fifth of the time of a small model. The object inside takes the same call.
    """
    inner = getattr(getattr(session, "_sess", None), "run", None)
    run: Callable[..., Any] = session.run if inner is None else inner
    inputs = [(spec.name, spec.dtype == "BYTES") for spec in signature.inputs]
    outputs = signature.outputs
    names = [spec.name for spec in outputs]

    def call(*arrays: Array) -> tuple[Array, ...]:
        feeds = {
            name: text_in(name, array) if is_text else readable(array)
            for (name, is_text), array in zip(inputs, arrays, strict=True)
        }
        found = run(names, feeds, None)
        return tuple([array_out(value, spec) for value, spec in zip(found, outputs, strict=True)])

    return call


def value_run(session: Any, signature: Signature) -> Bound:
    """Return `run_with_ort_values` as a call by position: twice the time of `plain_run` on a small model."""
    from onnxruntime import OrtValue

    names = [spec.name for spec in signature.outputs]

    def value_of(spec: TensorSpec, array: Array) -> Any:
        if spec.dtype != BF16:
            return OrtValue.ortvalue_from_numpy(readable(array))
        return OrtValue.ortvalue_from_numpy_with_onnx_type(readable(array).view(np.uint16), element_type(BF16))

    def call(*arrays: Array) -> tuple[Array, ...]:
        feeds = {spec.name: value_of(spec, array) for spec, array in zip(signature.inputs, arrays, strict=True)}
        found = session.run_with_ort_values(names, feeds)
        return tuple([_array_of(value, spec) for value, spec in zip(found, signature.outputs, strict=True)])

    return call


def _array_of(value: Any, spec: TensorSpec) -> Array:
    if spec.dtype != BF16:
        return array_out(value.numpy(), spec)
    array = np.empty(value.shape(), numpy_dtype(BF16))
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


class BoundMemory:
    """Arrays that the session reads and writes in place, for one set of input shapes."""

    def __init__(
        self, session: Any, signature: Signature, inputs: tuple[Shape, ...], outputs: tuple[Shape, ...]
    ) -> None:
        """Take the memory and bind it.

        Args:
            session: an InferenceSession.
            signature: without BYTES.
            inputs: shape of each input, without empty axes.
            outputs: shape of each output, likewise.
        """
        self.inputs = [zeros(spec, shape) for spec, shape in zip(signature.inputs, inputs, strict=True)]
        self.outputs = [zeros(spec, shape) for spec, shape in zip(signature.outputs, outputs, strict=True)]
        binding = session.io_binding()
        for bind, specs, arrays in (
            (binding.bind_input, signature.inputs, self.inputs),
            (binding.bind_output, signature.outputs, self.outputs),
        ):
            for spec, array in zip(specs, arrays, strict=True):
                bind(spec.name, "cpu", 0, element_type(spec.dtype), array.shape, array.ctypes.data)
        self.run = _entry(session, binding)
        """runs the model; what the runtime raises passes"""


def _entry(session: Any, binding: Any) -> Callable[[], None]:
    """Return `run_with_iobinding`, ready to be called.

    The public method asks on every call whether a WebGPU graph is being captured, for a tenth of the time of a small
    model. The objects inside both take the same call; where a version has none of that name, the public pair serves.
    """
    inner = getattr(getattr(session, "_sess", None), "run_with_iobinding", None)
    inner_binding = getattr(binding, "_iobinding", None)
    if inner is None or inner_binding is None:
        return partial(session.run_with_iobinding, binding, None)
    return partial(inner, inner_binding, None)
