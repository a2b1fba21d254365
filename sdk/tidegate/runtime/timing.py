"""How calls are issued and timed: one after another, until long enough and often enough.

The benchmark and the device's probe measure with this same loop, so that a budget means the same in both. The loop that
times does nothing else: it prints nothing and allocates nothing; what the operating system counts is read between
blocks of calls, so that a block during which the process was switched out can be told apart afterwards.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError, TidegateError, UnavailableError
from tidegate.runtime.process import involuntary_switches

BLOCK_TARGET_NS = 1_000_000
"""A block lasts about 1 ms: well below a scheduler's time slice, well above the cost of reading the counters."""
BLOCK_CALLS_LIMIT = 1_000
RESERVED_CALLS_LIMIT = 1 << 24
"""Room for so many latencies at most is taken at the start; more is added when it is used up."""
WARM_UP_CALLS_KEPT = 1_000
FLOOR_CALLS = 5_000
UNAVAILABLE_LIMIT = 10
"""A caller gives up after so many failures in a row to reach the server."""


class Callee(Protocol):
    """Anything that can be called over and over with the same input."""

    def call(self) -> None:
        """Do the measured work once, from the input in memory to the output in memory."""


StoppedBy = Literal["enough", "unavailable"]


@dataclass(frozen=True)
class Plan:
    """How long and how often to call."""

    minimum_duration_s: float = 3.0
    """timed calls go on at least so long"""
    minimum_calls: int = 200
    """and at least so many times, all callers together; a failed call counts as made"""
    warm_up_s: float = 0.5
    """untimed calls beforehand, at least so long"""
    warm_up_calls: int = 5
    """and at least so many"""
    concurrency: int = 1
    """callers at the same time"""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("minimum duration in seconds", self.minimum_duration_s, 0),
            ("minimum number of calls", self.minimum_calls, 1),
            ("warm-up in seconds", self.warm_up_s, 0),
            ("number of warm-up calls", self.warm_up_calls, 1),
            ("concurrency", self.concurrency, 1),
        ):
            if not least <= value < float("inf"):
                raise ConfigError(
                    f"the {name} is {value}; expected a finite number, {least} or more", fix="correct the option"
                )


@dataclass(frozen=True)
class WarmUp:
    """What the untimed calls told."""

    calls: int
    median_ns: int


@dataclass
class Recording:
    """What one caller measured. Blocks lie one after another in `latencies_ns`."""

    latencies_ns: NDArray[np.int64]
    block_calls: list[int] = field(default_factory=list)
    block_switches: list[int] = field(default_factory=list)
    """involuntary context switches of the process during each block; empty where they are not counted"""
    block_cpu_ns: list[int] = field(default_factory=list)
    """CPU time of the whole process during each block, so that the runtime's own threads count"""
    errors: Counter[str] = field(default_factory=Counter)
    """failed calls by class of error; they have no latency"""
    elapsed_ns: int = 0
    stopped_by: StoppedBy = "enough"


