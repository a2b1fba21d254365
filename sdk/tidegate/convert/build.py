"""From model files and a specification to one checked bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.bundle import (
    Asset,
    Bundle,
    Golden,
    GoldenFixture,
    Manifest,
    Signature,
    TensorSpec,
    Variant,
    digest,
    write_bundle,
)
from tidegate.bundle.manifest import SCHEMA
from tidegate.convert.fixture import random_inputs
from tidegate.convert.precision import precision_of
from tidegate.convert.signatures import common_signature
from tidegate.convert.spec import BuildSpec, VariantTable, backend_of, read_bytes
from tidegate.errors import BundleError, ConfigError, DependencyError
from tidegate.runtime import load
from tidegate.runtime.verify import VariantReport, verify_bundle

GOLDEN_FILE = "golden.npz"


@dataclass(frozen=True)
class BuildResult:
    """What was written, and what is known of it."""

    path: Path
    """the bundle"""
    manifest: Manifest
    reports: tuple[VariantReport, ...]
    """each variant on the golden fixture; one that cannot run here is `not runnable`, with the reason"""


@dataclass(frozen=True)
class _Sources:
    """Every file that goes into the bundle but the fixture."""

    variants: dict[str, bytes]
    assets: dict[str, bytes]


def build(spec: BuildSpec, out: Path, note: Callable[[str], None] = lambda sentence: None) -> BuildResult:
    """Build one bundle. Nothing is written at `out` unless every runnable variant reproduces the golden fixture.

    Args:
        spec: what the author says.
        out: the `.tide` file to write.
        note: receives sentences that the author should see.

    Raises:
        ConfigError: the specification contradicts itself.
        NotFoundError: a file that it names is not there.
        DependencyError: no runtime is installed for any of the variants.
        BundleError: the variants disagree with each other, with the fixture, or with a rule of the manifest.
        ModelError: a runtime refuses a model.
        ResourceError: the disk refuses.
    """
    sources = _read_sources(spec)
    signatures = _read_signatures(spec, note)
    signature = _with_input_rules(common_signature(signatures, note), spec)
    golden = _golden_fixture(spec, signature, first_runnable=next(iter(signatures)))
    fixture = golden.to_npz()
    manifest = _assemble(spec, sources, signature, fixture)
    reports = _verified(manifest, _files(manifest, sources, fixture), out)
    return BuildResult(out, manifest, reports)


def default_output(spec: BuildSpec) -> Path:
    """Return `NAME-VERSION.tide` in the current directory."""
    return Path(f"{spec.bundle.name}-{spec.bundle.version}.tide")


def _read_sources(spec: BuildSpec) -> _Sources:
    ids = [variant.id for variant in spec.variant]
    repeated = sorted({id for id in ids if ids.count(id) > 1})
    if repeated:
        raise ConfigError(f"variant id {repeated[0]!r} occurs twice", fix="give every variant its own id")
    if not ids:
        raise ConfigError("there are no variants; expected at least one [[variant]]", fix="add the model files")
    return _Sources(
        variants={v.id: read_bytes(spec.directory / v.file, f"variant {v.id!r}") for v in spec.variant},
        assets={name: read_bytes(spec.directory / file, f"asset {name!r}") for name, file in spec.assets.items()},
    )


def _read_signatures(spec: BuildSpec, note: Callable[[str], None]) -> dict[str, Signature]:
    """Return the signature of every variant whose runtime is installed."""
    found: dict[str, Signature] = {}
    missing: list[DependencyError] = []
    for variant in spec.variant:
        try:
            with load(spec.directory / variant.file, backend=backend_of(variant)) as model:
                found[variant.id] = model.signature
        except DependencyError as error:
            missing.append(error)
            note(f"variant {variant.id!r} is packed unchecked: {error.message}")
    if not found:
        raise missing[0]
    return found


def _with_input_rules(signature: Signature, spec: BuildSpec) -> Signature:
    known = [tensor.name for tensor in signature.inputs]
    for name in spec.inputs:
        if name not in known:
            raise ConfigError(
                f"[inputs.{name}]: the model has no such input; it has {', '.join(known)}", fix="rename it"
            )

    def ruled(tensor: TensorSpec) -> TensorSpec:
        rule = spec.inputs.get(tensor.name)
        return tensor if rule is None else msgspec.structs.replace(tensor, finite=tensor.finite or rule.finite)

    return msgspec.structs.replace(signature, inputs=tuple(ruled(tensor) for tensor in signature.inputs))


def _golden_fixture(spec: BuildSpec, signature: Signature, first_runnable: str) -> GoldenFixture:
    """Return the author's fixture, or one of random inputs; missing outputs come from the first runnable variant."""
    fixture = GoldenFixture(inputs=random_inputs(signature, spec.golden.seed)) if not spec.golden.file else None
    if fixture is None:
        path = spec.directory / spec.golden.file
        fixture = GoldenFixture.from_npz(read_bytes(path, "golden fixture"), origin=str(path))
    _check_names("input", fixture.inputs, [tensor.name for tensor in signature.inputs], every=True)
    _check_names("output", fixture.outputs, [tensor.name for tensor in signature.outputs], every=False)
    if fixture.outputs:
        return fixture
    variant = next(one for one in spec.variant if one.id == first_runnable)
    with load(spec.directory / variant.file, backend=backend_of(variant)) as model:
        return GoldenFixture(fixture.inputs, model.run(fixture.inputs))


