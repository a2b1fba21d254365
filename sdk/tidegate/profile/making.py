"""From evaluation data to a reference profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Manifest
from tidegate.bundle.arrays import Array
from tidegate.errors import ConfigError, InputError
from tidegate.profile.calibration import Plan, Reference, calibrate
from tidegate.profile.cells import bin_edges, bins_of, top_categories
from tidegate.profile.document import (
    SCHEMA,
    CategoryFeature,
    Feature,
    NumberFeature,
    Profile,
    TensorKind,
    TensorRule,
)
from tidegate.profile.measures.column import Column, Floats
from tidegate.profile.summary import category_cells, counts_of, quantised
from tidegate.profile.tensors import input_rule, measure, output_rule

MINIMUM_ROWS = 50

_CODES = 32
"""A whole-number column with at most so many different values is a code; with more, an amount."""
_TEXT_REPEATS = 5
_LONGEST_CATEGORY = 64
"""Strings are categories when each occurs five times in the mean and none is longer than this; else they are prose, and
no text of the evaluation data gets into the profile."""

Progress = Callable[[int, int], None]
"""Receives the features that are behind us, and all of them."""


@dataclass(frozen=True)
class Options:
    """How a profile is made."""

    false_alarm_rate: float = 0.01
    """for each feature and window, all its statistics together"""
    window_rows: tuple[int, ...] = (200, 1000, 5000)
    """sizes to calibrate for; the smallest is the least that is ever judged"""
    replicates: int = 4000
    """of the bootstrap"""
    seed: int = 0
    kinds: Mapping[str, TensorKind] = field(default_factory=dict)
    """what an input is, where its form does not say so"""
    sample_rate_hz: int = 0
    """of audio inputs; default: that of the manifest's front end"""

    def __post_init__(self) -> None:
        sizes = self.window_rows
        if not 0 < self.false_alarm_rate < 0.05:
            raise ConfigError(
                f"false_alarm_rate is {self.false_alarm_rate}; expected above 0 and below 0.05", fix="0.01 is usual"
            )
        if not sizes or list(sizes) != sorted(set(sizes)) or not 20 <= sizes[0] <= sizes[-1] <= 1_000_000:
            raise ConfigError(
                f"window_rows is {list(sizes)}; expected ascending sizes of 20 to 1,000,000",
                fix="200, 1000, 5000 is usual",
            )
        if self.replicates < 1000:
            raise ConfigError(f"replicates is {self.replicates}; expected 1000 or more", fix="4000 is usual")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; expected 0 or more", fix="any whole number will do")


def profile_from(
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    manifest: Manifest | None = None,
    *,
    options: Options | None = None,
    lengths: Mapping[str, NDArray[np.int64]] | None = None,
    data_sha256: str = "",
    progress: Progress = lambda done, features: None,
) -> Profile:
    """Make the reference profile of evaluation data.

    Args:
        inputs: [rows, ...] by name.
        outputs: what the model answered on these rows, [rows, ...] by name; may be empty.
        manifest: of the model: front end, labels, order of inputs and outputs.
        options: rate, window sizes, seed; default: `Options()`.
        lengths: samples of each row of a padded audio input before the padding.
        data_sha256: of the file that the rows were read from.
        progress: called after each feature; calibration takes some tenths of a second for each.

    Raises:
        InputError: fewer than 50 rows, arrays of different length, or of a form that cannot be measured.
        ConfigError: a stated kind is for an input that is not there.
    """
    settings = options or Options()
    rows = _common_rows(inputs, outputs)
    rules = _rules(inputs, outputs, manifest, settings)
    measured = [
        (rule, name, column)
        for rule in rules
        for name, column in _columns(rule, inputs if rule.side == "input" else outputs, lengths or {}).items()
    ]
    plan = Plan(settings.false_alarm_rate, settings.window_rows, settings.replicates, settings.seed)
    features: list[Feature] = []
    for rule, name, column in measured:
        features.append(_feature(rule, name, column, plan))
        progress(len(features), len(measured))
    return Profile(
        schema=SCHEMA,
        rows=rows,
        data_sha256=data_sha256,
        false_alarm_rate=settings.false_alarm_rate,
        window_rows=settings.window_rows,
        replicates=settings.replicates,
        seed=settings.seed,
        tensors=tuple(rules),
        features=tuple(features),
    )


