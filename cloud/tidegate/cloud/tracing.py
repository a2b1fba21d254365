"""OpenTelemetry spans of requests: an `Observer`, so that a server without it pays nothing.

The spans of a request are made when it is over, from the times that the core took: `request` from its arrival until its
answer was handed to the transport; inside it `queue`, `compute`, `reply`. The parent is the caller's, by the header
`traceparent` of W3C Trace Context, which gRPC carries as metadata. The caller's decision to sample or not is kept.

    request                 rpc.system, rpc.method, tidegate.model, tidegate.version, ...
    |-- queue               arrival -> start of the run
    |-- compute             the run, with joining and splitting of a batch
    `-- reply               writing the answer
"""

from __future__ import annotations

import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tidegate.cloud.core import Caller, Inference, Request
from tidegate.cloud.span_export import missing
from tidegate.cloud.speech_tracing import TracedCall
from tidegate.errors import TidegateError
from tidegate.wire.status import code_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SCOPE = "tidegate.cloud"


class Tracing:
    """Makes spans."""

    def __init__(self, provider: TracerProvider) -> None:
        """Make spans with `provider`; whoever made it shuts it down.

        Raises:
            DependencyError: opentelemetry is not installed.
        """
        trace, propagator = _api()
        self._trace = trace
        self._propagator = propagator()
        self._tracer = provider.get_tracer(SCOPE, version("tidegate"))
        self._changed = threading.Condition()
        self._open = 0

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """Make the spans of one request."""
        end_ns = time.time_ns()
        began_ns = end_ns - took_ns
        span = self._tracer.start_span(
            "request",
            context=self._propagator.extract(caller.metadata),
            kind=self._trace.SpanKind.SERVER,
            start_time=began_ns,
        )
        if span.is_recording():
            span.set_attributes(_attributes(caller, request, answer, error))
            if error is not None:
                # The message may quote values of the request; the kind of error does not.
                span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, type(error).__name__))
            if answer is not None:
                self._add_parts(span, answer, began_ns, end_ns)
        span.end(end_ns)

    def turned_away(self, caller: Caller, transport: str, error: TidegateError) -> None:
        """Make a span without length, so that the caller's trace shows where his request ended."""
        moment_ns = time.time_ns()
        span = self._tracer.start_span(
            "request",
            context=self._propagator.extract(caller.metadata),
            kind=self._trace.SpanKind.SERVER,
            start_time=moment_ns,
            attributes={
                "rpc.system": transport,
                "network.peer.address": caller.peer,
                "tidegate.code": code_of(error),
            },
        )
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, type(error).__name__))
        span.end(moment_ns)

    def speech_opened(self, caller: Caller, method: str) -> TracedCall:
        """Begin the span of one speech call."""
        span = self._tracer.start_span(
            "speech",
            context=self._propagator.extract(caller.metadata),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": "tidegate.v1.Speech",
                "rpc.method": method,
                "network.peer.address": caller.peer,
            },
        )
        self._count(1)
        return TracedCall(self._trace, self._tracer, span, lambda: self._count(-1))

    def wait_until_ended(self, timeout_s: float) -> bool:
        """Wait until the spans of all speech calls have ended; return whether they have.

        A call that the server cuts off is over for grpc a moment before its thread knows.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout_s)

    def _count(self, change: int) -> None:
        with self._changed:
            self._open += change
            self._changed.notify_all()

    def _add_parts(self, span: Any, answer: Inference, began_ns: int, end_ns: int) -> None:
        inside = self._trace.set_span_in_context(span)
        started_ns = began_ns + answer.queue_ns
        ran_ns = started_ns + answer.compute_ns
        for name, start_ns, stop_ns in (
            ("queue", began_ns, started_ns),
            ("compute", started_ns, ran_ns),
            ("reply", ran_ns, end_ns),
        ):
            self._tracer.start_span(name, context=inside, start_time=start_ns).end(max(start_ns, stop_ns))


def _attributes(
    caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None
) -> dict[str, str | int]:
    """Return facts about a request, none of its values. `rpc.*` are OpenTelemetry's names."""
    attributes: dict[str, str | int] = {
        "rpc.system": "http" if "host" in caller.metadata else "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "network.peer.address": caller.peer,
        "tidegate.model": request.model,
        "tidegate.version": answer.served.version if answer is not None else request.version,
        "tidegate.code": "OK" if error is None else code_of(error),
    }
    if answer is not None:
        attributes["tidegate.variant"] = answer.served.model.variant_id
        if request.version not in ("", answer.served.version):
            attributes["tidegate.label"] = request.version
    if request.id:
        attributes["tidegate.request_id"] = request.id[:128]
    return attributes


def _api() -> tuple[Any, Any]:
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError as error:
        raise missing(error) from error
    return trace, TraceContextTextMapPropagator
