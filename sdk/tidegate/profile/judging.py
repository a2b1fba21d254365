"""Has a window drifted? One verdict for each feature: ok, drift, or wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tidegate.errors import ConfigError
from tidegate.profile import statistics
from tidegate.profile.document import Alarm, CategoryFeature, Feature, NumberFeature, Profile, StatisticName
from tidegate.profile.measures.column import Floats
from tidegate.profile.summary import STEPS, Summary
from tidegate.profile.tails import interpolated, level, threshold_at
from tidegate.profile.window import Window

Verdict = Literal["ok", "drift", "wait", "absent"]
Correction = Literal["none", "bonferroni", "holm"]


@dataclass(frozen=True)
class StatisticResult:
    """One statistic of one feature."""

    name: StatisticName
    value: float
    threshold: float
    """at the level that the feature was tested at"""
    level: float
    """about how likely so large a value is without drift, by itself; exact only in the tail"""


@dataclass(frozen=True)
class FeatureResult:
    """One feature of a window."""

    feature: str
    verdict: Verdict
    """wait: too few rows to judge; absent: the window says nothing about this tensor"""
    rows: int
    statistics: tuple[StatisticResult, ...]
    """the most telling one first"""
    level: float
    """about how likely so much change in any statistic of the feature is without drift"""
    reason: str


def judge(window: Window, correction: Correction = "none") -> tuple[FeatureResult, ...]:
    """Judge every feature of a window.

    Args:
        window: of the profile to judge by.
        correction: `none`: each feature raises a false alarm in the profile's share of windows. `bonferroni`, `holm`
            (Holm, Scand. J. Statist. 6, 1979): any feature at all does in at most that share.

    Raises:
        ConfigError: an unknown correction.
    """
    if correction not in get_args(Correction):
        raise ConfigError(f"correction is {correction!r}", fix=f"one of {', '.join(get_args(Correction))}")
    profile = window.profile
    pairs = list(zip(profile.features, window.summaries, strict=True))
    measured = [_measured(feature, summary, profile) for feature, summary in pairs]
    tested = [result.level for result in measured if result is not None]
    levels = _levels(tested, profile.false_alarm_rate, correction)
    results, place = [], 0
    for (feature, summary), result in zip(pairs, measured, strict=True):
        if result is None:
            results.append(_unjudged(feature, summary, profile))
            continue
        results.append(_result(feature, summary, result, levels[place], profile))
        place += 1
    return tuple(results)


def overall(results: Sequence[FeatureResult]) -> Verdict:
    """Return drift if any feature drifts, else wait if any waits, else ok; absent when nothing could be judged."""
    found = {result.verdict for result in results}
    order: tuple[Verdict, ...] = ("drift", "wait", "ok")
    return next((verdict for verdict in order if verdict in found), "absent")


def values_of(feature: Feature, summary: Summary, names: Sequence[StatisticName]) -> Mapping[StatisticName, float]:
    """Return the statistics of a window that are asked for and can be had."""
    found: dict[StatisticName, float] = {}
    absent, reference_absent = summary.missing + summary.null, feature.missing + feature.null
    if "missing" in names:
        change = statistics.missing_change(np.array([float(absent)]), summary.rows, reference_absent, feature.rows)
        found["missing"] = change.item()
    if not summary.present:
        return found
    counts, reference = _row(summary.counts), _row(feature.counts)
    if "chi2" in names:
        found["chi2"] = statistics.chi_square(counts, reference).item()
    if "ks" in names:
        found["ks"] = statistics.kolmogorov_smirnov(counts, reference).item()
    if isinstance(feature, CategoryFeature) or not {"mean", "spread"} & set(names):
        return found
    return found | {name: value for name, value in _moment_values(feature, summary).items() if name in names}


def _moment_values(feature: NumberFeature, summary: Summary) -> dict[StatisticName, float]:
    """Compare moments in units of the reference's deviation."""
    present, reference_rows = summary.present, sum(feature.counts)
    mean = summary.total / present / STEPS
    variance = summary.squares / present / STEPS**2 - mean**2
    reference_mean = ((feature.mean or 0.0) - feature.centre) / feature.scale
    reference_variance = (feature.variance or 0.0) / feature.scale / feature.scale
    deviation = float(np.sqrt(reference_variance))
    one, other = np.array([mean]), np.array([reference_mean])
    shift = statistics.mean_shift(one, other, deviation, present, reference_rows)
    spread = statistics.spread_change(np.array([variance]), np.array([reference_variance]), present, reference_rows)
    return {"mean": shift.item(), "spread": spread.item()}


