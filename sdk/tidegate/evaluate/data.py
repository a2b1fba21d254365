"""Evaluation data: inputs with the truth, in one `.npz` file. Read strictly; no pickle.

input/NAME       the model's inputs; the first axis is the row
label            class index or class name, one a row       } exactly
target           float, [rows] or [rows, values]            } one of
text             reference transcript, one a row            } these
tag/NAME         bool, one a row: what is special about it
slice/NAME       string or whole number, one a row: the group it belongs to
length/NAME      whole number, one a row: how many elements of the padded input/NAME count (with `text`)
positive_class   one class name or index: what precision, recall, F1 and AUC-PR are about
threshold        one number: the positive class is decided from this score on
score_output     one string: the output that decides, when it is not the first that can
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Signature
from tidegate.bundle.arrays import Array, unpack_arrays
from tidegate.bundle.dtypes import is_float
from tidegate.errors import InputError

Task = Literal["classification", "regression", "transcription"]
Name = str | int

TRUTHS: dict[str, Task] = {"label": "classification", "target": "regression", "text": "transcription"}
"""What the truth is called, and so what the model is for."""
PREFIXES = ("input/", "tag/", "slice/", "length/")
SETTINGS = ("positive_class", "threshold", "score_output")

LIMIT_BYTES = 8 << 30


@dataclass(frozen=True)
class EvaluationSet:
    """Rows with their truth."""

    origin: str
    """how messages call it"""
    sha256: str
    rows: int
    task: Task
    inputs: dict[str, Array]
    labels: tuple[Name, ...] = ()
    """class index or class name by row; empty unless the task is classification"""
    target: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """[rows, values]; empty unless the task is regression"""
    texts: tuple[str, ...] = ()
    """empty unless the task is transcription"""
    tags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    slices: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    lengths: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    positive_class: Name | None = None
    threshold: float | None = None
    score_output: str | None = None


def read_evaluation_set(raw: bytes, *, origin: str) -> EvaluationSet:
    """Parse an evaluation file.

    Args:
        raw: the bytes of the `.npz`.
        origin: how messages call it.

    Raises:
        InputError: not an .npz, an array of an unknown name, another number of rows, a wrong dtype, or NaN.
    """
    arrays = unpack_arrays(raw, origin=origin, limit_bytes=LIMIT_BYTES)
    _check_names(arrays, origin)
    inputs = _with_prefix(arrays, "input/")
    if not inputs:
        raise _bad(origin, "has no input/NAME array", "save each input of the model as input/NAME")
    present = [name for name in TRUTHS if name in arrays]
    if len(present) != 1:
        raise _bad(
            origin, f"has {', '.join(present) or 'no truth'}; expected exactly one of {', '.join(TRUTHS)}",
            "label for classes, target for numbers, text for transcripts",
        )  # fmt: skip
    rows = _common_rows(arrays, truth=present[0], origin=origin)
    return EvaluationSet(
        origin=origin,
        sha256=hashlib.sha256(raw).hexdigest(),
        rows=rows,
        task=TRUTHS[present[0]],
        inputs=inputs,
        labels=_labels(arrays["label"], origin) if "label" in arrays else (),
        target=_target(arrays["target"], origin) if "target" in arrays else np.zeros(0),
        texts=_strings(arrays["text"], f"{origin}: text") if "text" in arrays else (),
        tags={name: _flags(array, f"{origin}: tag/{name}") for name, array in _with_prefix(arrays, "tag/").items()},
        slices={
            name: _group(array, f"{origin}: slice/{name}") for name, array in _with_prefix(arrays, "slice/").items()
        },
        lengths=_lengths(arrays, inputs, origin),
        positive_class=_one_name(arrays, "positive_class", origin),
        threshold=_one_number(arrays, "threshold", origin),
        score_output=_one_text(arrays, "score_output", origin),
    )


def check_inputs(data: EvaluationSet, signature: Signature) -> None:
    """Hold the data's inputs against a model's signature before anything runs.

    Raises:
        InputError: a name is missing or unknown, or an input that must be finite holds NaN; the row is named.
    """
    expected = [spec.name for spec in signature.inputs]
    for name in data.inputs:
        if name not in expected:
            raise _bad(
                data.origin, f"has input/{name}, which the model does not know{_near(name, expected)}", "rename it"
            )
    for spec in signature.inputs:
        if spec.name not in data.inputs:
            raise _bad(data.origin, f"lacks input/{spec.name}", "save every input of the model as input/NAME")
        array = data.inputs[spec.name]
        if spec.finite and is_float(array.dtype) and not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
            raise _bad(
                data.origin,
                f"has NaN or an infinity in row {row} of input/{spec.name}, which the model refuses",
                "mend the row, or leave it out",
            )


def _check_names(arrays: Iterable[str], origin: str) -> None:
    known = [*TRUTHS, *SETTINGS]
    for name in arrays:
        if name in known or any(name.startswith(prefix) and name != prefix for prefix in PREFIXES):
            continue
        hint = _near(name, [*known, *(f"{prefix}NAME" for prefix in PREFIXES)])
        raise _bad(origin, f"has an array {name!r} that means nothing here{hint}", "rename or remove it")


def _common_rows(arrays: dict[str, Array], truth: str, origin: str) -> int:
    """Return the number of rows that all arrays agree on."""
    by_row = {name: array for name, array in arrays.items() if name not in SETTINGS}
    for name, array in by_row.items():
        if array.ndim == 0:
            raise _bad(origin, f"has {name} without rows", "the first axis of an array is the row")
    rows = len(arrays[truth])
    for name, array in by_row.items():
        if len(array) != rows:
            raise _bad(
                origin, f"has {len(array)} rows of {name} and {rows} of {truth}", "give every array the same rows"
            )
    if rows == 0:
        raise _bad(origin, "has no rows", "save at least one row")
    return rows


def _labels(array: Array, origin: str) -> tuple[Name, ...]:
    if array.dtype.kind == "O":
        return _strings(array, f"{origin}: label")
    _check_vector(array, f"{origin}: label")
    if array.dtype.kind not in "iub":
        raise _bad(f"{origin}: label", f"has dtype {array.dtype}", "use class names or whole class indices")
    return tuple(int(value) for value in array)


def _target(array: Array, origin: str) -> NDArray[np.float64]:
    if not (is_float(array.dtype) or array.dtype.kind in "iu"):
        raise _bad(f"{origin}: target", f"has dtype {array.dtype}", "use floats")
    target = array.astype(np.float64).reshape(len(array), -1)
    wrong = np.flatnonzero(~np.isfinite(target).all(axis=1))
    if len(wrong):
        raise _bad(f"{origin}: target", f"has NaN or an infinity in row {wrong[0]}", "mend the row, or leave it out")
    return target


def _strings(array: Array, what: str) -> tuple[str, ...]:
    _check_vector(array, what)
    if array.dtype.kind != "O":
        raise _bad(what, f"has dtype {array.dtype}", "save it as strings")
    try:
        return tuple(element.decode() for element in array.tolist())
    except UnicodeDecodeError as error:
        raise _bad(what, f"is not UTF-8: {error}", "save it as strings (numpy dtype U)") from error


def _flags(array: Array, what: str) -> NDArray[np.bool_]:
    _check_vector(array, what)
    if array.dtype != np.bool_:
        raise _bad(what, f"has dtype {array.dtype}", "use bool: True where the tag applies")
    return array


def _group(array: Array, what: str) -> NDArray[np.str_]:
    if array.dtype.kind == "O":
        return np.array(_strings(array, what), dtype=np.str_)
    _check_vector(array, what)
    if array.dtype.kind not in "iub":
        raise _bad(what, f"has dtype {array.dtype}", "use strings or whole numbers: the group of each row")
    return np.array([str(value) for value in array.tolist()], dtype=np.str_)


def _lengths(arrays: dict[str, Array], inputs: dict[str, Array], origin: str) -> dict[str, NDArray[np.int64]]:
    found: dict[str, NDArray[np.int64]] = {}
    for name, array in _with_prefix(arrays, "length/").items():
        what = f"{origin}: length/{name}"
        _check_vector(array, what)
        if "text" not in arrays or name not in inputs or inputs[name].ndim != 2:
            raise _bad(what, "has no padded input [rows, elements] beside it", "it goes with `text` and an input only")
        longest = inputs[name].shape[1]
        if array.dtype.kind not in "iu" or array.min() < 1 or array.max() > longest:
            raise _bad(what, f"is not within 1 and {longest}", "count the elements of each row before the padding")
        found[name] = array.astype(np.int64)
    return found


def _one_name(arrays: dict[str, Array], name: str, origin: str) -> Name | None:
    value = _one(arrays, name, origin)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    raise _bad(f"{origin}: {name}", f"is {value!r}", "use one class name or index")


def _one_number(arrays: dict[str, Array], name: str, origin: str) -> float | None:
    value = _one(arrays, name, origin)
    if value is None:
        return None
    if isinstance(value, int | float) and np.isfinite(value):
        return float(value)
    raise _bad(f"{origin}: {name}", f"is {value!r}", "use one finite number")


def _one_text(arrays: dict[str, Array], name: str, origin: str) -> str | None:
    value = _one(arrays, name, origin)
    if value is None or isinstance(value, str):
        return value
    raise _bad(f"{origin}: {name}", f"is {value!r}", "use one string")


def _one(arrays: dict[str, Array], name: str, origin: str) -> Any:
    """Return a single value, strings decoded; None when it is not there."""
    if name not in arrays:
        return None
    if arrays[name].size != 1:
        raise _bad(f"{origin}: {name}", f"holds {arrays[name].size} values", "save one value")
    value = arrays[name].reshape(-1).tolist()[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _check_vector(array: Array, what: str) -> None:
    if array.ndim != 1:
        raise _bad(what, f"has shape {list(array.shape)}", "expected one value a row")


def _with_prefix(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"


def _bad(what: str, problem: str, fix: str) -> InputError:
    return InputError(f"{what} {problem}", fix=fix)
