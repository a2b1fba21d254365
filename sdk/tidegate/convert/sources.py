"""What kind of model is this? Told from the path, or from the object's class, without importing a framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.convert.routes import SourceKind
from tidegate.errors import ConfigError, NotFoundError

KIND_BY_SUFFIX: dict[str, SourceKind] = {
    ".keras": "keras",
    ".h5": "keras",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".onnx": "onnx",
    ".tflite": "tflite",
}

_KIND_BY_CLASS: dict[tuple[str, str], SourceKind] = {
    ("keras", "Model"): "keras",
    ("sklearn", "BaseEstimator"): "sklearn",
}
"""Top-level package and name of a class among an object's ancestors."""


@dataclass(frozen=True)
class Source:
    """A model to convert."""

    kind: SourceKind
    origin: str
    """how messages call it"""
    name: str
    """what the converted files are called after"""
    path: Path | None = None
    """None when the source is an object"""
    model: Any = None
    """the object, None when the source is a path"""


def identify(source: Any) -> Source:
    """Return what a source is.

    Args:
        source: a path (`.keras`, `.h5`, SavedModel directory, `.joblib`, `.pkl`, `.onnx`, `.tflite`), a Keras model or
            a scikit-learn estimator.

    Raises:
        NotFoundError: no such path.
        ConfigError: no kind of model that can be converted.
    """
    if isinstance(source, str | Path):
        return _from_path(Path(source))
    for ancestor in type(source).__mro__:
        kind = _KIND_BY_CLASS.get((ancestor.__module__.split(".")[0], ancestor.__name__))
        if kind is not None:
            name = getattr(source, "name", "") or type(source).__name__.lower()
            return Source(kind, f"{kind} model {name!r}", str(name), model=source)
    raise ConfigError(
        f"a {type(source).__module__}.{type(source).__qualname__} cannot be converted",
        fix="give a path, a Keras model or a scikit-learn estimator; export a PyTorch model to ONNX first",
    )


def _from_path(path: Path) -> Source:
    if not path.exists():
        raise NotFoundError(f"no model at {path}", fix="check the path")
    name = path.resolve().stem
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ConfigError(f"{path} is a directory without saved_model.pb", fix="name the SavedModel directory")
        return Source("savedmodel", str(path), path.resolve().name, path=path)
    kind = KIND_BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{path}: the suffix {path.suffix!r} tells no kind of model; known are {', '.join(KIND_BY_SUFFIX)} and "
            "SavedModel directories",
            fix="export a PyTorch model with torch.onnx.export; save others in one of these formats",
        )
    return Source(kind, str(path), name, path=path)
