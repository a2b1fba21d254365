"""The probe's child process: loads one variant, times it, compares it. `python -m tidegate.edge.update.probe_worker`

The job comes on standard input; stages and the outcome go out on what was standard output. Whatever a runtime prints
itself lands on standard error. The process ends with its parent: the kernel sees to that on Linux (prctl(2),
PR_SET_PDEATHSIG), and everywhere a thread waits for the end of standard input, as long as native code lets it run.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from tidegate.edge.update.probe_job import FAILED, Failed, Job, Measured, Message, Reached
from tidegate.errors import TidegateError
from tidegate.fetch.installed import open_installed
from tidegate.fetch.store import Store
from tidegate.runtime import load
from tidegate.runtime.feeds import Feeds, make_feeds
from tidegate.runtime.model import Model
from tidegate.runtime.process import peak_resident_bytes
from tidegate.runtime.timing import Plan, Recording, peak_without_samples, percentile_ns, single_stream, warm_up
from tidegate.runtime.verify import describe, golden_errors

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

FEWEST_CALLS = 20
"""The fewest calls of which one in twenty is the slowest: below that, a 95th percentile is the maximum."""
PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read one job, do it, answer."""
    answers = _take_standard_output()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    _end_with_parent(job.parent)
    _limit_ourselves(job.data_limit_bytes)
    try:
        outcome: Message = measure(job, answers)
    except TidegateError as error:
        outcome = Failed(token=job.token, kind=type(error).__name__, message=error.message)
    _say(answers, outcome)
    return FAILED if isinstance(outcome, Failed) else 0


def measure(job: Job, answers: BinaryIO) -> Measured:
    """Load, call once, warm up, time, and then compare: the whole fixture may take more memory than one call does."""
    _say(answers, Reached(stage="loading"))
    with open_installed(Store(Path(job.store)), job.manifest_sha256, job.variant) as bundle:
        golden = bundle.golden()
        model = load(bundle, variant=job.variant, threads=job.threads)
    with model:
        feeds = make_feeds(model.signature, golden=golden.inputs if golden else None)
        latency_p95_ns, calls, peak = _timed(job, answers, model, feeds)
        _say(answers, Reached(stage="comparing"))
        errors = golden_errors(bundle.manifest, job.variant, model, golden) if golden else ()
    return Measured(
        token=job.token,
        runtime=model.runtime,
        provider=model.provider,
        calls=calls,
        latency_p95_ns=latency_p95_ns,
        peak_rss_bytes=peak,
        # JSON has no infinity, which is what outputs that cannot be compared are off by.
        maximum_error=max(
            (error.maximum_error for error in errors if math.isfinite(error.maximum_error)), default=None
        ),
        golden_problems=tuple(describe(error) for error in errors if not error.within),
    )


class _Call:
    def __init__(self, model: Model, feeds: Feeds) -> None:
        self._model, self._feeds = model, feeds.arrays

    def call(self) -> None:
        self._model.run(self._feeds)


def _timed(job: Job, answers: BinaryIO, model: Model, feeds: Feeds) -> tuple[int, int, int | None]:
    """Return the lowest p95 of the attempts, its number of calls, and the peak of resident memory.

    Whatever else the device does can only make calls slower, so the lowest is the nearest to the model's own.
    """
    callee = _Call(model, feeds)
    _say(answers, Reached(stage="calling for the first time"))
    callee.call()
    _say(answers, Reached(stage="warming up"))
    warm = warm_up(callee, Plan(warm_up_s=job.warm_up_s, warm_up_calls=2))
    _say(answers, Reached(stage="timing"))
    affordable = int(job.timing_limit_s * 1e9 / warm.median_ns)
    plan = Plan(
        minimum_calls=max(min(job.calls, affordable), FEWEST_CALLS),
        minimum_duration_s=min(job.minimum_duration_s, job.timing_limit_s),
    )
    before = peak_resident_bytes()
    recordings: list[Recording] = []
    peak: int | None = before
    for _ in range(job.attempts):
        recordings.append(single_stream(callee, plan, warm))
        peak = peak_without_samples(peak, peak_resident_bytes(), recordings[-1])
        if _p95_ns(recordings[-1]) <= job.latency_budget_ms * 1e6 or not job.latency_budget_ms:
            break
    best = min(recordings, key=_p95_ns)
    return _p95_ns(best), len(best.latencies_ns), peak


def _p95_ns(recording: Recording) -> int:
    return percentile_ns(np.sort(recording.latencies_ns), 95)


def _take_standard_output() -> BinaryIO:
    """Keep the pipe for answers and send file descriptor 1 to standard error, native libraries included."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _say(answers: BinaryIO, message: Message) -> None:
    answers.write(msgspec.json.encode(message) + b"\n")
    answers.flush()


def _end_with_parent(parent: int) -> None:
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # It died before the kernel was told.
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end_of_input() -> None:
    # Not through sys.stdin: a daemon thread that holds its lock aborts the interpreter when that ends.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _limit_ourselves(data_limit_bytes: int) -> None:
    """No dump of memory on the disk after a crash; the first to go when memory runs out; less memory than asked for.

    RLIMIT_DATA counts what is mapped private and writable, so address space that a runtime only reserves is free. macOS
    does not keep to it.
    """
    if resource is None:
        return
    for kind, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, data_limit_bytes)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
