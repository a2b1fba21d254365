"""The flow: run every variant, hold it against the reference, against the truth, against the criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Bundle, Variant
from tidegate.bundle.arrays import Array
from tidegate.errors import BundleError, ConfigError, DependencyError, InputError, ModelError
from tidegate.evaluate import breakdown
from tidegate.evaluate.answers import Answers, Classified, aligned
from tidegate.evaluate.criteria import DEFAULT_CONFIDENCE, Criteria
from tidegate.evaluate.data import EvaluationSet, check_inputs
from tidegate.evaluate.evidence import Subject
from tidegate.evaluate.judging import judge, overall
from tidegate.evaluate.measurements import Measurement
from tidegate.evaluate.parity import agreement, parity
from tidegate.evaluate.reading import answers_of, transcribed
from tidegate.evaluate.report import SCHEMA, Baseline, Evaluation, Judgement, VariantResult
from tidegate.evaluate.running import run_rows
from tidegate.runtime import Model, load, runnable_variants

Progress = Callable[[str, int, int], None]
"""Receives what is running, the rows behind us, and all rows."""

Transcribe = Callable[[NDArray[np.float32]], str]
"""Samples of one recording [n] to text."""


@dataclass(frozen=True)
class Options:
    """What to evaluate, and against what."""

    variant: str | None = None
    """the one that the report and the criteria are about; default: the reference"""
    reference: str | None = None
    """the one that parity is measured against; default: the first that can run here"""
    criteria: Criteria | None = None
    baseline: Bundle | None = None
    """the released model"""
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    """latency and memory by variant"""
    transcriber: Callable[[Model], Transcribe] | None = None
    """makes text of a speech model's input; needed for `text` unless the model answers strings"""


@dataclass(frozen=True)
class _Run:
    """What became of one variant."""

    variant: Variant
    status: Literal["evaluated", "not runnable", "failed"]
    runtime: str = ""
    provider: str = ""
    outputs: Mapping[str, Array] = field(default_factory=dict)
    answers: Answers | None = None
    problem: str = ""


def evaluate(
    bundle: Bundle, data: EvaluationSet, options: Options | None = None, progress: Progress = lambda *_: None
) -> Evaluation:
    """Evaluate a bundle.

    Args:
        bundle: open.
        data: rows with the truth.
        options: what to hold it against.
        progress: told how far each variant is.

    Raises:
        InputError: the data does not fit the model.
        ConfigError: a criterion or a setting of the data cannot be meant.
        NotFoundError: a variant that was named is not there.
        DependencyError: nothing can run here.
        ModelError: every variant failed.
    """
    chosen = options or Options()
    check_inputs(data, bundle.manifest.signature)
    runs = _run_all(bundle, data, chosen, progress)
    reference = _named(bundle, runs, chosen.reference)
    judged = reference if chosen.variant is None else _named(bundle, runs, chosen.variant)
    released = _run_baseline(bundle, data, chosen, judged.variant.id, progress)
    subjects = {run.variant.id: _subject(run, released, chosen) for run in runs}
    judgements = judge(chosen.criteria, subjects, variant=judged.variant.id, data=data) if chosen.criteria else ()
    return _report(bundle, data, chosen, runs, reference, judged, released, judgements)


def _run_all(bundle: Bundle, data: EvaluationSet, options: Options, progress: Progress) -> list[_Run]:
    runnable = {variant.id for variant in runnable_variants(bundle.manifest)}
    runs = [
        _run(bundle, variant, data, options, (), progress) if variant.id in runnable else _not_runnable(bundle, variant)
        for variant in bundle.manifest.variants
    ]
    if not any(run.status == "evaluated" for run in runs):
        failed = [run for run in runs if run.status == "failed"]
        problems = "; ".join(f"{run.variant.id}: {run.problem}" for run in failed or runs)
        if failed:
            raise ModelError(f"no variant could be evaluated: {problems}", fix="mend the model or the data")
        raise DependencyError(f"no variant can run here: {problems}", fix="install a runtime for one of them")
    return runs


def _run(
    bundle: Bundle, variant: Variant, data: EvaluationSet, options: Options, names: tuple[str, ...], progress: Progress
) -> _Run:
    """Run one variant on all rows and read its answers; what the model does wrong becomes part of the result."""
    try:
        model = load(bundle, variant=variant.id)
    except (BundleError, ModelError) as error:
        return _Run(variant, "failed", problem=error.message)
    with model:
        labels = bundle.manifest.labels
        try:
            if data.task == "transcription" and bundle.manifest.decoder is not None:
                outputs: Mapping[str, Array] = {}
                answers: Answers = transcribed(_texts(model, data, options, progress), data)
            else:
                outputs = run_rows(model, data.inputs, data.origin, lambda done: progress(variant.id, done, data.rows))
                answers = answers_of(outputs, data, bundle.manifest.signature, labels, names or labels)
        except ModelError as error:
            return _Run(variant, "failed", model.runtime, model.provider, problem=error.message)
        return _Run(variant, "evaluated", model.runtime, model.provider, outputs, answers)


