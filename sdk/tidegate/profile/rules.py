"""The rules of a profile beyond the types of its fields."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from tidegate.profile.document import (
    INNER_BINS,
    OTHER_CELLS,
    OWN_CELLS,
    Alarm,
    CategoryFeature,
    Feature,
    NumberFeature,
    Profile,
)


def problems(profile: Profile) -> Iterator[str]:
    """Yield what is wrong with a profile; nothing when it is right."""
    if not 0 < profile.false_alarm_rate < 0.5:
        yield f"false_alarm_rate is {profile.false_alarm_rate}; expected above 0 and below 0.5"
    sizes = profile.window_rows
    if not sizes or sizes[0] < 1 or any(b <= a for a, b in pairwise(sizes)):
        yield f"window_rows is {list(sizes)}; expected sizes of 1 or more, ascending"
    if profile.rows < 1:
        yield f"rows is {profile.rows}; expected 1 or more"
    tensors = Counter(rule.tensor for rule in profile.tensors)
    yield from (f"tensor {name!r} occurs twice" for name, times in tensors.items() if times > 1)
    for rule in profile.tensors:
        if rule.kind == "audio" and rule.sample_rate_hz < 1:
            yield f"tensor {rule.tensor!r} is audio with sample_rate_hz {rule.sample_rate_hz}; expected 1 or more"
        if rule.kind == "scores" and len(set(rule.labels)) != max(len(rule.labels), 2):
            yield f"tensor {rule.tensor!r} holds scores of {len(rule.labels)} labels; expected two or more, each once"
    names = Counter(feature.name for feature in profile.features)
    yield from (f"feature {name!r} occurs twice" for name, times in names.items() if times > 1)
    for feature in profile.features:
        yield from (f"feature {feature.name!r}: {problem}" for problem in _feature_problems(feature, profile, tensors))


def _feature_problems(feature: Feature, profile: Profile, tensors: Counter[str]) -> Iterator[str]:
    if feature.tensor not in tensors:
        yield f"tensor {feature.tensor!r} is not listed"
    if min(feature.counts, default=0) < 0 or feature.missing < 0 or feature.null < 0:
        yield "a count is negative"
    if sum(feature.counts) + feature.missing + feature.null != feature.rows:
        yield f"counts, missing and null add up to another number than rows = {feature.rows}"
    if isinstance(feature, NumberFeature):
        yield from _number_problems(feature)
    else:
        yield from _category_problems(feature)
    if tuple(alarm.window_rows for alarm in feature.alarms) != profile.window_rows:
        yield f"alarms are not for the window sizes {list(profile.window_rows)}"
    for alarm in feature.alarms:
        yield from _alarm_problems(alarm)


def _number_problems(feature: NumberFeature) -> Iterator[str]:
    edges = feature.edges
    if len(feature.counts) != len(edges) + 1 or len(feature.counts) > INNER_BINS + 2:
        yield f"has {len(feature.counts)} bins for {len(edges)} edges; expected one more, at most {INNER_BINS + 2}"
    if any(b <= a for a, b in pairwise(edges)):
        yield "edges do not ascend"
    if not (math.isfinite(feature.scale) and feature.scale > 0):
        yield f"scale is {feature.scale}; expected above 0"
    moments = (feature.mean, feature.variance, feature.minimum, feature.maximum)
    if any((value is None) != (sum(feature.counts) == 0) for value in moments):
        yield "mean, variance, minimum and maximum are there exactly when there are values"
    if feature.variance is not None and feature.variance < 0:
        yield f"variance is {feature.variance}; expected 0 or more"


def _category_problems(feature: CategoryFeature) -> Iterator[str]:
    if len(feature.top) > OWN_CELLS or len(feature.other) != OTHER_CELLS:
        yield (
            f"has {len(feature.top)} top categories and {len(feature.other)} counts of others; "
            f"expected at most {OWN_CELLS} and exactly {OTHER_CELLS}"
        )
    if len({category.value for category in feature.top}) != len(feature.top):
        yield "a top category occurs twice"


def _alarm_problems(alarm: Alarm) -> Iterator[str]:
    where = f"alarm for {alarm.window_rows} rows"
    if not 1 <= alarm.tests <= 8:
        yield f"{where}: tests is {alarm.tests}; expected 1 to 8"
    for name, tail in alarm.statistics.items():
        if not (math.isfinite(tail.threshold) and tail.threshold >= 0):
            yield f"{where}: threshold of {name} is {tail.threshold}; expected 0 or more"
        if not (math.isfinite(tail.scale) and tail.scale >= 0):
            yield f"{where}: scale of {name} is {tail.scale}; expected 0 or more"