def warm_up(system: Callee, plan: Plan) -> WarmUp:
    """Call without keeping the results until the plan's warm-up is over."""
    clock = time.perf_counter_ns
    latest_ns: deque[int] = deque(maxlen=WARM_UP_CALLS_KEPT)
    calls = 0
    end_ns = clock() + int(plan.warm_up_s * 1e9)
    while calls < plan.warm_up_calls or clock() < end_ns:
        began_ns = clock()
        system.call()
        latest_ns.append(clock() - began_ns)
        calls += 1
    return WarmUp(calls=calls, median_ns=max(sorted(latest_ns)[len(latest_ns) // 2], 1))


def expected_duration_s(plan: Plan, warm: WarmUp) -> float:
    """Return how long the timed calls will take, to judge by the warm-up."""
    return max(plan.minimum_duration_s, plan.minimum_calls * warm.median_ns / plan.concurrency / 1e9)


def single_stream(
    system: Callee, plan: Plan, warm: WarmUp, tolerated: tuple[type[TidegateError], ...] = ()
) -> Recording:
    """Time calls one after another until both minimums of the plan are met.

    Args:
        tolerated: errors that are counted by class; any other ends the run.
    """
    block_size = block_calls_for(warm.median_ns)
    # Twice as many as expected: memory that is never written to is never resident.
    expected_calls = int(expected_duration_s(plan, warm) * 1e9 / warm.median_ns * 2) + block_size
    recording = Recording(latencies_ns=np.zeros(min(expected_calls, RESERVED_CALLS_LIMIT), dtype=np.int64))
    filled = made = unreachable = 0
    started_ns = time.perf_counter_ns()
    end_ns = started_ns + int(plan.minimum_duration_s * 1e9)
    while made < plan.minimum_calls or time.perf_counter_ns() < end_ns:
        if filled + block_size > len(recording.latencies_ns):
            recording.latencies_ns = np.concatenate([recording.latencies_ns, np.zeros_like(recording.latencies_ns)])
        before = filled
        filled, unreachable = _block(system.call, block_size, recording, filled, unreachable, tolerated)
        made += block_size
        if filled == before and unreachable >= UNAVAILABLE_LIMIT:
            recording.stopped_by = "unavailable"
            break
    recording.elapsed_ns = time.perf_counter_ns() - started_ns
    recording.latencies_ns = recording.latencies_ns[:filled]
    return recording


def _block(
    call: Callable[[], None],
    size: int,
    recording: Recording,
    filled: int,
    unreachable: int,
    tolerated: tuple[type[TidegateError], ...],
) -> tuple[int, int]:
    """Time `size` calls; return the new fill level and the number of unreachable answers in a row."""
    latencies_ns = recording.latencies_ns.data  # a memoryview stores an int in a third of the time that numpy takes
    clock = time.perf_counter_ns
    first = filled
    switches_before = involuntary_switches()
    cpu_before_ns = time.process_time_ns()
    for _ in range(size):
        began_ns = clock()
        try:
            call()
        except tolerated as error:
            recording.errors[type(error).__name__] += 1
            unreachable = unreachable + 1 if isinstance(error, UnavailableError) else 0
            continue
        latencies_ns[filled] = clock() - began_ns
        filled += 1
    cpu_after_ns = time.process_time_ns()
    switches_after = involuntary_switches()
    if filled > first:
        unreachable = 0
        recording.block_calls.append(filled - first)
        recording.block_cpu_ns.append(cpu_after_ns - cpu_before_ns)
        if switches_before is not None and switches_after is not None:
            recording.block_switches.append(switches_after - switches_before)
    return filled, unreachable


def percentile_ns(ordered: NDArray[np.int64], percentile: float) -> int:
    """Return the nearest-rank percentile of ascending values [n >= 1]: a measured one, not interpolated."""
    rank = math.ceil(Fraction(str(percentile)) * len(ordered) / 100)
    return int(ordered[max(rank, 1) - 1])


def peak_without_samples(before: int | None, after: int | None, recording: Recording) -> int | None:
    """Return the peak with the timed loop's own buffer taken out.

    Only the part of the buffer that was filled is resident; what the timed loop added beyond that is the model's.
    """
    if before is None or after is None:
        return None
    return max(before, after - recording.latencies_ns.nbytes)


def block_calls_for(call_ns: int) -> int:
    """Return how many calls of this length make a block of about BLOCK_TARGET_NS."""
    return max(1, min(BLOCK_CALLS_LIMIT, BLOCK_TARGET_NS // max(call_ns, 1)))


def harness_floor_ns() -> int:
    """Return the median latency of a call that does nothing, timed by the very loop that times the rest."""
    plan = Plan(minimum_duration_s=0, minimum_calls=FLOOR_CALLS, warm_up_s=0)
    recording = single_stream(_Nothing(), plan, WarmUp(calls=1, median_ns=100))
    return int(np.median(recording.latencies_ns))


class _Nothing:
    def call(self) -> None:
        """Do nothing."""
