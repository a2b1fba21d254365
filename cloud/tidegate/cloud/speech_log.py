"""The line at the end of a speech call: who answered, how it ended, counts and durations. Never what was said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tidegate.cloud.core import Caller
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_observers import Ending
from tidegate.cloud.speech_segment import SAMPLE_BYTES, OpenSegment, SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.cloud.speech_stages import COMPUTE, QUEUE, Stages

LONGEST_NAME = 128
"""Of names that a caller makes up."""

Tell = Callable[[str, dict[str, Any], bool], None]
"""A sentence, the facts, and whether the server failed."""


class LoggedCall:
    """One call. A `CallObserver`."""

    def __init__(self, caller: Caller, method: str, request_id: str, tell: Tell) -> None:
        """Begin; `tell` is called once, at the end."""
        self._tell = tell
        self._began_ns = time.monotonic_ns()
        self._about: dict[str, Any] = {"request_id": request_id, "method": method}
        self._peer = caller.peer
        self._counts = {"segments": 0, "with_words": 0, "unanswered": 0, "interim": 0, "windows": 0}
        self._spent_ns = {QUEUE: 0, COMPUTE: 0}
        self._samples = self._longest_final_ns = 0
        self._rate_hz = 0

    def accepted(self, settings: StreamSettings, served: ServedModel) -> None:
        """Note who will answer."""
        self._rate_hz = settings.sample_rate_hz
        self._about |= {"model": served.name, "version": served.version, "variant": served.model.variant_id}
        if settings.version not in ("", served.version):
            self._about["label"] = settings.version
        if settings.device_bundle:
            self._about["device_bundle"] = settings.device_bundle[:LONGEST_NAME]

    def interim_answered(self, answer: SegmentAnswer) -> None:
        """Count it."""
        self._counts["interim"] += 1

    def segment_answered(self, answer: SegmentAnswer) -> None:
        """Count it."""
        self._counts["with_words"] += bool(answer.transcript.text)
        self._longest_final_ns = max(self._longest_final_ns, answer.stages.answered_ns - answer.stages.ended_ns)
        self._add(answer.received_bytes // SAMPLE_BYTES, answer.stages)

    def segment_left(self, segment: OpenSegment) -> None:
        """Count it."""
        self._counts["unanswered"] += 1
        self._add(segment.samples, segment.stages)

    def ended(self, ending: Ending) -> None:
        """Tell of the call."""
        about, counts = self._about, self._counts
        facts = about | {"code": ending.code}
        if ending.error is not None:
            facts["error"] = type(ending.error).__name__
        audio_s = round(self._samples / self._rate_hz, 3) if self._rate_hz else 0.0
        took_ms = round((time.monotonic_ns() - self._began_ns) / 1e6, 3)
        facts |= counts | {
            "audio_s": audio_s,
            "took_ms": took_ms,
            "queue_ms": round(self._spent_ns[QUEUE] / 1e6, 3),
            "compute_ms": round(self._spent_ns[COMPUTE] / 1e6, 3),
            "longest_final_ms": round(self._longest_final_ns / 1e6, 3),
            "peer": self._peer,
        }
        by = f"{about['model']} {about['version']}" if "model" in about else "nobody"
        text = (
            f"speech {about['method']} {about['request_id']} by {by}: {ending.code}, {counts['segments']} segments, "
            f"{audio_s:g} s of audio, {took_ms} ms"
        )
        self._tell(text, facts, ending.server_failed)

    def _add(self, samples: int, stages: Stages) -> None:
        self._counts["segments"] += 1
        self._counts["windows"] += stages.windows
        self._samples += samples
        for stage in self._spent_ns:
            self._spent_ns[stage] += stages.spent_ns[stage]
