"""What a build and the process that measures one variant say to each other: one JSON value each way."""

from __future__ import annotations

import msgspec

from tidegate.runtime.timing import Plan


class Job(msgspec.Struct, frozen=True):
    """To the child: what to measure."""

    source: str
    """bundle"""
    variant: str
    plan: Plan


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From the child: an error that Tidegate knows."""

    message: str
    fix: str | None


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """From the child: what it saw."""

    runtime: str
    latencies_ns: list[int]
    peak_rss_bytes: int | None
    """most that was resident, without the harness's own buffer of samples"""
    switched_share: float | None
    """of the calls, those in blocks during which the process was switched out; None where this is not counted"""


Outcome = Failed | Measured
