"""Triton's classification extension: an output's highest values, each as text `VALUE:INDEX` or `VALUE:INDEX:LABEL`.

A client asks with the parameter `classification` of a requested output; its value is how many. Values are written as
C++'s `std::to_string` writes them, with six decimals for floats, since clients split the text at its colons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import is_float
from tidegate.bundle.manifest import TensorSpec
from tidegate.cloud.served import ServedModel
from tidegate.errors import InputError

PARAMETER = "classification"


def check_classifiable(served: ServedModel, name: str) -> None:
    """Refuse an output that has no highest values, before the model is run.

    Raises:
        InputError: it is BYTES or BOOL. An unknown output is left to whoever checks the names.
    """
    for spec in served.signature.outputs:
        if spec.name == name and spec.dtype in ("BYTES", "BOOL"):
            raise InputError(
                f"output {name!r} is {spec.dtype}; classification needs numbers",
                fix="ask for the output without the parameter `classification`",
            )


def classified(served: ServedModel, name: str, array: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the `count` highest values of an output as BYTES, highest first, ties in the order of their index.

    Args:
        served: whose labels, if it has any, name the places of the last axis of its first output.
        name: of the output.
        array: what the model computed.
        count: how many, at least 1; more than there are gives all.

    Returns:
        `[rows, count]` where the signature leaves the first of several axes free, else `[count]`.
    """
    place = served.output_names.index(name)
    spec = served.signature.outputs[place]
    leading = 1 if has_rows(spec) else 0
    rows = array.reshape(math.prod(array.shape[:leading]), math.prod(array.shape[leading:]))
    labels = served.manifest.labels if not place and len(served.manifest.labels) == rows.shape[1] else ()
    found = [_highest(row, count, labels) for row in rows]
    answer = np.empty((len(found), min(count, rows.shape[1])), object)
    for at, row in enumerate(found):
        answer[at, :] = row
    return answer if has_rows(spec) else answer[0]


def has_rows(spec: TensorSpec) -> bool:
    """Say whether the first axis of an output counts rows, each with classes of its own."""
    return len(spec.shape) > 1 and spec.shape[0] == -1


def _highest(row: NDArray[Any], count: int, labels: Sequence[str]) -> list[bytes]:
    # A stable sort of the values turned round keeps the lower index first; NaN comes last.
    order = np.argsort(-row.astype(np.float64) if is_float(row.dtype) else _descending(row), kind="stable")[:count]
    return [_text(row[index], int(index), labels).encode() for index in order]


def _descending(row: NDArray[Any]) -> NDArray[Any]:
    """Return integers that sort the other way round, without overflow at either end of the type."""
    return ~row


def _text(value: Any, index: int, labels: Sequence[str]) -> str:
    number = f"{float(value):.6f}" if is_float(np.asarray(value).dtype) else str(int(value))
    return f"{number}:{index}:{labels[index]}" if labels else f"{number}:{index}"
