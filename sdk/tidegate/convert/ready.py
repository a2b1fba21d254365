"""Ready `.onnx` and `.tflite` files, taken as they are; ONNX weights that lie beside the model are taken in."""

from __future__ import annotations

from pathlib import Path

from tidegate.bundle.arrays import Array
from tidegate.bundle.manifest import BackendName
from tidegate.convert.job import Job
from tidegate.convert.model_files import read_model
from tidegate.convert.precision import precision_of
from tidegate.convert.rows import Rows
from tidegate.convert.sources import Source
from tidegate.convert.spec import BACKEND_BY_SUFFIX
from tidegate.errors import ConfigError
from tidegate.evaluate.running import run_rows
from tidegate.runtime import load


def opened(source: Source) -> Path:
    """Return the path."""
    assert source.path is not None, "a ready model is always a file"
    return source.path


def outputs(path: Path, rows: Rows) -> dict[str, Array]:
    """Run the file itself.

    Raises:
        ModelError: the runtime refuses it.
    """
    with load(path) as model:
        return run_rows(model, rows, str(path), lambda done: None)


def as_it_is(path: Path, job: Job) -> Path:
    """Copy the file; nothing is claimed about its precision.

    Raises:
        BundleError: its weights lie outside its folder.
        ConfigError: with its weights it is too long for one file.
    """
    out = job.folder / f"ready{path.suffix.lower()}"
    out.write_bytes(read_model(path, _backend(path), job.origin))
    return out


def as_fp32(path: Path, job: Job) -> Path:
    """Copy the file if most of its weights are float32.

    Raises:
        ConfigError: they are not.
        BundleError: its weights lie outside its folder.
    """
    out = as_it_is(path, job)
    precision = precision_of(out.read_bytes(), _backend(path))
    if precision not in ("fp32", ""):
        raise ConfigError(
            f"{job.origin} is {precision}; expected fp32",
            fix=f"take it as it is: {_ID_BY_BACKEND[_backend(path)]}, or start from the float32 model",
        )
    return out


_ID_BY_BACKEND: dict[BackendName, str] = {"litert": "tflite", "onnx": "onnx"}


def _backend(path: Path) -> BackendName:
    return BACKEND_BY_SUFFIX[path.suffix.lower()]
