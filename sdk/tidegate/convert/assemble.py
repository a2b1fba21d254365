"""From a specification and file contents to a manifest with every file that it lists. Pure but for the labels file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.bundle import Asset, Golden, GoldenFixture, Manifest, Signature, Variant, digest
from tidegate.bundle.manifest import SCHEMA
from tidegate.bundle.rules import check
from tidegate.convert.mirroring import mirrored
from tidegate.convert.precision import precision_of
from tidegate.convert.spec import BuildSpec, VariantTable, backend_of, read_bytes
from tidegate.errors import ConfigError
from tidegate.evaluate import CRITERIA_ASSET, Evaluation, recorded

GOLDEN_FILE = "golden.npz"
CRITERIA_FILE = "assets/criteria.toml"
PROFILE_FILE = "reference-profile.json"


@dataclass(frozen=True)
class Release:
    """A manifest, and the content of every file that it lists."""

    manifest: Manifest
    files: dict[str, bytes]


def read_release(
    spec: BuildSpec,
    signature: Signature,
    models: Mapping[str, bytes],
    note: Callable[[str], None] = lambda sentence: None,
) -> Release:
    """Return the release without its golden fixture, mirrors written.

    Args:
        spec: what the author says.
        signature: of all variants.
        models: content of the model file by variant id.
        note: receives sentences that the author should see.

    Raises:
        ConfigError: the specification breaks a rule of the manifest.
        NotFoundError: a file that it names is not there.
        BundleError: a model file cannot hold its mirror.
    """
    variants = [_variant(table, models[table.id]) for table in spec.variant]
    assets = {name: _asset(spec, name, file) for name, file in spec.assets.items()}
    table = spec.bundle
    manifest = Manifest(
        schema=SCHEMA,
        name=table.name,
        version=table.version,
        release=table.release,
        description=table.description,
        licence=table.licence,
        provenance=spec.provenance,
        signature=signature,
        labels=_labels(spec),
        front_end=spec.front_end,
        prefilter=spec.prefilter,
        decoder=spec.decoder,
        variants=tuple(variant for variant, _ in variants),
        assets={name: asset for name, (asset, _) in assets.items()},
        budgets=spec.budgets,
        trial=spec.trial,
    )
    files = {variant.file: content for variant, content in variants}
    plain = _checked(Release(manifest, files | {asset.file: content for asset, content in assets.values()}))
    return Release(*mirrored(plain.manifest, plain.files, note)) if table.mirrors else plain


def with_golden(release: Release, golden: GoldenFixture, spec: BuildSpec) -> Release:
    """Return the release with its golden fixture.

    Raises:
        ConfigError: a tolerance is negative or not finite.
    """
    content = golden.to_npz()
    entry = Golden(
        file=GOLDEN_FILE,
        sha256=digest(content),
        size_bytes=len(content),
        tolerance=spec.golden.tolerance,
        tolerance_by_variant={table.id: table.tolerance for table in spec.variant if table.tolerance is not None},
    )
    manifest = msgspec.structs.replace(release.manifest, golden=entry)
    return _checked(Release(manifest, release.files | {GOLDEN_FILE: content}))


def with_criteria(release: Release, criteria: bytes) -> Release:
    """Return the release with its criteria file as an asset, so that a roll-out can hold it against the same promises.

    Raises:
        ConfigError: the specification has an asset of that name already.
    """
    manifest = release.manifest
    taken = [asset.file for asset in manifest.assets.values() if asset.file.casefold() == CRITERIA_FILE]
    if CRITERIA_ASSET in manifest.assets or taken:
        raise ConfigError(
            f"[assets] has {CRITERIA_ASSET!r}, which is what the criteria of [evaluation] travel as",
            fix="rename the asset and its file, or remove it",
        )
    entry = _entry(CRITERIA_FILE, criteria)
    whole = msgspec.structs.replace(manifest, assets={**manifest.assets, CRITERIA_ASSET: entry})
    return _checked(Release(whole, release.files | {CRITERIA_FILE: criteria}))


def with_evaluation(release: Release, evaluation: Evaluation, *, passed: bool) -> Release:
    """Return the release with what was measured; one that did not pass is marked as failing.

    Raises:
        ConfigError: a figure breaks a rule of the manifest.
    """
    manifest = msgspec.structs.replace(recorded(release.manifest, evaluation), failing=not passed)
    return _checked(Release(manifest, release.files))


def with_profile(release: Release, profile: bytes) -> Release:
    """Return the release with the reference profile of its evaluation data."""
    manifest = msgspec.structs.replace(release.manifest, reference_profile=_entry(PROFILE_FILE, profile))
    return _checked(Release(manifest, release.files | {PROFILE_FILE: profile}))


def _checked(release: Release) -> Release:
    problems = check(release.manifest)
    if problems:
        raise ConfigError("; ".join(problems), fix="mend the specification or the command line")
    return release


def _variant(table: VariantTable, content: bytes) -> tuple[Variant, bytes]:
    backend = backend_of(table)
    variant = Variant(
        id=table.id,
        backend=backend,
        precision=table.precision or precision_of(content, backend) or "as-is",
        file=f"variants/{table.id}{Path(table.file).suffix}",
        sha256=digest(content),
        size_bytes=len(content),
        minimum_runtime=table.minimum_runtime,
        hardware=table.hardware,
        metrics=table.metrics,
        tensor_names=table.tensor_names,
    )
    return variant, content


def _asset(spec: BuildSpec, name: str, file: str) -> tuple[Asset, bytes]:
    content = read_bytes(spec.directory / file, f"asset {name!r}")
    return _entry(f"assets/{Path(file).name}", content), content


def _entry(file: str, content: bytes) -> Asset:
    return Asset(file=file, sha256=digest(content), size_bytes=len(content))


def _labels(spec: BuildSpec) -> tuple[str, ...]:
    if not spec.bundle.labels_file:
        return spec.bundle.labels
    if spec.bundle.labels:
        raise ConfigError("[bundle] has both labels and labels_file", fix="keep one of them")
    raw = read_bytes(spec.directory / spec.bundle.labels_file, "labels file")
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"labels file {spec.bundle.labels_file}: not UTF-8: {error}", fix="save as UTF-8") from error
    return tuple(line.strip() for line in lines if line.strip())
