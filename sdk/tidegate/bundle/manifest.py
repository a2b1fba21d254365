"""The manifest: what a bundle says about itself, as typed values.

Schema `tidegate.bundle/1`: known fields are strict, unknown ones are tolerated within the major version, so that an
older reader opens a newer minor bundle. `decode` and `encode` are the only ways in and out; `json_schema` publishes
the form.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidegate.bundle.rules import check
from tidegate.errors import BundleError

SCHEMA = "tidegate.bundle/1"

# A document nested beyond the interpreter's recursion limit ends in RecursionError.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

BackendName = Literal["litert", "onnx"]


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """One input or output."""

    name: str
    """as the model calls it"""
    dtype: str
    """OIP datatype: BOOL, INT8 … UINT64, FP16, FP32, FP64, BYTES, BF16"""
    shape: tuple[int, ...]
    """one entry per axis, -1 where free"""
    finite: bool = False
    """NaN and infinities are refused before the model"""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and outputs, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Parity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How near a variant comes to the reference variant on the evaluation data."""

    reference: str
    """id of the variant that it was held against"""
    rows: int
    maximum_error: float | None = None
    """largest absolute difference over all outputs; null when no finite one exists"""
    mean_error: float | None = None
    """mean absolute difference over all elements of all outputs"""
    agreement: float | None = None
    """share of rows with the same decision, 0 to 1; null when the model decides nothing, as in regression"""


class Variant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model file for one backend and precision."""

    id: str
    """such as `tflite-int8`"""
    backend: BackendName
    precision: str
    """fp32, fp16, int8, dynamic-int8; free text for a bare model: `as-is`"""
    file: str
    """path inside the bundle"""
    sha256: str
    size_bytes: int
    minimum_runtime: str = ""
    """lowest runtime version that is known to run it; empty when unknown"""
    hardware: tuple[str, ...] = ()
    """hardware tags it is meant for; empty: any"""
    metrics: dict[str, float] = {}
    """measured by the author, such as `accuracy`"""
    tensor_names: dict[str, str] = {}
    """the file's own name of an input or output, by its name in the signature, where the two differ"""
    parity: Parity | None = None
    """measured on the evaluation data at build"""


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """A further file of the release, such as a catalogue."""

    file: str
    sha256: str
    size_bytes: int