def _texts(model: Model, data: EvaluationSet, options: Options, progress: Progress) -> list[str]:
    """Return what a speech model makes of each recording."""
    if options.transcriber is None:
        raise ConfigError("a speech model needs a transcriber", fix="hand one in: Options(transcriber=...)")
    transcribe = options.transcriber(model)
    name = model.signature.inputs[0].name
    samples, lengths = data.inputs[name], data.lengths.get(name)
    if samples.ndim != 2 or samples.dtype != np.float32:
        raise InputError(
            f"{data.origin}: input/{name} is {samples.dtype} {list(samples.shape)}; expected float32 [rows, samples]",
            fix="pad the recordings to one length, and give length/" + name,
        )
    texts = []
    for row, recording in enumerate(samples):
        texts.append(transcribe(recording if lengths is None else recording[: lengths[row]]))
        progress(model.variant_id, row + 1, data.rows)
    return texts


def _not_runnable(bundle: Bundle, variant: Variant) -> _Run:
    try:
        load(bundle, variant=variant.id).close()
    except DependencyError as error:
        return _Run(variant, "not runnable", problem=error.message + (f" ({error.fix})" if error.fix else ""))
    return _Run(variant, "not runnable", problem="its runtime is missing or too old")


def _named(bundle: Bundle, runs: list[_Run], name: str | None) -> _Run:
    """Return the run of the variant that was named, or the first that worked."""
    if name is None:
        return next(run for run in runs if run.answers is not None)
    run = next(run for run in runs if run.variant.id == bundle.variant(name).id)
    if run.answers is None:
        raise ModelError(f"variant {name!r} could not be evaluated: {run.problem}", fix="name another variant")
    return run


def _run_baseline(
    bundle: Bundle, data: EvaluationSet, options: Options, variant: str, progress: Progress
) -> _Run | None:
    """Run the released model: the variant of the same id, or its first that can run here."""
    baseline = options.baseline
    if baseline is None:
        return None
    check_inputs(data, baseline.manifest.signature)
    candidates = runnable_variants(baseline.manifest)
    if not candidates:
        raise DependencyError(f"no variant of the baseline {baseline.path} can run here", fix="install its runtime")
    chosen = next((item for item in candidates if item.id == variant), candidates[0])
    run = _run(
        baseline, chosen, data, options, bundle.manifest.labels,
        lambda _, done, rows: progress(f"baseline {chosen.id}", done, rows),
    )  # fmt: skip
    if run.answers is None:
        raise ModelError(f"the baseline {baseline.path} failed: {run.problem}", fix="name a bundle that works")
    return run


def _subject(run: _Run, released: _Run | None, options: Options) -> Subject:
    baseline = None
    if run.answers is not None and released is not None and released.answers is not None:
        baseline = aligned(released.answers, run.answers)
    return Subject(
        answers=run.answers,
        problem=run.problem,
        size_bytes=run.variant.size_bytes,
        measurement=options.measurements.get(run.variant.id),
        baseline=baseline,
    )


def _report(
    bundle: Bundle,
    data: EvaluationSet,
    options: Options,
    runs: list[_Run],
    reference: _Run,
    judged: _Run,
    released: _Run | None,
    judgements: tuple[Judgement, ...],
) -> Evaluation:
    answers = judged.answers
    assert answers is not None
    classes = answers.classes if isinstance(answers, Classified) else ()
    positive = answers.positive if isinstance(answers, Classified) else None
    return Evaluation(
        schema=SCHEMA,
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        data=data.origin,
        data_sha256=data.sha256,
        rows=data.rows,
        task=data.task,
        variant=judged.variant.id,
        reference=reference.variant.id,
        confidence=DEFAULT_CONFIDENCE,
        verdict=overall(judgements) if judgements else None,
        variants=tuple(_variant_result(run, reference, data) for run in runs),
        no_skill=breakdown.no_skill(answers),
        classes=classes,
        positive_class=None if positive is None else classes[positive],
        confusion=breakdown.confusion(answers),
        by_class=breakdown.by_class(answers, DEFAULT_CONFIDENCE),
        calibration_error=breakdown.calibration_error(answers),
        slices=breakdown.by_slice(answers, data, DEFAULT_CONFIDENCE),
        tags=breakdown.by_tag(answers, data, DEFAULT_CONFIDENCE),
        curves=breakdown.curves(answers),
        baseline=_baseline_result(released, answers, options, data.rows),
        criteria=judgements,
    )


def _variant_result(run: _Run, reference: _Run, data: EvaluationSet) -> VariantResult:
    everything = np.ones(data.rows, np.bool_)
    compared = None
    if run.answers is not None and reference.answers is not None and run is not reference:
        compared = parity(
            reference.variant.id, data.rows, reference.outputs, run.outputs, agreement(reference.answers, run.answers)
        )
    return VariantResult(
        id=run.variant.id,
        status=run.status,
        runtime=run.runtime,
        provider=run.provider,
        size_bytes=run.variant.size_bytes,
        problem=run.problem,
        metrics={} if run.answers is None else breakdown.main_metrics(run.answers, everything, DEFAULT_CONFIDENCE),
        parity=compared,
    )


def _baseline_result(released: _Run | None, candidate: Answers, options: Options, rows: int) -> Baseline | None:
    if released is None or released.answers is None or options.baseline is None:
        return None
    answers = aligned(released.answers, candidate)
    manifest = options.baseline.manifest
    return Baseline(
        name=manifest.name,
        version=manifest.version,
        variant=released.variant.id,
        metrics=breakdown.main_metrics(answers, np.ones(rows, np.bool_), DEFAULT_CONFIDENCE),
        curves=breakdown.curves_like(answers, breakdown.curves(candidate)),
    )
