"""From raw outputs to answers: which output decides, and what it says of each row."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from tidegate.bundle import Signature
from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import is_float
from tidegate.errors import ConfigError, InputError, ModelError
from tidegate.evaluate.answers import Answers, Classified, Estimated, Floats, Ints, Transcribed, class_index
from tidegate.evaluate.data import EvaluationSet
from tidegate.evaluate.metrics import word_errors

DEFAULT_THRESHOLD = 0.5
"""Of a single score."""


def answers_of(
    outputs: Mapping[str, Array], data: EvaluationSet, signature: Signature, labels: Sequence[str], names: Sequence[str]
) -> Answers:
    """Read a model's outputs as the data's task asks.

    Args:
        outputs: [rows, ...] by name.
        data: the rows and their truth.
        signature: of the model; its order decides which output is the first that can.
        labels: the model's class names, empty when it has none.
        names: the class names by which whole-number labels of the data are meant, mostly `labels` itself; those of the
            candidate when a baseline is read.

    Raises:
        ConfigError: the data names an output or a positive class that is not there.
        InputError: a label that is no class of the model.
        ModelError: the outputs cannot answer the question.
    """
    if data.score_output is not None and data.score_output not in outputs:
        raise ConfigError(
            f"{data.origin}: score_output is {data.score_output!r}; the model's outputs are {', '.join(outputs)}",
            fix="name one of these",
        )
    order = [data.score_output] if data.score_output else [spec.name for spec in signature.outputs]
    if data.task == "regression":
        return _estimated(outputs, order, data)
    if data.task == "transcription":
        return _read_texts(outputs, order, data)
    return _classified(outputs, order, data, tuple(labels), tuple(names))


def transcribed(texts: Sequence[str], data: EvaluationSet) -> Transcribed:
    """Hold recognised texts against the references."""
    counts = [word_errors(wanted, heard) for wanted, heard in zip(data.texts, texts, strict=True)]
    return Transcribed(
        truth=data.texts,
        text=tuple(texts),
        errors=np.array([errors for errors, _ in counts], np.float64),
        words=np.array([words for _, words in counts], np.float64),
    )


def _estimated(outputs: Mapping[str, Array], order: Sequence[str], data: EvaluationSet) -> Estimated:
    name = next((name for name in order if is_float(outputs[name].dtype)), None)
    if name is None:
        raise ModelError("the model has no float output to hold against the target", fix="name one with score_output")
    value = outputs[name].reshape(data.rows, -1).astype(np.float64)
    if value.shape != data.target.shape:
        raise InputError(
            f"{data.origin}: target has {data.target.shape[1]} values a row; output {name!r} has {value.shape[1]}",
            fix="save as many targets as the output has values, or name another output with score_output",
        )
    wrong = np.flatnonzero(~np.isfinite(value).all(axis=1))
    if len(wrong):
        raise ModelError(
            f"output {name!r} is NaN or infinite in {len(wrong)} rows, first in row {wrong[0]}",
            fix="find out what is special about that row",
        )
    return Estimated(data.target, value)


def _read_texts(outputs: Mapping[str, Array], order: Sequence[str], data: EvaluationSet) -> Transcribed:
    name = next((name for name in order if outputs[name].dtype.kind == "O" and outputs[name].size == data.rows), None)
    if name is None:
        raise ModelError(
            "the model has neither a decoder nor a string output to hold against the reference transcripts",
            fix="build the bundle with [front_end], [decoder] and labels",
        )
    return transcribed([_text(value) for value in outputs[name].reshape(-1).tolist()], data)


def _classified(
    outputs: Mapping[str, Array], order: Sequence[str], data: EvaluationSet, labels: tuple[str, ...],
    names: tuple[str, ...],
) -> Classified:  # fmt: skip
    with_scores = [n for n in order if is_float(outputs[n].dtype) and _is_scores(outputs[n], data.rows)]
    fitting = [n for n in with_scores if outputs[n].size == data.rows * len(labels)]
    score_name = next(iter(fitting or with_scores), None)
    class_name = next((n for n in order if _is_classes(outputs[n], data.rows)), None)
    if score_name is None and class_name is None:
        shapes = ", ".join(f"{name} {list(outputs[name].shape)}" for name in order)
        raise ModelError(
            f"no output gives a class or a score for each class: {shapes}",
            fix="expected [rows, classes] floats, or [rows] whole numbers or strings",
        )
    scores = None if score_name is None else outputs[score_name].reshape(data.rows, -1).astype(np.float64)
    if labels or class_name is None:
        classes = labels or tuple(str(index) for index in range(_score_classes(scores)))
        truth = _truth(data, classes, names or classes)
        if scores is None and class_name is not None:
            decision = np.array(
                [_index(value, classes) for value in outputs[class_name].reshape(-1).tolist()], np.int64
            )
            return Classified(classes, truth, decision, None, _positive(data, classes))
    else:
        said = [_text(value) for value in outputs[class_name].reshape(-1).tolist()]
        wanted = [str(names[label]) if isinstance(label, int) and names else str(label) for label in data.labels]
        classes = _sorted_classes({*said, *wanted})
        place = {name: index for index, name in enumerate(classes)}
        truth = np.array([place[name] for name in wanted], np.int64)
        decision = np.array([place[name] for name in said], np.int64)
        positive = _positive(data, classes)
        agrees = scores is not None and scores.shape[1] == len(classes) and np.array_equal(scores.argmax(1), decision)
        if not agrees or scores is None or data.threshold is None:
            return Classified(classes, truth, decision, scores if agrees else None, positive)
    if scores is None:
        raise ModelError("the model gives no scores", fix="name an output with score_output")
    return _decided(scores, truth, classes, data)


def _decided(scores: Floats, truth: Ints, classes: tuple[str, ...], data: EvaluationSet) -> Classified:
    """Decide by the largest score, or of two classes by the threshold."""
    positive = _positive(data, classes)
    silent = np.asarray(np.isnan(scores).any(axis=1))
    threshold = data.threshold
    if scores.shape[1] == 1:
        if len(classes) != 2:
            raise ModelError(
                f"one score a row cannot tell {len(classes)} classes apart", fix="give the model one output a class"
            )
        # The score is that of the positive class; the other one's is its opposite, which ranks the rows in reverse.
        chosen = 1 if positive is None else positive
        column = scores[:, 0]
        scores = np.stack([column if index == chosen else -column for index in range(2)], axis=1)
        threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    if scores.shape[1] != len(classes):
        raise ModelError(
            f"the model gives {scores.shape[1]} scores a row; expected {len(classes)}, one for each class",
            fix="name the output with score_output, or mend the labels",
        )
    decision = np.where(silent, 0, np.nan_to_num(scores, nan=-np.inf).argmax(axis=1))
    if threshold is not None:
        if len(classes) != 2 or positive is None:
            raise ConfigError(
                f"{data.origin}: threshold decides between two classes; the model has {len(classes)}",
                fix="leave the threshold out: the largest score decides",
            )
        decision = np.where(scores[:, positive] >= threshold, positive, 1 - positive)
    decision = np.where(silent, -1, decision).astype(np.int64)
    clean = np.where(silent[:, None], -np.inf, scores)
    return Classified(classes, truth, decision, clean, positive)


def _truth(data: EvaluationSet, classes: tuple[str, ...], names: tuple[str, ...]) -> Ints:
    """Return the truth as indices of `classes`; a class that only `names` knows becomes -1."""
    place = {name: index for index, name in enumerate(classes)}
    known = set(names) | set(classes)
    indices = np.empty(data.rows, np.int64)
    for row, label in enumerate(data.labels):
        if isinstance(label, int) and not 0 <= label < len(names):
            raise InputError(
                f"{data.origin}: row {row} has label {label}; expected 0 to {len(names) - 1}",
                fix="labels are indices of the model's classes, or their names",
            )
        name = names[label] if isinstance(label, int) else label
        if name not in known:
            near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(classes[:20])}"
            raise InputError(
                f"{data.origin}: row {row} has the unknown label {name!r}{hint}",
                fix="mend the label, or add the class to the bundle's labels",
            )
        indices[row] = place.get(name, -1)
    return indices


def _positive(data: EvaluationSet, classes: tuple[str, ...]) -> int | None:
    if data.positive_class is not None:
        return class_index(data.positive_class, classes, f"{data.origin}: positive_class")
    return 1 if len(classes) == 2 else None


def _score_classes(scores: Floats | None) -> int:
    columns = 0 if scores is None else scores.shape[1]
    return max(columns, 2)


def _is_scores(output: Array, rows: int) -> bool:
    return output.ndim >= 1 and len(output) == rows and sum(size != 1 for size in output.shape[1:]) <= 1


def _is_classes(output: Array, rows: int) -> bool:
    return output.dtype.kind in "iubO" and output.size == rows


def _index(value: object, classes: tuple[str, ...]) -> int:
    if isinstance(value, int):
        return int(value) if 0 <= value < len(classes) else -1
    text = _text(value)
    return classes.index(text) if text in classes else -1


def _sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Sort numbers as numbers and words as words, the order in which scikit-learn numbers its classes."""
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(int(value)) if isinstance(value, bool) else str(value)
