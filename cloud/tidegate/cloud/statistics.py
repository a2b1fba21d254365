"""What a model did, counted: the numbers of Triton's ModelStatistics, which Prometheus metrics are read from as well.

Times are in nanoseconds and only grow. One request counts once in `success` or `fail`; one run of the model counts once
in `executions`, however many requests it carried. A batch's compute times count for each of its requests, as Triton's
do, and once in `batches` under its number of rows.

A request that ran alone is appended to a list, without a lock; many at a time are put into the counters, by whoever
appends the last of `FOLD_AT` or reads.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

BOUNDS_NS = tuple(round(step * 10**power) for power in (5, 6, 7, 8, 9) for step in (1, 2.5, 5))
"""Upper ends of the bins of times: .1, .25, .5, 1 ms and so on to 5 s. A last bin takes what is longer."""


FOLD_AT = 1024
"""Times that are put into counters and bins together: some 30 µs."""

_BOUNDS = np.array(BOUNDS_NS, np.int64)


@dataclass
class Duration:
    """How often, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count `count` events of `ns` each."""
        self.add_together(ns * count, count)

    def add_together(self, ns: int, count: int) -> None:
        """Count `count` events of `ns` together."""
        self.count += count
        self.ns += ns


def empty_bins() -> list[int]:
    """Return a count of 0 for each bin of times."""
    return [0] * (len(BOUNDS_NS) + 1)


@dataclass
class BatchCounts:
    """Runs with one number of rows."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass
class Counts:
    """A copy of all counters at one moment."""

    success: Duration = field(default_factory=Duration)
    """whole time in the server, of requests that were answered"""
    fail: Duration = field(default_factory=Duration)
    """whole time of requests that reached the model's queue and were not answered"""
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    """joining and padding"""
    compute_infer: Duration = field(default_factory=Duration)
    """the runtime"""
    compute_output: Duration = field(default_factory=Duration)
    """splitting"""
    inferences: int = 0
    """rows that were inferred; a request of a model without a batch axis is one"""
    executions: int = 0
    """runs of the model"""
    refused: int = 0
    """requests that a full queue turned away"""
    dropped: int = 0
    """requests that ran out of time or lost their caller while they waited"""
    last_inference_ms: int = 0
    """milliseconds since the epoch"""
    batches: dict[int, BatchCounts] = field(default_factory=dict)
    """by number of rows"""
    queue_bins: list[int] = field(default_factory=empty_bins)
    """requests by their time in the queue"""
    infer_bins: list[int] = field(default_factory=empty_bins)
    """runs by their time in the runtime"""


class Statistics:
    """Counters of one version. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._alone: list[tuple[int, int, int, int]] = []
        """runs of single requests that are not counted yet"""

    def ran_alone(self, rows: int, began_ns: int, started_ns: int, ended_ns: int) -> None:
        """Count one request that was answered by a run of its own.

        Args:
            rows: of the request.
            began_ns: `time.monotonic_ns()` when it arrived.
            started_ns: when its run began.
            ended_ns: when that ended.
        """
        alone = self._alone
        alone.append((rows, began_ns, started_ns, ended_ns))
        # Whoever finds the lock taken goes on: the one who has it, or the next one, counts what came meanwhile.
        if len(alone) >= FOLD_AT and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def ran(self, rows: int, requests: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count one run of the model."""
        with self._lock:
            counts = self._counts
            batch = counts.batches.get(rows)
            if batch is None:
                batch = counts.batches[rows] = BatchCounts()
            counts.compute_input.add(input_ns, requests)
            counts.compute_infer.add(infer_ns, requests)
            counts.compute_output.add(output_ns, requests)
            batch.compute_input.add(input_ns)
            batch.compute_infer.add(infer_ns)
            batch.compute_output.add(output_ns)
            counts.infer_bins[bisect_left(BOUNDS_NS, infer_ns)] += 1
            counts.executions += 1
            counts.inferences += rows
            counts.last_inference_ms = time.time_ns() // 1_000_000

    def finished(self, ok: bool, queue_ns: int, whole_ns: int) -> None:
        """Count one request that was queued or run."""
        with self._lock:
            counts = self._counts
            (counts.success if ok else counts.fail).add(whole_ns)
            counts.queue.add(queue_ns)
            counts.queue_bins[bisect_left(BOUNDS_NS, queue_ns)] += 1

    def refused(self) -> None:
        """Count one request that found the queue full."""
        with self._lock:
            self._counts.refused += 1

    def dropped(self) -> None:
        """Count one request that was given up while it waited."""
        with self._lock:
            self._counts.dropped += 1

    def read(self) -> Counts:
        """Return a copy."""
        with self._lock:
            self._fold()
            now = self._counts
            names = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
            copies = {name: replace(getattr(now, name)) for name in names}
            batches = {
                rows: BatchCounts(replace(one.compute_input), replace(one.compute_infer), replace(one.compute_output))
                for rows, one in now.batches.items()
            }
            copied = replace(now, **copies, batches=batches)
            copied.queue_bins, copied.infer_bins = list(now.queue_bins), list(now.infer_bins)
            return copied

    def _fold(self) -> None:
        """Count the runs that were there at first; others append behind them meanwhile. The lock is held."""
        taken = self._alone[:]
        if not taken:
            return
        del self._alone[: len(taken)]
        rows, began_ns, started_ns, ended_ns = np.array(taken, np.int64).T
        queue_ns, infer_ns = started_ns - began_ns, ended_ns - started_ns
        counts, count = self._counts, len(taken)
        counts.success.add_together(int((ended_ns - began_ns).sum()), count)
        counts.queue.add_together(int(queue_ns.sum()), count)
        counts.compute_input.add_together(0, count)
        counts.compute_infer.add_together(int(infer_ns.sum()), count)
        counts.compute_output.add_together(0, count)
        counts.queue_bins = binned(counts.queue_bins, queue_ns)
        counts.infer_bins = binned(counts.infer_bins, infer_ns)
        counts.executions += count
        counts.inferences += int(rows.sum())
        since_last_ns = time.monotonic_ns() - int(ended_ns.max())
        counts.last_inference_ms = max(counts.last_inference_ms, (time.time_ns() - since_last_ns) // 1_000_000)
        for size in np.unique(rows).tolist():
            times_ns = infer_ns[rows == size]
            batch = counts.batches.setdefault(size, BatchCounts())
            batch.compute_input.add_together(0, len(times_ns))
            batch.compute_infer.add_together(int(times_ns.sum()), len(times_ns))
            batch.compute_output.add_together(0, len(times_ns))


def binned(bins: list[int], times_ns: NDArray[np.int64]) -> list[int]:
    """Return the bins with these times in them as well."""
    more = np.bincount(np.searchsorted(_BOUNDS, times_ns), minlength=len(bins))
    return [old + new for old, new in zip(bins, more.tolist(), strict=True)]
