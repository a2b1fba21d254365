"""The golden fixture: inputs with the outputs that every runnable variant must reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tidegate.bundle.arrays import Array, pack_arrays, unpack_arrays
from tidegate.errors import BundleError, InputError

_INPUT = "input/"
_OUTPUT = "output/"


@dataclass(frozen=True)
class OutputError:
    """How far one output lies from the expected one."""

    name: str
    maximum_error: float
    """largest absolute difference; infinity when shape, NaN places or bytes differ, or the output is missing"""
    tolerance: float
    """largest difference allowed"""
    problem: str = ""
    """why no finite difference could be taken; empty when one could"""

    @property
    def within(self) -> bool:
        """Whether the output is near enough."""
        return not self.problem and self.maximum_error <= self.tolerance


@dataclass(frozen=True)
class GoldenFixture:
    """Arrays by the names of the signature."""

    inputs: dict[str, Array] = field(default_factory=dict)
    outputs: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def from_npz(cls, raw: bytes, *, origin: str = "golden fixture") -> GoldenFixture:
        """Read an .npz with members `input/NAME` and `output/NAME`; pickled members are refused.

        Raises:
            BundleError: not an .npz, or a member of another name.
        """
        try:
            arrays = unpack_arrays(raw, origin=origin)
        except InputError as error:
            raise BundleError(error.message, fix=error.fix) from error
        strangers = [name for name in arrays if not name.startswith((_INPUT, _OUTPUT))]
        if strangers:
            raise BundleError(
                f"{origin} has an array {strangers[0]!r}; expected names that begin with {_INPUT!r} or {_OUTPUT!r}",
                fix="rename the arrays of the fixture",
            )
        return cls(
            inputs={n.removeprefix(_INPUT): array for n, array in arrays.items() if n.startswith(_INPUT)},
            outputs={n.removeprefix(_OUTPUT): array for n, array in arrays.items() if n.startswith(_OUTPUT)},
        )

    def to_npz(self) -> bytes:
        """Return the .npz; the same arrays give the same bytes."""
        named = {_INPUT + name: array for name, array in self.inputs.items()}
        return pack_arrays(named | {_OUTPUT + name: array for name, array in self.outputs.items()})

    def compare(self, outputs: Mapping[str, Array], tolerance: float) -> list[OutputError]:
        """Hold `outputs` against the expected ones, in the fixture's order.

        NaN equals NaN and infinity equals the same infinity; BYTES must be equal.
        """
        return [self._compare_one(name, outputs.get(name), tolerance) for name in self.outputs]

    def _compare_one(self, name: str, found: Array | None, tolerance: float) -> OutputError:
        expected = self.outputs[name]
        problem = _incomparable(expected, found)
        if found is None or problem:
            return OutputError(name, float("inf"), tolerance, problem)
        return OutputError(name, _maximum_error(expected, found), tolerance)


def _incomparable(expected: Array, found: Array | None) -> str:
    if found is None:
        return "is missing"
    if expected.shape != found.shape:
        return f"has shape {list(found.shape)}, expected {list(expected.shape)}"
    if (expected.dtype == object) != (found.dtype == object):
        return f"has dtype {found.dtype}, expected {expected.dtype}"
    if expected.dtype == object:
        return "" if expected.tolist() == found.tolist() else "has other bytes than expected"
    if not np.array_equal(np.isnan(expected), np.isnan(found)):
        return "has NaN in other places than expected"
    return ""


def _maximum_error(expected: Array, found: Array) -> float:
    if expected.dtype == object or expected.size == 0:
        return 0.0
    differs = ~((expected == found) | (np.isnan(expected) & np.isnan(found)))
    if not differs.any():
        return 0.0
    return float(np.max(np.abs(found[differs].astype(np.float64) - expected[differs].astype(np.float64))))
