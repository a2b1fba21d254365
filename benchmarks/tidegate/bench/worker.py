"""The child process: measures one variant in a fresh interpreter. `python -m tidegate.bench.worker`

The job comes on standard input; phases and the outcome go out on what was standard output. Whatever a runtime prints
itself lands on standard error.
"""

from __future__ import annotations

import os
import sys
import time
from typing import BinaryIO

import msgspec

from tidegate.bench.environment import Probe
from tidegate.bench.inputs import feeds_of_bundle, is_model_file, read_arrays
from tidegate.bench.job import Failed, Job, Measured, Message, PhaseReached
from tidegate.bench.system.model import ModelSystem
from tidegate.errors import TidegateError
from tidegate.runtime import load
from tidegate.runtime.feeds import make_feeds
from tidegate.runtime.process import peak_resident_bytes, resident_bytes
from tidegate.runtime.timing import (
    expected_duration_s,
    harness_floor_ns,
    peak_without_samples,
    single_stream,
    warm_up,
)


def main() -> int:
    """Read one job, do it, answer."""
    answers = _take_standard_output()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    try:
        outcome: Message = measure(job, answers)
    except TidegateError as error:
        outcome = Failed(kind=type(error).__name__, message=error.message, fix=error.fix)
    _say(answers, outcome)
    return 0


def measure(job: Job, answers: BinaryIO) -> Measured:
    """Load, call once, warm up, time."""
    floor_ns = harness_floor_ns()
    feeds = None if is_model_file(job.source) else feeds_of_bundle(job.source, job.batch, job.input_file)
    baseline = resident_bytes()

    started_ns = time.perf_counter_ns()
    model = load(job.source, variant=job.variant, threads=job.threads)
    load_ns = time.perf_counter_ns() - started_ns
    if feeds is None:
        feeds = make_feeds(model.signature, batch=job.batch, given=read_arrays(job.input_file))
    system = ModelSystem(model, feeds.arrays)

    started_ns = time.perf_counter_ns()
    system.call()
    first_call_ns = time.perf_counter_ns() - started_ns

    _say(answers, PhaseReached(phase="warming", expected_s=job.plan.warm_up_s))
    warm = warm_up(system, job.plan)
    _say(answers, PhaseReached(phase="timing", expected_s=expected_duration_s(job.plan, warm)))
    peak_before = peak_resident_bytes()
    probe = Probe()
    before = probe.moment()
    cpu_before_ns = time.process_time_ns()
    recording = single_stream(system, job.plan, warm)
    cpu_ns = time.process_time_ns() - cpu_before_ns
    after = probe.moment()
    peak_after = peak_resident_bytes()
    return Measured(
        variant=model.variant_id,
        backend=model.backend,
        runtime=model.runtime,
        provider=model.provider,
        input=feeds.record,
        load_ns=load_ns,
        first_call_ns=first_call_ns,
        warm_up_calls=warm.calls,
        baseline_rss_bytes=baseline,
        peak_rss_bytes=peak_without_samples(peak_before, peak_after, recording),
        elapsed_ns=recording.elapsed_ns,
        cpu_ns=cpu_ns,
        harness_floor_ns=floor_ns,
        latencies_ns=recording.latencies_ns.tobytes(),
        block_calls=recording.block_calls,
        block_switches=recording.block_switches,
        block_cpu_ns=recording.block_cpu_ns,
        before=before,
        after=after,
    )


def _take_standard_output() -> BinaryIO:
    """Keep the pipe for answers and send file descriptor 1 to standard error, native libraries included."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _say(answers: BinaryIO, message: Message) -> None:
    answers.write(msgspec.json.encode(message) + b"\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
