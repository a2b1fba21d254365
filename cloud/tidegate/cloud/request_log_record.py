"""One kept request: what a privacy hook sees, and what becomes a row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Manifest
from tidegate.bundle.dtypes import is_float

Arrays = Mapping[str, NDArray[Any]]

ROUNDING = 1e-3
"""By which a probability may lie outside 0 to 1."""

BYTES_OF_AN_OBJECT = 64
"""Guessed, of a text in an object array."""


@dataclass(frozen=True)
class LoggedRequest:
    """A request for tensors."""

    model: str
    version: str
    """that answered; of one that failed, as it was asked for"""
    time_ns: int
    """when it ended, since the epoch"""
    reasons: tuple[str, ...]
    """`random`, `uncertain`, `error`: every one that holds"""
    share: float
    """of `random`: a row with that reason stands for 1 / share of them"""
    inputs: Arrays
    outputs: Arrays = field(default_factory=dict)
    label: str = ""
    """such as `stable`, when the request named one"""
    variant: str = ""
    id: str = ""
    took_ms: float = 0.0
    confidence: float | None = None
    """of the least sure row; None where the model does not say"""
    error_kind: str = ""
    error: str = ""
    rows_first: bool = False
    """whether the first axis of everything counts rows, each of which becomes one row of the table"""

    @property
    def size_bytes(self) -> int:
        """About what it holds."""
        return 512 + sum(array_bytes(array) for arrays in (self.inputs, self.outputs) for array in arrays.values())


@dataclass(frozen=True)
class LoggedSegment:
    """A segment of speech."""

    model: str
    version: str
    time_ns: int
    reasons: tuple[str, ...]
    share: float
    audio: bytes
    """int16 little-endian, one channel"""
    sample_rate_hz: int
    transcript: str
    confidence: float
    label: str = ""
    """as version: the label that the stream asked for, such as `stable`"""
    rejected_label: str = ""
    """without a word in the transcript: what fits best, such as `silence`"""
    variant: str = ""
    segment_id: int = 0
    start_s: float = 0.0
    end_s: float = 0.0
    device_bundle: str = ""

    @property
    def size_bytes(self) -> int:
        """About what it holds."""
        return 512 + len(self.audio)


Record = LoggedRequest | LoggedSegment


def check_record(record: object) -> None:
    """Refuse what a privacy hook must not return.

    Raises:
        TypeError: neither None nor a record whose arrays are arrays and whose names are text.
    """
    if record is None:
        return
    if not isinstance(record, LoggedRequest | LoggedSegment):
        raise TypeError("neither a record nor None")
    arrays = {} if isinstance(record, LoggedSegment) else {**record.inputs, **record.outputs}
    texts = (record.model, record.version, *arrays)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is no text")
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise TypeError("an input or output is no array")


def array_bytes(array: NDArray[Any]) -> int:
    """Return about what an array holds."""
    return array.size * BYTES_OF_AN_OBJECT if array.dtype == object else array.nbytes


def confidence_of(manifest: Manifest, outputs: Arrays) -> float | None:
    """Return the highest probability of the least sure row; None where no output holds probabilities.

    The output looked at is the first of floats with one column for each label of the bundle, or, of a bundle without
    labels, with two columns or more. It counts as probabilities when every number lies in 0 to 1.
    """
    labels = len(manifest.labels)
    for array in outputs.values():
        if not is_float(array.dtype) or not array.ndim or not array.size:
            continue
        columns = array.shape[-1]
        if columns != labels if labels else columns < 2:
            continue
        if not (array.min() >= -ROUNDING and array.max() <= 1 + ROUNDING):
            return None
        return float(np.min(array.max(axis=-1)))
    return None
