"""What a backend is: one runtime library that executes model files.

A backend never validates the caller's data: `tidegate.runtime.Model` does that once, for all of them, and hands over
arrays of the signature's exact dtypes and of shapes that fit it. They may be strided; a backend never keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from tidegate.bundle.manifest import Signature
from tidegate.errors import ConfigError, NotFoundError

Array = NDArray[Any]
Shape = tuple[int, ...]

Bound = Callable[..., tuple[Array, ...]]
"""The model with its input shapes fixed: input arrays in, fresh output arrays out, both in the signature's order.

Raises ModelError when the runtime fails.
"""

Single = Callable[[Array], Array]
"""The same for a model with one input and one output, without the tuple around it."""


class Backend(Protocol):
    """One loaded model file on one runtime. Not safe for several threads: `Model` holds the lock."""

    @property
    def name(self) -> str:
        """`litert` or `onnx`, as in the manifest."""

    @property
    def runtime(self) -> str:
        """The library with its version, such as `onnxruntime 1.31.1`."""

    @property
    def provider(self) -> str:
        """What executes the operators, as the runtime reports it after loading: `XNNPACK`, `CPUExecutionProvider`."""

    @property
    def signature(self) -> Signature:
        """Names, dtypes and shapes as the model file states them, -1 for a free dimension."""

    def bind(self, shapes: tuple[Shape, ...]) -> Bound:
        """Prepare for inputs of these shapes, one per input in the signature's order.

        Only the latest returned callable may be used: binding again may move the runtime's buffers.

        Raises:
            ModelError: the runtime refuses the shapes.
        """

    def bind_single(self, shape: Shape) -> Single:
        """Do the same for a model with one input and one output: the path where tenths of a microsecond count."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Bind to the shapes of these arrays and run once: the unhurried path.

        Raises:
            ModelError: the runtime failed.
        """

    def close(self) -> None:
        """Let go of the runtime's memory. A second call does nothing."""


@dataclass(frozen=True)
class ModelFile:
    """Where a backend gets the model from, and how it loads it."""

    origin: str
    """how messages call the model: a path, or `BUNDLE: variant ID`"""
    content: bytes | None = None
    """the model itself; None: read it from `path`"""
    path: Path | None = None
    """a bare file; an ONNX model's weights may lie beside it"""
    threads: int = 1
    """threads that one call may use"""
    raw: bool = False
    """hand integer-quantised tensors through as integers"""

    def __post_init__(self) -> None:
        if (self.content is None) == (self.path is None):
            raise ConfigError("a model file needs either content or a path", fix="give exactly one of the two")
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected 1 or more", fix="leave it out for one thread")

    def read(self) -> bytes:
        """Return the model's bytes.

        Raises:
            NotFoundError: the file is not there, or may not be read.
        """
        if self.path is None:
            return self.content or b""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise NotFoundError(
                f"{self.path} cannot be read: {error.strerror}", fix="check the path and its permissions"
            ) from error


def run_once(backend: Backend, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run through `bind`: what every backend's `run` does."""
    arrays = [feeds[spec.name] for spec in backend.signature.inputs]
    outputs = backend.bind(tuple(array.shape for array in arrays))(*arrays)
    return {spec.name: output for spec, output in zip(backend.signature.outputs, outputs, strict=True)}


def one_line(error: BaseException) -> str:
    """Return a foreign error's text on one line, or its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