class Golden(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Inputs with expected outputs; every runnable variant must reproduce them."""

    file: str
    """an .npz with arrays `input/NAME` and `output/NAME`"""
    sha256: str
    size_bytes: int
    tolerance: float
    """largest absolute difference allowed"""
    tolerance_by_variant: dict[str, float] = {}
    """exceptions, by variant id"""


class FrontEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model expects of the signal in front of it."""

    kind: Literal["audio"]
    sample_rate_hz: int
    inside_graph: bool
    """the features are computed by the model itself, so no device can get them wrong"""
    frame_ms: float = 0.0
    hop_ms: float = 0.0
    mel_bands: int = 0
    normalisation: str = ""
    """in words, such as `per-window mean and variance of log mel`; empty when the graph does it or there is none"""
    notes: str = ""


class PrefilterSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stage in front of the model; part of the release and versioned with it."""

    kind: str
    """name of the detector: `webrtc`, `energy`, `webrtc+energy`, …"""
    options: dict[str, float] = {}
    """the detector's own settings by name"""
    pre_roll_ms: int = 300
    """audio kept from before the onset"""
    minimum_speech_ms: int = 60
    """speech needed before a segment starts"""
    hangover_ms: int = 400
    """quiet needed before a segment ends"""
    maximum_segment_ms: int = 10_000
    """hard limit; a longer segment is cut"""


class DecoderSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How windows of label probabilities become words (see tidegate.speech.decoder)."""

    kind: Literal["keywords"]
    window_ms: int = 1000
    hop_ms: int = 100
    smoothing_windows: int = 3
    threshold: float = 0.5
    minimum_windows: int = 2
    rejected_labels: tuple[str, ...] = ("silence", "unknown")
    """labels that are never words of the transcript"""


class Budgets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the release promises on its target; 0 means not stated."""

    latency_p95_ms: float = 0.0
    rss_mb: float = 0.0


class TrialSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a new version must show in use before a device keeps it (see tidegate.edge.update.trial)."""

    minimum_calls: int = 50
    """calls before it may be kept"""
    minimum_s: float = 300.0
    """and time since it was activated"""
    deadline_s: float = 86_400.0
    """then it is decided on what there is; a version that nobody called is kept"""
    maximum_failure_rate: float = 0.02
    """share of calls that failed in the runtime, or that the app reported as failed"""
    maximum_empty_rate: float = 1.0
    """share of answers with nothing in them; 1 does not look at it"""
    maximum_over_budget_rate: float = 0.2
    """share of calls slower than `budgets.latency_p95_ms`; of those 0.05 are expected to be"""
    maximum_restarts_per_minute: int = 3
    """ends of an app's process without a clean close, within any minute"""
    maximum_load_failures: int = 1


class EvaluationData(msgspec.Struct, frozen=True, kw_only=True):
    """What the recorded figures were measured on; the data itself does not travel."""

    sha256: str
    rows: int


class CriterionResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One acceptance criterion as it was judged at build."""

    name: str
    metric: str
    scope: str
    """the rows it is about: `all`, `tag NAME`, `slice NAME=VALUE`"""
    variant: str
    demand: str
    """the bound in words, such as `at least 0.9`"""
    verdict: Literal["pass", "fail", "wait"]
    """wait: not enough data to say"""
    confidence: float
    samples: int
    estimate: float | None = None
    lower: float | None = None
    """one-sided bound at `confidence`; null when there is none"""
    upper: float | None = None
    reason: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The canonical record of one release."""

    schema: str
    name: str
    version: str
    """semantic version"""
    release: int = 0
    """monotone release counter"""
    description: str = ""
    licence: str = ""
    """SPDX identifier"""
    provenance: dict[str, str] = {}
    """source commit, data version, hyper-parameters, framework versions"""
    signature: Signature
    labels: tuple[str, ...] = ()
    """meaning of the last axis of the first output"""
    front_end: FrontEnd | None = None
    prefilter: PrefilterSettings | None = None
    decoder: DecoderSettings | None = None
    variants: tuple[Variant, ...]
    """in the author's order of preference"""
    golden: Golden | None = None
    assets: dict[str, Asset] = {}
    reference_profile: Asset | None = None
    """how the inputs and outputs of the evaluation data are distributed: what drift is measured against"""
    budgets: Budgets | None = None
    trial: TrialSettings | None = None
    """None: the defaults"""
    evaluation: EvaluationData | None = None
    """what parity, metrics and criteria were measured on"""
    criteria: tuple[CriterionResult, ...] = ()
    failing: bool = False
    """built although a criterion or the parity of a variant did not pass; never for a device without somebody's
    decision"""


def decode(raw: bytes, *, origin: str = "manifest.json") -> Manifest:
    """Parse and check a manifest.

    Args:
        raw: UTF-8 JSON.
        origin: how error messages call it.

    Raises:
        BundleError: not JSON, a field missing or of the wrong type, an unknown major schema, or a rule broken.
    """
    _check_schema(raw, origin)
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except _UNREADABLE as error:
        raise BundleError(f"{origin}: {error}", fix="rebuild the bundle with `tidegate build`") from error
    problems = check(manifest)
    if problems:
        raise BundleError(f"{origin}: {'; '.join(problems)}", fix="rebuild the bundle with `tidegate build`")
    return manifest


def encode(manifest: Manifest) -> bytes:
    """Return the canonical bytes: two-space indent, fields in declared order, keys of tables sorted."""
    plain = msgspec.json.encode(manifest, order="deterministic")
    return msgspec.json.format(plain, indent=2) + b"\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `tidegate.bundle/1`."""
    return msgspec.json.schema(Manifest)


def _check_schema(raw: bytes, origin: str) -> None:
    """Name an unknown schema before the fields of this one are tried on it."""
    try:
        head = msgspec.json.decode(raw, type=_Head)
    except _UNREADABLE as error:
        raise BundleError(
            f"{origin} is not a manifest: {error}", fix="rebuild the bundle with `tidegate build`"
        ) from error
    if head.schema != SCHEMA:
        raise BundleError(
            f"{origin} has schema {head.schema!r}; this version of Tidegate reads {SCHEMA!r}",
            fix="install the Tidegate that wrote it, or rebuild the bundle",
        )


class _Head(msgspec.Struct):
    schema: str
