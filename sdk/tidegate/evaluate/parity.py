"""How near one variant comes to another on the same rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tidegate.bundle import Parity
from tidegate.bundle.arrays import Array
from tidegate.evaluate.answers import Answers, Classified, Estimated, Transcribed


def parity(
    reference: str, rows: int, expected: Mapping[str, Array], found: Mapping[str, Array], agreement: float | None
) -> Parity:
    """Compare all outputs.

    Args:
        reference: id of the variant that gave `expected`.
        rows: of the evaluation data.
        expected: outputs [rows, ...] by name.
        found: those of the variant in question.
        agreement: share of rows with the same decision, None when nothing is decided.

    Returns:
        Errors are null when no finite difference exists: another shape, NaN in other places, or no numeric output.
    """
    largest, total, elements = 0.0, 0.0, 0
    finite = True
    for name, one in expected.items():
        other = found[name]
        if one.dtype.kind == "O":
            continue
        if one.shape != other.shape:
            finite = False
            continue
        left, right = one.astype(np.float64), other.astype(np.float64)
        # Equal infinities and NaN in the same places are no difference.
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(left - right))
        finite = finite and bool(np.isfinite(difference).all())
        largest = max(largest, float(difference.max(initial=0.0)))
        total += float(difference.sum())
        elements += difference.size
    known = finite and elements > 0
    return Parity(
        reference=reference,
        rows=rows,
        maximum_error=largest if known else None,
        mean_error=total / elements if known else None,
        agreement=agreement,
    )


def agreement(one: Answers, other: Answers) -> float | None:
    """Return the share of rows with the same decision: class by name, or text; None for numbers."""
    if isinstance(one, Classified) and isinstance(other, Classified):
        return float(np.mean(_names(one) == _names(other)))
    if isinstance(one, Transcribed) and isinstance(other, Transcribed):
        return float(np.mean([left == right for left, right in zip(one.text, other.text, strict=True)]))
    assert isinstance(one, Estimated)
    return None


def _names(answers: Classified) -> Array:
    return np.array([*answers.classes, "\0no decision"])[answers.decision]
