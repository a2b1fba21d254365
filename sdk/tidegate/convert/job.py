"""What every conversion step may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.convert.rows import Rows

ONNX_OPSET = 17
"""The default operator set of what is written: ONNX Runtime 1.13 and all later ones run it."""
ONNX_ML_OPSET = 3
"""The same for the operators of classical machine learning."""


@dataclass(frozen=True)
class Job:
    """One call of `convert`."""

    origin: str
    """how messages call the source"""
    folder: Path
    """for what the steps make; gone afterwards"""
    rows: Rows
    """representative data by input name; empty when none was given"""
    keep_float: tuple[str, ...]
    """shell patterns of the operators that stay float32 in int8 variants"""
    note: Callable[[str], None]
    """receives sentences that the author should see"""
