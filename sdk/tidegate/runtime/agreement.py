"""Does a model file keep what its bundle's manifest promises?"""

from __future__ import annotations

import msgspec

from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import BundleError
from tidegate.runtime.validation import describe_shape

QUANTISED = ("INT8", "UINT8", "INT16")
"""What a raw load may find where the manifest states FP32."""


def agreed_signature(promised: Signature, found: Signature, *, origin: str, raw: bool = False) -> Signature:
    """Return the signature to work with: the manifest's, with the file's own dtypes when raw tensors are asked for.

    A model may be freer than its manifest (a free axis where the manifest fixes one), never narrower. An output's
    axis is compared only where both state a size: converters lose many of them.

    Args:
        promised: from the manifest.
        found: from the model file.
        origin: how messages call the model file.
        raw: quantised tensors are handed through as integers.

    Raises:
        BundleError: they disagree; the message names both.
    """
    return Signature(
        inputs=_agreed("input", promised.inputs, found.inputs, origin, raw),
        outputs=_agreed("output", promised.outputs, found.outputs, origin, raw),
    )


def _agreed(
    side: str, promised: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...], origin: str, raw: bool
) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in found}
    if by_name.keys() != {spec.name for spec in promised}:
        raise _disagree(
            origin, f"{side}s", ", ".join(spec.name for spec in promised), ", ".join(spec.name for spec in found)
        )
    return tuple(_agreed_tensor(side, spec, by_name[spec.name], origin, raw) for spec in promised)


def _agreed_tensor(side: str, promised: TensorSpec, found: TensorSpec, origin: str, raw: bool) -> TensorSpec:
    same_dtype = promised.dtype == found.dtype or (raw and promised.dtype == "FP32" and found.dtype in QUANTISED)
    same_shape = _fits_input(promised, found) if side == "input" else _fits_output(promised, found)
    if not same_dtype or not same_shape:
        raise _disagree(origin, f"{side} {promised.name!r}", _describe(promised), _describe(found))
    return msgspec.structs.replace(promised, dtype=found.dtype, finite=promised.finite or found.finite)


def _fits_input(promised: TensorSpec, found: TensorSpec) -> bool:
    return len(promised.shape) == len(found.shape) and all(
        there in (-1, here) for here, there in zip(promised.shape, found.shape, strict=True)
    )


def _fits_output(promised: TensorSpec, found: TensorSpec) -> bool:
    if not found.shape:  # a scalar, or a rank that the file does not state: the two look alike
        return True
    return len(promised.shape) == len(found.shape) and all(
        here == there or -1 in (here, there) for here, there in zip(promised.shape, found.shape, strict=True)
    )


def _describe(spec: TensorSpec) -> str:
    return f"{spec.dtype} {describe_shape(spec.shape)}"


def _disagree(origin: str, what: str, promised: str, found: str) -> BundleError:
    return BundleError(
        f"{origin}: manifest and model file disagree about {what}: the manifest says {promised}, the file has {found}",
        fix="rebuild the bundle with `tidegate build`",
    )