@dataclass(frozen=True)
class _Measured:
    values: Mapping[StatisticName, float]
    level: float
    complete: bool
    """every statistic that the profile has a threshold for could be judged"""


def _measured(feature: Feature, summary: Summary, profile: Profile) -> _Measured | None:
    if summary.rows < profile.window_rows[0]:
        return None
    names = list(feature.alarms[0].statistics)
    enough = summary.present >= profile.window_rows[0]
    values = values_of(feature, summary, names if enough else ["missing"])
    levels = []
    for name, value in values.items():
        alarm = _alarm(feature, summary, name)
        at_threshold = profile.false_alarm_rate / alarm.tests
        levels.append(alarm.tests * level(name, value, alarm.statistics[name], at_threshold))
    return _Measured(values, min(1.0, *levels), complete=enough or names == ["missing"])


def _alarm(feature: Feature, summary: Summary, name: StatisticName) -> Alarm:
    """Return the thresholds for this window: the share of missing rows goes by all rows, the rest by those present."""
    return interpolated(feature.alarms, summary.rows if name == "missing" else summary.present)


def _levels(tested: Sequence[float], rate: float, correction: Correction) -> list[float]:
    """Return the level that each feature is tested at."""
    count = len(tested)
    if correction == "none":
        return [rate] * count
    if correction == "bonferroni":
        return [rate / count] * count
    order = sorted(range(count), key=lambda place: tested[place])
    levels, steps, going = [rate / max(count, 1)] * count, 0, True
    for place in order:
        levels[place] = rate / (count - steps)
        going = going and tested[place] <= levels[place]
        steps += going
    return levels


def _result(
    feature: Feature, summary: Summary, measured: _Measured, tested_at: float, profile: Profile
) -> FeatureResult:
    found = []
    for name, value in measured.values.items():
        alarm = _alarm(feature, summary, name)
        tail, at_threshold = alarm.statistics[name], profile.false_alarm_rate / alarm.tests
        threshold = threshold_at(name, tail, at_threshold, tested_at / alarm.tests)
        found.append(StatisticResult(name, value, threshold, level(name, value, tail, at_threshold)))
    # Below the threshold a level says little (the tail is fitted beyond it): there the share of the threshold tells.
    found.sort(
        key=lambda one: (one.level if one.value > one.threshold else 1.0, -one.value / max(one.threshold, 1e-12))
    )
    beyond = [one.name for one in found if one.value > one.threshold]
    if beyond:
        verdict: Verdict = "drift"
        reason = f"{', '.join(beyond)} beyond the threshold"
    elif measured.complete:
        verdict, reason = "ok", ""
    else:
        verdict = "wait"
        reason = f"{summary.present} rows with a value; at least {profile.window_rows[0]} are needed"
    return FeatureResult(feature.name, verdict, summary.rows, tuple(found), measured.level, reason)


def _unjudged(feature: Feature, summary: Summary, profile: Profile) -> FeatureResult:
    if not summary.rows:
        return FeatureResult(feature.name, "absent", 0, (), 1.0, "not in the window")
    reason = f"{summary.rows} rows; at least {profile.window_rows[0]} are needed"
    return FeatureResult(feature.name, "wait", summary.rows, (), 1.0, reason)


def _row(counts: Sequence[int]) -> Floats:
    return np.array([counts], dtype=np.float64)
