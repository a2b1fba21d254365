"""Health by grpc's protocol (https://github.com/grpc/grpc/blob/master/doc/health-checking.md): asked for, or watched.

Of grpcio-health-checking only the messages are used. Its servicer sends to those who watch while it holds a lock, and
waits for grpc's one reading thread to say that the message is out; that thread takes the same lock whenever a watcher
leaves. So a watcher who left at the wrong moment stopped the whole server. Here a change is put into a queue, and a
thread that holds no lock sends it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tidegate.cloud.core import Core
from tidegate.cloud.direct import Awaiting
from tidegate.cloud.repository import served_names
from tidegate.errors import NotFoundError
from tidegate.wire.services import OPEN_INFERENCE, SPEECH


class Watcher:
    """One caller who is told of changes. Awaited like any other: who takes nothing is cut off."""

    def __init__(self, service: str, send: Callable[[Any], None], cancel: Callable[[], object]) -> None:
        self.service = service
        self.send = send
        self.cancel = cancel
        self.since_s = 0.0
        self.answered = True
        self.gone = False


class Health:
    """Health of the whole, each service, each model (`NAME`) and each version (`NAME/VERSION`)."""

    def __init__(self, core: Core, awaiting: Awaiting) -> None:
        """Begin with what the core serves.

        Args:
            core: whose models are followed.
            awaiting: cuts off who watches and does not read.
        """
        from grpc_health.v1 import health_pb2

        self._response = health_pb2.HealthCheckResponse
        self._core = core
        self._awaiting = awaiting
        self._lock = threading.Lock()
        """never held while anything is sent"""
        self._draining = False
        self._statuses: dict[str, int] = {}
        self._watchers: dict[str, set[Watcher]] = {}
        self._models: set[str] = set()
        self._changes: queue.SimpleQueue[tuple[Watcher, int] | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send, name="tidegate-health", daemon=True)
        self._set(("", OPEN_INFERENCE.name, SPEECH.name), serving=True)
        self.follow()
        self._sender.start()

    def follow(self) -> None:
        """State which models can be called now; called after every change of the repository."""
        with self._lock:
            models = set(served_names(self._core.repository.all()))
            gone, new, self._models = self._models - models, models - self._models, models
            self._set(new, serving=True)
            self._set(gone, serving=False)

    def drain(self) -> None:
        """Say NOT_SERVING for everything from now on."""
        with self._lock:
            self._set(tuple(self._statuses), serving=False)
            self._draining = True

    def close(self) -> None:
        """Send nothing more."""
        self._changes.put(None)
        self._sender.join()

    def check(self, request: Any) -> Any:
        """Answer one question.

        Raises:
            NotFoundError: nothing of that name is known.
        """
        status = self._statuses.get(request.service)
        if status is None:
            raise NotFoundError(f"no service or model {request.service!r}", fix="ask for one that is served")
        return self._response(status=status)

    def watch(self, request: Any, context: Any, send: Callable[[Any], None]) -> None:
        """Tell the status of a name at once, known or not, and each change of it until the caller leaves.

        Args:
            request: HealthCheckRequest.
            context: grpc's.
            send: sends one answer; it may wait for the caller.
        """
        watcher = Watcher(request.service, send, context.cancel)
        with self._lock:
            self._watchers.setdefault(watcher.service, set()).add(watcher)
            status = self._statuses.get(watcher.service, self._response.SERVICE_UNKNOWN)
            self._changes.put((watcher, status))
        if not context.add_callback(lambda: self._forget(watcher)):
            self._forget(watcher)

    def _forget(self, watcher: Watcher) -> None:
        """Let a watcher go, on the thread that reads the network."""
        watcher.gone = True
        with self._lock:
            others = self._watchers[watcher.service]
            others.discard(watcher)
            if not others:
                del self._watchers[watcher.service]

    def _set(self, names: Iterable[str], *, serving: bool) -> None:
        """Note what is told to those who watch. The lock is held, or nobody is there yet."""
        if self._draining:
            return
        status = self._response.SERVING if serving else self._response.NOT_SERVING
        for name in names:
            self._statuses[name] = status
            for watcher in self._watchers.get(name, ()):
                self._changes.put((watcher, status))

    def _send(self) -> None:
        while (change := self._changes.get()) is not None:
            watcher, status = change
            if watcher.gone:
                continue
            self._awaiting.answer_leaves(watcher, 0)
            watcher.send(self._response(status=status))
            self._awaiting.over(watcher)
