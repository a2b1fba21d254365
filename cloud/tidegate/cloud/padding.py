"""Lengths made equal: a declared axis is padded up to the next bucket, so that requests of unlike lengths share a run.

Only for models that bear it, such as those with a mask or a length input; therefore off unless declared. A request is
padded whether it has company or not: its answer does not depend on who else called.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Signature
from tidegate.errors import ConfigError, InputError

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Padding:
    """Which axis of which tensors is padded, and up to what."""

    inputs: tuple[str, ...]
    """inputs with the variable axis"""
    buckets: tuple[int, ...]
    """lengths in rising order; a longer request is refused"""
    axis: int = 1
    """the variable axis; 0 is the batch"""
    value: float = 0.0
    """what stands in the added places"""
    cropped_outputs: tuple[str, ...] = ()
    """outputs with the same axis, cut back to the request's own length"""

    def __post_init__(self) -> None:
        if not self.inputs or not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise ConfigError(
                f"padding of inputs {list(self.inputs)} to {list(self.buckets)}",
                fix="name at least one input, and buckets in rising order",
            )
        if self.buckets[0] < 1 or self.axis < 1:
            raise ConfigError(f"padding of axis {self.axis} to {self.buckets[0]}", fix="use 1 or more for both")

    def check(self, signature: Signature) -> None:
        """Hold the declaration against a model.

        Raises:
            ConfigError: a tensor is unknown, or its axis is not free or holds no numbers.
        """
        pairs = ((self.inputs, signature.inputs), (self.cropped_outputs, signature.outputs))
        for names, specs in pairs:
            by_name = {spec.name: spec for spec in specs}
            for name in names:
                spec = by_name.get(name)
                if spec is None or len(spec.shape) <= self.axis or spec.shape[self.axis] != -1 or spec.dtype == "BYTES":
                    raise ConfigError(
                        f"padding needs a free axis {self.axis} of numbers in {name!r}",
                        fix="name tensors of the signature that have one",
                    )

    def pad(self, signature: Signature, arrays: Arrays) -> tuple[Arrays, int]:
        """Return the padded inputs and the length before.

        Raises:
            InputError: the padded inputs differ in length, or are longer than the largest bucket.
        """
        lengths = {
            array.shape[self.axis]
            for spec, array in zip(signature.inputs, arrays, strict=True)
            if spec.name in self.inputs
        }
        length = max(lengths)
        if len(lengths) > 1 or length > self.buckets[-1]:
            raise InputError(
                f"axis {self.axis} of {', '.join(self.inputs)} has sizes {sorted(lengths)}; "
                f"expected one size up to {self.buckets[-1]}",
                fix="send equal lengths, and split what is longer",
            )
        missing = self.buckets[bisect_left(self.buckets, length)] - length
        if not missing:
            return arrays, length
        return tuple(
            self._padded(array, missing) if spec.name in self.inputs else array
            for spec, array in zip(signature.inputs, arrays, strict=True)
        ), length

    def crop(self, signature: Signature, outputs: Arrays, length: int) -> Arrays:
        """Return the outputs without what was padded."""
        return tuple(
            output[(slice(None),) * self.axis + (slice(length),)] if spec.name in self.cropped_outputs else output
            for spec, output in zip(signature.outputs, outputs, strict=True)
        )

    def _padded(self, array: NDArray[Any], missing: int) -> NDArray[Any]:
        widths = [(0, missing if axis == self.axis else 0) for axis in range(array.ndim)]
        return np.pad(array, widths, constant_values=array.dtype.type(self.value))
