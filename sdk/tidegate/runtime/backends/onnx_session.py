"""Opening an `.onnx` model: ONNX Runtime's session, its options and its errors."""

from __future__ import annotations

import os
from typing import Any

from tidegate.errors import DependencyError, ModelError
from tidegate.runtime.backends.protocol import ModelFile, one_line
from tidegate.runtime.onnx_file import external_tensors

PROVIDER = "CPUExecutionProvider"

LOG_FATAL_ONLY = 4
"""ONNX Runtime's log severity: what goes wrong is raised, so nothing needs to be printed."""


def import_runtime() -> Any:
    """Return the module `onnxruntime`.

    Raises:
        DependencyError: it is not installed, or does not import.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"the runtime for .onnx models does not import here: {one_line(error)}",
            fix='pip install "tidegate[onnx]"',
        ) from error
    return onnxruntime


def open_session(file: ModelFile) -> Any:
    """Return an InferenceSession on the CPU provider, without spinning threads. What the runtime raises passes.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        ModelError: bytes that keep weights in another file.
    """
    onnxruntime = import_runtime()
    if file.content is not None:
        _refuse_external_data(file.origin, file.content)
    source = file.content if file.path is None else str(file.path)
    return onnxruntime.InferenceSession(source, _options(onnxruntime, file), providers=[PROVIDER])


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return every exception that ONNX Runtime raises: its own classes, and what its Python layer raises."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


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
