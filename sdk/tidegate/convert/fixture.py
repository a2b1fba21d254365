"""The golden fixture of a release: the author's own, or one that is made for a model that came without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidegate.bundle import Bundle, GoldenFixture
from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import is_float, numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.convert.spec import BuildSpec, read_bytes
from tidegate.errors import BundleError, ConfigError, ModelError
from tidegate.runtime import load

MAXIMUM_INPUT_BYTES = 64 << 20
"""Of one generated input. A signature may state any size; the fixture travels in the bundle."""

_WORDS = [b"", b"go", b"tide", "Wört".encode()]


def golden_fixture(spec: BuildSpec, bundle: Bundle, reference: str) -> GoldenFixture:
    """Return the author's fixture, or one of random inputs; missing outputs come from the reference.

    Args:
        spec: what the author says.
        bundle: the release without a fixture.
        reference: the variant that answers where the author's fixture has no outputs.

    Raises:
        BundleError: the author's fixture is damaged, or is not about this model's tensors.
        NotFoundError: it is not there.
        ConfigError, InputError: as `random_inputs`.
        ModelError: the reference cannot be loaded or run; of random input, a model of categories may know none.
    """
    signature = bundle.manifest.signature
    if spec.golden.file:
        path = spec.directory / spec.golden.file
        fixture = GoldenFixture.from_npz(read_bytes(path, "golden fixture"), origin=str(path))
    else:
        fixture = GoldenFixture(inputs=random_inputs(signature, spec.golden.seed))
    _check_names("input", fixture.inputs, [tensor.name for tensor in signature.inputs], every=True)
    _check_names("output", fixture.outputs, [tensor.name for tensor in signature.outputs], every=False)
    if fixture.outputs:
        return fixture
    with load(bundle, variant=reference) as model:
        try:
            return GoldenFixture(fixture.inputs, model.run(fixture.inputs))
        except ModelError as error:
            if spec.golden.file:
                raise
            raise ModelError(
                f"variant {reference!r} does not take the random input of a generated fixture: "
                + error.message.removeprefix(f"{bundle.path}: "),
                fix='give some rows of real input in the specification: [golden] file = "golden.npz" with input/NAME',
            ) from error


def random_inputs(signature: Signature, seed: int) -> dict[str, Array]:
    """Return seeded inputs that fit the signature, each free axis of size 1.

    Floats are uniform in [-1, 1), integers uniform over 0 to 9 (any index of a small table is legal, and no sum
    overflows), booleans even, BYTES short words.

    Raises:
        ConfigError: an input would be larger than `MAXIMUM_INPUT_BYTES`.
        DependencyError: an input is BF16, and `ml_dtypes` is not installed.
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
    if is_float(dtype):
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


def _check_names(side: str, found: Mapping[str, object], expected: list[str], *, every: bool) -> None:
    strangers = [name for name in found if name not in expected]
    missing = [name for name in expected if name not in found] if every else []
    if strangers or missing:
        wrong = f"has {side} {strangers[0]!r}" if strangers else f"lacks {side} {missing[0]!r}"
        raise BundleError(
            f"the golden fixture {wrong}; the model's {side}s are {', '.join(map(repr, expected))}",
            fix=f"name the arrays of the fixture `{side}/NAME`",
        )
