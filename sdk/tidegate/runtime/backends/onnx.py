"""ONNX Runtime: `.onnx` models on the CPU provider.

Where the output shapes follow from the input shapes, inputs are copied into memory that is bound to the session once,
and outputs out of it: less than half the cost of `InferenceSession.run` on a small model. Everything else (strings,
shapes that depend on the data, empty tensors) goes through `run`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import NUMPY_BY_NAME
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import DependencyError, InputError, ModelError
from tidegate.runtime.backends.protocol import Array, Bound, ModelFile, Shape, run_once

PROVIDER = "CPUExecutionProvider"

BINDINGS_KEPT = 4
"""Sets of input shapes whose memory is kept; a batcher alternates between a few sizes."""

LOG_FATAL_ONLY = 4
"""ONNX Runtime's log severity: what goes wrong is raised, so nothing needs to be printed."""

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
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


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
    source = file.content if file.path is None else str(file.path)
    try:
        session = onnxruntime.InferenceSession(source, _options(onnxruntime, file.threads), providers=[PROVIDER])
        return OnnxBackend(file.origin, f"onnxruntime {onnxruntime.__version__}", session)
    except runtime_errors() as error:
        raise ModelError(
            f"{file.origin}: onnxruntime cannot load this as an ONNX model: {_one_line(error)}",
            fix="check that the file is whole and is an .onnx model; convert it again if need be",
        ) from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return every exception that ONNX Runtime raises: its own classes, and what its Python layer raises."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


