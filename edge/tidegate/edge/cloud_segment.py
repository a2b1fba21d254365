"""One segment on its way through the server, and the result that an answer makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate.edge.device import DeviceModel, Utterance, latency_ms
from tidegate.edge.results import SegmentResult

if TYPE_CHECKING:
    from tidegate.client import RecognizedSegment


@dataclass
class CloudSegment:
    """A segment that has not been given back yet."""

    utterance: Utterance
    at_server: bool
    device: DeviceModel | None
    """that was active when it started; decides if the server does not"""
    result: SegmentResult | None = None


def from_server(utterance: Utterance, answer: RecognizedSegment, *, sample_rate_hz: int, now_s: float) -> SegmentResult:
    """Return what the server decided, at the times that the device knows; `now_s` is on the pipeline's clock."""
    return SegmentResult(
        segment_id=utterance.segment_id,
        start_s=utterance.start_sample / sample_rate_hz,
        end_s=utterance.end_sample / sample_rate_hz,
        text=answer.transcript.text,
        label=answer.transcript.label,
        confidence=answer.transcript.confidence,
        decided_by="cloud",
        latency_ms=latency_ms(utterance, now_s),
        bundle=answer.model,
        version=answer.version,
        variant=answer.variant,
        words=answer.transcript.words,
        search_results=answer.search_results,
    )
