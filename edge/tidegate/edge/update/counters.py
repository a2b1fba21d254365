"""What the apps of a device saw of one release: plain counts, added up over processes. Pure."""

from __future__ import annotations

import msgspec

RESTARTS_KEPT = 32
"""Moments of restarts that are kept; many more than any threshold within a minute."""


class Counters(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Evidence for and against one release."""

    calls: int = 0
    """runs of the model, whatever came of them"""
    failed: int = 0
    """calls that the runtime failed"""
    refused: int = 0
    """calls whose input did not fit the model"""
    reported: int = 0
    """failures that the app reported"""
    unusable: int = 0
    """times that an app found that it cannot work with this release at all"""
    over_budget: int = 0
    """calls slower than the latency budget, if the release states one"""
    answers: int = 0
    """results that may have been empty: calls, or whole segments where a segment is many calls"""
    empty: int = 0
    """of those, results with nothing in them"""
    starts: int = 0
    """processes that began with this release"""
    load_failures: int = 0
    """loads that raised an error, or ended the process"""
    crashed_loads: int = 0
    """of those, the ones that ended the process"""
    restarts: tuple[float, ...] = ()
    """when a process was found to have died without a clean close, seconds since 1970, oldest first"""
    last_problem: str = ""
    """the latest failure in words"""

    def add(self, other: Counters) -> None:
        """Add what another process counted, or the same one later."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.restarts = tuple(sorted((*self.restarts, *other.restarts)))[-RESTARTS_KEPT:]
        self.last_problem = other.last_problem or self.last_problem

    @property
    def bad_calls(self) -> int:
        """Calls that failed in the runtime or by the app's judgement."""
        return self.failed + self.reported


_COUNTS = tuple(name for name in Counters.__struct_fields__ if name not in ("restarts", "last_problem"))


def most_within(moments_s: tuple[float, ...], span_s: float) -> int:
    """Return the largest number of moments, in rising order, that lie within any span of this length."""
    first = most = 0
    for last, moment_s in enumerate(moments_s):
        while moment_s - moments_s[first] > span_s:
            first += 1
        most = max(most, last - first + 1)
    return most
