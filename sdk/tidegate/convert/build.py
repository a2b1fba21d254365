"""From a trained model or ready model files, and a specification, to one checked bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tidegate.bundle import Bundle, Manifest, Signature, TensorSpec, write_bundle
from tidegate.convert.assemble import (
    Release,
    read_release,
    with_criteria,
    with_evaluation,
    with_golden,
    with_profile,
)
from tidegate.convert.assessment import assess, is_decoded, read_yardstick, reference_profile
from tidegate.convert.candidate import candidate_bundle, scratch_directory
from tidegate.convert.fixture import golden_fixture
from tidegate.convert.from_source import Progress, from_source
from tidegate.convert.model_files import read_model
from tidegate.convert.near_enough import advice as parity_advice
from tidegate.convert.near_enough import check_shares, evaluation_problems, source_problems
from tidegate.convert.signatures import common_signature
from tidegate.convert.spec import BuildSpec, backend_of
from tidegate.convert.tolerances import advice
from tidegate.errors import BundleError, ConfigError, DependencyError
from tidegate.evaluate import Evaluation, Judgement
from tidegate.evaluate.report import Verdict
from tidegate.runtime.backends import ModelFile, open_model
from tidegate.runtime.renaming import renamed_signature
from tidegate.runtime.verify import VariantReport, verify_bundle

Note = Callable[[str], None]
"""Receives sentences that the author should see."""


@dataclass(frozen=True)
class Candidate:
    """A release that reproduces its golden fixture, and what else was found out about it; not written yet."""

    release: Release
    reports: tuple[VariantReport, ...]
    """each variant on the golden fixture; one that cannot run here is `not runnable`, with the reason"""
    evaluation: Evaluation | None = None
    """None without [evaluation]"""
    problems: tuple[str, ...] = ()
    """variants outside their stated tolerance or least agreement: which, and by how much"""

    @property
    def verdict(self) -> Verdict:
        """`fail` when a criterion fails or a variant is not near enough, else `wait` when a criterion waits."""
        if self.problems:
            return "fail"
        return (self.evaluation.verdict if self.evaluation is not None else None) or "pass"


@dataclass(frozen=True)
class BuildResult:
    """What was written, and what is known of it."""

    path: Path
    """the bundle"""
    manifest: Manifest
    reports: tuple[VariantReport, ...]
    """each variant on the golden fixture; one that cannot run here is `not runnable`, with the reason"""
    evaluation: Evaluation | None = None
    """None without [evaluation]"""


def build(
    spec: BuildSpec,
    out: Path,
    note: Note = lambda sentence: None,
    progress: Progress = lambda *_: None,
    *,
    allow_failing: bool = False,
) -> BuildResult:
    """Build one bundle. Nothing is written at `out` unless every runnable variant reproduces the golden fixture.

    Args:
        spec: what the author says.
        out: the `.tide` file to write.
        note: receives sentences that the author should see.
        progress: told how far the slow steps are.
        allow_failing: write a release that did not pass too; its manifest says `failing`.

    Raises:
        BundleError: a criterion does not pass, a variant is outside its tolerance, or one of `prove`'s reasons.
        Others: as `prove`.
    """
    candidate = prove(spec, out, note, progress, allow_failing=allow_failing)
    if not allow_failing:
        demand_pass(candidate)
    return write(candidate, out)


def prove(
    spec: BuildSpec,
    out: Path,
    note: Note = lambda sentence: None,
    progress: Progress = lambda *_: None,
    *,
    allow_failing: bool = False,
) -> Candidate:
    """Take every step of a build but the last; see `build`. A release that is refused gets no reference profile.

    Raises:
        ConfigError: the specification contradicts itself or breaks a rule of the manifest or the criteria.
        NotFoundError: a file that it names is not there.
        InputError: the evaluation data is not readable, or does not fit the model.
        DependencyError: no runtime is installed for any of the variants, or a framework is missing.
        BundleError: the variants disagree with each other or with the fixture, or one cannot be evaluated.
        ModelError: a conversion failed, or a runtime refuses a model.
        ResourceError: the disk refuses.
    """
    _check_ids(spec)
    check_shares(spec)
    yardstick = read_yardstick(spec)
    with scratch_directory(out) as scratch:
        sourced = from_source(spec, scratch, note, progress)
        spec = sourced.spec
        models = _read_models(spec)
        signatures = _read_signatures(spec, models, note)
        signature = _with_input_rules(common_signature(signatures, note), spec)
        bare = read_release(spec, signature, models, note)
        with candidate_bundle(bare, scratch, out) as bundle:
            golden = golden_fixture(spec, bundle, _reference(spec, signatures))
        release = with_golden(bare, golden, spec)
        if yardstick is not None and yardstick.criteria_bytes:
            release = with_criteria(release, yardstick.criteria_bytes)
        with candidate_bundle(release, scratch, out) as bundle:
            reports = _verified(bundle, spec)
            problems = source_problems(spec, release.manifest, sourced.parity)
            if yardstick is None:
                return Candidate(_marked(release, problems), reports, None, tuple(problems))
            evaluation = assess(bundle, spec, yardstick, progress)
            decoded = is_decoded(release.manifest, yardstick.data)
            problems += evaluation_problems(spec, release.manifest, evaluation, decoded=decoded)
            candidate = Candidate(_judged(release, evaluation, problems), reports, evaluation, tuple(problems))
            if candidate.verdict != "pass" and not allow_failing:
                return candidate  # It will not be written, and the profile takes long.
            profile = reference_profile(bundle, evaluation.variant, spec, yardstick.data, note, progress)
    return candidate if profile is None else replace(candidate, release=with_profile(candidate.release, profile))


def demand_pass(candidate: Candidate) -> None:
    """Refuse a release that did not pass. One whose criteria wait has not passed either.

    Raises:
        BundleError: says what did not pass, by how much, and what to do.
    """
    if candidate.verdict != "pass":
        raise refusal(candidate)


def refusal(candidate: Candidate) -> BundleError:
    """Return the error for a release that did not pass."""
    judgements = candidate.evaluation.criteria if candidate.evaluation is not None else ()
    told = [*candidate.problems, *(_told(one) for one in judgements if one.verdict == candidate.verdict)]
    what = "fails" if candidate.verdict == "fail" else "waits: there is not enough data to say"
    if candidate.problems:
        fix = parity_advice()
    else:
        fix = "mend the model" if candidate.verdict == "fail" else "measure what is missing, or bring more data"
    return BundleError(
        f"the release {what}: {'; '.join(told)}",
        fix=f"{fix}; --allow-failing builds it all the same, marked as failing",
    )


def _told(one: Judgement) -> str:
    figure = "no figure" if one.estimate is None else f"{one.estimate:.4g}"
    return f"criterion {one.name!r} on {one.variant} ({one.scope}, {one.demand}): {figure}, {one.reason}"


def write(candidate: Candidate, out: Path) -> BuildResult:
    """Write a candidate; one that did not pass is marked as failing in its manifest.

    Raises:
        ResourceError: the disk refuses; what stood at `out` is unchanged.
    """
    release = candidate.release
    write_bundle(release.manifest, release.files, out)
    return BuildResult(out, release.manifest, candidate.reports, candidate.evaluation)


def default_output(spec: BuildSpec) -> Path:
    """Return `NAME-VERSION.tide` in the current directory."""
    return Path(f"{spec.bundle.name}-{spec.bundle.version}.tide")


def _check_ids(spec: BuildSpec) -> None:
    if not spec.variant:
        raise ConfigError("there are no variants; expected at least one [[variant]]", fix="add the model files")
    ids = [variant.id for variant in spec.variant]
    for id in ids:
        if ids.count(id) > 1:
            raise ConfigError(f"variant id {id!r} occurs twice", fix="give every variant its own id")


def _read_models(spec: BuildSpec) -> dict[str, bytes]:
    """Return the content of every variant's model file by its id."""
    return {
        variant.id: read_model(spec.directory / variant.file, backend_of(variant), what=f"variant {variant.id!r}")
        for variant in spec.variant
    }


