"""Affine integer quantisation of whole tensors: real = scale * (integer - zero_point).

The scheme of the TFLite 8-bit quantisation specification, per tensor: inputs and outputs are never per axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ModelError


@dataclass(frozen=True)
class Quantisation:
    """How one tensor's integers stand for real numbers."""

    scale: float
    """real step between two neighbouring integers; above 0"""
    zero_point: int
    """the integer that stands for 0.0"""
    dtype: np.dtype[Any]
    """integer dtype of the tensor"""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ModelError(
                f"quantisation scale is {self.scale}; expected a number above 0", fix="convert the model again"
            )

    def quantise(self, real: NDArray[np.float32]) -> NDArray[Any]:
        """Return the nearest integers (ties to even), saturating at the ends of the integer type.

        Args:
            real: float32, any shape, finite (`Model` refuses NaN in front of a quantised input).
        """
        limits = np.iinfo(self.dtype)
        steps = np.rint(real / np.float32(self.scale)) + np.float32(self.zero_point)
        integers: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return integers

    def dequantise(self, integers: NDArray[Any]) -> NDArray[np.float32]:
        """Return the float32 numbers that these integers stand for, in the same shape."""
        real: NDArray[np.float32] = np.subtract(integers, self.zero_point, dtype=np.float32) * np.float32(self.scale)
        return real
