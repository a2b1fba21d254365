"""Several server processes on one port (SO_REUSEPORT): the system spreads connections over them.

The parent holds the port, starts the workers, starts one again that dies, and passes a drain on. It serves nothing
itself. Each worker loads its own models and has its own queues. It listens only once it serves, so that no connection
is given to one that is still loading, or cannot load at all.
"""

from __future__ import annotations

import logging
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tidegate.cloud.budget import Budget
from tidegate.cloud.http.settings import Siblings
from tidegate.cloud.limits import check_encrypted
from tidegate.cloud.logs import event
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.port import checked_host, held_port
from tidegate.cloud.worker_process import WorkerSpec, serve_worker, shared_out, tell
from tidegate.errors import ConfigError, ResourceError, StateError, TidegateError

__all__ = ["WorkerPool", "WorkerSpec", "pause_after"]

RESTART_PAUSE_S = 1.0
"""Between the start of a worker and its next start, so that one that cannot live does not take the machine."""

LONGEST_RESTART_PAUSE_S = 60.0

LOOK_S = 0.2
"""How soon the end of the pool, or of a pause, is noticed."""

log = logging.getLogger(__name__)


def pause_after(failures: int) -> float:
    """Return the seconds between two starts of a worker that ended before it served `failures` times in a row."""
    return float(min(LONGEST_RESTART_PAUSE_S, RESTART_PAUSE_S * 2 ** min(failures, 30)))


@dataclass
class _Worker:
    """One process and the parent's end of its pipe."""

    index: int
    process: BaseProcess
    pipe: Connection
    started_s: float
    failures: int
    """starts in a row, before this one, that ended before they served"""
    serves: bool = False
    heard: bool = False
    """whether it has said all that it will say"""
    error: TidegateError | None = None
    """what kept it from serving"""


@dataclass(frozen=True)
class _Start:
    """When a worker is to be started again."""

    at_s: float
    failures: int


