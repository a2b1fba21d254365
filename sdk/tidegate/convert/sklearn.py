"""scikit-learn estimators and pipelines: opened, run as the reference, and converted to ONNX by skl2onnx.

Inputs: one matrix of numbers, one column of texts (BYTES), or one input for each column. Outputs: `label` and
`probabilities` of a classifier (`scores` where it has no probabilities), `prediction` of a regressor.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.convert.job import ONNX_ML_OPSET, ONNX_OPSET, Job
from tidegate.convert.onnx_names import named
from tidegate.convert.reasons import one_line
from tidegate.convert.rows import Rows
from tidegate.convert.sklearn_text import text_options, with_portable_locale
from tidegate.convert.sklearn_trees import tree_converters
from tidegate.convert.sources import Source
from tidegate.errors import ConfigError, DependencyError, ModelError

EXTRA = 'pip install "tidegate[sklearn]"'
TEXT_INPUT = "text"
MATRIX_INPUT = "input"

_UNPICKLING = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, ValueError, KeyError, IndexError, TypeError, OSError,
)  # fmt: skip


def opened(source: Source) -> Any:
    """Return the fitted estimator; of a search, the best one.

    A `.joblib` or pickle file runs code while it is read: convert only files of your own.

    Raises:
        DependencyError: scikit-learn or skl2onnx is not installed.
        ModelError: the file cannot be read, or the estimator is not fitted.
    """
    joblib = _import()
    model = source.model
    if source.path is not None:
        try:
            model = joblib.load(source.path)
        except _UNPICKLING as error:
            raise ModelError(
                f"{source.origin}: cannot be unpickled: {one_line(error)}",
                fix="classes of your own must be importable: load it in Python and hand it to tidegate.convert.convert",
            ) from error
    _check_fitted(model, source.origin)
    return getattr(model, "best_estimator_", model)


def outputs(model: Any, rows: Rows) -> dict[str, Array]:
    """Run the estimator.

    Raises:
        ModelError: it fails.
    """
    from sklearn.base import is_classifier, is_regressor

    try:
        table = _table(model, rows)
        if is_classifier(model):
            found = {"label": _labels(model.predict(table))}
            if hasattr(model, "predict_proba"):
                found["probabilities"] = np.asarray(model.predict_proba(table), np.float32)
            return found
        if is_regressor(model):
            return {"prediction": _column(model.predict(table))}
        if hasattr(model, "predict"):
            return {"label": _labels(model.predict(table))}
        transformed = model.transform(table)
        return {"transformed": np.asarray(getattr(transformed, "todense", lambda: transformed)(), np.float32)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{type(model).__name__} fails on the representative data: {one_line(error)}",
            fix="give data of the columns and types that it was fitted on",
        ) from error


def to_onnx_fp32(model: Any, job: Job) -> Path:
    """Write ONNX with plain tensors as outputs (no sequence of maps).

    Raises:
        ModelError: skl2onnx has no converter for a step; the message names it.
        ConfigError: the inputs cannot be told without representative data, or it has other columns than the model.
    """
    from skl2onnx import convert_sklearn
    from sklearn.base import is_classifier

    columns = _columns(model, job)
    whole = _joined(model, columns, job)
    options: dict[Any, Any] = text_options(model)
    if is_classifier(model) and hasattr(model, "predict_proba"):
        options[id(whole)] = {"zipmap": False}
    try:
        converted = convert_sklearn(
            whole,
            name="model",
            initial_types=[(name, kind([None, *shape])) for name, (kind, shape) in columns.items()],
            target_opset={"": ONNX_OPSET, "ai.onnx.ml": ONNX_ML_OPSET},
            options=options or None,
            custom_conversion_functions=tree_converters(),
        )
    except (RuntimeError, NameError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{job.origin}: skl2onnx cannot convert {_culprit(model, error)}: {_reason(error)}",
            fix="use a step that skl2onnx supports, or apply it before the model",
        ) from error
    with_portable_locale(converted)
    out = job.folder / "fp32.onnx"
    names = _output_names(model, [value.name for value in converted.graph.output])
    out.write_bytes(named(converted, list(columns), names).SerializeToString(deterministic=True))
    return out


def _columns(model: Any, job: Job) -> dict[str, tuple[Any, list[int]]]:
    """Return skl2onnx's type and the shape of a row, by input name."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    if not job.rows:
        if _first_step(model, "build_analyzer"):
            return {TEXT_INPUT: (StringTensorType, [])}
        if hasattr(model, "n_features_in_") and not _first_step(model, "transformers_"):
            return {MATRIX_INPUT: (FloatTensorType, [int(model.n_features_in_)])}
        raise ConfigError(
            f"{job.origin}: names and types of its columns are not known",
            fix="give representative data, one array for each column: --data DATA.npz with input/COLUMN",
        )
    columns = {
        name: (StringTensorType if array.dtype.kind == "O" else FloatTensorType, list(array.shape[1:]))
        for name, array in _in_fitted_order(model, job.rows, job.origin).items()
    }
    if len(columns) > 1 or (len(columns) == 1 and hasattr(model, "feature_names_in_")):
        # One value a row is a column of one.
        return {name: (kind, shape or [1]) for name, (kind, shape) in columns.items()}
    return columns


