"""The rules of a manifest beyond the types of its fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tidegate.bundle.dtypes import NAMES
from tidegate.bundle.paths import MANIFEST_FILE, path_problem

if TYPE_CHECKING:
    from tidegate.bundle.manifest import Asset, Golden, Manifest, TensorSpec, Variant

# https://semver.org, 2.0.0: numbers without leading zeros, then optional pre-release and build parts.
_NUMBER = r"(0|[1-9]\d{0,17})"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z",
    re.ASCII,
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_NAME_RULE = "lower-case letters, digits, '.', '_', '-', beginning with a letter or digit, at most 64"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def check(manifest: Manifest) -> list[str]:
    """Return what is wrong with a manifest beyond the types of its fields; empty when nothing is."""
    return [
        *_identity_problems(manifest),
        *_variant_problems(manifest),
        *_tensor_problems("input", manifest.signature.inputs),
        *_tensor_problems("output", manifest.signature.outputs),
        *_label_problems(manifest),
        *_file_problems(manifest),
        *_golden_problems(manifest),
        *_setting_problems(manifest),
        *_evaluation_problems(manifest),
    ]


def _identity_problems(manifest: Manifest) -> Iterable[str]:
    if not _NAME.match(manifest.name):
        yield f"name {manifest.name!r} is not {_NAME_RULE}"
    if not _SEMVER.match(manifest.version):
        yield f"version {manifest.version!r} is not a semantic version such as 1.2.0"
    if manifest.release < 0:
        yield f"release {manifest.release} is negative"


def _variant_problems(manifest: Manifest) -> Iterable[str]:
    if not manifest.variants:
        yield "there are no variants; expected at least one"
    tensors = {spec.name for spec in (*manifest.signature.inputs, *manifest.signature.outputs)}
    yield from _repeated("variant", [variant.id for variant in manifest.variants])
    for variant in manifest.variants:
        if not _NAME.match(variant.id):
            yield f"variant id {variant.id!r} is not {_NAME_RULE}"
        for name, value in variant.metrics.items():
            if not math.isfinite(value):
                yield f"variant {variant.id!r} has metric {name!r} = {value}; expected a finite number"
        for name in variant.tensor_names.keys() - tensors:
            yield f"variant {variant.id!r}: tensor_names has {name!r}; expected one of {', '.join(sorted(tensors))}"
        yield from _repeated(f"variant {variant.id!r}: tensor", list(variant.tensor_names.values()))


def _tensor_problems(side: str, specs: tuple[TensorSpec, ...]) -> Iterable[str]:
    if not specs and side == "output":
        yield "the signature has no outputs; expected at least one"
    yield from _repeated(side, [spec.name for spec in specs])
    for spec in specs:
        if not spec.name:
            yield f"an {side} has an empty name"
        if spec.dtype not in NAMES:
            yield f"{side} {spec.name!r} has datatype {spec.dtype!r}, not one of {', '.join(sorted(NAMES))}"
        if any(size < -1 for size in spec.shape):
            yield f"{side} {spec.name!r} has shape {list(spec.shape)}; expected sizes of -1 or more"


def _label_problems(manifest: Manifest) -> Iterable[str]:
    yield from _repeated("label", list(manifest.labels))
    if not manifest.labels or not manifest.signature.outputs:
        return
    first = manifest.signature.outputs[0]
    if first.shape and first.shape[-1] not in (-1, len(manifest.labels)):
        yield (
            f"there are {len(manifest.labels)} labels; expected {first.shape[-1]}, "
            f"the last axis of output {first.name!r} {list(first.shape)}"
        )


def _file_problems(manifest: Manifest) -> Iterable[str]:
    """Check paths, digests and sizes; one file may serve two purposes if both state the same digest."""
    listed: list[Variant | Asset | Golden] = [*manifest.variants, *manifest.assets.values()]
    listed += [single for single in (manifest.golden, manifest.reference_profile) if single is not None]
    stated: dict[str, tuple[str, int]] = {}
    if "" in manifest.assets:
        yield "an asset has an empty name"
    for item in listed:
        problem = path_problem(item.file)
        if problem:
            yield f"file {item.file!r} {problem}; expected a relative path inside the bundle"
        if item.file.casefold() == MANIFEST_FILE:
            yield f"file {item.file!r} is listed; the manifest cannot list itself"
        if not _SHA256.match(item.sha256):
            yield f"file {item.file!r} has sha256 {item.sha256[:80]!r}; expected 64 lower-case hexadecimal digits"
        if item.size_bytes < 0:
            yield f"file {item.file!r} has size_bytes {item.size_bytes}; expected 0 or more"
        if stated.setdefault(item.file, (item.sha256, item.size_bytes)) != (item.sha256, item.size_bytes):
            yield f"file {item.file!r} is listed twice with different digests"


def _golden_problems(manifest: Manifest) -> Iterable[str]:
    if manifest.golden is None:
        return
    golden: Golden = manifest.golden
    known = {variant.id for variant in manifest.variants}
    for what, tolerance in {"": golden.tolerance, **golden.tolerance_by_variant}.items():
        of = f" of variant {what!r}" if what else ""
        if not (math.isfinite(tolerance) and tolerance >= 0):
            yield f"golden tolerance{of} is {tolerance}; expected a finite number of 0 or more"
        if what and what not in known:
            yield f"golden tolerance{of}: there is no such variant; expected one of {', '.join(sorted(known))}"


def _setting_problems(manifest: Manifest) -> Iterable[str]:
    at_least: list[tuple[str, float, float]] = []
    if manifest.front_end is not None:
        front_end = manifest.front_end
        at_least.append(("front_end.sample_rate_hz", front_end.sample_rate_hz, 1))
        at_least += [(f"front_end.{name}", getattr(front_end, name), 0) for name in ("frame_ms", "hop_ms", "mel_bands")]
    if manifest.prefilter is not None:
        prefilter = manifest.prefilter
        durations = ("pre_roll_ms", "minimum_speech_ms", "hangover_ms")
        at_least += [(f"prefilter.{name}", getattr(prefilter, name), 0) for name in durations]
        at_least.append(("prefilter.maximum_segment_ms", prefilter.maximum_segment_ms, 1))
        at_least += [(f"prefilter.options.{key}", value, -math.inf) for key, value in prefilter.options.items()]
    if manifest.decoder is not None:
        decoder = manifest.decoder
        counts = ("window_ms", "hop_ms", "smoothing_windows", "minimum_windows")
        at_least += [(f"decoder.{name}", getattr(decoder, name), 1) for name in counts]
        at_least.append(("decoder.threshold", decoder.threshold, 0))
        if decoder.threshold > 1:
            yield f"decoder.threshold is {decoder.threshold}; expected a probability, 0 to 1"
    if manifest.budgets is not None:
        at_least += [(f"budgets.{name}", getattr(manifest.budgets, name), 0) for name in ("latency_p95_ms", "rss_mb")]
    if manifest.trial is not None:
        trial = manifest.trial
        rates = ("maximum_failure_rate", "maximum_empty_rate", "maximum_over_budget_rate")
        counts = ("minimum_calls", "minimum_s", "maximum_restarts_per_minute", "maximum_load_failures")
        at_least += [(f"trial.{name}", getattr(trial, name), 0) for name in (*counts, *rates)]
        at_least.append(("trial.deadline_s", trial.deadline_s, trial.minimum_s))
        for name in rates:
            if getattr(trial, name) > 1:
                yield f"trial.{name} is {getattr(trial, name)}; expected a share, 0 to 1"
    for name, value, least in at_least:
        if not (math.isfinite(value) and value >= least):
            yield f"{name} is {value}; expected a finite number" + (f" of {least} or more" if least > -math.inf else "")


def _evaluation_problems(manifest: Manifest) -> Iterable[str]:
    known = {variant.id for variant in manifest.variants}
    for variant in manifest.variants:
        parity = variant.parity
        if parity is None:
            continue
        where = f"variant {variant.id!r}: parity"
        if parity.reference not in known:
            yield f"{where} has reference {parity.reference!r}; expected one of {', '.join(sorted(known))}"
        if parity.rows < 1:
            yield f"{where} has {parity.rows} rows; expected 1 or more"
        for name, value in (("maximum_error", parity.maximum_error), ("mean_error", parity.mean_error)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                yield f"{where} has {name} {value}; expected a finite number of 0 or more"
        if parity.agreement is not None and not 0 <= parity.agreement <= 1:
            yield f"{where} has agreement {parity.agreement}; expected a share, 0 to 1"
    if manifest.evaluation is not None and not _SHA256.match(manifest.evaluation.sha256):
        yield "evaluation.sha256 is not 64 lower-case hexadecimal digits"
    for result in manifest.criteria:
        if result.variant not in known:
            yield (
                f"criterion {result.name!r} names variant {result.variant!r}; "
                f"expected one of {', '.join(sorted(known))}"
            )
        if not 0 < result.confidence < 1:
            yield f"criterion {result.name!r} has confidence {result.confidence}; expected between 0 and 1"
    failed = [result.name for result in manifest.criteria if result.verdict == "fail"]
    if failed and not manifest.failing:
        yield f"criterion {failed[0]!r} failed, but the release is not marked as failing"


def _repeated(what: str, names: list[str]) -> Iterable[str]:
    return [f"{what} {name!r} occurs more than once" for name in sorted({n for n in names if names.count(n) > 1})]
