"""ONNX Runtime: `.onnx` models on the CPU provider.

Where the output shapes follow from the input shapes, inputs are copied into memory that is bound to the session once,
and outputs out of it: less than half the cost of `InferenceSession.run` on a small model. Everything else (strings,
shapes that depend on the data, empty tensors) goes through `run`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.bundle.manifest import Signature
from tidegate.errors import DependencyError, ModelError
from tidegate.runtime.backends.onnx_tensors import array_out, contiguous, tensor_spec, text_in, zeros
from tidegate.runtime.backends.output_shapes import output_shapes
from tidegate.runtime.backends.protocol import Array, Bound, ModelFile, Shape, Single, one_line, run_once
from tidegate.runtime.onnx_file import external_tensors

PROVIDER = "CPUExecutionProvider"

SHAPES_KEPT = 4
"""Sets of input shapes whose memory is kept; a batcher alternates between a few sizes."""

LOG_FATAL_ONLY = 4
"""ONNX Runtime's log severity: what goes wrong is raised, so nothing needs to be printed."""


def find_runtime() -> str:
    """Return the installed ONNX Runtime with its version.

    Raises:
        DependencyError: it is not installed, or does not import.
    """
    return f"onnxruntime {_import().__version__}"


def open_model(file: ModelFile) -> OnnxBackend:
    """Load an `.onnx` model on the CPU provider, without spinning threads.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        ModelError: it refuses the model, or a tensor has a type that numpy cannot hold.
    """
    onnxruntime = _import()
    if file.content is not None:
        _refuse_external_data(file.origin, file.content)
    source = file.content if file.path is None else str(file.path)
    try:
        session = onnxruntime.InferenceSession(source, _options(onnxruntime, file), providers=[PROVIDER])
        return OnnxBackend(file.origin, f"onnxruntime {onnxruntime.__version__}", session)
    except runtime_errors() as error:
        raise ModelError(
            f"{file.origin}: onnxruntime cannot load this as an ONNX model: {one_line(error)}",
            fix="check that the file is whole and is an .onnx model; convert it again if need be",
        ) from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return every exception that ONNX Runtime raises: its own classes, and what its Python layer raises."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


