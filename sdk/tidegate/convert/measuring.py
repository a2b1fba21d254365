"""Latency and memory of variants at build, each in a process of its own.

What is measured holds for this machine: criteria about a device need a report of `tidegate bench` from there.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from tidegate.bundle import Manifest
from tidegate.convert.measuring_job import Failed, Job, Measured, Outcome
from tidegate.errors import ModelError
from tidegate.evaluate import Criteria, Measurement
from tidegate.evaluate.measurements import MEGABYTE
from tidegate.runtime import runnable_variants
from tidegate.runtime.process import ending
from tidegate.runtime.timing import Plan

PLAN = Plan(minimum_duration_s=1.0, minimum_calls=200, warm_up_s=0.2)
"""An upper bound of p95 needs 59 calls at confidence 0.95 and 135 at 0.999."""

SWITCHED_SHARE_LIMIT = 0.05
"""Above this share of calls during whose block the process was switched out, the machine was busy; `bench` has the same
limit."""

_COMMAND = (sys.executable, "-m", "tidegate.convert.measuring_worker")
_LAST_WORDS_BYTES = 2_000
_NEED_A_RUN = ("latency_p95_ms", "rss_mb")
_CPU_INFO = Path("/proc/cpuinfo")


def variants_to_measure(criteria: Criteria | None, manifest: Manifest) -> tuple[str, ...]:
    """Return the variants that a criterion asks latency or memory of, of those that run here, in their order."""
    runnable = [variant.id for variant in runnable_variants(manifest)]
    asked = criteria.criterion if criteria is not None else ()
    wanted = {one.variant or runnable[0] for one in asked if one.metric in _NEED_A_RUN}
    return tuple(id for id in runnable if id in wanted or "each" in wanted)


def measured_here(
    path: Path, variants: Sequence[str], progress: Callable[[str, int, int], None], plan: Plan = PLAN
) -> dict[str, Measurement]:
    """Measure each variant of a bundle in a fresh interpreter, one after another.

    Args:
        path: the bundle; its golden fixture is the input, one row a call.
        variants: ids; each runs here.
        progress: told how many variants are measured.
        plan: how long and how often to call.

    Raises:
        ModelError: a variant cannot be loaded or run, or its process died; the message names it.
    """
    machine = this_machine()
    found: dict[str, Measurement] = {}
    for done, variant in enumerate(variants):
        progress("measuring", done, len(variants))
        found[variant] = _measurement(_in_child(Job(str(path), variant, plan)), machine)
    if variants:
        progress("measuring", len(variants), len(variants))
    return found


def this_machine(cpu_info: Path = _CPU_INFO) -> str:
    """Return the machine in few words: processor, cores, system."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system than Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    processor = next(filter(None, [*names, platform.processor()]), platform.machine())
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}"


def _in_child(job: Job) -> Measured:
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.run(  # noqa: S603 our own interpreter and module
            _COMMAND, input=msgspec.json.encode(job), stdout=subprocess.PIPE, stderr=complaints, check=False
        )
        if not child.stdout:
            raise ModelError(
                f"variant {job.variant!r} could not be measured: its process ended with {ending(child.returncode)}"
                f"{_last_words(complaints)}",
                fix="check the variant with `tidegate verify`; SIGKILL mostly means too little memory",
            )
    outcome: Outcome = msgspec.json.decode(child.stdout, type=Outcome)
    if isinstance(outcome, Failed):
        raise ModelError(f"variant {job.variant!r} could not be measured: {outcome.message}", fix=outcome.fix)
    return outcome


def _last_words(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(size - _LAST_WORDS_BYTES, 0))
    said = complaints.read().decode(errors="replace").split("\n")
    line = next((line.strip() for line in reversed(said) if line.strip()), "")
    return f"; its last words: {line}" if line else ""


def _measurement(measured: Measured, machine: str) -> Measurement:
    return Measurement(
        latencies_ms=np.sort(np.array(measured.latencies_ns, np.float64)) / 1e6,
        rss_mb=None if measured.peak_rss_bytes is None else measured.peak_rss_bytes / MEGABYTE,
        trust=_trust(measured.switched_share),
        machine=f"{machine}, {measured.runtime}",
    )


def _trust(switched_share: float | None) -> str:
    if switched_share is None:
        return "unknown"
    return "disturbed" if switched_share > SWITCHED_SHARE_LIMIT else "clean"
