"""Make a golden fixture for a model that came without one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import ConfigError

MAXIMUM_INPUT_BYTES = 64 << 20
"""Of one generated input. A signature may state any size; the fixture travels in the bundle."""

_WORDS = [b"", b"go", b"tide", "Wört".encode()]


def random_inputs(signature: Signature, seed: int) -> dict[str, Array]:
    """Return seeded inputs that fit the signature, each free axis of size 1.

    Floats are uniform in [-1, 1), integers uniform over 0 to 9 (any index of a small table is legal, and no sum
    overflows), booleans even, BYTES short words.

    Raises:
        ConfigError: an input would be larger than `MAXIMUM_INPUT_BYTES`.
        InputError: an input's datatype has no numpy dtype.
    """
    generator = np.random.default_rng(seed)
    return {spec.name: _random_array(spec, generator) for spec in signature.inputs}


def _random_array(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = [1 if size == -1 else size for size in spec.shape]
    dtype = numpy_dtype(spec.dtype)
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes > MAXIMUM_INPUT_BYTES:
        raise ConfigError(
            f"input {spec.name!r} {list(spec.shape)} would take {size_bytes} bytes in a generated fixture; "
            f"expected at most {MAXIMUM_INPUT_BYTES}",
            fix="give a fixture of your own in [golden] of the specification",
        )
    array: np.ndarray[Any, Any]
    if dtype.kind == "f":
        array = generator.uniform(-1.0, 1.0, shape)
    elif dtype.kind == "b":
        array = generator.integers(0, 2, shape)
    elif dtype.kind == "O":
        array = np.empty(shape, dtype=object)
        array.ravel()[:] = [_WORDS[index] for index in generator.integers(0, len(_WORDS), math.prod(shape))]
        return array
    else:
        array = generator.integers(0, 10, shape)
    # `asarray` because numpy returns a plain scalar for the shape [].
    return np.asarray(array).astype(dtype)
