"""The backends by name. Each is imported when first asked for, and imports its runtime when it first loads a model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from tidegate.errors import ConfigError, DependencyError
from tidegate.runtime.backends.protocol import Array, Backend, Bound, ModelFile, Shape, Single

__all__ = [
    "BACKENDS",
    "Array",
    "Backend",
    "Bound",
    "ModelFile",
    "Shape",
    "Single",
    "installed_backends",
    "open_model",
    "runtime_of",
]

BACKENDS: dict[str, str] = {
    "litert": "tidegate.runtime.backends.litert",
    "onnx": "tidegate.runtime.backends.onnx",
}
"""Name in the manifest -> module with `find_runtime() -> str` and `open_model(ModelFile) -> Backend`."""


def runtime_of(backend: str) -> str:
    """Return the installed runtime of a backend with its version, such as `ai_edge_litert 2.3.0`.

    Raises:
        ConfigError: no backend of this name.
        DependencyError: its runtime is not installed, or does not work here.
    """
    return cast("Callable[[], str]", _module_attribute(backend, "find_runtime"))()


def open_model(backend: str, file: ModelFile) -> Backend:
    """Load a model file on a backend.

    Raises:
        ConfigError: no backend of this name.
        DependencyError: its runtime is not installed, or does not work here.
        ModelError: the runtime refuses the model.
        NotFoundError: the file is not there.
    """
    return cast("Callable[[ModelFile], Backend]", _module_attribute(backend, "open_model"))(file)


def installed_backends() -> Mapping[str, str]:
    """Return the backends whose runtime imports here, each with the runtime's name and version.

    A runtime is imported when it is first asked for: an installed package that does not import is not counted, and one
    that nobody asks for costs no memory.
    """
    return _InstalledBackends()


class _InstalledBackends(Mapping[str, str]):
    def __init__(self) -> None:
        self._found: dict[str, str | None] = {}

    def __getitem__(self, backend: str) -> str:
        if backend not in BACKENDS:
            raise KeyError(backend)
        if backend not in self._found:
            try:
                self._found[backend] = runtime_of(backend)
            except DependencyError:
                self._found[backend] = None
        runtime = self._found[backend]
        if runtime is None:
            raise KeyError(backend)
        return runtime

    def __iter__(self) -> Iterator[str]:
        return (backend for backend in BACKENDS if backend in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _module_attribute(backend: str, attribute: str) -> object:
    if backend not in BACKENDS:
        raise ConfigError(f"no backend {backend!r}", fix=f"use one of {', '.join(BACKENDS)}")
    return getattr(importlib.import_module(BACKENDS[backend]), attribute)
