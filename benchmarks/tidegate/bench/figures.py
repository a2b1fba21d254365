"""From what was seen to the figures of a report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.bench.environment import Conditions, Moment, judge
from tidegate.bench.job import Measured
from tidegate.bench.report import Blocks, ColdStart, Cpu, Memory, Problem, Result, Throughput
from tidegate.bench.statistics import Undisturbed, summarise, summarise_undisturbed
from tidegate.runtime.feeds import InputRecord
from tidegate.runtime.timing import Recording


@dataclass(frozen=True)
class Timed:
    """One timed run."""

    latencies_ns: NDArray[np.int64]
    """[calls that succeeded], caller after caller"""
    blocks: Blocks
    elapsed_ns: int
    cpu_ns: int
    """of the whole process"""
    before: Moment
    after: Moment


def result_of_model(name: str, measured: Measured, *, keep_samples: bool) -> Result:
    """Describe what a child process measured of one variant."""
    timed = Timed(
        latencies_ns=np.frombuffer(measured.latencies_ns, dtype=np.int64),
        blocks=Blocks(
            caller=[0] * len(measured.block_calls),
            calls=measured.block_calls,
            involuntary_switches=measured.block_switches,
            cpu_ns=measured.block_cpu_ns,
        ),
        elapsed_ns=measured.elapsed_ns,
        cpu_ns=measured.cpu_ns,
        before=measured.before,
        after=measured.after,
    )
    undisturbed = _undisturbed(timed)
    return Result(
        name=name,
        status="ok",
        problem=None,
        backend=measured.backend,
        runtime=measured.runtime,
        provider=measured.provider,
        input=measured.input,
        cold_start=ColdStart(load_ns=measured.load_ns, first_call_ns=measured.first_call_ns),
        warm_up_calls=measured.warm_up_calls,
        elapsed_ns=timed.elapsed_ns,
        latency=summarise(timed.latencies_ns),
        undisturbed=undisturbed,
        throughput=_throughput(timed, measured.input),
        cpu=_cpu(timed, "model", len(timed.latencies_ns)),
        memory=_memory(measured.baseline_rss_bytes, measured.peak_rss_bytes),
        errors={},
        stopped_by="enough",
        harness_floor_ns=measured.harness_floor_ns,
        conditions=_conditions(timed, undisturbed),
        samples_ns=timed.latencies_ns.tolist() if keep_samples else None,
        blocks=timed.blocks if keep_samples else None,
    )


def result_of_server(
    name: str,
    timed: Timed,
    *,
    platform: str,
    input: InputRecord,
    cold_start: ColdStart,
    warm_up_calls: int,
    errors: Counter[str],
    gave_up: bool,
    harness_floor_ns: int,
    keep_samples: bool,
) -> Result:
    """Describe the calls of one or several callers to a server; the server's own memory and CPU are out of sight."""
    calls = len(timed.latencies_ns)
    undisturbed = _undisturbed(timed) if calls else None
    return Result(
        name=name,
        status="failed" if errors else "ok",
        problem=_call_failures(errors, calls, gave_up=gave_up) if errors else None,
        backend=None,
        runtime=platform or None,
        provider=None,
        input=input,
        cold_start=cold_start,
        warm_up_calls=warm_up_calls,
        elapsed_ns=timed.elapsed_ns,
        latency=summarise(timed.latencies_ns) if calls else None,
        undisturbed=undisturbed,
        throughput=_throughput(timed, input),
        cpu=_cpu(timed, "caller", calls + errors.total()),
        memory=None,
        errors=dict(errors),
        stopped_by="unavailable" if gave_up else "enough",
        harness_floor_ns=harness_floor_ns,
        conditions=_conditions(timed, undisturbed),
        samples_ns=timed.latencies_ns.tolist() if keep_samples else None,
        blocks=timed.blocks if keep_samples else None,
    )


def joined(recordings: Sequence[Recording]) -> tuple[NDArray[np.int64], Blocks, Counter[str]]:
    """Put the recordings of several callers one after another."""
    errors: Counter[str] = Counter()
    for recording in recordings:
        errors.update(recording.errors)
    blocks = Blocks(
        caller=[caller for caller, recording in enumerate(recordings) for _ in recording.block_calls],
        calls=[calls for recording in recordings for calls in recording.block_calls],
        involuntary_switches=[switches for recording in recordings for switches in recording.block_switches],
        cpu_ns=[cpu_ns for recording in recordings for cpu_ns in recording.block_cpu_ns],
    )
    return np.concatenate([recording.latencies_ns for recording in recordings]), blocks, errors


def _undisturbed(timed: Timed) -> Undisturbed | None:
    if len(timed.blocks.involuntary_switches) != len(timed.blocks.calls):
        return None
    return summarise_undisturbed(
        timed.latencies_ns,
        np.asarray(timed.blocks.calls, dtype=np.int64),
        np.asarray(timed.blocks.involuntary_switches, dtype=np.int64),
    )


def _conditions(timed: Timed, undisturbed: Undisturbed | None) -> Conditions:
    switched_share = None if undisturbed is None else 1 - undisturbed.share
    return Conditions(before=timed.before, after=timed.after, trust=judge(timed.before, timed.after, switched_share))


def _throughput(timed: Timed, input: InputRecord) -> Throughput:
    calls_per_s = len(timed.latencies_ns) / timed.elapsed_ns * 1e9
    return Throughput(calls_per_s=calls_per_s, rows_per_s=calls_per_s * input.rows_per_call)


def _cpu(timed: Timed, process: Literal["model", "caller"], calls: int) -> Cpu:
    return Cpu(process=process, per_call_ns=timed.cpu_ns / calls, cores_busy=timed.cpu_ns / timed.elapsed_ns)


def _memory(baseline: int | None, peak: int | None) -> Memory:
    above = None if baseline is None or peak is None else peak - baseline
    return Memory(baseline_rss_bytes=baseline, peak_rss_bytes=peak, above_baseline_bytes=above)


def _call_failures(errors: Counter[str], succeeded: int, *, gave_up: bool) -> Problem:
    (kind, _), *_ = errors.most_common(1)
    listed = ", ".join(f"{count} {name}" for name, count in errors.most_common())
    ending = "; the callers gave up because the server was not to be reached any more" if gave_up else ""
    return Problem(
        kind=kind,
        message=f"{errors.total()} of {errors.total() + succeeded} calls failed: {listed}{ending}",
        fix="look into the server's log",
    )
