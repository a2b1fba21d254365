"""What the bench and its child process say to each other: one JSON value per line, told apart by `type`."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.bench.environment import Moment
from tidegate.runtime.feeds import InputRecord
from tidegate.runtime.timing import Plan


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """To the child, once: what to measure."""

    source: str
    """bundle or bare model file"""
    variant: str | None
    threads: int | None
    batch: int | None
    input_file: str | None
    plan: Plan


class PhaseReached(msgspec.Struct, frozen=True, kw_only=True, tag="phase"):
    """From the child: it goes on to the next phase."""

    phase: Literal["warming", "timing"]
    expected_s: float
    """how long the phase will take"""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """From the child, last: an error that Tidegate knows."""

    kind: str
    message: str
    fix: str | None


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """From the child, last: everything that it saw."""

    variant: str
    backend: str
    runtime: str
    provider: str
    input: InputRecord
    load_ns: int
    """from the path to a loaded model, the import of the runtime included"""
    first_call_ns: int
    warm_up_calls: int
    baseline_rss_bytes: int | None
    """resident before the load: Python, numpy, Tidegate and the input"""
    peak_rss_bytes: int | None
    """most that was resident, without the harness's own buffer of samples"""
    elapsed_ns: int
    cpu_ns: int
    harness_floor_ns: int
    """median latency that the same loop measures for a call that does nothing"""
    latencies_ns: bytes
    """int64, native byte order"""
    block_calls: list[int]
    block_switches: list[int]
    block_cpu_ns: list[int]
    before: Moment
    after: Moment


Message = PhaseReached | Failed | Measured
