"""What changed between two releases, in words. Pure: two manifests in, sentences out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tidegate.bundle.manifest import Asset, Golden, Manifest, TensorSpec, Variant


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference."""

    section: str
    """identity, signature, labels, front end, prefilter, decoder, variants, metrics, criteria, golden, assets,
    reference profile, budgets, trial, provenance"""
    what: str
    """the thing that differs, such as `input 'audio'` or `hangover_ms`"""
    before: Any
    """as the older manifest has it; null when it is new"""
    after: Any
    """as the newer manifest has it; null when it is gone"""
    sentence: str
    """the same for people"""


_SETTINGS = (
    ("front end", "front_end"),
    ("prefilter", "prefilter"),
    ("decoder", "decoder"),
    ("budgets", "budgets"),
    ("trial", "trial"),
    ("evaluation", "evaluation"),
)

_IDENTITY = ("name", "version", "release", "description", "licence", "failing")


def differences(
    before: Manifest, after: Manifest, same_model: Callable[[Variant, Variant], bool] = lambda old, new: False
) -> list[Change]:
    """Return what changed, in the order of the manifest; empty when nothing did.

    Args:
        before: of the older release.
        after: of the newer one.
        same_model: says of a variant whose digests differ whether the model inside is the same; the mirror of the
            manifest, with its version, lies in the file too.
    """
    return [
        *_fields("identity", before, after, _IDENTITY),
        *_tensors("input", before.signature.inputs, after.signature.inputs),
        *_tensors("output", before.signature.outputs, after.signature.outputs),
        *_labels(before.labels, after.labels),
        *(
            change
            for section, field in _SETTINGS
            for change in _tables(section, getattr(before, field), getattr(after, field))
        ),
        *_variants(before.variants, after.variants, same_model),
        *_criteria(before, after),
        *_files(before, after),
        *_mapping("provenance", before.provenance, after.provenance),
    ]


def only_the_version(changes: Sequence[Change]) -> bool:
    """Say whether two releases differ in nothing but version and release counter."""
    return all(change.section == "identity" and change.what in ("version", "release") for change in changes)


def _fields(section: str, before: Any, after: Any, names: Sequence[str], prefix: str = "") -> Iterator[Change]:
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield _changed(section, prefix + name, old, new)


