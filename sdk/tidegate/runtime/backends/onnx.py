"""ONNX Runtime: `.onnx` models on the CPU provider.

A model with small tensors, whose output shapes follow from its input shapes, is called over bound memory once the same
shapes have come often enough to pay for the binding. Everything else goes through `run`: strings, large tensors (the
copies cost more than the binding saves), shapes that depend on the data, and shapes that are seldom seen, as those of
a server's batches are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import ModelError
from tidegate.runtime.backends.onnx_calls import BoundMemory, run_of
from tidegate.runtime.backends.onnx_session import import_runtime, open_session, runtime_errors
from tidegate.runtime.backends.onnx_tensors import tensor_spec
from tidegate.runtime.backends.output_shapes import output_shapes
from tidegate.runtime.backends.protocol import Array, Bound, ModelFile, Shape, Single, one_line, run_once

BOUND_BYTES = 1 << 16
"""Inputs and outputs together, up to which copying in and out is cheaper than `run`. At 64 KiB they are equal."""

CALLS_BEFORE_BINDING = 32
"""Binding costs as much as the microsecond that it saves in so many calls."""

SHAPES_KEPT = 64
"""Sets of input shapes that are counted, and whose memory is kept: as many as a batcher has sizes, 4 MiB at most."""


def find_runtime() -> str:
    """Return the installed ONNX Runtime with its version.

    Raises:
        DependencyError: it is not installed, or does not import.
    """
    return f"onnxruntime {import_runtime().__version__}"


def open_model(file: ModelFile) -> OnnxBackend:
    """Load an `.onnx` model on the CPU provider, without spinning threads.

    Raises:
        DependencyError: ONNX Runtime is not installed, or the model has BF16 tensors and `ml_dtypes` is not.
        ModelError: it refuses the model, or a tensor has a type that the Open Inference Protocol does not know.
    """
    runtime = find_runtime()
    try:
        return OnnxBackend(file.origin, runtime, open_session(file))
    except runtime_errors() as error:
        raise ModelError(
            f"{file.origin}: onnxruntime cannot load this as an ONNX model: {one_line(error)}",
            fix="check that the file is whole and is an .onnx model; convert it again if need be",
        ) from error


class _Form:
    """One set of input shapes, and how the model is called with it."""

    def __init__(self, shapes: tuple[Shape, ...], outputs: tuple[Shape, ...] | None) -> None:
        self.shapes = shapes
        self.outputs = outputs
        """None: not to be bound"""
        self.calls = 0
        self.memory: BoundMemory | None = None
        self.single: Single | None = None
        self.bound: Bound | None = None

    def never_again(self) -> None:
        """Leave these shapes unbound: the outputs are not always of the shape that the model declares."""
        self.outputs = self.memory = None


class OnnxBackend:
    """One ONNX model in one session."""

    name = "onnx"

    def __init__(self, origin: str, runtime: str, session: Any) -> None:
        self.runtime = runtime
        self.provider = "+".join(session.get_providers())
        self.signature = Signature(
            inputs=tuple(tensor_spec(tensor, origin) for tensor in session.get_inputs()),
            outputs=tuple(tensor_spec(tensor, origin) for tensor in session.get_outputs()),
        )
        self._origin = origin
        self._errors = runtime_errors()
        self._session: Any = session
        self._run: Any = run_of(session, self.signature, origin)
        self._input_dimensions = [tuple(tensor.shape) for tensor in session.get_inputs()]
        self._output_dimensions = [tuple(tensor.shape) for tensor in session.get_outputs()]
        self._has_strings = any(spec.dtype == "BYTES" for spec in (*self.signature.inputs, *self.signature.outputs))
        self._forms: OrderedDict[tuple[Shape, ...], _Form] = OrderedDict()

    def bind(self, shapes: tuple[Shape, ...]) -> Bound:
        """Return the call for these shapes."""
        form = self._form(shapes)
        if form.bound is None:
            form.bound = self._new_bound(form)
        return form.bound

    def bind_single(self, shape: Shape) -> Single:
        """Return the same call for one input and one output."""
        form = self._form((shape,))
        if form.single is None:
            form.single = self._new_single(form)
        return form.single

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Bind to the shapes of these arrays and run once."""
        return run_once(self, feeds)

    def close(self) -> None:
        """Let go of the session and its bound memory."""
        self._forms.clear()
        self._session = self._run = None

    def _new_bound(self, form: _Form) -> Bound:
        errors, plain = self._errors, self._plain
        memory: BoundMemory | None = None

        def call(*arrays: Array) -> tuple[Array, ...]:
            nonlocal memory
            if memory is None:
                memory = self._memory(form)
                if memory is None:
                    return plain(*arrays)
            for target, array in zip(memory.inputs, arrays, strict=True):
                target[...] = array
            try:
                memory.run()
            except errors:
                found = plain(*arrays)
                memory = None
                form.never_again()
                return found
            return tuple([result.copy() for result in memory.outputs])

        return call

    def _new_single(self, form: _Form) -> Single:
        errors, plain = self._errors, self._plain
        run: Any = None
        target: Any = None
        copy: Any = None

        def call(array: Array) -> Array:
            nonlocal run, target, copy
            if run is None:
                memory = self._memory(form)
                if memory is None:
                    return plain(array)[0]
                run, target, copy = memory.run, memory.inputs[0], memory.outputs[0].copy
            target[...] = array
            try:
                run()
            except errors:
                found: Array = plain(array)[0]
                run = target = copy = None
                form.never_again()
                return found
            answer: Array = copy()
            return answer

        return call

    def _plain(self, *arrays: Array) -> tuple[Array, ...]:
        try:
            found: tuple[Array, ...] = self._run(*arrays)
            return found
        except self._errors as error:
            raise ModelError(
                f"{self._origin}: {self.runtime} failed to run: {one_line(error)}",
                fix="check the model with `tidegate verify`, or convert it again",
            ) from error

    def _form(self, shapes: tuple[Shape, ...]) -> _Form:
        """Return what is kept of these shapes, or begin to count them."""
        form = self._forms.get(shapes)
        if form is None:
            form = self._forms[shapes] = _Form(shapes, self._bindable(shapes))
            if len(self._forms) > SHAPES_KEPT:
                self._forms.popitem(last=False)
        self._forms.move_to_end(shapes)
        return form

    def _bindable(self, shapes: tuple[Shape, ...]) -> tuple[Shape, ...] | None:
        """Return the outputs' shapes where bound memory serves, else None."""
        if self._has_strings:
            return None
        outputs = output_shapes(self._input_dimensions, self._output_dimensions, shapes)
        if outputs is None or any(0 in shape for shape in (*shapes, *outputs)):
            return None
        size_bytes = _size_bytes(self.signature.inputs, shapes) + _size_bytes(self.signature.outputs, outputs)
        return outputs if size_bytes <= BOUND_BYTES else None

    def _memory(self, form: _Form) -> BoundMemory | None:
        """Return bound memory for the next call with these shapes; None as long as it does not pay."""
        form.calls += 1
        if form.outputs is None or form.calls <= CALLS_BEFORE_BINDING:
            return None
        form.memory = BoundMemory(self._session, self.signature, form.shapes, form.outputs)
        return form.memory


def _size_bytes(specs: tuple[TensorSpec, ...], shapes: tuple[Shape, ...]) -> int:
    return sum(math.prod(shape) * numpy_dtype(spec.dtype).itemsize for spec, shape in zip(specs, shapes, strict=True))
