"""Sends spans to an OpenTelemetry collector in batches, from a thread of its own, and knows how many did not arrive.

A collector may be gone when the server ends. The exporters of OpenTelemetry then repeat for seconds; here they get
`FLUSH_S`, and what is not sent by then is lost and said to be.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from tidegate.cloud.logs import event
from tidegate.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORT_TIMEOUT_S = 3.0
"""For sending one batch, with retries; OTEL_EXPORTER_OTLP_TIMEOUT goes first."""

FLUSH_S = 1.0
"""What a server that ends waits for its last spans to be taken."""

ABORT_S = 0.25
"""And then for the exporter to give up."""

PLAIN, ENCRYPTED = "grpc", "grpcs"
"""Schemes of OTLP over gRPC; http and https are OTLP over HTTP."""

log = logging.getLogger(__name__)


class SpanExport:
    """A provider of tracers whose spans go to a collector."""

    def __init__(self, endpoint: str, *, service_name: str = "tidegate") -> None:
        """Begin to send; `close` ends it.

        Args:
            endpoint: `http://127.0.0.1:4318`, where the path of the protocol is added when there is none, or
                `grpc://127.0.0.1:4317`; https and grpcs are encrypted.
            service_name: how traces call this server; the environment's OTEL_SERVICE_NAME goes first.

        Raises:
            ConfigError: no such address.
            DependencyError: opentelemetry is not installed.
        """
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https", PLAIN, ENCRYPTED) or not parts.netloc:
            raise ConfigError(
                f"trace endpoint {endpoint!r}; expected http(s):// or grpc(s)://HOST:PORT",
                fix="such as http://host:4318 or grpc://host:4317",
            )
        try:
            from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            inner = _exporter(parts, endpoint)
        except ImportError as error:
            raise missing(error) from error
        self._endpoint = endpoint
        self._exporter = _Counting(inner)
        self._ended = _Ended()
        name = os.environ.get(OTEL_SERVICE_NAME, service_name)
        # Ended by `close`; at the interpreter's exit nobody would wait with a limit.
        self.provider: TracerProvider = TracerProvider(
            resource=Resource.create({"service.name": name, "service.version": version("tidegate")}),
            shutdown_on_exit=False,
        )
        # The first to be told, so that no span is sent before it is counted.
        self.provider.add_span_processor(self._ended)  # type: ignore[arg-type]
        self.provider.add_span_processor(BatchSpanProcessor(self._exporter))  # type: ignore[arg-type]
        self._closed = False

    def close(self) -> int:
        """Send what is left, and return how many spans were lost since the start. Closing again does nothing."""
        if self._closed:
            return 0
        self._closed = True
        closing = threading.Thread(target=self.provider.shutdown, name="tidegate-spans", daemon=True)
        closing.start()
        closing.join(FLUSH_S)
        if closing.is_alive():
            # Ends the pause before a further attempt; an attempt that hangs is left to itself.
            self._exporter.shutdown()
            closing.join(ABORT_S)
        lost = self._ended.count - self._exporter.sent
        if lost:
            text = f"{lost} spans were not taken by {self._endpoint}"
            fix = "look whether the collector runs, and at the lines about it above"
            log.warning(text, extra=event("spans_lost", spans=lost, collector=self._endpoint, fix=fix))
        return lost


class _Ended:
    """A span processor that counts the spans to be sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        return

    def _on_ending(self, span: Any) -> None:
        return

    def on_end(self, span: Any) -> None:
        if span.context.trace_flags.sampled:
            with self._lock:
                self.count += 1

    def shutdown(self) -> None:
        return

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class _Counting:
    """A span exporter that counts what another one has sent; ends that one once, from any thread."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._shut = False
        self.sent = 0

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        if self._shut:
            return SpanExportResult.FAILURE
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        return result

    def shutdown(self) -> None:
        if not self._shut:
            self._shut = True
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def _exporter(parts: SplitResult, endpoint: str) -> Any:
    from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_TIMEOUT

    timeout_s = None if OTEL_EXPORTER_OTLP_TIMEOUT in os.environ else EXPORT_TIMEOUT_S
    if parts.scheme in (PLAIN, ENCRYPTED):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint=parts.netloc, insecure=parts.scheme == PLAIN, timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    whole = endpoint if parts.path not in ("", "/") else f"{endpoint.rstrip('/')}/v1/traces"
    return OverHttp(endpoint=whole, timeout=timeout_s)


def missing(error: ImportError) -> DependencyError:
    """Return the error for a package of opentelemetry that is not installed."""
    return DependencyError(f"traces need opentelemetry: {error}", fix="pip install 'tidegate[otel]'")
