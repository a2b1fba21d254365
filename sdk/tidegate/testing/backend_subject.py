"""What the backend checks run on: the models, the backend under test, and the words that the checks are written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import NAMES
from tidegate.errors import TidegateError
from tidegate.runtime import Model

WEIGHTS: NDArray[np.float32] = ((np.arange(640) % 7 - 3) / 8).reshape(64, 10).astype(np.float32)
BIAS: NDArray[np.float32] = (np.arange(10) / 4).astype(np.float32)

MODELS: dict[str, str] = {
    "dense": "y[1,10] = x[1,64] @ WEIGHTS + BIAS, all FP32",
    "batch": "the same with the first axis of x and y free",
    "two": "sum[any,3] = a + b, difference[any,3] = a - b, all FP32",
    "mixed": "picked[2] FP32 = values[4] FP32 at indices[2] INT32; an index outside fails at run time",
    "scalar": "y = 2 x, FP32 without axes",
    **{f"column_{dtype}": f"y[3,1] = x[3] reshaped, {dtype}" for dtype in sorted(NAMES)},
}
"""Name -> what it computes. Tensors are named as here."""


@dataclass(frozen=True)
class Subject:
    """A backend under test."""

    load: Callable[[str], Model]
    """loads a model of `MODELS` by its name"""
    load_file: Callable[[Path], Model]
    """loads a file"""
    file: Callable[[str], Path]
    """where a model of `MODELS` lies"""


Check = Callable[[Subject, Path], None]
"""Takes the backend and an empty folder to write in."""


class Checks(dict[str, Check]):
    """Checks by name."""

    def add(self, check: Check) -> Check:
        """Add one under its own name: a decorator."""
        self[check.__name__] = check
        return check


def rows_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return float32 [count, 64] between -1 and 1."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 64)).astype(np.float32)


def dense(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the models `dense` and `batch` give for these rows."""
    return np.asarray(rows.astype(np.float64) @ WEIGHTS + BIAS, dtype=np.float32)


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Assert equality to five digits."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def assert_refused(kind: type[TidegateError], call: Callable[[], object], *words: str) -> None:
    """Assert that a call raises exactly this class, with these words, and says what to do."""
    error = raised(call)
    assert type(error) is kind, f"raised {type(error).__name__}, expected {kind.__name__}: {error}"
    missing = [word for word in words if word not in error.message]
    assert not missing, f"the message lacks {missing}: {error.message}"
    assert error.fix, f"the message does not say what to do: {error.message}"


def raised(call: Callable[[], object]) -> TidegateError:
    """Return the error of a call that must fail."""
    try:
        result = call()
    except TidegateError as error:
        return error
    raise AssertionError(f"returned {result!r}, expected an error")