@dataclass(frozen=True)
class _Memory:
    """Arrays that the session reads and writes in place."""

    binding: Any
    inputs: list[Array]
    outputs: list[Array]


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
        self._input_dimensions = [tuple(tensor.shape) for tensor in session.get_inputs()]
        self._output_dimensions = [tuple(tensor.shape) for tensor in session.get_outputs()]
        self._has_strings = any(spec.dtype == "BYTES" for spec in (*self.signature.inputs, *self.signature.outputs))
        self._kept: OrderedDict[tuple[Shape, ...], _Memory | None] = OrderedDict()

    def bind(self, shapes: tuple[Shape, ...]) -> Bound:
        """Return the call for these shapes: over bound memory where the output shapes follow, else plain `run`."""
        plain, memory = self._plain(), self._memory(shapes)
        if memory is None:
            return plain
        (run, binding), errors = _entry(self._session, memory.binding), self._errors

        def call(*arrays: Array) -> tuple[Array, ...]:
            nonlocal run
            for target, array in zip(memory.inputs, arrays, strict=True):
                target[...] = array
            try:
                run(binding, None)
            except errors:
                # A model whose outputs are not of the shape that it declares still has a right answer.
                found = plain(*arrays)
                run = _not_as_declared
                return found
            return tuple([result.copy() for result in memory.outputs])

        return call

    def bind_single(self, shape: Shape) -> Single:
        """Return the same call for one input and one output."""
        plain, memory = self._plain(), self._memory((shape,))
        if memory is None:
            return lambda array: plain(array)[0]
        (run, binding), errors = _entry(self._session, memory.binding), self._errors
        target, copy = memory.inputs[0], memory.outputs[0].copy

        def call(array: Array) -> Array:
            nonlocal run
            target[...] = array
            try:
                run(binding, None)
            except errors:
                (found,) = plain(array)
                run = _not_as_declared
                return found
            return copy()

        return call

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Bind to the shapes of these arrays and run once."""
        return run_once(self, feeds)

    def close(self) -> None:
        """Let go of the session and its bound memory."""
        self._kept.clear()
        self._session = None

    def _memory(self, shapes: tuple[Shape, ...]) -> _Memory | None:
        """Return bound memory for these shapes, kept from before or new; None where they need the plain way."""
        if shapes not in self._kept:
            self._kept[shapes] = self._new_memory(shapes)
            if len(self._kept) > SHAPES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(shapes)
        return self._kept[shapes]

    def _new_memory(self, shapes: tuple[Shape, ...]) -> _Memory | None:
        outputs = None if self._has_strings else output_shapes(self._input_dimensions, self._output_dimensions, shapes)
        if outputs is None or any(0 in shape for shape in (*shapes, *outputs)):
            return None
        memory = _Memory(
            binding=self._session.io_binding(),
            inputs=[zeros(spec, shape) for spec, shape in zip(self.signature.inputs, shapes, strict=True)],
            outputs=[zeros(spec, shape) for spec, shape in zip(self.signature.outputs, outputs, strict=True)],
        )
        for spec, array in zip(self.signature.inputs, memory.inputs, strict=True):
            memory.binding.bind_input(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for spec, array in zip(self.signature.outputs, memory.outputs, strict=True):
            memory.binding.bind_output(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return memory

    def _plain(self) -> Bound:
        """`InferenceSession.run`, which allocates its outputs."""
        run = self._session.run
        inputs = [(spec.name, spec.dtype == "BYTES") for spec in self.signature.inputs]
        outputs = self.signature.outputs
        names = [spec.name for spec in outputs]
        errors = self._errors

        def call(*arrays: Array) -> tuple[Array, ...]:
            feeds = {
                name: text_in(name, array) if is_text else contiguous(array)
                for (name, is_text), array in zip(inputs, arrays, strict=True)
            }
            try:
                found = run(names, feeds)
            except errors as error:
                raise self._failed(error) from error
            return tuple(array_out(value, spec) for value, spec in zip(found, outputs, strict=True))

        return call

    def _failed(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self._origin}: {self.runtime} failed to run: {one_line(error)}",
            fix="check the model with `tidegate verify`, or convert it again",
        )


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"the runtime for .onnx models does not import here: {one_line(error)}",
            fix='pip install "tidegate[onnx]"',
        ) from error
    return onnxruntime


def _refuse_external_data(origin: str, content: bytes) -> None:
    """Refuse bytes that refer to a file: there is no folder for it to lie in, and no digest that covers it."""
    try:
        outside = external_tensors(content)
    except IndexError:  # damaged: the runtime says so in better words
        return
    if outside:
        raise ModelError(
            f"{origin}: tensor {outside[0].tensor!r} keeps its data in another file, {outside[0].location!r}; "
            "expected a model that holds all its weights",
            fix="rebuild the bundle with `tidegate build`, which takes the weights in",
        )


def _options(onnxruntime: Any, file: ModelFile) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    options.intra_op_num_threads = file.threads
    options.inter_op_num_threads = file.threads
    # A session that waits by spinning burns a core between calls: 7 to 10 times the CPU at a microphone's pace.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if file.content is not None:
        # Bytes whose weights lie in a second file would take that file from the working directory, whatever it holds.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


def _entry(session: Any, binding: Any) -> tuple[Callable[[Any, Any], None], Any]:
    """Return `run_with_iobinding` and the binding to call it with.

    The public method asks on every call whether a WebGPU graph is being captured, for a tenth of the time of a small
    model. The objects inside both take the same call; where a version has none of that name, the public pair serves.
    """
    inner = getattr(getattr(session, "_sess", None), "run_with_iobinding", None)
    inner_binding = getattr(binding, "_iobinding", None)
    if inner is None or inner_binding is None:
        return session.run_with_iobinding, binding
    return inner, inner_binding


def _not_as_declared(binding: object, options: object) -> None:
    raise RuntimeError("the model's outputs are not of the shape that it declares")
