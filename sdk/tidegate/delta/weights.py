"""Where the weights of a model file lie: its own reader for TFLite and for ONNX, for files of any origin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.errors import InputError

SMALLEST_BYTES = 32
"""Below this, naming a tensor in the plan costs more than its difference saves."""


@dataclass(frozen=True)
class Weights:
    """The elements of one tensor, as they stand in the file."""

    name: str
    dtype: str
    """as the format numbers it; only compared"""
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    width: int
    """bytes of an element"""


class UnreadableModelError(Exception):
    """The bytes are not a model of the format; never leaves this package."""


def find_weights(model: bytes) -> list[Weights]:
    """Return the weights of a TFLite or ONNX file in the order of their place, none of them overlapping.

    Raises:
        InputError: neither a TFLite nor an ONNX file.
    """
    from tidegate.delta.onnx_weights import find_onnx_weights
    from tidegate.delta.tflite_weights import IDENTIFIER, find_tflite_weights

    find = find_tflite_weights if model[4:8] == IDENTIFIER else find_onnx_weights
    try:
        return _disjoint(find(model))
    except UnreadableModelError as error:
        raise InputError(f"not a TFLite or ONNX model: {error}", fix="use zstd-patch, which takes any file") from error


def _disjoint(found: Iterable[Weights]) -> list[Weights]:
    """Drop what is too small, has a broken element, or lies over what stands before it: shared and odd tensors."""
    kept: list[Weights] = []
    end = 0
    for weights in sorted(found, key=lambda weights: (weights.offset, weights.size_bytes)):
        whole = weights.size_bytes % weights.width == 0
        if whole and weights.size_bytes >= SMALLEST_BYTES and weights.offset >= end:
            kept.append(weights)
            end = weights.offset + weights.size_bytes
    return kept