def _in_fitted_order(model: Any, rows: Rows, origin: str) -> Rows:
    known = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if len(rows) == 1 or not known:
        return rows
    if set(known) != rows.keys():
        raise ConfigError(
            f"the representative data has the columns {', '.join(map(repr, rows))}; {origin} was fitted on "
            f"{', '.join(map(repr, known))}",
            fix="save one array for each column, named input/COLUMN",
        )
    return {name: rows[name] for name in known}


def _joined(model: Any, columns: dict[str, tuple[Any, list[int]]], job: Job) -> Any:
    """Return the model behind a step that joins several columns, where the model itself takes a matrix."""
    if len(columns) == 1 or _first_step(model, "transformers_"):
        return model
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    width = sum(shape[0] for _, shape in columns.values())
    gather = ColumnTransformer([("columns", "passthrough", list(range(width)))])
    gather.fit(np.column_stack([array.reshape(len(array), -1) for array in job.rows.values()]))
    return Pipeline([("columns", gather), ("model", model)])


def _table(model: Any, rows: Rows) -> Any:
    """Return what the estimator was fitted on: a table of named columns, a matrix, or a list of texts."""
    plain = {
        name: array.astype(np.str_) if array.dtype.kind == "O" else array for name, array in _decoded(rows).items()
    }
    known = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if known and len(plain) == 1 and len(known) > 1:
        (matrix,) = plain.values()
        plain = {name: matrix[:, position] for position, name in enumerate(known)}
    if known:
        return _pandas().DataFrame({name: plain[name].reshape(-1) for name in known})
    if len(plain) == 1:
        (only,) = plain.values()
        if only.dtype.kind == "U":
            return only.reshape(-1) if _first_step(model, "build_analyzer") else only
        return _as_seen_by_onnx(only)
    columns = [array.reshape(len(array), -1) for array in plain.values()]
    mixed = any(array.dtype.kind == "U" for array in columns)
    return np.concatenate([array.astype(object) if mixed else _as_seen_by_onnx(array) for array in columns], axis=1)


def _as_seen_by_onnx(array: Array) -> Array:
    """Return float64, which every estimator takes, with the values that are left of it in float32."""
    return array.astype(np.float32).astype(np.float64)


def _decoded(rows: Rows) -> Rows:
    decoded: Rows = {}
    for name, array in rows.items():
        if array.dtype.kind == "O":
            texts = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
            decoded[name] = np.array(texts, dtype=np.str_).reshape(array.shape)
        else:
            decoded[name] = array
    return decoded


def _output_names(model: Any, found: list[str]) -> list[str]:
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(model):
        return ["label", "probabilities" if hasattr(model, "predict_proba") else "scores"][: len(found)]
    if is_regressor(model):
        return ["prediction", *found[1:]]
    return ["transformed"] if found == ["variable"] else found


def _labels(found: Any) -> Array:
    labels = np.asarray(found)
    if labels.dtype.kind in "OU":
        encoded = np.empty(labels.shape, dtype=object)
        encoded.reshape(-1)[:] = [str(label).encode() for label in labels.reshape(-1)]
        return encoded
    return labels.astype(np.int64)


def _column(found: Any) -> Array:
    values = np.asarray(found, np.float32)
    return values.reshape(len(values), -1)


def _first_step(model: Any, attribute: str) -> bool:
    first = model.steps[0][1] if hasattr(model, "steps") else model
    return hasattr(first, attribute)


def _culprit(model: Any, error: Exception) -> str:
    """Return the step of a pipeline whose class the message names."""
    for name, step in getattr(model, "steps", []):
        if any(kind.__name__ in str(error) for kind in type(step).__mro__ if kind is not object):
            return f"step {name!r} ({type(step).__name__})"
    return type(model).__name__


def _reason(error: BaseException) -> str:
    """Return what went wrong first: skl2onnx wraps it in a message that lists every number of the model."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


def _check_fitted(model: Any, origin: str) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(model, BaseEstimator):
        raise ModelError(
            f"{origin} holds a {type(model).__name__}; expected a scikit-learn estimator", fix="save the estimator"
        )
    try:
        check_is_fitted(model)
    except (NotFittedError, TypeError) as error:
        raise ModelError(f"{origin}: {one_line(error)}", fix="fit it first") from error


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise DependencyError(
            f"this model was fitted on a table with named columns; running it needs pandas: {error}",
            fix="pip install pandas",
        ) from error
    return pandas


def _import() -> Any:
    try:
        import joblib
        import skl2onnx  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"converting a scikit-learn model needs scikit-learn and skl2onnx: {error}", fix=EXTRA
        ) from error
    return joblib
