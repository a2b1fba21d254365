"""The upper tail of a statistic without drift.

Beyond the 5 % point a tail is taken to be exponential in the squared statistic (chi-square: in the statistic itself),
which is nearly exact for normal and chi-square tails: a threshold at 0.3 % is so read from two hundred replicates and
not from a dozen, and levels beyond all replicates, as a correction for many features asks for, have a value at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.profile.document import Alarm, StatisticName, Tail
from tidegate.profile.measures.column import Floats

SQUARED: frozenset[StatisticName] = frozenset(("mean", "spread", "ks", "missing"))
"""Statistics that are squared before an exponential tail is fitted."""

_TAIL_FROM = 0.05
_SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Exponential:
    """P(T > t) = share exp(-(t - start) / scale) for t beyond start."""

    start: float
    share: float
    scale: float

    def levels(self, values: Floats) -> Floats:
        """Return P(T > t) of each value; 1 up to the start."""
        if self.scale == 0:
            return np.where(values > self.start, 0.0, 1.0)
        return np.where(values > self.start, self.share * np.exp(-(values - self.start) / self.scale), 1.0)

    def at(self, level: float) -> float:
        """Return the value that is exceeded with this probability; the start when that is less."""
        if self.scale == 0 or level >= self.share:
            return self.start
        return self.start + self.scale * math.log(self.share / level)


def fit(values: Floats) -> Exponential:
    """Return the tail of replicates on the straight scale."""
    start = float(np.quantile(values, 1.0 - _TAIL_FROM, method="inverted_cdf"))
    beyond = values[values > start]
    if not len(beyond):
        return Exponential(start, 0.0, 0.0)
    return Exponential(start, len(beyond) / len(values), float(np.mean(beyond - start)))


def level(name: StatisticName, value: float, tail: Tail, level_at_threshold: float) -> float:
    """Return about how likely a value as large as this is without drift; at most 1."""
    beyond = straight(name, np.array(value)).item() - straight(name, np.array(tail.threshold)).item()
    if tail.scale == 0:
        return 1.0 if beyond <= 0 else 0.0
    return min(1.0, level_at_threshold * math.exp(min(-beyond / tail.scale, 700.0)))


def threshold_at(name: StatisticName, tail: Tail, level_at_threshold: float, wanted: float) -> float:
    """Return the threshold at another level than that of the profile's rate."""
    moved = straight(name, np.array(tail.threshold)).item() + tail.scale * math.log(level_at_threshold / wanted)
    return natural(name, max(moved, 0.0))


def interpolated(alarms: Sequence[Alarm], rows: int) -> Alarm:
    """Return the thresholds for a window size: linear in the logarithm of the size between calibrated ones.

    Statistics are scaled so that thresholds hardly change with the size; above the largest size its own hold.
    """
    above = next((place for place, alarm in enumerate(alarms) if alarm.window_rows >= rows), len(alarms))
    low, high = alarms[max(above - 1, 0)], alarms[min(above, len(alarms) - 1)]
    if high.window_rows == low.window_rows:
        return high
    part = math.log(rows / low.window_rows) / math.log(high.window_rows / low.window_rows)

    def between(a: float, b: float) -> float:
        return a + (b - a) * part

    return Alarm(
        window_rows=rows,
        tests=between(low.tests, high.tests),
        statistics={
            name: Tail(
                threshold=between(tail.threshold, high.statistics[name].threshold),
                scale=between(tail.scale, high.statistics[name].scale),
            )
            for name, tail in low.statistics.items()
        },
    )


def straight(name: StatisticName, values: Floats) -> Floats:
    """Return the scale on which the tail is exponential."""
    return values**2 if name in SQUARED else values


def natural(name: StatisticName, value: float) -> float:
    """Undo `straight`."""
    return math.sqrt(value) if name in SQUARED else value


def rounded(value: float) -> float:
    """Return six significant digits, so that a last bit that differs between machines does not show."""
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