def _tensors(side: str, before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> Iterator[Change]:
    old, new = {spec.name: spec for spec in before}, {spec.name: spec for spec in after}
    yield from _came_and_went("signature", side, old, new, _tensor)
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            yield _changed("signature", f"{side} {name!r}", _tensor(old[name]), _tensor(new[name]))
    kept = [name for name in old if name in new]
    order = [name for name in new if name in old]
    if kept != order:
        yield _changed("signature", f"order of {side}s", ", ".join(kept), ", ".join(order))


def _tensor(spec: TensorSpec) -> str:
    rule = " (finite only)" if spec.finite else ""
    return f"{spec.dtype} [{', '.join('any' if size == -1 else str(size) for size in spec.shape)}]{rule}"


def _labels(before: tuple[str, ...], after: tuple[str, ...]) -> Iterator[Change]:
    added = [label for label in after if label not in before]
    removed = [label for label in before if label not in after]
    if added:
        yield Change(section="labels", what="added", before=None, after=added, sentence=f"labels added: {_list(added)}")
    if removed:
        yield Change(
            section="labels", what="removed", before=removed, after=None, sentence=f"labels removed: {_list(removed)}"
        )
    moved = [label for label in after if label in before and before.index(label) != after.index(label)]
    if moved:
        yield Change(
            section="labels",
            what="place",
            before=[before.index(label) for label in moved],
            after=[after.index(label) for label in moved],
            sentence=f"labels stand for other outputs than before: {_list(moved)}",
        )


def _tables(section: str, before: msgspec.Struct | None, after: msgspec.Struct | None) -> Iterator[Change]:
    if before is None and after is None:
        return
    if before is None or after is None:
        old, new = _plain(before), _plain(after)
        sentence = f"{section} {'added' if before is None else 'removed'}: {_value(new if before is None else old)}"
        yield Change(section=section, what=section, before=old, after=new, sentence=sentence)
        return
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _mapping(section, old, new, f"{name}.")
        elif old != new:
            yield _changed(section, name, old, new)


def _mapping(section: str, before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield _changed(section, prefix + name, old, new)


def _variants(
    before: Sequence[Variant], after: Sequence[Variant], same_model: Callable[[Variant, Variant], bool]
) -> Iterator[Change]:
    old, new = {one.id: one for one in before}, {one.id: one for one in after}
    yield from _came_and_went("variants", "variant", old, new, _variant)
    kept, order = [id for id in old if id in new], [id for id in new if id in old]
    if kept != order:
        yield _changed("variants", "order of preference", ", ".join(kept), ", ".join(order))
    for id in kept:
        yield from _variant_changes(old[id], new[id], same_model)


def _variant(variant: Variant) -> str:
    return f"{variant.backend} {variant.precision}, {variant.size_bytes:,} bytes"


def _variant_changes(
    before: Variant, after: Variant, same_model: Callable[[Variant, Variant], bool]
) -> Iterator[Change]:
    prefix = f"variant {before.id!r}: "
    named = ("backend", "precision", "minimum_runtime", "hardware", "tensor_names")
    yield from _fields("variants", before, after, named, prefix)
    if before.sha256 != after.sha256 and not same_model(before, after):
        yield _resized("variants", f"{prefix}file", before.sha256, after.sha256, before.size_bytes, after.size_bytes)
    yield from _mapping("metrics", before.metrics, after.metrics, prefix)
    for change in _tables("metrics", before.parity, after.parity):
        what = f"{prefix}parity {change.what}".removesuffix(" metrics")
        yield msgspec.structs.replace(change, what=what, sentence=f"{prefix}parity: {change.sentence}")


def _criteria(before: Manifest, after: Manifest) -> Iterator[Change]:
    old = {(one.name, one.variant): one for one in before.criteria}
    new = {(one.name, one.variant): one for one in after.criteria}
    for name, variant in sorted(old.keys() | new.keys()):
        was, now = old.get((name, variant)), new.get((name, variant))
        what = f"{name!r} on {variant!r}"
        if was is None or now is None:
            yield _changed("criteria", what, was and was.verdict, now and now.verdict)
            continue
        yield from _fields("criteria", was, now, ("demand", "verdict", "estimate", "samples"), f"{what}: ")


def _files(before: Manifest, after: Manifest) -> Iterator[Change]:
    yield from _file("golden", "fixture", before.golden, after.golden)
    if before.golden is not None and after.golden is not None:
        yield from _fields("golden", before.golden, after.golden, ("tolerance",))
        old, new = before.golden.tolerance_by_variant, after.golden.tolerance_by_variant
        yield from _mapping("golden", old, new, "tolerance of ")
    for name in sorted(before.assets.keys() | after.assets.keys()):
        yield from _file("assets", f"asset {name!r}", before.assets.get(name), after.assets.get(name))
    yield from _file("reference profile", "file", before.reference_profile, after.reference_profile)


def _file(section: str, what: str, before: Asset | Golden | None, after: Asset | Golden | None) -> Iterator[Change]:
    if before is None and after is None:
        return
    if before is None or after is None:
        yield _changed(section, what, before and _size(before.size_bytes), after and _size(after.size_bytes))
    elif before.sha256 != after.sha256:
        yield _resized(section, what, before.sha256, after.sha256, before.size_bytes, after.size_bytes)


def _resized(section: str, what: str, old: str, new: str, old_bytes: int, new_bytes: int) -> Change:
    if old_bytes == new_bytes:
        how = f"other content, still {_size(new_bytes)}"
    else:
        share = f" ({100 * (new_bytes - old_bytes) / old_bytes:+.1f} %)" if old_bytes else ""
        how = f"other content, {_size(old_bytes)} before, {_size(new_bytes)} now{share}"
    return Change(
        section=section,
        what=what,
        before={"sha256": old, "size_bytes": old_bytes},
        after={"sha256": new, "size_bytes": new_bytes},
        sentence=f"{what}: {how}",
    )


def _came_and_went(
    section: str, kind: str, before: Mapping[str, Any], after: Mapping[str, Any], describe: Any
) -> Iterator[Change]:
    for name in before:
        if name not in after:
            yield _changed(section, f"{kind} {name!r}", describe(before[name]), None)
    for name in after:
        if name not in before:
            yield _changed(section, f"{kind} {name!r}", None, describe(after[name]))


def _changed(section: str, what: str, before: Any, after: Any) -> Change:
    old, new = _plain(before), _plain(after)
    if old in (None, "", [], {}):
        sentence = f"{what}: new, {_value(new)}"
    elif new in (None, "", [], {}):
        sentence = f"{what}: gone, was {_value(old)}"
    else:
        sentence = f"{what}: was {_value(old)}, is {_value(new)}"
    return Change(section=section, what=what, before=old, after=new, sentence=sentence)


def _plain(value: Any) -> Any:
    return None if value is None else msgspec.to_builtins(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, list):
        return _list([_value(item) for item in value]) or "none"
    return "none" if value is None else str(value)


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)


def _size(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes"
