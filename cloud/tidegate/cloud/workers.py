"""Several server processes on one port (SO_REUSEPORT): the system spreads connections over them.

The parent holds the port, starts the workers, starts one again that dies, and passes a drain on. It serves nothing
itself. Each worker loads its own models and has its own queues: a limit counts per worker.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tidegate.cloud.budget import Budget
from tidegate.cloud.channel_source import ChannelSettings, ChannelSource
from tidegate.cloud.http.settings import Siblings
from tidegate.cloud.limits import check_encrypted
from tidegate.cloud.logs import say, set_up, tell_reload
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.port import checked_host
from tidegate.cloud.repository import RepositorySettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.errors import ConfigError, ResourceError, StateError, TidegateError

RESTART_PAUSE_S = 1.0
"""Between the start of a worker and its next start, so that one that cannot live does not take the machine."""


@dataclass(frozen=True)
class WorkerSpec:
    """What each worker serves; it has to be picklable."""

    bundles: tuple[Path, ...]
    listen: str
    settings: ServerSettings = field(default_factory=ServerSettings)
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    channel: ChannelSettings | None = None
    """where versions come from besides `bundles`"""


@dataclass
class _Worker:
    """One process and the parent's end of its pipe."""

    index: int
    process: BaseProcess
    pipe: Connection
    started_s: float


class WorkerPool:
    """Runs the workers of one port.

    with WorkerPool(spec, budget) as pool: ...
    """

    def __init__(
        self, spec: WorkerSpec, budget: Budget, *, on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        """Prepare; `start` begins.

        Args:
            spec: what to serve.
            budget: how many workers, on which cores, with how many threads.
            on_event: told in words when a worker died and was started again.
        """
        check_encrypted(spec.listen, spec.settings.safety)
        if not checked_host(spec.listen):
            raise ConfigError("several workers cannot share a Unix socket", fix="use one worker, or a port")
        self._spec = spec
        self._budget = budget
        self._on_event = on_event
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}
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
        # One that was killed and not replaced yet has nothing that could be finished.
        workers = tuple(worker for worker in self._workers.values() if worker.process.exitcode is None)
        for dead in self._workers.values():
            if dead not in workers:
                dead.pipe.close()
        self._workers = {}
        for worker in workers:
            _tell(worker.pipe, grace_s)
        finished = True
        for worker in workers:
            worker.process.join(grace_s + 5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            finished = finished and worker.process.exitcode == 0
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
        host, _, port = listen.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A socket without SO_REUSEPORT first: a port on which somebody else listens is refused here.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host.strip("[]"), int(port)))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host.strip("[]"), int(port)))
        except OSError as error:
            holder.close()
            raise ResourceError(
                f"cannot listen on {listen}: {error.strerror}",
                fix="stop what listens there, or choose another port; port 0 takes a free one",
            ) from error
        self._holders.append(holder)
        return f"{host}:{holder.getsockname()[1]}"

    def _spawn(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        held = self._spec.repository
        loading = replace(held.loading, threads=self._budget.threads)
        spec = replace(
            self._spec,
            listen=self.address,
            settings=replace(self._spec.settings, share_port=True, outside=self._outside(index)),
            repository=replace(held, loading=loading, label_file=held.label_file or self._label_file()),
        )
        process = self._context.Process(
            target=serve_worker, args=(spec, self._budget.cores_by_worker[index], theirs), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(index, process, ours, time.monotonic())

    def _label_file(self) -> Path:
        """Return where workers agree on labels when nobody named a file: it goes when the pool does."""
        return self._scratch_directory() / "labels.json"

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
        try:
            error = worker.pipe.recv()
        except EOFError as closed:
            raise ResourceError("a worker ended before it served", fix="look into the log above") from closed
        if error is not None:
            raise error

    def _keep(self) -> None:
        """Start again what dies."""
        while not self._stopping.is_set():
            sentinels: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in self._workers.values()}
            for sentinel in wait(list(sentinels), timeout=0.2):
                dead = sentinels[sentinel]
                dead.process.join()
                code = dead.process.exitcode
                self._on_event(f"worker {dead.index} ended with {code}; starting another")
                self._stopping.wait(max(0.0, dead.started_s + RESTART_PAUSE_S - time.monotonic()))
                if self._stopping.is_set():
                    return
                dead.pipe.close()
                self._workers[dead.index] = self._spawn(dead.index)


def serve_worker(spec: WorkerSpec, cores: Sequence[int], pipe: Connection) -> None:
    """Serve until the parent says how long to drain, or is gone. Runs in the worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    set_up(spec.settings.outside.log_format)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        server = Server(
            spec.bundles,
            spec.listen,
            settings=spec.settings,
            repository=spec.repository,
            source=ChannelSource(spec.channel, say) if spec.channel else None,
            on_reload=tell_reload,
        )
        server.start()
    except TidegateError as error:
        _tell(pipe, type(error)(error.message, fix=error.fix))
        return
    settle()
    _tell(pipe, None)
    try:
        grace_s = float(pipe.recv())
    except EOFError:  # the parent is gone
        grace_s = spec.settings.orphan_grace_s
    finished = server.stop(grace_s)
    if server.computing or not finished:
        sys.stderr.flush()
        os._exit(1)


def settle() -> None:
    """Tell the garbage collector that what was loaded stays, so that it never looks through it again."""
    gc.collect()
    gc.freeze()


def _tell(pipe: Connection, what: object) -> None:
    try:
        pipe.send(what)
    except (BrokenPipeError, OSError):
        # The other side is gone; whoever waits for it learns that from its end.
        return
