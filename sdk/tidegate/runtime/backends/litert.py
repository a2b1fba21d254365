"""LiteRT: `.tflite` models through `ai_edge_litert`, or through the older `tflite_runtime`.

Both have the same Interpreter. Per call it is told one input, runs and is asked for one output: `set_tensor`, `invoke`,
`get_tensor`, which copies in and out and is faster on small models than its signature runners.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from tidegate.bundle.manifest import Signature
from tidegate.errors import DependencyError, ModelError
from tidegate.runtime.backends.litert_tensors import Tensor, signature_tensors
from tidegate.runtime.backends.protocol import Array, Bound, ModelFile, Shape, Single, one_line, run_once

RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
"""Module and distribution, in order of preference."""

IDENTIFIER = b"TFL3"
"""Of every TFLite flatbuffer; the older runtime crashes on some files that lack it."""

RUNTIME_ERRORS = (ValueError, RuntimeError, TypeError, OverflowError)
"""What the Interpreter raises: it has no exception classes of its own."""


def find_runtime() -> str:
    """Return the runtime that is installed, with its version.

    Raises:
        DependencyError: neither is, or the one that is does not work here.
    """
    module, distribution = _find_module()
    return f"{module} {_version(distribution)}"


def open_model(file: ModelFile) -> LiteRTBackend:
    """Load a `.tflite` model.

    Raises:
        DependencyError: no runtime is installed.
        ModelError: the runtime refuses the model.
    """
    module, distribution = _find_module()
    interpreter_class = importlib.import_module(f"{module}.interpreter").Interpreter
    # A mapped file that is cut or overwritten later would kill the process; a copy in memory cannot change.
    content = file.read()
    if content[4:8] != IDENTIFIER:
        raise ModelError(
            f"{file.origin} is not a TFLite model: bytes 4 to 8 are {content[4:8]!r}; expected {IDENTIFIER!r}",
            fix="check that the file is whole and is a .tflite model",
        )
    try:
        interpreter = interpreter_class(model_content=content, num_threads=file.threads)
        interpreter.allocate_tensors()
        inputs, outputs = signature_tensors(interpreter, file)
        return LiteRTBackend(file.origin, f"{module} {_version(distribution)}", interpreter, inputs, outputs)
    except RUNTIME_ERRORS as error:
        raise ModelError(
            f"{file.origin}: {module} cannot load this as a TFLite model: {one_line(error)}",
            fix="check that the file is whole and is a .tflite model; convert it again if need be",
        ) from error


class LiteRTBackend:
    """One TFLite model in one interpreter."""

    name = "litert"

    def __init__(
        self, origin: str, runtime: str, interpreter: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> None:
        self.runtime = runtime
        self.provider = _provider(interpreter, [tensor.index for tensor in outputs])
        self.signature = Signature(
            inputs=tuple(tensor.spec for tensor in inputs), outputs=tuple(tensor.spec for tensor in outputs)
        )
        self._origin = origin
        self._interpreter: Any = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self._shapes = tuple(tensor.shape for tensor in inputs)

    def bind(self, shapes: tuple[Shape, ...]) -> Bound:
        """Resize the inputs if their shapes changed, and return the call for them."""
        if shapes != self._shapes:
            self._resize(shapes)
        set_tensor, invoke, get_tensor = self._calls()
        inputs = [(tensor.index, tensor.quantisation) for tensor in self._inputs]
        outputs = [(tensor.index, tensor.quantisation) for tensor in self._outputs]

        def call(*arrays: Array) -> tuple[Array, ...]:
            try:
                for (index, quantisation), array in zip(inputs, arrays, strict=True):
                    set_tensor(index, array if quantisation is None else quantisation.quantise(array))
                invoke()
                found = [np.asarray(get_tensor(index)) for index, _ in outputs]  # a scalar comes as a number
            except RUNTIME_ERRORS as error:
                raise self._failed("failed to run", error) from error
            return tuple(
                array if quantisation is None else quantisation.dequantise(array)
                for array, (_, quantisation) in zip(found, outputs, strict=True)
            )

        return call

    def bind_single(self, shape: Shape) -> Single:
        """Resize the input if its shape changed, and return the call for it."""
        bound = self.bind((shape,))
        if self._inputs[0].quantisation or self._outputs[0].quantisation or not self._outputs[0].spec.shape:
            return lambda array: bound(array)[0]
        set_tensor, invoke, get_tensor = self._calls()
        input_index, output_index = self._inputs[0].index, self._outputs[0].index

        def call(array: Array) -> Array:
            try:
                set_tensor(input_index, array)
                invoke()
                output: Array = get_tensor(output_index)
                return output
            except RUNTIME_ERRORS as error:
                raise self._failed("failed to run", error) from error

        return call

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Bind to the shapes of these arrays and run once."""
        return run_once(self, feeds)

    def close(self) -> None:
        """Let go of the interpreter."""
        self._interpreter = None

    def _resize(self, shapes: tuple[Shape, ...]) -> None:
        self._shapes = ()
        try:
            for tensor, shape in zip(self._inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(tensor.index, shape)
            self._interpreter.allocate_tensors()
        except RUNTIME_ERRORS as error:
            raise self._failed(f"cannot take inputs of shape {[list(shape) for shape in shapes]}", error) from error
        self._shapes = shapes

    def _calls(self) -> tuple[Any, Any, Any]:
        return self._interpreter.set_tensor, self._interpreter.invoke, self._interpreter.get_tensor

    def _failed(self, what: str, error: Exception) -> ModelError:
        return ModelError(
            f"{self._origin}: {self.runtime} {what}: {one_line(error)}",
            fix="check the model with `tidegate verify`, or convert it again",
        )


def _find_module() -> tuple[str, str]:
    """Return module and distribution of the first runtime that imports and works with this numpy."""
    reasons = []
    for module, distribution in RUNTIMES:
        try:
            importlib.import_module(f"{module}.interpreter")
        except ImportError as error:
            reasons.append(f"{module}: {one_line(error)}")
            continue
        problem = numpy_problem(module, np.__version__)
        if problem is None:
            return module, distribution
        reasons.append(problem)
    raise DependencyError(
        f"no runtime for .tflite models works here ({'; '.join(reasons)})",
        fix='pip install "tidegate[litert]" (or, for the older runtime, pip install "tidegate[tflite]")',
    )


def numpy_problem(module: str, numpy_version: str) -> str | None:
    """Return why a runtime cannot work beside this numpy, or None.

    tflite_runtime 2.14, the last one, was built for NumPy 1: it imports beside NumPy 2 and then loads no model.
    """
    if module == "tflite_runtime" and int(numpy_version.split(".")[0]) >= 2:
        return f"tflite_runtime needs numpy<2, found {numpy_version}"
    return None


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"


def _provider(interpreter: Any, outputs: list[int]) -> str:
    """Return `XNNPACK` when a delegate computes every output, `XNNPACK+CPU` when some operators stayed behind.

    The interpreter lists replaced operators beside the delegate that replaced them, so the ones that really run are
    those reached from the outputs. The list is not a documented call: without it the answer is `CPU`.
    """
    list_operators = getattr(interpreter, "_get_ops_details", None)
    if list_operators is None:
        return "CPU"
    producer: dict[int, dict[str, Any]] = {}
    for operator in list_operators():  # delegates come last and so take the place of what they replaced
        producer.update({int(tensor): operator for tensor in operator["outputs"]})
    pending, seen, delegated = list(outputs), set[int](), set[bool]()
    while pending:
        tensor = pending.pop()
        if tensor not in seen and tensor in producer:
            seen.add(tensor)
            delegated.add(producer[tensor]["op_name"] == "DELEGATE")
            pending += [int(source) for source in producer[tensor]["inputs"]]
    if delegated == {True}:
        return "XNNPACK"
    return "XNNPACK+CPU" if True in delegated else "CPU"
