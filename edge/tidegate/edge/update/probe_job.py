"""What the probe and its child process say to each other: JSON, one value a line, told apart by `type`."""

from __future__ import annotations

from typing import Literal

import msgspec

SAID_LIMIT_BYTES = 64 * 1024
"""Longest line that a child may say."""

Stage = Literal["starting", "loading", "calling for the first time", "warming up", "timing", "comparing"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """To the child, once; then its standard input stays open for as long as its parent lives."""

    token: str
    """must come back with the outcome: what a library prints by chance can never be one"""
    parent: int
    """process id; the child ends with it"""
    store: str
    manifest_sha256: str
    variant: str
    threads: int | None
    calls: int
    minimum_duration_s: float
    warm_up_s: float
    timing_limit_s: float
    """fewer calls are made if so many would take longer"""
    latency_budget_ms: float
    """0: none; a run over it is repeated"""
    attempts: int
    data_limit_bytes: int
    """of memory that the process may map for itself"""


class Reached(msgspec.Struct, frozen=True, kw_only=True, tag="reached"):
    """From the child: it begins with this."""

    stage: Stage


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """From the child, last, with exit code `FAILED`: an error that Tidegate knows."""

    token: str
    kind: str
    message: str


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """From the child, last, with exit code 0: what it saw."""

    token: str
    runtime: str
    provider: str
    calls: int
    latency_p95_ns: int
    peak_rss_bytes: int | None
    """without the harness's own buffer; null where the system does not tell"""
    maximum_error: float | None
    """over all golden outputs; null without a fixture"""
    golden_problems: tuple[str, ...]
    """one sentence for each output that is out of tolerance"""


FAILED = 3

Message = Reached | Failed | Measured