def _check_names(side: str, found: Mapping[str, object], expected: list[str], *, every: bool) -> None:
    strangers = [name for name in found if name not in expected]
    missing = [name for name in expected if name not in found] if every else []
    if strangers or missing:
        wrong = f"has {side} {strangers[0]!r}" if strangers else f"lacks {side} {missing[0]!r}"
        raise BundleError(
            f"the golden fixture {wrong}; the model's {side}s are {', '.join(map(repr, expected))}",
            fix=f"name the arrays of the fixture `{side}/NAME`",
        )


def _assemble(spec: BuildSpec, sources: _Sources, signature: Signature, fixture: bytes) -> Manifest:
    table = spec.bundle
    return Manifest(
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
        variants=tuple(_variant(one, sources.variants[one.id]) for one in spec.variant),
        golden=Golden(
            file=GOLDEN_FILE,
            sha256=digest(fixture),
            size_bytes=len(fixture),
            tolerance=spec.golden.tolerance,
            tolerance_by_variant={one.id: one.tolerance for one in spec.variant if one.tolerance is not None},
        ),
        assets={
            name: Asset(file=f"assets/{Path(spec.assets[name]).name}", sha256=digest(content), size_bytes=len(content))
            for name, content in sources.assets.items()
        },
        budgets=spec.budgets,
    )


def _variant(table: VariantTable, content: bytes) -> Variant:
    backend = backend_of(table)
    return Variant(
        id=table.id,
        backend=backend,
        precision=table.precision or precision_of(content, backend) or "as-is",
        file=f"variants/{table.id}{Path(table.file).suffix}",
        sha256=digest(content),
        size_bytes=len(content),
        minimum_runtime=table.minimum_runtime,
        hardware=table.hardware,
        metrics=table.metrics,
    )


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


def _files(manifest: Manifest, sources: _Sources, fixture: bytes) -> dict[str, bytes]:
    files = {GOLDEN_FILE: fixture}
    files |= {variant.file: sources.variants[variant.id] for variant in manifest.variants}
    return files | {asset.file: sources.assets[name] for name, asset in manifest.assets.items()}


def _verified(manifest: Manifest, files: dict[str, bytes], out: Path) -> tuple[VariantReport, ...]:
    """Prove the finished bundle from a scratch copy, then write the same bytes at `out`."""
    with tempfile.TemporaryDirectory(prefix="tidegate-build-") as scratch:
        candidate = Path(scratch) / "candidate.tide"
        write_bundle(manifest, files, candidate)
        with Bundle.open(candidate) as bundle:
            reports = tuple(verify_bundle(bundle))
    failed = [report for report in reports if report.status == "failed"]
    if failed:
        raise BundleError(
            "; ".join(f"variant {report.id!r} fails the golden fixture: {report.problem}" for report in failed),
            fix="mend the variant, or state the tolerance that you accept: `tolerance` in the file, or --tolerance",
        )
    write_bundle(manifest, files, out)
    return reports