def _read_signatures(spec: BuildSpec, models: Mapping[str, bytes], note: Callable[[str], None]) -> dict[str, Signature]:
    """Return the signature, under the bundle's names, of every variant whose runtime is installed."""
    found: dict[str, Signature] = {}
    missing: list[DependencyError] = []
    for variant in spec.variant:
        origin = f"variant {variant.id!r} ({Path(variant.file).name})"
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


def _reference(spec: BuildSpec, signatures: Mapping[str, Signature]) -> str:
    """Return the variant that the others are held against; `signatures` are those of the runnable ones, in order."""
    stated = spec.bundle.reference
    if stated and stated not in signatures:
        raise DependencyError(
            f"variant {stated!r} is the reference, and its runtime is not installed",
            fix="install it, or name another variant in [bundle] reference",
        )
    return stated or next(iter(signatures))


def _verified(bundle: Bundle, spec: BuildSpec) -> tuple[VariantReport, ...]:
    """Hold every variant of the finished release against the fixture."""
    reports = tuple(verify_bundle(bundle))
    failed = [report for report in reports if report.status == "failed"]
    if failed:
        raise BundleError(
            "; ".join(f"variant {report.id!r} fails the golden fixture: {report.problem}" for report in failed),
            fix=advice(bundle.manifest, reports, generated=not spec.golden.file),
        )
    return reports


def _judged(release: Release, evaluation: Evaluation, problems: list[str]) -> Release:
    """Write what was measured into the release."""
    return with_evaluation(release, evaluation, passed=not problems and evaluation.verdict in ("pass", None))


def _marked(release: Release, problems: list[str]) -> Release:
    """Mark a release that nobody evaluated as failing when one of its variants is not near enough to its source."""
    return Release(msgspec.structs.replace(release.manifest, failing=bool(problems)), release.files)