def _common_rows(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> int:
    sizes = {f"input/{name}": array for name, array in inputs.items()}
    sizes |= {f"output/{name}": array for name, array in outputs.items()}
    if not sizes:
        raise InputError("there are no arrays to make a profile of", fix="give inputs, outputs or both")
    for name, array in sizes.items():
        if array.ndim == 0:
            raise InputError(f"{name} has no rows", fix="the first axis of an array is the row")
    first, rows = next((name, len(array)) for name, array in sizes.items())
    for name, array in sizes.items():
        if len(array) != rows:
            raise InputError(f"{name} has {len(array)} rows, {first} has {rows}", fix="give every array the same rows")
    if rows < MINIMUM_ROWS:
        raise InputError(
            f"a profile of {rows} rows would raise alarms about its own noise; expected at least {MINIMUM_ROWS}",
            fix="give more evaluation data; some thousand rows are good",
        )
    return rows


def _rules(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], manifest: Manifest | None, settings: Options
) -> list[TensorRule]:
    for name in settings.kinds:
        if name not in inputs:
            raise ConfigError(f"a kind is stated for input {name!r}; there are {', '.join(inputs)}", fix="rename it")
    labels = manifest.labels if manifest is not None else ()
    first = manifest.signature.outputs[0].name if manifest is not None else next(iter(outputs), "")
    entries = [
        input_rule(name, array, manifest, settings.kinds.get(name), settings.sample_rate_hz)
        for name, array in inputs.items()
    ]
    return entries + [output_rule(name, array, labels, first=name == first) for name, array in outputs.items()]


def _columns(
    rule: TensorRule, side: Mapping[str, Array], lengths: Mapping[str, NDArray[np.int64]]
) -> dict[str, Column]:
    """Return what is worth a feature: of strings that are categories, value and length; of prose, all but the value."""
    columns = measure(rule, side[rule.name], lengths.get(rule.name))
    if rule.kind != "text":
        return columns
    kept: dict[str, Column] = {}
    for name, column in columns.items():
        prefix, is_category = name[: -len("value")], name.endswith("value") and _repeats(column)
        if is_category:
            kept |= {prefix + part: columns[prefix + part] for part in ("value", "length")}
        elif name.endswith("value"):
            kept |= {part: one for part, one in columns.items() if part.startswith(prefix) and part != name}
    return kept


def _repeats(column: Column) -> bool:
    """Whether strings are categories."""
    values, _, _ = column.categories()
    distinct = set(values)
    if not distinct or max(map(len, distinct)) > _LONGEST_CATEGORY:
        return False
    return len(values) >= _TEXT_REPEATS * len(distinct)


def _feature(rule: TensorRule, name: str, column: Column, plan: Plan) -> Feature:
    if _is_category(rule, column):
        return _category_feature(rule, name, column, plan)
    return _number_feature(rule, name, column, plan)


def _is_category(rule: TensorRule, column: Column) -> bool:
    kind = column.values.dtype.kind
    if kind in "iu":
        return rule.kind == "table" and len(np.unique(column.values)) <= _CODES
    return kind in "Ob"


def _number_feature(rule: TensorRule, name: str, column: Column, plan: Plan) -> NumberFeature:
    values, missing, null = column.numbers()
    edges = bin_edges(values)
    bins = bins_of(values, edges)
    centre, scale = _centre_and_scale(values)
    reference = Reference(
        name=f"{rule.tensor}/{name}",
        cells=bins,
        cell_count=len(edges) + 1,
        open_cells=(0, len(edges)),
        steps=quantised(values, centre, scale),
        absent=missing + null,
    )
    return NumberFeature(
        tensor=rule.tensor,
        measure=name,
        rows=len(column.values),
        missing=missing,
        null=null,
        mean=float(values.mean()) if len(values) else None,
        variance=float(values.var()) if len(values) else None,
        minimum=float(values.min()) if len(values) else None,
        maximum=float(values.max()) if len(values) else None,
        edges=tuple(edges.tolist()),
        counts=counts_of(bins, len(edges) + 1),
        centre=centre,
        scale=scale,
        alarms=calibrate(reference, plan),
    )


def _category_feature(rule: TensorRule, name: str, column: Column, plan: Plan) -> CategoryFeature:
    values, missing, null = column.categories()
    top, other, distinct = top_categories(values)
    bare = CategoryFeature(
        tensor=rule.tensor, measure=name, rows=len(column.values), missing=missing, null=null, distinct=distinct,
        top=top, other=other, alarms=(),
    )  # fmt: skip
    count = len(bare.counts)
    reference = Reference(
        name=bare.name,
        cells=category_cells(bare, values),
        cell_count=count,
        open_cells=tuple(range(len(top), count)),
        steps=None,
        absent=missing + null,
    )
    return CategoryFeature(
        tensor=rule.tensor, measure=name, rows=len(column.values), missing=missing, null=null, distinct=distinct,
        top=top, other=other, alarms=calibrate(reference, plan),
    )  # fmt: skip


def _centre_and_scale(values: Floats) -> tuple[float, float]:
    """Return mean and standard deviation; a constant gets a scale of 1."""
    if not len(values):
        return 0.0, 1.0
    deviation = float(values.std())
    centre = float(values.mean())
    return centre, deviation if deviation > 1e-9 * max(abs(centre), 1e-140) else 1.0
