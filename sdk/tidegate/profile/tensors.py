"""Which measures each tensor gets, and taking them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Manifest
from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import is_float
from tidegate.errors import InputError
from tidegate.profile.document import Side, TensorKind, TensorRule
from tidegate.profile.measures.audio import audio_columns
from tidegate.profile.measures.column import Column, width
from tidegate.profile.measures.image import image_columns
from tidegate.profile.measures.scores import are_probabilities, score_columns
from tidegate.profile.measures.table import COLUMNS, array_columns, table_columns, text_table_columns

KINDS: dict[TensorKind, Callable[[TensorRule, Array, NDArray[np.int64] | None], dict[str, Column]]] = {
    "table": lambda rule, array, lengths: table_columns(array),
    "audio": lambda rule, array, lengths: audio_columns(array, rule.sample_rate_hz, lengths),
    "image": lambda rule, array, lengths: image_columns(array, channels_first=rule.channels_first),
    "text": lambda rule, array, lengths: text_table_columns(array),
    "array": lambda rule, array, lengths: array_columns(array),
    "scores": lambda rule, array, lengths: score_columns(array, rule.labels, logits=rule.logits),
}


def input_rule(name: str, array: Array, manifest: Manifest | None, kind: TensorKind | None, rate_hz: int) -> TensorRule:
    """Decide what is measured on an input.

    In this order: what the caller states; text for strings; audio for the first input when it is a run of samples and
    the manifest has an audio front end inside the graph; image for four axes of floats or unsigned bytes, one to four
    channels; table up to 64 values a row; otherwise the row as a whole.

    Raises:
        InputError: the stated kind does not fit the array, or audio without a sample rate.
    """
    front_end = manifest.front_end if manifest is not None else None
    rate = rate_hz or (front_end.sample_rate_hz if front_end is not None else 0)
    chosen = kind or _input_kind(name, array, manifest)
    _check_kind(f"input/{name}", array, chosen)
    if chosen == "audio":
        if rate < 1:
            raise InputError(f"input/{name} is audio of an unknown sample rate", fix="state the sample rate in Hz")
        return TensorRule(side="input", name=name, kind="audio", sample_rate_hz=rate)
    if chosen == "image":
        return TensorRule(side="input", name=name, kind="image", channels_first=_channels_first(array))
    return TensorRule(side="input", name=name, kind=chosen)


def output_rule(name: str, array: Array, labels: tuple[str, ...], *, first: bool) -> TensorRule:
    """Decide what is measured on an output: class scores, text, a table, or the row as a whole.

    Scores are the first output when the manifest's labels name its last axis, and any output whose rows are
    probabilities of two or more classes.
    """
    if array.dtype.kind == "O":
        return TensorRule(side="output", name=name, kind="text")
    values = width(array)
    are_named = first and values == len(labels) and values >= 2
    if is_float(array.dtype) and values >= 2 and (are_named or are_probabilities(array)):
        names = labels if values == len(labels) else tuple(str(index) for index in range(values))
        return TensorRule(side="output", name=name, kind="scores", labels=names, logits=not are_probabilities(array))
    return TensorRule(side="output", name=name, kind="table" if values <= COLUMNS else "array")


def measure(rule: TensorRule, array: Array, lengths: NDArray[np.int64] | None = None) -> dict[str, Column]:
    """Return the measured columns of a tensor [rows, ...] by name.

    Raises:
        InputError: the array is not of the form that the rule is for.
    """
    if array.ndim == 0:
        raise InputError(f"{rule.tensor} has no rows", fix="the first axis of an array is the row")
    _check_kind(rule.tensor, array, rule.kind)
    if rule.kind == "scores" and width(array) != len(rule.labels):
        raise InputError(
            f"{rule.tensor} has {width(array)} scores a row; the profile's reference has {len(rule.labels)}",
            fix="use the profile that belongs to this model",
        )
    return KINDS[rule.kind](rule, array, lengths)


def side_arrays(arrays: Mapping[str, Array], side: Side) -> dict[str, Array]:
    """Return the arrays `SIDE/NAME` of an .npz by NAME."""
    prefix = f"{side}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _input_kind(name: str, array: Array, manifest: Manifest | None) -> TensorKind:
    values = width(array)
    if array.dtype.kind == "O":
        return "text"
    front_end = manifest.front_end if manifest is not None else None
    if manifest is not None and front_end is not None and front_end.inside_graph:
        first = manifest.signature.inputs[0].name
        if (
            name == first
            and values == (array.shape[-1] if array.ndim > 1 else 0)
            and (is_float(array.dtype) or array.dtype.kind == "i")
        ):
            return "audio"
    if (
        array.ndim == 4
        and (is_float(array.dtype) or array.dtype.kind == "u")
        and (array.shape[-1] <= 4 or array.shape[1] <= 4)
    ):
        return "image"
    return "table" if values <= COLUMNS else "array"


def _channels_first(array: Array) -> bool:
    return array.ndim == 4 and array.shape[-1] > 4 >= array.shape[1]


def _check_kind(tensor: str, array: Array, kind: TensorKind) -> None:
    is_text = array.dtype.kind == "O"
    if (kind == "text") != is_text:
        raise InputError(
            f"{tensor} has dtype {'BYTES' if is_text else array.dtype}, which is not {kind}",
            fix="text needs strings, every other kind needs numbers",
        )
    if kind == "image" and array.ndim not in (3, 4):
        raise InputError(
            f"{tensor} has shape {list(array.shape)}, which is not an image a row",
            fix="images are [rows, height, width, channels], [rows, channels, height, width] or [rows, height, width]",
        )
    if kind == "audio" and (array.ndim < 2 or width(array) != array.shape[-1]):
        raise InputError(
            f"{tensor} has shape {list(array.shape)}, which is not a recording a row", fix="[rows, samples]"
        )
