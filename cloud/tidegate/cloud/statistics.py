"""What a model did, counted: the numbers of Triton's ModelStatistics, which Prometheus metrics are read from as well.

Times are in nanoseconds and only grow. One request counts once in `success` or `fail`; one run of the model counts once
in `executions`, however many requests it carried. A batch's compute times count for each of its requests, as Triton's
do, and once in `batches` under its number of rows.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field, replace

BOUNDS_NS = tuple(round(step * 10**power) for power in (5, 6, 7, 8, 9) for step in (1, 2.5, 5))
"""Upper ends of the bins of times: .1, .25, .5, 1 ms and so on to 5 s. A last bin takes what is longer."""


@dataclass
class Duration:
    """How often, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count `count` events of `ns` each."""
        self.count += count
        self.ns += ns * count


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
