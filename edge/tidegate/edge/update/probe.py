"""Proof on the device, before a version is activated: in a child process, on this hardware, against its own promises.

1. Every file is hashed again.
2. A child process loads the variant, calls it with one row of the golden fixture over and over, as `tidegate bench`
   does and with the same loop, and runs the whole fixture once.
3. The golden outputs must be within the variant's tolerance, the 95th percentile of latency and the peak of resident
   memory within the manifest's budgets. A budget of 0 is not stated and not judged.

A child that crashes, hangs or takes too much memory fails the probe; the app and the updater go on. The child's memory
is watched from here and it is killed when it goes over; where there is no /proc, as on macOS and Windows, memory is
neither measured nor limited, and only the time limit stands.
"""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from tidegate.bundle import Budgets
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.probe_child import MEGABYTE, Limits, in_child
from tidegate.edge.update.probe_job import Failed, Job, Measured
from tidegate.edge.update.record import Slot
from tidegate.errors import ConfigError, DependencyError
from tidegate.fetch.installed import installed_files, installed_manifest
from tidegate.fetch.store import Store
from tidegate.runtime.process import available_bytes

DEFAULT_LIMIT_MB = 1024.0
AVAILABLE_SHARE = 0.8
"""Of the memory that is free now, so that the app keeps some."""
DATA_MARGIN_BYTES = 1 << 30
"""What a process may map beyond what it may make resident: runtimes map generously."""


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is run."""

    timeout_s: float = 120.0
    """for the child, from its start to its answer"""
    memory_limit_mb: float = 0.0
    """at which the child is killed; 0: twice the budget and at least 64 MB over it, or 1024 MB without a budget and
    while the whole golden fixture runs at once"""
    calls: int = 100
    """timed calls; fewer, but at least 20, when so many would take a quarter of the time limit"""
    minimum_duration_s: float = 1.0
    """and timed calls go on so long"""
    warm_up_s: float = 0.2
    attempts: int = 2
    """timed runs while latency is over its budget; the fastest counts"""
    threads: int | None = None
    """of the runtime; null: its default on a device"""
    python: str = ""
    """interpreter for the child; empty: this one. An app that is frozen into one file must name one"""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("timeout_s", self.timeout_s, 1.0),
            ("memory_limit_mb", self.memory_limit_mb, 0.0),
            ("calls", self.calls, 1),
            ("minimum_duration_s", self.minimum_duration_s, 0.0),
            ("warm_up_s", self.warm_up_s, 0.0),
            ("attempts", self.attempts, 1),
            ("threads", 1 if self.threads is None else self.threads, 1),
        ):
            if not least <= value < float("inf"):
                raise ConfigError(
                    f"probe {name} is {value}; expected a finite number, {least:g} or more",
                    fix="correct the device's settings",
                )


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found. Figures are None when the child did not come so far, or the system does not tell."""

    passed: bool
    problem: str = ""
    """why it failed, with what was found and expected; empty when it passed"""
    latency_p95_ms: float | None = None
    rss_mb: float | None = None
    """peak of the child, in millions of bytes"""
    maximum_error: float | None = None
    """largest difference of a golden output"""
    runtime: str = ""
    calls: int = 0
    """timed"""


def probe(directory: Path, slot: Slot, settings: ProbeSettings) -> ProbeReport:
    """Prove one installed version on this device; see the module's text.

    Args:
        directory: the device's.
        slot: what to prove; its files are in the store.
        settings: limits.

    Returns:
        A failed report for whatever is the version's fault.

    Raises:
        DependencyError: its runtime is not installed here.
        ResourceError: this machine cannot run the probe now: no process, no disk, or too little free memory. Neither
            is the version's fault.
        NotFoundError, BundleError: the store does not hold the version's manifest.
    """
    store = Layout(directory).store
    manifest = installed_manifest(store, slot.manifest_sha256, slot.variant)
    for sha256, size_bytes in installed_files(store, slot.manifest_sha256, slot.variant).items():
        if not store.check(sha256):
            return ProbeReport(passed=False, problem=f"file {sha256[:12]} of {size_bytes} bytes is missing or damaged")
    budgets = manifest.budgets or Budgets()
    outcome = in_child(
        _job(store, slot, budgets, settings),
        _limits(budgets, settings),
        python=settings.python or sys.executable,
        timeout_s=settings.timeout_s,
    )
    if isinstance(outcome, str):
        return ProbeReport(passed=False, problem=outcome)
    if isinstance(outcome, Failed):
        if outcome.kind == DependencyError.__name__:
            raise DependencyError(outcome.message, fix="install the runtime, then run the update again")
        return ProbeReport(passed=False, problem=f"{outcome.kind}: {outcome.message}")
    return judge(outcome, budgets, has_golden=manifest.golden is not None)


def judge(measured: Measured, budgets: Budgets, *, has_golden: bool) -> ProbeReport:
    """Hold what was measured against what the release promises. Pure."""
    latency_p95_ms = measured.latency_p95_ns / 1e6
    rss_mb = None if measured.peak_rss_bytes is None else measured.peak_rss_bytes / MEGABYTE
    problems = list(measured.golden_problems)
    if has_golden and measured.maximum_error is None and not problems:
        problems.append("the golden fixture has nothing that could be compared")
    if budgets.latency_p95_ms and latency_p95_ms > budgets.latency_p95_ms:
        problems.append(
            f"95 % of {measured.calls} calls took up to {latency_p95_ms:.3g} ms; "
            f"the budget is {budgets.latency_p95_ms:g} ms"
        )
    if budgets.rss_mb and rss_mb is not None and rss_mb > budgets.rss_mb:
        problems.append(f"it took {rss_mb:.1f} MB of memory; the budget is {budgets.rss_mb:g} MB")
    return ProbeReport(
        passed=not problems,
        problem="; ".join(problems),
        latency_p95_ms=latency_p95_ms,
        rss_mb=rss_mb,
        maximum_error=measured.maximum_error,
        runtime=measured.runtime,
        calls=measured.calls,
    )


def _limits(budgets: Budgets, settings: ProbeSettings) -> Limits:
    budget_mb = budgets.rss_mb
    own_mb = settings.memory_limit_mb or (max(2 * budget_mb, budget_mb + 64) if budget_mb else DEFAULT_LIMIT_MB)
    comparing_mb = settings.memory_limit_mb or max(own_mb, DEFAULT_LIMIT_MB)
    available = available_bytes()
    spare_bytes = float("inf") if available is None else available * AVAILABLE_SHARE
    return Limits(own_mb * MEGABYTE, comparing_mb * MEGABYTE, spare_bytes)


def _job(store: Store, slot: Slot, budgets: Budgets, settings: ProbeSettings) -> Job:
    return Job(
        token=secrets.token_hex(16),
        parent=os.getpid(),
        store=str(store.directory.absolute()),
        manifest_sha256=slot.manifest_sha256,
        variant=slot.variant,
        threads=settings.threads,
        calls=settings.calls,
        minimum_duration_s=settings.minimum_duration_s,
        warm_up_s=settings.warm_up_s,
        timing_limit_s=settings.timeout_s / 4 / settings.attempts,
        latency_budget_ms=budgets.latency_p95_ms,
        attempts=settings.attempts,
        data_limit_bytes=int(_limits(budgets, settings).comparing_bytes) + DATA_MARGIN_BYTES,
    )
