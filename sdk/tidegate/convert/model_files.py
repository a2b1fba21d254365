"""Read a model file as the one file that a bundle will hold: ONNX weights that lie beside it are taken in."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tidegate.bundle.manifest import BackendName
from tidegate.convert.mirrors.onnx import MAXIMUM_BYTES
from tidegate.convert.source_notes import without_source_notes
from tidegate.convert.spec import read_bytes
from tidegate.errors import BundleError, ConfigError, DependencyError, NotFoundError, ResourceError
from tidegate.runtime.onnx_file import ExternalTensor, external_tensors


def read_model(path: Path, backend: BackendName, what: str) -> bytes:
    """Return a model as one file, without notes about the source files of the machine that it was made on.

    Args:
        path: an .onnx or .tflite file.
        backend: which of the two it is.
        what: how messages call it.

    Raises:
        NotFoundError: it is not there, or the file that it keeps its weights in is not.
        BundleError: it refers to weights outside its own folder, or through a link.
        ConfigError: with its weights it is too long for one ONNX file.
        DependencyError: its weights lie beside it, and the onnx package is not installed.
        ResourceError: the system refuses.
    """
    content = read_bytes(path, what)
    if backend != "onnx":
        return content
    try:
        content, outside = without_source_notes(content), external_tensors(content)
    except IndexError:  # damaged: the runtime says so in better words
        return content
    return _with_weights(content, path, outside, what) if outside else content


def _with_weights(content: bytes, path: Path, outside: tuple[ExternalTensor, ...], what: str) -> bytes:
    files = {tensor.location: _checked(path, tensor, what) for tensor in outside}
    total = len(content) + sum(file.stat().st_size for file in set(files.values()))
    if total > MAXIMUM_BYTES:
        raise ConfigError(
            f"{what}: {path} and its weights take {total} bytes; one ONNX file holds at most {MAXIMUM_BYTES}",
            fix="convert the weights to fp16 or int8 first",
        )
    helper, onnx = _onnx(what)
    try:
        model = onnx.load_model_from_string(content)
        helper.load_external_data_for_model(model, str(path.parent))
        whole: bytes = model.SerializeToString(deterministic=True)
    except OSError as error:
        raise ResourceError(f"{what}: the weights of {path} could not be read: {error}", fix="check them") from error
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise BundleError(
            f"{what}: the weights of {path} do not fit what it says of them: {' '.join(str(error).split())}",
            fix="export the model again",
        ) from error
    return whole


def _checked(path: Path, tensor: ExternalTensor, what: str) -> Path:
    """Return the file that a tensor refers to, when it lies in the model's folder and no link leads to it."""
    location = tensor.location
    parts = PurePosixPath(location).parts
    refused = f"{what}: tensor {tensor.tensor!r} of {path} keeps its data in {location!r}"
    fix = "export the model with its weights in one file beside it, or inside it"
    if not parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute():
        raise BundleError(f"{refused}; expected a relative path", fix=fix)
    if ".." in parts or "\\" in location or "\0" in location or PureWindowsPath(location).drive:
        raise BundleError(f"{refused}, outside the model's own folder", fix=fix)
    place = path.parent
    for part in parts:
        place = place / part
        try:
            mode = place.lstat().st_mode
        except OSError as error:
            raise NotFoundError(f"{refused}, which cannot be read: {error.strerror}", fix=fix) from error
        if stat.S_ISLNK(mode):
            raise BundleError(f"{refused}; {part!r} is a link, and may lead anywhere", fix=fix)
    if not stat.S_ISREG(mode):
        raise BundleError(f"{refused}, which is no regular file", fix=fix)
    return place


def _onnx(what: str) -> tuple[Any, Any]:
    try:
        import onnx
        import onnx.checker
        from onnx import external_data_helper
    except ImportError as error:
        raise DependencyError(
            f"{what}: its weights lie in another file; taking them in needs the package onnx",
            fix='pip install "tidegate[build]"',
        ) from error
    return external_data_helper, onnx