class WorkerPool:
    """Runs the workers of one port.

    with WorkerPool(spec, budget) as pool: ...
    """

    def __init__(self, spec: WorkerSpec, budget: Budget) -> None:
        """Prepare; `start` begins.

        Args:
            spec: what to serve; its limits hold for all workers together (see `shared_out`).
            budget: how many workers, on which cores, with how many threads.
        """
        check_encrypted(spec.listen, spec.settings.safety)
        if not checked_host(spec.listen):
            raise ConfigError("several workers cannot share a Unix socket", fix="use one worker, or a port")
        self._spec = shared_out(spec, budget.workers)
        self._budget = budget
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}
        self._due: dict[int, _Start] = {}
        self._holders: list[socket.socket] = []
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="tidegate-workers", daemon=True)
        self.address = ""
        """HOST:PORT that all workers serve; as the next two, known when `start` returns"""
        self.http_address = ""
        self.metrics_address = ""

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the workers that live."""
        return tuple(worker.process.pid or 0 for worker in tuple(self._workers.values()))

    def start(self) -> None:
        """Take the port, start every worker, and return when all of them serve.

        Raises:
            ResourceError: the port cannot be had.
            TidegateError: what a worker could not load.
        """
        if self._holders:
            raise StateError("the workers were started before", fix="make a new WorkerPool")
        try:
            self._hold_ports()
            for index in range(self._budget.workers):
                self._workers[index] = self._spawn(index)
            for worker in self._workers.values():
                self._await_ready(worker)
        except BaseException:
            self.stop(0)
            raise
        self._keeper.start()

    def stop(self, grace_s: float) -> bool:
        """Let every worker drain; return whether all work finished in time. Stopping again does nothing."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        workers, self._workers = tuple(self._workers.values()), {}
        # One that was killed this moment has nothing that could be finished.
        living = [worker for worker in workers if worker.process.exitcode is None]
        for worker in living:
            tell(worker.pipe, grace_s)
        finished = True
        for worker in living:
            worker.process.join(grace_s + 5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            finished = finished and worker.process.exitcode == 0
        for worker in workers:
            worker.pipe.close()
        for holder in self._holders:
            holder.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        return finished

    def __enter__(self) -> WorkerPool:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop(5.0)

    # The start

    def _hold_ports(self) -> None:
        """Bind, without listening, so that the numbers stay ours and no connection comes here."""
        http = self._spec.settings.outside.http
        self.address = self._held(self._spec.listen)
        self.http_address = self._held(http.listen)
        self.metrics_address = self._held(http.metrics_listen)

    def _held(self, listen: str) -> str:
        """Hold one port and return its address with the real number; nothing for none."""
        if not listen:
            return ""
        holder = held_port(listen)
        self._holders.append(holder)
        return f"{listen.rpartition(':')[0]}:{holder.getsockname()[1]}"

    def _spawn(self, index: int, failures: int = 0) -> _Worker:
        ours, theirs = self._context.Pipe()
        held, settings, scratch = self._spec.repository, self._spec.settings, self._scratch_directory()
        safety = replace(settings.safety, rate_file=scratch / "rate")
        spec = replace(
            self._spec,
            listen=self.address,
            settings=replace(settings, share_port=True, outside=self._outside(index), safety=safety),
            repository=replace(
                held,
                loading=replace(held.loading, threads=self._budget.threads),
                # Where workers agree on labels when nobody named a file: it goes when the pool does.
                label_file=held.label_file or scratch / "labels.json",
                fleet_directory=scratch / "bundles",
            ),
        )
        process = self._context.Process(
            target=serve_worker, args=(spec, self._budget.cores_by_worker[index], theirs), daemon=True
        )
        try:
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Worker(index, process, ours, time.monotonic(), failures)

    def _outside(self, index: int) -> OutsideSettings:
        """Return what one worker shows: on the ports of all, and knowing where the others are."""
        outside = self._spec.settings.outside
        http = replace(outside.http, listen=self.http_address, metrics_listen=self.metrics_address)
        return replace(outside, http=http, siblings=Siblings(str(self._scratch_directory()), index))

    def _scratch_directory(self) -> Path:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tidegate-workers-")
        return Path(self._scratch.name)

    def _await_ready(self, worker: _Worker) -> None:
        _hear(worker)
        if worker.error is not None:
            raise worker.error
        if not worker.serves:
            raise ResourceError("a worker ended before it served", fix="look into the log above")

    # While they serve

    def _keep(self) -> None:
        """Hear those that start, and start again what ends."""
        while not self._stopping.is_set():
            for worker in self._ended():
                self._note_end(worker)
            self._start_what_is_due()

    def _ended(self) -> Iterator[_Worker]:
        """Wait a little; hear who has something to say, and give those that have ended."""
        living = tuple(self._workers.values())
        ends: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in living}
        pipes: dict[Any, _Worker] = {worker.pipe: worker for worker in living if not worker.heard}
        if not living:
            self._stopping.wait(LOOK_S)
            return
        changed = wait([*ends, *pipes], timeout=LOOK_S)
        for pipe in [each for each in changed if each in pipes]:
            _hear(pipes[pipe])
            if pipes[pipe].serves:
                index = pipes[pipe].index
                log.info("worker %d serves again", index, extra=event("worker_serves", worker=index))
        yield from (ends[each] for each in changed if each in ends)

    def _note_end(self, worker: _Worker) -> None:
        """Log why a worker ended, and decide when it is started again."""
        worker.process.join()
        if not worker.heard:
            _hear(worker)
        worker.pipe.close()
        del self._workers[worker.index]
        failures = 0 if worker.serves else worker.failures + 1
        # One that served has had its second as a rule, and comes back at once.
        begins_s = time.monotonic() if failures else worker.started_s
        pause_s = max(0.0, begins_s + pause_after(failures) - time.monotonic())
        self._due[worker.index] = _Start(time.monotonic() + pause_s, failures)
        facts: dict[str, Any] = {"worker": worker.index, "pause_s": round(pause_s, 1)}
        if worker.error is not None:
            _tell_failed(worker.error, facts)
            return
        facts["exit_code"] = worker.process.exitcode
        text = f"worker {worker.index} ended with {worker.process.exitcode}; starting another in {pause_s:.1f} s"
        log.warning(text, extra=event("worker_ended", **facts))

    def _start_what_is_due(self) -> None:
        for index, start in tuple(self._due.items()):
            if self._stopping.is_set() or time.monotonic() < start.at_s:
                continue
            del self._due[index]
            try:
                self._workers[index] = self._spawn(index, start.failures)
            except OSError as refused:
                error = ResourceError(f"no process can be started: {refused.strerror}", fix="look at the limits")
                failures = start.failures + 1
                self._due[index] = _Start(time.monotonic() + pause_after(failures), failures)
                _tell_failed(error, {"worker": index, "pause_s": pause_after(failures)})


def _hear(worker: _Worker) -> None:
    """Take a starting worker's one message, and wait for it if it has not come; its end is none."""
    worker.heard = True
    try:
        worker.error = worker.pipe.recv()
    except (EOFError, OSError):
        return
    worker.serves = worker.error is None


def _tell_failed(error: TidegateError, facts: dict[str, Any]) -> None:
    facts |= {"error": type(error).__name__, "fix": error.fix}
    text = f"worker {facts['worker']} cannot serve: {error.message}; trying again in {facts['pause_s']} s"
    log.warning(text, extra=event("worker_failed", **facts))
