"""Benchmark the variants of a bundle, each in a fresh child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.bench.child import Crashed, Observer, measure_in_child
from tidegate.bench.environment import Probe
from tidegate.bench.figures import result_of_model
from tidegate.bench.inputs import feeds_of_bundle, is_model_file, read_arrays
from tidegate.bench.job import Failed, Job, Measured
from tidegate.bench.report import (
    SCHEMA,
    Problem,
    Report,
    Result,
    Subject,
    now,
    without_measurement,
    worst_verdict,
)
from tidegate.bundle import Bundle, Manifest, Variant
from tidegate.errors import ConfigError, NotFoundError
from tidegate.runtime import installed_backends, runnable_variants
from tidegate.runtime.timing import Plan


@dataclass(frozen=True)
class ModelOptions:
    """What to measure of a bundle or a bare model file."""

    variants: tuple[str, ...] = ()
    """ids; empty for every runnable one"""
    threads: int | None = None
    """of the runtime; None for its default on a device"""
    batch: int | None = None
    """rows per call"""
    input_file: str | None = None
    """an .npz with one array per input"""
    plan: Plan = field(default_factory=Plan)
    keep_samples: bool = True
    """put every latency into the report"""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"the number of threads is {self.threads}; expected 1 or more", fix="correct --threads")
        if self.plan.concurrency != 1:
            raise ConfigError(
                f"concurrency is {self.plan.concurrency}; a model is called by one caller here",
                fix="use --concurrency with --server, or --threads for the runtime's own threads",
            )


@dataclass(frozen=True)
class Candidate:
    """One variant, and what speaks against running it here."""

    name: str
    variant: str | None
    backend: str | None
    obstacle: Problem | None


def bench_model(
    source: str, options: ModelOptions, observer: Observer = lambda progress: None, tick_s: float | None = None
) -> Report:
    """Measure each variant in turn; one that fails or crashes is reported and the rest go on.

    Args:
        source: a bundle, or a bare .tflite or .onnx file.
        observer: told of every phase of every variant.
        tick_s: how often it is told in between; None for not at all.

    Raises:
        NotFoundError: no such file, or no such variant; the message names those that exist.
        ConfigError, InputError: the options or the input do not fit the model.
        BundleError: the bundle cannot be used.
    """
    started = now()
    subject, candidates = plan_model_file(source, options) if is_model_file(source) else plan_bundle(source, options)
    machine = Probe().machine()
    results = tuple(_measure(source, candidate, options, observer, tick_s) for candidate in candidates)
    return Report(
        schema=SCHEMA,
        started=started,
        subject=subject,
        scenario="single-stream",
        plan=options.plan,
        machine=machine,
        trust=worst_verdict(results),
        results=results,
    )


def plan_model_file(source: str, options: ModelOptions) -> tuple[Subject, list[Candidate]]:
    """Check what can be checked without the runtime of a bare model file."""
    path = Path(source)
    if not path.is_file():
        raise NotFoundError(f"there is no file {source}", fix="name a bundle, or a .tflite or .onnx file")
    if options.variants:
        raise ConfigError(
            f"{source} is a bare model file and has no variants; asked for {', '.join(options.variants)}",
            fix="leave --variant out",
        )
    read_arrays(options.input_file)
    subject = Subject(kind="model-file", source=source, name=path.name, version="")
    return subject, [Candidate(name=path.name, variant=None, backend=None, obstacle=None)]


def plan_bundle(source: str, options: ModelOptions) -> tuple[Subject, list[Candidate]]:
    """Check bundle, variants and input, and say of each chosen variant whether it runs here."""
    with Bundle.open(source) as bundle:
        manifest = bundle.manifest
        chosen = [bundle.variant(id) for id in dict.fromkeys(options.variants)] or list(manifest.variants)
    feeds_of_bundle(source, options.batch, options.input_file)
    subject = Subject(kind="bundle", source=source, name=manifest.name, version=manifest.version)
    return subject, _candidates(manifest, chosen)


def _candidates(manifest: Manifest, chosen: Sequence[Variant]) -> list[Candidate]:
    runnable = {variant.id for variant in runnable_variants(manifest)}
    return [
        Candidate(
            name=variant.id,
            variant=variant.id,
            backend=variant.backend,
            obstacle=None if variant.id in runnable else _obstacle(variant),
        )
        for variant in chosen
    ]


def _obstacle(variant: Variant) -> Problem:
    installed = installed_backends()
    found = installed.get(variant.backend)
    if found is None:
        return Problem(
            kind="DependencyError",
            message=f"no runtime for {variant.backend!r} is installed; installed: {_listed(installed)}",
            fix=f"pip install 'tidegate[{variant.backend}]'",
        )
    return Problem(
        kind="DependencyError",
        message=f"it needs {variant.backend} runtime {variant.minimum_runtime or 'of another version'}; found {found}",
        fix="update the runtime",
    )


def _listed(installed: Mapping[str, str]) -> str:
    return ", ".join(sorted(installed.values())) or "none"


def _measure(
    source: str, candidate: Candidate, options: ModelOptions, observer: Observer, tick_s: float | None
) -> Result:
    if candidate.obstacle is not None:
        return without_measurement(candidate.name, "not-runnable", candidate.obstacle, candidate.backend)
    job = Job(
        source=source,
        variant=candidate.variant,
        threads=options.threads,
        batch=options.batch,
        input_file=options.input_file,
        plan=options.plan,
    )
    outcome = measure_in_child(job, observer, tick_s)
    if isinstance(outcome, Measured):
        return result_of_model(candidate.name, outcome, keep_samples=options.keep_samples)
    if isinstance(outcome, Crashed):
        return without_measurement(candidate.name, "crashed", _crash(outcome), candidate.backend)
    return without_measurement(candidate.name, "failed", _failure(outcome), candidate.backend)


def _failure(failed: Failed) -> Problem:
    return Problem(kind=failed.kind, message=failed.message, fix=failed.fix)


def _crash(crashed: Crashed) -> Problem:
    ended = f"the child process ended with {crashed.cause} before it answered"
    out_of_memory = crashed.cause == "SIGKILL"
    return Problem(
        kind=crashed.cause,
        message=f"{ended}; its last words: {crashed.last_words}" if crashed.last_words else ended,
        fix="somebody killed it; if it was the system, there was too little memory" if out_of_memory else None,
    )
