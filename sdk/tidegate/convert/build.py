"""From model files and a specification to one checked bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.bundle import Bundle, GoldenFixture, Manifest, Signature, TensorSpec, write_bundle
from tidegate.convert.assemble import Release, read_release, with_golden
from tidegate.convert.fixture import random_inputs
from tidegate.convert.model_files import read_model
from tidegate.convert.signatures import common_signature
from tidegate.convert.spec import BuildSpec, backend_of, read_bytes
from tidegate.convert.tolerances import advice
from tidegate.errors import BundleError, ConfigError, DependencyError, NotFoundError, ResourceError
from tidegate.runtime import load
from tidegate.runtime.backends import ModelFile, open_model
from tidegate.runtime.renaming import renamed_signature
from tidegate.runtime.verify import VariantReport, verify_bundle

_SPACE = "check free space and permissions of its directory; building needs room for two bundles there"


@dataclass(frozen=True)
class BuildResult:
    """What was written, and what is known of it."""

    path: Path
    """the bundle"""
    manifest: Manifest
    reports: tuple[VariantReport, ...]
    """each variant on the golden fixture; one that cannot run here is `not runnable`, with the reason"""


def build(spec: BuildSpec, out: Path, note: Callable[[str], None] = lambda sentence: None) -> BuildResult:
    """Build one bundle. Nothing is written at `out` unless every runnable variant reproduces the golden fixture.

    Args:
        spec: what the author says.
        out: the `.tide` file to write.
        note: receives sentences that the author should see.

    Raises:
        ConfigError: the specification contradicts itself or breaks a rule of the manifest.
        NotFoundError: a file that it names is not there.
        DependencyError: no runtime is installed for any of the variants.
        BundleError: the variants disagree with each other or with the fixture.
        ModelError: a runtime refuses a model.
        ResourceError: the disk refuses.
    """
    models = _read_models(spec)
    signatures = _read_signatures(spec, models, note)
    signature = _with_input_rules(common_signature(signatures, note), spec)
    bare = read_release(spec, signature, models, note)
    golden = _golden_fixture(spec, bare, out, first_runnable=next(iter(signatures)))
    release = with_golden(bare, golden, spec)
    reports = _verified(release, out, spec)
    write_bundle(release.manifest, release.files, out)
    return BuildResult(out, release.manifest, reports)


def default_output(spec: BuildSpec) -> Path:
    """Return `NAME-VERSION.tide` in the current directory."""
    return Path(f"{spec.bundle.name}-{spec.bundle.version}.tide")


def _read_models(spec: BuildSpec) -> dict[str, bytes]:
    """Return the content of every variant's model file by its id."""
    if not spec.variant:
        raise ConfigError("there are no variants; expected at least one [[variant]]", fix="add the model files")
    models: dict[str, bytes] = {}
    for variant in spec.variant:
        if variant.id in models:
            raise ConfigError(f"variant id {variant.id!r} occurs twice", fix="give every variant its own id")
        models[variant.id] = read_model(
            spec.directory / variant.file, backend_of(variant), what=f"variant {variant.id!r}"
        )
    return models


def _read_signatures(spec: BuildSpec, models: Mapping[str, bytes], note: Callable[[str], None]) -> dict[str, Signature]:
    """Return the signature, under the bundle's names, of every variant whose runtime is installed."""
    found: dict[str, Signature] = {}
    missing: list[DependencyError] = []
    for variant in spec.variant:
        origin = f"variant {variant.id!r} ({variant.file})"
        try:
            opened = open_model(backend_of(variant), ModelFile(origin, content=models[variant.id]))
        except DependencyError as error:
            missing.append(error)
            note(f"variant {variant.id!r} is packed unchecked: {error.message}")
            continue
        found[variant.id] = renamed_signature(opened.signature, variant.tensor_names, origin=origin)
        opened.close()
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


def _golden_fixture(spec: BuildSpec, bare: Release, out: Path, first_runnable: str) -> GoldenFixture:
    """Return the author's fixture, or one of random inputs; missing outputs come from the first runnable variant."""
    signature = bare.manifest.signature
    if spec.golden.file:
        path = spec.directory / spec.golden.file
        fixture = GoldenFixture.from_npz(read_bytes(path, "golden fixture"), origin=str(path))
    else:
        fixture = GoldenFixture(inputs=random_inputs(signature, spec.golden.seed))
    _check_names("input", fixture.inputs, [tensor.name for tensor in signature.inputs], every=True)
    _check_names("output", fixture.outputs, [tensor.name for tensor in signature.outputs], every=False)
    if fixture.outputs:
        return fixture
    with _candidate(bare, out) as bundle, load(bundle, variant=first_runnable) as model:
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


def _verified(release: Release, out: Path, spec: BuildSpec) -> tuple[VariantReport, ...]:
    """Hold every variant of the finished release against the fixture."""
    with _candidate(release, out) as bundle:
        reports = tuple(verify_bundle(bundle))
    failed = [report for report in reports if report.status == "failed"]
    if failed:
        raise BundleError(
            "; ".join(f"variant {report.id!r} fails the golden fixture: {report.problem}" for report in failed),
            fix=advice(release.manifest, reports, generated=not spec.golden.file),
        )
    return reports


@contextmanager
def _candidate(release: Release, out: Path) -> Iterator[Bundle]:
    """Write a scratch bundle beside `out` and open it: what is proven is what a reader will get."""
    with _scratch_directory(out) as scratch:
        path = scratch / f"{release.manifest.name}.tide"
        try:
            write_bundle(release.manifest, release.files, path)
        except ResourceError as error:
            raise ResourceError(error.message.replace(str(path), str(out)), fix=_SPACE) from error
        with Bundle.open(path) as bundle:
            yield bundle


@contextmanager
def _scratch_directory(out: Path) -> Iterator[Path]:
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".tidegate-build-", dir=out.parent, ignore_cleanup_errors=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{out.parent} is not a directory", fix="make the directory first") from error
    except OSError as error:
        raise ResourceError(f"{out} could not be written: {error.strerror or error}", fix=_SPACE) from error
    with scratch as name:
        yield Path(name)