class OnnxBackend:
    """One ONNX model in one session."""

    name = "onnx"

    def __init__(self, origin: str, runtime: str, session: Any) -> None:
        self.runtime = runtime
        self.provider = "+".join(session.get_providers())
        self.signature = Signature(
            inputs=tuple(_spec(tensor, origin) for tensor in session.get_inputs()),
            outputs=tuple(_spec(tensor, origin) for tensor in session.get_outputs()),
        )
        self._origin = origin
        self._errors = runtime_errors()
        self._session: Any = session
        self._input_dimensions = [tuple(tensor.shape) for tensor in session.get_inputs()]
        self._output_dimensions = [tuple(tensor.shape) for tensor in session.get_outputs()]
        self._has_strings = any(spec.dtype == "BYTES" for spec in (*self.signature.inputs, *self.signature.outputs))
        self._bindings: OrderedDict[tuple[Shape, ...], Bound] = OrderedDict()

    def bind(self, shapes: tuple[Shape, ...]) -> Bound:
        """Return the call for these shapes: over bound memory where the output shapes follow, else plain `run`."""
        bound = self._bindings.get(shapes)
        if bound is None:
            bound = self._new_call(shapes)
            self._bindings[shapes] = bound
            if len(self._bindings) > BINDINGS_KEPT:
                self._bindings.popitem(last=False)
        self._bindings.move_to_end(shapes)
        return bound

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Bind to the shapes of these arrays and run once."""
        return run_once(self, feeds)

    def close(self) -> None:
        """Let go of the session and its bound memory."""
        self._bindings.clear()
        self._session = None

    def _new_call(self, shapes: tuple[Shape, ...]) -> Bound:
        outputs = None if self._has_strings else output_shapes(self._input_dimensions, self._output_dimensions, shapes)
        if outputs is None or any(0 in shape for shape in (*shapes, *outputs)):
            return self._plain()
        return self._over_memory(shapes, outputs)

    def _plain(self) -> Bound:
        """`InferenceSession.run`, which allocates its outputs."""
        run = self._session.run
        inputs = [(spec.name, spec.dtype == "BYTES") for spec in self.signature.inputs]
        outputs = self.signature.outputs
        names = [spec.name for spec in outputs]
        errors = self._errors

        def call(*arrays: Array) -> tuple[Array, ...]:
            feeds = {
                name: _text(name, array) if is_text else _contiguous(array)
                for (name, is_text), array in zip(inputs, arrays, strict=True)
            }
            try:
                found = run(names, feeds)
            except errors as error:
                raise self._failed(error) from error
            return tuple(_array(value, spec) for value, spec in zip(found, outputs, strict=True))

        return call

    def _over_memory(self, shapes: tuple[Shape, ...], output_shapes: tuple[Shape, ...]) -> Bound:
        """`run_with_iobinding` over memory that stays: copy in, run, copy out."""
        inputs = [
            np.zeros(shape, NUMPY_BY_NAME[spec.dtype])
            for spec, shape in zip(self.signature.inputs, shapes, strict=True)
        ]
        outputs = [
            np.zeros(shape, NUMPY_BY_NAME[spec.dtype])
            for spec, shape in zip(self.signature.outputs, output_shapes, strict=True)
        ]
        binding = self._session.io_binding()
        for spec, array in zip(self.signature.inputs, inputs, strict=True):
            binding.bind_input(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for spec, array in zip(self.signature.outputs, outputs, strict=True):
            binding.bind_output(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        run = self._session.run_with_iobinding
        errors = self._errors
        plain = self._plain()

        def one(array: Array) -> tuple[Array, ...]:
            target[...] = array
            try:
                run(binding)
            except errors:
                return without_memory(array)
            return (result.copy(),)

        def many(*arrays: Array) -> tuple[Array, ...]:
            for memory, array in zip(inputs, arrays, strict=True):
                memory[...] = array
            try:
                run(binding)
            except errors:
                return without_memory(*arrays)
            return tuple([memory.copy() for memory in outputs])

        def without_memory(*arrays: Array) -> tuple[Array, ...]:
            """A model whose outputs are not of the shape that it declares still has a right answer: ask for that."""
            nonlocal run
            found = plain(*arrays)
            run = _shape_not_as_declared
            return found

        if len(inputs) == len(outputs) == 1:
            target, result = inputs[0], outputs[0]
            return one
        return many

    def _failed(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self._origin}: {self.runtime} failed to run: {_one_line(error)}",
            fix="check the model with `tidegate verify`, or convert it again",
        )


def output_shapes(
    inputs: list[tuple[int | str | None, ...]],
    outputs: list[tuple[int | str | None, ...]],
    shapes: tuple[Shape, ...],
) -> tuple[Shape, ...] | None:
    """Return the shape of every output for inputs of these shapes, or None where they do not follow.

    Args:
        inputs: declared dimensions of each input: a size, a name, or None where nothing is known.
        outputs: the same of each output.
        shapes: the sizes that the inputs really have.
    """
    sizes: dict[str, int] = {}
    for declared, shape in zip(inputs, shapes, strict=True):
        for dimension, size in zip(declared, shape, strict=True):
            if isinstance(dimension, str) and sizes.setdefault(dimension, size) != size:
                return None
    found: list[Shape] = []
    for declared in outputs:
        known = [sizes.get(item, -1) if isinstance(item, str) else -1 if item is None else item for item in declared]
        if any(size < 0 for size in known):
            return None
        found.append(tuple(known))
    return tuple(found)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"the runtime for .onnx models does not import here: {_one_line(error)}",
            fix='pip install "tidegate[onnx]"',
        ) from error
    return onnxruntime


def _options(onnxruntime: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = threads
    # A session that waits by spinning burns a core between calls: 7 to 10 times the CPU at a microphone's pace.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _spec(tensor: Any, origin: str) -> TensorSpec:
    dtype = OIP_BY_ONNX.get(tensor.type)
    if dtype is None:
        raise ModelError(
            f"{origin}: tensor {tensor.name!r} is of type {tensor.type}, which no numpy array holds; "
            f"expected one of {', '.join(OIP_BY_ONNX)}",
            fix="cast it to FP32 inside the model"
            if tensor.type == "tensor(bfloat16)"
            else "export the model with tensors",
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(name=tensor.name, dtype=dtype, shape=shape)


def _shape_not_as_declared(binding: object) -> None:
    raise RuntimeError("the model's outputs are not of the shape that it declares")


def _text(name: str, array: Array) -> Array:
    """Return an object array of `str`, the only form in which the runtime takes strings unharmed.

    Raises:
        InputError: bytes that are not UTF-8.
    """
    text = np.empty(array.shape, object)
    try:
        text.reshape(-1)[:] = [item if isinstance(item, str) else item.decode("utf-8") for item in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise InputError(
            f"input {name!r} holds bytes that are not UTF-8 ({error}); ONNX strings are UTF-8",
            fix="encode the text as UTF-8",
        ) from error
    return text


def _contiguous(array: Array) -> Array:
    # `ascontiguousarray` alone would turn a scalar into an array of one axis.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _array(value: Any, spec: TensorSpec) -> Array:
    """Return an output as the signature states it: BYTES as an object array of `bytes`."""
    array = np.asarray(value)
    if spec.dtype != "BYTES":
        return array
    encoded = np.empty(array.shape, object)
    encoded.reshape(-1)[:] = [item.encode("utf-8") for item in array.reshape(-1)]
    return encoded


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
