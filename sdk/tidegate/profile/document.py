"""The reference profile as typed values: how the evaluation data are distributed, and when a window counts as drift.

Schema `tidegate.profile/1`: known fields are strict, unknown ones are tolerated within the major version. `decode` and
`encode` are the only ways in and out; `json_schema` publishes the form. docs/reference-profile.md is the reference.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from tidegate.errors import BundleError

SCHEMA = "tidegate.profile/1"

OWN_CELLS = 16
"""Categories with a count of their own, at most."""
OTHER_CELLS = 12
"""Counts for all other categories: CRC-32 of the UTF-8 text, modulo this."""
INNER_BINS = 20
"""Bins between the reference's least and greatest value, at most; one open bin on either side comes on top."""

Side = Literal["input", "output"]
TensorKind = Literal["table", "audio", "image", "text", "array", "scores"]
StatisticName = Literal["mean", "spread", "ks", "chi2", "missing"]

_REMAKE = "make it again with `tidegate profile make`"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TensorRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is measured on one tensor."""

    side: Side
    name: str
    kind: TensorKind
    sample_rate_hz: int = 0
    """audio"""
    channels_first: bool = False
    """images: [rows, channels, height, width]"""
    labels: tuple[str, ...] = ()
    """scores: meaning of the last axis"""
    logits: bool = False
    """scores: a softmax makes them probabilities"""

    @property
    def tensor(self) -> str:
        """`input/NAME` or `output/NAME`."""
        return f"{self.side}/{self.name}"


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """The upper end of one statistic's distribution without drift."""

    threshold: float
    """above it the feature drifts, at the profile's false-alarm rate"""
    scale: float
    """how fast the tail falls: P(T > t) = (rate / tests) exp(-(t - threshold) / scale), with t and threshold squared
    for every statistic but chi2; 0 when nothing was seen beyond the threshold"""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds for one window size."""

    window_rows: int
    tests: float
    """how many independent tests the statistics amount to together: each works at the rate divided by this"""
    statistics: dict[StatisticName, Tail]


class NumberFeature(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="number"):
    """A number a row."""

    tensor: str
    """`input/NAME` or `output/NAME`"""
    measure: str
    """what is measured on it, such as `level_dbfs` or `column/3`"""
    rows: int
    missing: int
    """rows without a value, such as empty text"""
    null: int
    """rows with NaN, an infinity or a magnitude above 1e150"""
    mean: float | None
    """of the values that are there, as are the next three; null when there are none"""
    variance: float | None
    minimum: float | None
    maximum: float | None
    edges: tuple[float, ...]
    """ascending; a value x is in bin j when edges[j-1] <= x < edges[j]; the first and the last are open"""
    counts: tuple[int, ...]
    """reference rows by bin, one more than edges"""
    centre: float
    """windows count (x - centre) / scale in steps of 1/1024"""
    scale: float
    alarms: tuple[Alarm, ...]

    @property
    def name(self) -> str:
        """How reports call the feature."""
        return f"{self.tensor}/{self.measure}"


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """One category with a count of its own."""

    value: str
    count: int


class CategoryFeature(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="category"):
    """A category a row."""

    tensor: str
    measure: str
    rows: int
    missing: int
    null: int
    distinct: int
    """categories in the reference"""
    top: tuple[Category, ...]
    """most frequent first"""
    other: tuple[int, ...]
    """reference rows of all other categories, by CRC-32 of the UTF-8 text modulo 12"""
    alarms: tuple[Alarm, ...]

    @property
    def name(self) -> str:
        """How reports call the feature."""
        return f"{self.tensor}/{self.measure}"

    @property
    def counts(self) -> tuple[int, ...]:
        """Reference rows by cell: the top categories, then the others."""
        return (*(category.count for category in self.top), *self.other)


Feature: TypeAlias = NumberFeature | CategoryFeature


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole document."""

    schema: str
    rows: int
    """of the evaluation data"""
    data_sha256: str = ""
    """of the file that they were read from"""
    false_alarm_rate: float
    """share of windows without drift in which a feature raises an alarm"""
    window_rows: tuple[int, ...]
    """sizes that the thresholds were calibrated for, ascending; a smaller window is not judged"""
    replicates: int
    seed: int
    tensors: tuple[TensorRule, ...]
    features: tuple[Feature, ...]


def encode(profile: Profile) -> bytes:
    """Return the canonical bytes: two-space indent, fields in declared order, keys of tables sorted."""
    plain = msgspec.json.encode(profile, order="deterministic")
    return msgspec.json.format(plain, indent=2) + b"\n"


def decode(raw: bytes, *, origin: str = "profile.json") -> Profile:
    """Parse and check a profile.

    Args:
        raw: UTF-8 JSON.
        origin: how error messages call it.

    Raises:
        BundleError: not JSON, an unknown schema, a field missing or of the wrong type, or a rule broken.
    """
    from tidegate.profile.rules import problems

    try:
        head = msgspec.json.decode(raw, type=_Head)
    except _UNREADABLE as error:
        raise BundleError(f"{origin} is not a reference profile: {error}", fix=_REMAKE) from error
    if head.schema != SCHEMA:
        raise BundleError(
            f"{origin} has schema {head.schema!r}; this version of Tidegate reads {SCHEMA!r}",
            fix="install the Tidegate that wrote it, or make it again",
        )
    try:
        profile = msgspec.json.decode(raw, type=Profile)
    except _UNREADABLE as error:
        raise BundleError(f"{origin}: {error}", fix=_REMAKE) from error
    found = list(problems(profile))
    if found:
        raise BundleError(f"{origin}: {'; '.join(found[:5])}", fix=_REMAKE)
    return profile


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `tidegate.profile/1`."""
    return msgspec.json.schema(Profile)


class _Head(msgspec.Struct):
    schema: str
