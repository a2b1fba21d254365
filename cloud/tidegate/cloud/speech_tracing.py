"""OpenTelemetry spans of one speech call.

    speech                  rpc.method, tidegate.model, tidegate.version, ...; from the call's arrival to its end
    `-- segment             each; from its start to its answer, sent on when it ends, however long the call lasts
        |-- front_end       as `tidegate.cloud.speech_stages` has them: the stretches of the first windows,
        |-- queue           then decoding and search; sums of all windows are attributes of the segment
        |-- compute
        |-- decode
        `-- search

The parent is the caller's span, as for requests. Attributes hold counts and durations, never what was said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_observers import Ending
from tidegate.cloud.speech_segment import SAMPLE_BYTES, OpenSegment, SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.cloud.speech_stages import Stages

LONGEST_NAME = 128
"""Of names that a caller makes up."""


class TracedCall:
    """One call. A `CallObserver`."""

    def __init__(self, trace: Any, tracer: Any, span: Any, on_ended: Callable[[], None]) -> None:
        """Take over a span that has begun.

        Args:
            trace: the package `opentelemetry.trace`.
            tracer: makes the spans inside.
            span: of the call.
            on_ended: called when the call's span has ended.
        """
        self._trace = trace
        self._tracer = tracer
        self._span = span
        self._on_ended = on_ended
        self._inside = trace.set_span_in_context(span)
        self._rate_hz = 0
        self._segments = 0

    def accepted(self, settings: StreamSettings, served: ServedModel) -> None:
        """Say who will answer."""
        self._rate_hz = settings.sample_rate_hz
        self._span.set_attributes(
            {
                "tidegate.model": served.name,
                "tidegate.version": served.version,
                "tidegate.variant": served.model.variant_id,
                "tidegate.sample_rate_hz": settings.sample_rate_hz,
            }
        )
        if settings.version not in ("", served.version):
            self._span.set_attribute("tidegate.label", settings.version)
        if settings.device_bundle:
            self._span.set_attribute("tidegate.device_bundle", settings.device_bundle[:LONGEST_NAME])

    def interim_answered(self, answer: SegmentAnswer) -> None:
        """No span: what it cost is in the segment's sums."""

    def segment_answered(self, answer: SegmentAnswer) -> None:
        """Make the spans of a segment."""
        samples = answer.received_bytes // SAMPLE_BYTES
        self._segment(
            answer.segment_id, samples, answer.stages, words=len(answer.transcript.words), version=answer.served.version
        )

    def segment_left(self, segment: OpenSegment) -> None:
        """Make the spans of a segment that is not answered."""
        self._segment(segment.id, segment.samples, segment.stages, failed=True)

    def ended(self, ending: Ending) -> None:
        """End the call's span."""
        self._span.set_attributes({"tidegate.code": ending.code, "tidegate.segments": self._segments})
        if ending.error is not None:
            # As for requests: the kind of the error and not its message.
            status = self._trace.Status(self._trace.StatusCode.ERROR, type(ending.error).__name__)
            self._span.set_status(status)
        self._span.end()
        self._on_ended()

    def _segment(
        self, segment_id: int, samples: int, stages: Stages, *, failed: bool = False, **facts: int | str
    ) -> None:
        self._segments += 1
        if not self._span.is_recording():
            return
        # What was measured with the clock that never goes back, on the one that everybody reads.
        since_ns = time.time_ns() - time.monotonic_ns()
        end_ns = since_ns + (stages.answered_ns or time.monotonic_ns())
        span = self._tracer.start_span("segment", context=self._inside, start_time=since_ns + stages.began_ns)
        span.set_attributes({f"tidegate.{name}": value for name, value in facts.items()})
        span.set_attributes({f"tidegate.{stage}_ms": ns / 1e6 for stage, ns in stages.spent_ns.items()})
        span.set_attributes(
            {
                "tidegate.segment_id": segment_id,
                "tidegate.audio_s": samples / self._rate_hz if self._rate_hz else 0.0,
                "tidegate.windows": stages.windows,
            }
        )
        if failed:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, "not answered"))
        inside = self._trace.set_span_in_context(span)
        for stage, start_ns, stop_ns in stages.stretches:
            part = self._tracer.start_span(stage, context=inside, start_time=since_ns + start_ns)
            part.end(since_ns + stop_ns)
        span.end(end_ns)
