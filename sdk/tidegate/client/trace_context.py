"""The caller's trace in the headers of a call, as W3C Trace Context has it (`traceparent`, `tracestate`)."""

from __future__ import annotations

import sys

from tidegate.wire.report import Headers


def trace_headers() -> Headers:
    """Return the headers of the span that is current in this thread or task; none without one.

    Only a process that has imported opentelemetry can have a current span, so it is looked for among what is imported
    already: who traces nothing pays for one look into a dictionary.
    """
    # Another thread may be importing it right now: then the module is there, and the function is not.
    current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None or not current_span().get_span_context().is_valid:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
