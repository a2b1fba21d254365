"""One model's scheduler: runs requests at once while the model is free, and together once they have to wait.

Who runs what:

- A caller that may block (`run`) and finds the model free runs it on its own thread: no hand-over.
- `submit` never blocks. With `inline=True` a short run (see `ShortRuns`) is done on the calling thread too; anything
  else goes to the model's own worker thread, which answers a whole batch without waking its callers' threads.
- While the model is busy requests queue. Whoever finishes leaves the queue to the worker thread, which takes as many
  compatible requests as fit into one run. So there is no waiting for company, and batches grow with the load by
  themselves. A `maximum_delay_ms` may be set on top; it is spent only when company was there a moment ago.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from tidegate.cloud.padding import Padding
from tidegate.cloud.queueing import Arrays, Job, QueueSettings, RequestQueue
from tidegate.cloud.short_runs import ShortRuns
from tidegate.cloud.statistics import Statistics
from tidegate.errors import ConfigError, ModelError, ResourceError, TidegateError, UnavailableError

RunArrays = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class BatchSettings:
    """How requests of one model share runs."""

    maximum_rows: int = 64
    """rows of one run; 1: requests never share"""
    preferred_rows: tuple[int, ...] = ()
    """sizes to stop at rather than take one request more; empty: take all that fits"""
    maximum_delay_ms: float = 0.0
    """longest wait for company while the model is free; a request that comes alone never waits"""
    queue: QueueSettings = field(default_factory=QueueSettings)
    padding: Padding | None = None
    """None: requests of unlike shapes never share a run"""

    def __post_init__(self) -> None:
        if self.maximum_rows < 1:
            raise ConfigError(f"maximum_rows is {self.maximum_rows}; expected 1 or more", fix="use 1 for no batching")
        if not self.maximum_delay_ms >= 0:
            raise ConfigError(f"maximum_delay_ms is {self.maximum_delay_ms}; expected 0 or more", fix="use 0")
        if any(not 1 <= rows <= self.maximum_rows for rows in self.preferred_rows):
            raise ConfigError(
                f"preferred_rows {list(self.preferred_rows)} with at most {self.maximum_rows} rows",
                fix="choose sizes from 1 to maximum_rows",
            )


class Batcher:
    """Schedules one model's requests. Safe for any number of threads."""

    def __init__(
        self,
        name: str,
        run: RunArrays,
        settings: BatchSettings,
        statistics: Statistics,
        *,
        batched: bool,
        short: ShortRuns | None = None,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Make a scheduler; its worker thread starts when it is first needed.

        Args:
            name: the model's, for messages.
            run: checked inputs to outputs, both in the signature's order; called by one thread at a time.
            settings: limits.
            statistics: counts here.
            batched: whether requests may share a run at all.
            short: which runs may be done inline; None for none.
            computing: entered around every run.
        """
        self.settings = settings
        self.batched = batched and settings.maximum_rows > 1
        self._run = run
        self._name = name
        self._statistics = statistics
        self._short = short or ShortRuns(possible=False)
        self._computing = computing
        self._lock = threading.Lock()
        self._queue = RequestQueue(settings.queue, name)
        self._busy = False
        self._closed = False
        self._long = False
        """whether the claimed run may be a long one, which a caller that must not wait stays away from"""
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._arrived = threading.Condition(self._lock)
        self._worker: threading.Thread | None = None
        self._company = 1
        """requests that were there together lately: what a delay may wait for"""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def submit(self, job: Job, *, inline: bool = False) -> None:
        """Take a request and return soon; its outcome is told to `job.finish`, perhaps before this returns.

        Args:
            job: checked.
            inline: whether a short run may be done on this thread.

        Raises:
            ResourceError: the queue is full.
            UnavailableError: closed.
            InputError: there is no such priority.
        """
        if inline and not self._long and not self._closed and self._short.allows(job.key, job.rows):
            # Not even claimed: `Model` lets threads take turns, and whoever else is in there is soon out again.
            self._run_alone(job)
            return
        with self._lock:
            if self._closed:
                raise _unloaded(self._name)
            lost = self._enqueue(job)
            if self._busy:
                self._arrived.notify()
            else:
                self._busy = True
                self._wake_worker()
        self._tell_lost(lost)

    def run(self, job: Job) -> None:
        """Run a request and return when its outcome was told to `job.finish`.

        Raises:
            ResourceError, UnavailableError, InputError: as `submit`.
        """
        with self._lock:
            if self._closed:
                raise _unloaded(self._name)
            free = not self._busy and not len(self._queue)
            if free:
                self._busy = True
                self._long = not self._short.allows(job.key, job.rows)
        if free:
            self._run_here(job)
            return
        job.waiter = told = threading.Event()
        self.submit(job)
        told.wait()

    def close(self) -> None:
        """Take nothing more; what waits is answered with UnavailableError, what runs is finished."""
        with self._lock:
            self._closed = True
            left = self._queue.take_all()
            self._arrived.notify_all()
        self._wake.put(False)
        for job in left:
            self._tell(job, None, _unloaded(self._name))

    def _enqueue(self, job: Job) -> list[tuple[Job, TidegateError]]:
        now_s = time.monotonic()
        lost = self._queue.take_given_up(now_s) if self._queue.full else []
        try:
            self._queue.put(job, now_s)
        except ResourceError:
            self._statistics.refused()
            raise
        return lost

    def _run_here(self, job: Job) -> None:
        """Run one request on this thread, which has claimed the model, and leave the rest to the worker."""
        try:
            self._run_alone(job)
        finally:
            with self._lock:
                if len(self._queue):
                    self._company = len(self._queue) + 1
                    self._wake_worker()
                else:
                    self._company = 1
                    self._busy = self._long = False

    def _wake_worker(self) -> None:
        """Let the worker take over. The lock is held and the model is claimed for it."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name=f"tidegate-{self._name}", daemon=True)
            self._worker.start()
        self._wake.put(True)

    def _work(self) -> None:
        while self._wake.get():
            try:
                self._work_off()
            except BaseException:
                # A defect, which ends this thread loudly; what still waits gets another one.
                with self._lock:
                    self._worker = None
                    self._wake_worker()
                raise

    def _work_off(self) -> None:
        while True:
            jobs, lost = self._next_batch()
            self._tell_lost(lost)
            if jobs:
                try:
                    self._run_batch(jobs)
                except BaseException:
                    for job in jobs:
                        if not job.told:
                            _hand_over(job, None, _unforeseen())
                    raise
            elif not lost:
                return

    def _next_batch(self) -> tuple[list[Job], list[tuple[Job, TidegateError]]]:
        """Take the next batch, or let go of the model when nothing waits."""
        limit = self.settings.maximum_rows if self.batched else 1
        with self._lock:
            if self.batched and self.settings.maximum_delay_ms and len(self._queue):
                self._wait_for_company()
            jobs, lost = self._queue.take(self._preferred(limit), time.monotonic())
            self._company = len(jobs) + len(self._queue)
            self._long = any(not self._short.allows(job.key, job.rows) for job in jobs)
            if not jobs and not lost:
                self._busy = False
        return jobs, lost

    def _preferred(self, limit: int) -> int:
        """Return the largest preferred size that the queue fills, or the limit. The lock is held."""
        if not self.batched or not self.settings.preferred_rows:
            return limit
        waiting = self._queue.rows
        return max((rows for rows in self.settings.preferred_rows if rows <= waiting), default=limit)

    def _wait_for_company(self) -> None:
        """Wait until as many are here as were lately, at most the delay. The lock is held."""
        expected = min(self._company, self.settings.maximum_rows)
        until_s = time.monotonic() + self.settings.maximum_delay_ms / 1e3
        while len(self._queue) < expected and not self._closed:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not self._arrived.wait(left_s):
                return

    def _run_batch(self, jobs: list[Job]) -> None:
        if len(jobs) == 1:
            self._run_alone(jobs[0])
            return
        began_ns = time.monotonic_ns()
        rows = [job.rows for job in jobs]
        try:
            joined = tuple(np.concatenate(arrays) for arrays in zip(*(job.arrays for job in jobs), strict=True))
            joined_ns, joined_cpu_ns = time.monotonic_ns(), time.thread_time_ns()
            with self._computing():
                outputs = self._run(joined)
            cpu_ns = time.thread_time_ns() - joined_cpu_ns
            parts = split(outputs, rows)
        except (TidegateError, MemoryError):
            # One of them may be the cause: alone, each gets its own answer.
            for job in jobs:
                self._run_alone(job)
            return
        ran_ns = time.monotonic_ns()
        self._statistics.ran(sum(rows), len(jobs), joined_ns - began_ns, ran_ns - joined_ns, 0)
        for job, part in zip(jobs, parts, strict=True):
            job.started_ns, job.ended_ns = began_ns, ran_ns
            # Fewer rows do not take longer.
            self._short.saw(job.key, job.rows, cpu_ns)
            self._tell(job, part, None)

    def _run_alone(self, job: Job) -> None:
        job.started_ns = time.monotonic_ns()
        began_cpu_ns = time.thread_time_ns() if self._short.due(job.key, job.rows) else 0
        try:
            with self._computing():
                outputs = self._run(job.arrays)
        except TidegateError as error:
            self._tell(job, None, error)
            return
        except MemoryError:
            self._tell(job, None, ResourceError("not enough memory", fix="send smaller batches"))
            return
        except BaseException:
            self._tell(job, None, _unforeseen())
            raise
        if began_cpu_ns:
            self._short.saw(job.key, job.rows, time.thread_time_ns() - began_cpu_ns)
        job.ended_ns = time.monotonic_ns()
        self._statistics.ran_alone(job.rows, job.began_ns, job.started_ns, job.ended_ns)
        _hand_over(job, outputs, None)

    def _tell(self, job: Job, outputs: Arrays | None, error: TidegateError | None) -> None:
        now_ns = time.monotonic_ns()
        started_ns = job.started_ns or now_ns
        self._statistics.finished(error is None, started_ns - job.began_ns, now_ns - job.began_ns)
        _hand_over(job, outputs, error)

    def _tell_lost(self, lost: Sequence[tuple[Job, TidegateError]]) -> None:
        for job, why in lost:
            self._statistics.dropped()
            self._tell(job, None, why)


def _hand_over(job: Job, outputs: Arrays | None, error: TidegateError | None) -> None:
    job.told = True
    try:
        job.finish(outputs, error)
    finally:
        if job.waiter is not None:
            job.waiter.set()


def split(outputs: Arrays, rows: Sequence[int]) -> list[Arrays]:
    """Return the outputs of each request out of a shared run, by its number of rows.

    Raises:
        ModelError: an output has not one row for each row that went in.
    """
    whole = sum(rows)
    for index, output in enumerate(outputs):
        if not output.ndim or output.shape[0] != whole:
            raise ModelError(
                f"output {index} has shape {list(output.shape)} for {whole} rows; expected one row each",
                fix="serve this model with maximum_rows=1",
            )
    ends = np.cumsum(rows).tolist()
    return [tuple(output[end - count : end] for output in outputs) for end, count in zip(ends, rows, strict=True)]


def _unforeseen() -> ModelError:
    return ModelError("the model ended in an unforeseen way", fix="look into the server's log")


def _unloaded(name: str) -> UnavailableError:
    return UnavailableError(f"model {name!r} is being unloaded", fix="call again")
