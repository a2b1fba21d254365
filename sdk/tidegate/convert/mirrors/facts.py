"""What is mirrored: the part of a manifest that says what a model is, without files and digests.

A digest cannot be mirrored: the mirrored file is what it is taken of.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.bundle.manifest import (
    Budgets,
    DecoderSettings,
    FrontEnd,
    Manifest,
    PrefilterSettings,
    Signature,
    Variant,
)
from tidegate.errors import BundleError


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One variant of one release; the fields mean what they mean in the manifest."""

    schema: str
    name: str
    version: str
    release: int = 0
    description: str = ""
    licence: str = ""
    variant: str = ""
    """its id; empty where the mirror speaks of the whole release"""
    precision: str = ""
    signature: Signature
    tensor_names: dict[str, str] = {}
    labels: tuple[str, ...] = ()
    front_end: FrontEnd | None = None
    prefilter: PrefilterSettings | None = None
    decoder: DecoderSettings | None = None
    budgets: Budgets | None = None
    provenance: dict[str, str] = {}


_TEXT = frozenset({"schema", "name", "version", "description", "licence", "variant", "precision"})


def facts_of(manifest: Manifest, variant: Variant | None = None) -> Facts:
    """Return what a mirror in `variant` says, or in something that stands for the whole release."""
    return Facts(
        schema=manifest.schema,
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
        description=manifest.description,
        licence=manifest.licence,
        variant=variant.id if variant else "",
        precision=variant.precision if variant else "",
        signature=manifest.signature,
        tensor_names=variant.tensor_names if variant else {},
        labels=manifest.labels,
        front_end=manifest.front_end,
        prefilter=manifest.prefilter,
        decoder=manifest.decoder,
        budgets=manifest.budgets,
        provenance=manifest.provenance,
    )


def to_strings(facts: Facts) -> dict[str, str]:
    """Return the facts as strings by field name, for places that hold nothing else.

    Text stands as it is; numbers, lists and tables are JSON. What has its default is left out.
    """
    plain = msgspec.to_builtins(facts)
    return {
        name: value if name in _TEXT else msgspec.json.encode(value, order="deterministic").decode()
        for name, value in plain.items()
    }


def from_strings(strings: Mapping[str, str], *, origin: str) -> Facts:
    """Return the facts that `to_strings` wrote; names that it does not know are passed over.

    Raises:
        BundleError: a field is missing or is not of its type.
    """
    known = {field.name for field in msgspec.structs.fields(Facts)}
    try:
        plain = {
            name: value if name in _TEXT else msgspec.json.decode(value)
            for name, value in strings.items()
            if name in known
        }
        return msgspec.convert(plain, Facts)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise unreadable(origin, error) from error


def to_json(facts: Facts) -> bytes:
    """Return the facts as one JSON document; equal facts give equal bytes."""
    return msgspec.json.encode(facts, order="deterministic")


def from_json(raw: bytes, *, origin: str) -> Facts:
    """Return the facts that `to_json` wrote.

    Raises:
        BundleError: a field is missing or is not of its type.
    """
    try:
        return msgspec.json.decode(raw, type=Facts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(origin, error) from error


def unreadable(origin: str, error: Exception) -> BundleError:
    """Return the error for a mirror that is there and cannot be read."""
    return BundleError(f"{origin}: its mirror of the manifest is damaged: {error}", fix="rebuild the bundle")
