"""The backends by name. Each is imported when first asked for, and imports its runtime when it first loads a model."""

from __future__ import annotations

import importlib
from collections.abc import Callable
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


def installed_backends() -> dict[str, str]:
    """Return the backends whose runtime imports here, each with the runtime's name and version.

    Imports every runtime that is installed: an installed package that does not import is not counted.
    """
    found: dict[str, str] = {}
    for backend in BACKENDS:
        try:
            found[backend] = runtime_of(backend)
        except DependencyError:
            continue
    return found


def _module_attribute(backend: str, attribute: str) -> object:
    if backend not in BACKENDS:
        raise ConfigError(f"no backend {backend!r}", fix=f"use one of {', '.join(BACKENDS)}")
    return getattr(importlib.import_module(BACKENDS[backend]), attribute)
