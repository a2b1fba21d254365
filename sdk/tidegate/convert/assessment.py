"""The step that holds a release against labelled data: parity, metrics, criteria, reference profile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from tidegate.bundle import Bundle, Manifest
from tidegate.bundle.arrays import Array
from tidegate.convert.from_source import Progress
from tidegate.convert.measuring import measured_here, variants_to_measure
from tidegate.convert.spec import BuildSpec, EvaluationTable, read_bytes
from tidegate.errors import BundleError
from tidegate.evaluate import (
    Criteria,
    Evaluation,
    EvaluationSet,
    Measurement,
    Options,
    evaluate,
    parse_criteria,
    read_evaluation_set,
    read_measurements,
)
from tidegate.evaluate.evaluating import Transcribe
from tidegate.evaluate.running import run_rows
from tidegate.profile import Options as ProfileOptions
from tidegate.profile import encode, profile_from
from tidegate.profile.making import MINIMUM_ROWS
from tidegate.runtime import Model, load, runnable_variants


@dataclass(frozen=True)
class Yardstick:
    """What a release is held against."""

    table: EvaluationTable
    data: EvaluationSet
    criteria: Criteria | None
    criteria_bytes: bytes
    """as the author wrote them; empty when there are none"""


def read_yardstick(spec: BuildSpec) -> Yardstick | None:
    """Read data and criteria, before anything slow is done; None without [evaluation].

    Raises:
        NotFoundError: a file is not there.
        InputError: the data breaks a rule.
        ConfigError: the criteria break one.
    """
    table = spec.evaluation
    if table is None:
        return None
    path = spec.directory / table.data
    data = read_evaluation_set(read_bytes(path, "evaluation data"), origin=str(path))
    if not table.criteria:
        return Yardstick(table, data, None, b"")
    criteria_path = spec.directory / table.criteria
    raw = read_bytes(criteria_path, "criteria")
    return Yardstick(table, data, parse_criteria(raw, origin=str(criteria_path)), raw)


def assess(bundle: Bundle, spec: BuildSpec, yardstick: Yardstick, progress: Progress) -> Evaluation:
    """Evaluate the finished candidate on every variant that can run here.

    Criteria without a variant of their own are about the first that can run here: the one that a device would take.

    Raises:
        InputError: the data does not fit the model.
        ConfigError: a criterion or a setting cannot be meant.
        NotFoundError, DependencyError: the baseline is not there, or cannot run.
        BundleError: a variant that should run here cannot be evaluated.
        ModelError: none can.
    """
    with ExitStack() as open_files:
        options = Options(
            variant=runnable_variants(bundle.manifest)[0].id,
            reference=spec.bundle.reference or None,
            criteria=yardstick.criteria,
            baseline=_baseline(spec, yardstick.table, open_files),
            measurements=_measurements(spec, yardstick, bundle, progress),
            transcriber=_transcriber,
        )
        evaluation = evaluate(bundle, yardstick.data, options, progress)
    for result in evaluation.variants:
        if result.status == "failed":
            raise BundleError(
                f"variant {result.id!r} could not be evaluated: {result.problem}", fix="mend or remove the variant"
            )
    return evaluation


def reference_profile(
    bundle: Bundle, variant: str, spec: BuildSpec, data: EvaluationSet, note: Callable[[str], None], progress: Progress
) -> bytes | None:
    """Return the reference profile's file, of the data and of one variant's answers to it.

    None when none is wanted, or when there are too few rows; the author is told so.

    Raises:
        ConfigError: a setting of [profile] cannot be meant.
        InputError: the data cannot be profiled.
    """
    table = spec.profile
    if not table.make:
        return None
    if data.rows < MINIMUM_ROWS:
        note(f"no reference profile: the evaluation data has {data.rows} rows, and {MINIMUM_ROWS} are needed")
        return None
    options = ProfileOptions(
        false_alarm_rate=table.false_alarm_rate,
        window_rows=table.window_rows,
        seed=table.seed,
        kinds=table.kinds,
    )
    profile = profile_from(
        data.inputs,
        {} if is_decoded(bundle.manifest, data) else _outputs(bundle, variant, data, progress),
        bundle.manifest,
        options=options,
        lengths=data.lengths,
        data_sha256=data.sha256,
        progress=lambda done, features: progress("reference profile", done, features),
    )
    return encode(profile)


def is_decoded(manifest: Manifest, data: EvaluationSet) -> bool:
    """Whether the model is heard through its decoder: then its answers are texts, and its outputs are not compared."""
    return data.task == "transcription" and manifest.decoder is not None


def _baseline(spec: BuildSpec, table: EvaluationTable, open_files: ExitStack) -> Bundle | None:
    return open_files.enter_context(Bundle.open(spec.directory / table.baseline)) if table.baseline else None


def _measurements(spec: BuildSpec, yardstick: Yardstick, bundle: Bundle, progress: Progress) -> dict[str, Measurement]:
    """Return what a bench report says of latency and memory; without one, measure here what the criteria ask for."""
    if not yardstick.table.bench:
        return measured_here(bundle.path, variants_to_measure(yardstick.criteria, bundle.manifest), progress)
    path = spec.directory / yardstick.table.bench
    return read_measurements(read_bytes(path, "bench report"), bundle.manifest, origin=str(path))


def _transcriber(model: Model) -> Transcribe:
    from tidegate.speech import Transcriber

    speech = Transcriber(model)
    return lambda samples: speech.transcribe(samples).text


def _outputs(bundle: Bundle, variant: str, data: EvaluationSet, progress: Progress) -> dict[str, Array]:
    with load(bundle, variant=variant) as model:
        return run_rows(
            model, data.inputs, data.origin, lambda done: progress("answers for the profile", done, data.rows)
        )
