"""Class scores: probability by label, the top label, confidence, entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.profile.measures.column import Column, Floats, flat

LABELS = 32
"""Labels with a probability feature of their own, at most; all of them count in the other features."""

_SLACK = 0.02
"""A float16 or int8 softmax adds up to 1 only roughly."""


def are_probabilities(array: Array) -> bool:
    """Whether every row [labels] lies within 0 and 1 and adds up to 1."""
    scores = flat(array).astype(np.float64)
    finite = scores[np.isfinite(scores).all(axis=1)]
    if not len(finite):
        return False
    sums = finite.sum(axis=1)
    return bool(finite.min() >= -_SLACK and finite.max() <= 1 + _SLACK and np.abs(sums - 1).max() <= _SLACK)


def score_columns(array: Array, labels: Sequence[str], *, logits: bool) -> dict[str, Column]:
    """Measure scores [rows, labels] (axes of length 1 between are allowed).

    Returns:
        `top_label` (text), `confidence` (its probability), `entropy` in nats and `probability/LABEL`. NaN makes a row
        null, and its top label missing.
    """
    scores = flat(array).astype(np.float64)
    probabilities = _softmax(scores) if logits else scores
    broken = np.asarray(~np.isfinite(probabilities).all(axis=1))
    probabilities[broken] = np.nan
    filled = np.where(broken[:, None], 0.0, probabilities)
    top = np.empty(len(scores), dtype=object)
    top[:] = [labels[place] for place in filled.argmax(axis=1).tolist()]
    positive = np.maximum(filled, 1e-30)
    entropy = np.where(broken, np.nan, -(positive * np.log(positive)).sum(axis=1))
    columns = {
        "top_label": Column(top, broken),
        "confidence": Column.full(np.where(broken, np.nan, filled.max(axis=1))),
        "entropy": Column.full(entropy),
    }
    return columns | {
        f"probability/{label}": Column.full(probabilities[:, place]) for place, label in enumerate(labels[:LABELS])
    }


def _softmax(scores: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
