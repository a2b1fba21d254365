"""Ids for bare model files: `onnx-fp32` when the precision can be told, else `onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidegate.bundle.manifest import BackendName
from tidegate.convert.precision import precision_of
from tidegate.convert.spec import BACKEND_BY_SUFFIX, read_bytes
from tidegate.errors import ConfigError

_ID_PREFIX: dict[BackendName, str] = {"litert": "tflite", "onnx": "onnx"}


def variant_ids(models: Sequence[str]) -> dict[str, Path]:
    """Return the file of each `FILE` or `ID=FILE` by its variant id, in the given order.

    Raises:
        ConfigError: neither .onnx nor .tflite, or two files that would get the same id.
        NotFoundError: no such file.
    """
    found: dict[str, Path] = {}
    for model in models:
        id, path = _id_and_path(model)
        if id in found:
            raise ConfigError(
                f"{path} and {found[id]} would both be variant {id!r}",
                fix=f"name them yourself: --model {id}-a={found[id]} --model {id}-b={path}",
            )
        found[id] = path
    return found


def _id_and_path(model: str) -> tuple[str, Path]:
    named, equals, rest = model.partition("=")
    # A file whose own name holds "=" is taken for what it is.
    id, path = (named, Path(rest)) if equals and not Path(model).exists() else ("", Path(model))
    backend = BACKEND_BY_SUFFIX.get(path.suffix)
    if backend is None:
        raise ConfigError(f"{path} is neither .onnx nor .tflite", fix="convert the model to one of these first")
    content = read_bytes(path, "--model", fix="check the path")
    if id:
        return id, path
    precision = precision_of(content, backend)
    return _ID_PREFIX[backend] + (f"-{precision}" if precision else ""), path
