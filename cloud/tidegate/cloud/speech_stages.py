"""Where the time of one speech segment went.

Each window of a segment goes through front end, queue and compute while the segment is still spoken; decoding and
search follow at its end. Times are of `time.monotonic_ns()`.
"""

from __future__ import annotations

import time
from typing import NamedTuple

FRONT_END = "front_end"
"""conversion and resampling of what was received"""
QUEUE = "queue"
"""of a window: from its being there to the start of its run, with the wait for a turn"""
COMPUTE = "compute"
"""of a window: the run; of one that was shared, all of it"""
DECODE = "decode"
"""windows to words, of the final and of interim results"""
SEARCH = "search"
"""in the catalogue"""

STAGES = (FRONT_END, QUEUE, COMPUTE, DECODE, SEARCH)

WORKING = (FRONT_END, COMPUTE, DECODE, SEARCH)
"""All but waiting: what the real-time factor counts."""

MOST_WINDOWS = 64
"""Windows of a segment whose stretches are kept; of those that follow only sums are."""


class Stretch(NamedTuple):
    """One stretch of a stage."""

    stage: str
    start_ns: int
    end_ns: int


class Stages:
    """Sums by stage, and the stretches that a trace shows. Used by one thread."""

    def __init__(self) -> None:
        """Begin now."""
        self.began_ns = time.monotonic_ns()
        """when the segment's start was read"""
        self.ended_ns = 0
        """when its end was read; 0 before"""
        self.answered_ns = 0
        """when its final answer was made; 0 before"""
        self.windows = 0
        """runs of the model"""
        self.spent_ns = dict.fromkeys(STAGES, 0)
        self.stretches: list[Stretch] = []
        """of the first windows: front end where a message completed the window, queue, compute; then what follows"""
        self._prepared: Stretch | None = None
        self._last_run_ns = 0

    @property
    def working_ns(self) -> int:
        """Everything but waiting."""
        return sum(self.spent_ns[stage] for stage in WORKING)

    def prepared(self, start_ns: int) -> None:
        """Note that the front end worked from `start_ns` until now. Shown is only what completes a window."""
        self._prepared = Stretch(FRONT_END, start_ns, time.monotonic_ns())
        self.spent_ns[FRONT_END] += self._prepared.end_ns - start_ns

    def ran(self, came_ns: int, started_ns: int) -> None:
        """Note that a window came, was started, and is done now."""
        done_ns = time.monotonic_ns()
        self.windows += 1
        self.spent_ns[QUEUE] += started_ns - came_ns
        self.spent_ns[COMPUTE] += done_ns - started_ns
        self._last_run_ns = done_ns
        if self.windows > MOST_WINDOWS:
            return
        if self._prepared is not None:
            self.stretches.append(self._prepared)
            self._prepared = None
        self.stretches += (Stretch(QUEUE, came_ns, started_ns), Stretch(COMPUTE, started_ns, done_ns))

    def decoded(self, start_ns: int, *, shown: bool) -> None:
        """Note that decoding ended now; it began at `start_ns`, or with the end of a run that came later."""
        self._add(DECODE, max(start_ns, self._last_run_ns), shown=shown)

    def searched(self, start_ns: int) -> None:
        """Note that a search ended now."""
        self._add(SEARCH, start_ns, shown=True)

    def _add(self, stage: str, start_ns: int, *, shown: bool) -> None:
        stretch = Stretch(stage, start_ns, time.monotonic_ns())
        self.spent_ns[stage] += stretch.end_ns - start_ns
        if shown:
            self.stretches.append(stretch)
