"""One signature for all variants: what every one of them can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import BundleError

_FIX = (
    "convert both from the same model with the same tensor names, or map the names in [variant.tensor_names] of the "
    "specification"
)


def common_signature(signatures: Mapping[str, Signature], note: Callable[[str], None]) -> Signature:
    """Return the signature that all variants share, in the first one's order.

    Names, dtypes and ranks must be equal. Where one variant leaves an axis free and another fixes it, the bundle
    promises the fixed size, which both can do, and `note` is told. What one variant cannot take (NaN in front of a
    quantised input), the bundle refuses for all.

    Args:
        signatures: at least one, by variant id.
        note: receives a sentence for the author.

    Raises:
        BundleError: two variants disagree; both are named with what each has.
    """
    (first_id, common), *others = signatures.items()
    for other_id, other in others:
        common = Signature(
            inputs=_common_tensors("input", first_id, common.inputs, other_id, other.inputs, note),
            outputs=_common_tensors("output", first_id, common.outputs, other_id, other.outputs, note),
        )
    return common


def _common_tensors(
    side: str,
    first_id: str,
    first: tuple[TensorSpec, ...],
    other_id: str,
    other: tuple[TensorSpec, ...],
    note: Callable[[str], None],
) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in other}
    if {spec.name for spec in first} != by_name.keys():
        raise BundleError(
            f"variants {first_id!r} and {other_id!r} name their {side}s differently: "
            f"{_names(first)} in {first_id!r}, {_names(other)} in {other_id!r}",
            fix=_FIX,
        )
    return tuple(_common(side, first_id, spec, other_id, by_name[spec.name], note) for spec in first)


def _common(
    side: str, first_id: str, first: TensorSpec, other_id: str, other: TensorSpec, note: Callable[[str], None]
) -> TensorSpec:
    shape = _common_shape(first.shape, other.shape)
    if side == "output" and not (first.shape and other.shape):
        # A scalar, or a rank that the file does not state: the two look alike.
        shape = first.shape or other.shape
    if first.dtype != other.dtype or shape is None:
        raise BundleError(
            f"{side} {first.name!r} is {first.dtype} {list(first.shape)} in variant {first_id!r}, "
            f"but {other.dtype} {list(other.shape)} in variant {other_id!r}",
            fix=_FIX,
        )
    if first.shape and other.shape and first.shape != other.shape:
        note(
            f"{side} {first.name!r} is {list(first.shape)} in variant {first_id!r} and {list(other.shape)} in "
            f"{other_id!r}; the bundle promises {list(shape)}, which both can do"
        )
    return msgspec.structs.replace(first, shape=shape, finite=first.finite or other.finite)


def _common_shape(first: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(first) != len(other):
        return None
    shape: list[int] = []
    for one, two in zip(first, other, strict=True):
        if -1 not in (one, two) and one != two:
            return None
        shape.append(max(one, two))
    return tuple(shape)


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)
