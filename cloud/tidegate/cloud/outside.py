"""What a server shows beside gRPC: the HTTP ports, metrics, the request log, traces. All of it off by default."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate.cloud.core import Core, Observer
from tidegate.cloud.http.settings import HttpSettings, Siblings
from tidegate.cloud.in_flight import BytesInFlight
from tidegate.cloud.limits import Safety, check_encrypted, is_public
from tidegate.cloud.logs import LogFormat, RequestLog
from tidegate.cloud.repository_control import RepositoryControl

if TYPE_CHECKING:
    from tidegate.cloud.http.app import Door
    from tidegate.cloud.http.front import HttpFront
    from tidegate.cloud.metrics import RequestCounts, ValueCounts
    from tidegate.cloud.span_export import SpanExport
    from tidegate.cloud.tracing import Tracing

ENDING_S = 2.0
"""For the threads of calls that are over to tell of them; they need milliseconds unless they are inside a model."""

PAUSE_S = 0.005


@dataclass(frozen=True)
class OutsideSettings:
    """What is shown; picklable, for workers."""

    http: HttpSettings = field(default_factory=HttpSettings)
    """ports of HTTP"""
    siblings: Siblings = field(default_factory=Siblings)
    """the workers that share the ports"""
    log_format: LogFormat = "text"
    """of what a process says on standard error; set up by the command, not by a `Server`"""
    log_failures: bool = False
    """whether requests that failed through no fault of their caller are logged"""
    log_requests: bool = False
    """whether every request is logged"""
    traces: str = ""
    """OTLP collector, such as http://127.0.0.1:4318 or grpc://127.0.0.1:4317; empty: no traces"""

    @property
    def serves_http(self) -> bool:
        """Whether there is any HTTP port."""
        return bool(self.http.listen or self.http.metrics_listen)

    @property
    def is_public(self) -> bool:
        """Whether other machines reach the HTTP port on which models are controlled."""
        return bool(self.http.listen) and is_public(self.http.listen)

    def check(self, safety: Safety) -> None:
        """Refuse a public HTTP port in plaintext that was not asked for; raises ConfigError."""
        for listen in (self.http.listen, self.http.metrics_listen):
            if listen:
                check_encrypted(listen, safety)


class Outside:
    """The parts that run, and the observers that feed them."""

    def __init__(self, settings: OutsideSettings) -> None:
        """Make the observers; `join` makes the rest.

        Raises:
            DependencyError: opentelemetry is not installed.
            ConfigError: the collector's address is none.
        """
        self._settings = settings
        self._requests: RequestCounts | None = None
        self._values: ValueCounts | None = None
        self._spans: SpanExport | None = None
        self._tracing: Tracing | None = None
        self._core: Core | None = None
        self._front: HttpFront | None = None
        self.observers: tuple[Observer, ...] = tuple(self._new_observers())

    @property
    def http_address(self) -> str:
        """HOST:PORT of the HTTP API; empty when there is none."""
        return self._front.address if self._front is not None else ""

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of the port for metrics alone; empty when there is none."""
        return self._front.metrics_address if self._front is not None else ""

    def join(
        self,
        core: Core,
        *,
        control: RepositoryControl,
        door: Door,
        open_streams: Callable[[], int],
        safety: Safety,
        unread: BytesInFlight,
        share_port: bool,
    ) -> None:
        """Join what HTTP serves; nothing is opened yet. Arguments as of `HttpFront`."""
        self._core = core
        if not self._settings.serves_http:
            return
        from tidegate.cloud.http.front import HttpFront
        from tidegate.cloud.metrics import Metrics, RequestCounts

        requests = self._requests or RequestCounts()
        requests.repository = core.repository
        self._front = HttpFront(
            core,
            self._settings.http,
            Metrics(core, requests, self._values, open_streams),
            control=control,
            siblings=self._settings.siblings,
            share_port=share_port,
            door=door,
            tls=safety.tls,
            handshake_timeout_s=safety.handshake_timeout_s,
            unread=unread,
        )

    def open(self) -> None:
        """Take the ports; raises as `HttpFront.open`."""
        if self._front is not None:
            self._front.open()

    def start(self) -> None:
        """Answer from now on."""
        if self._front is not None:
            self._front.start()

    def stop(self, grace_s: float) -> None:
        """Close the ports, end threads, send the last spans. Stopping again does nothing."""
        if self._front is not None:
            self._front.stop(grace_s)
        if self._values is not None:
            self._values.close()
        if self._spans is not None:
            self._wait_until_told(time.monotonic() + ENDING_S)
            self._spans.close()
            self._spans = None

    def _wait_until_told(self, deadline_s: float) -> None:
        """Wait until the observers know of every request that is answered, and of every speech call that is over.

        An answer may be out before its observers are told; the version is in use until they are.
        """
        if self._tracing is not None:
            self._tracing.wait_until_ended(deadline_s - time.monotonic())
        pause = threading.Event()
        while self._core is not None and time.monotonic() < deadline_s:
            if all(served.usage.users <= 0 for served in self._core.repository.all()):
                return
            pause.wait(PAUSE_S)

    def _new_observers(self) -> list[Observer]:
        settings, observers = self._settings, list[Observer]()
        if settings.http.has_metrics:
            from tidegate.cloud.metrics import RequestCounts, ValueCounts

            self._values = ValueCounts(settings.http.values_per_s) if settings.http.values_per_s else None
            self._requests = RequestCounts(self._values)
            observers.append(self._requests)
        if settings.log_requests or settings.log_failures:
            observers.append(RequestLog(every_request=settings.log_requests))
        if settings.traces:
            from tidegate.cloud.span_export import SpanExport
            from tidegate.cloud.tracing import Tracing

            self._spans = SpanExport(settings.traces)
            self._tracing = Tracing(self._spans.provider)
            observers.append(self._tracing)
        return observers
