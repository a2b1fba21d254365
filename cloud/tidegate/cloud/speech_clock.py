"""How long a speech stream may wait for its next message, and what it is told when that does not come."""

from __future__ import annotations

import math
import time

from tidegate.cloud.speech_session import Session, State
from tidegate.cloud.speech_settings import SpeechSettings
from tidegate.errors import DeadlineError, TidegateError, UnavailableError


class StreamClock:
    """How long a stream may wait for its next message."""

    def __init__(self, session: Session, limits: SpeechSettings) -> None:
        self._session = session
        self._limits = limits
        self._began_s = self._moved_s = time.monotonic()
        self._spoken = False

    def moved(self, kind: str) -> None:
        """Note that a message came."""
        self._moved_s = time.monotonic()
        self._spoken = self._spoken or kind == "start"

    def limit(self) -> tuple[float, TidegateError]:
        """Return the next deadline and what passing it means; see `speech_watch.Limit`."""
        limits, session = self._limits, self._session
        if session.state is State.SEGMENT:
            return _after(
                self._moved_s,
                limits.segment_pause_s,
                DeadlineError(
                    f"no message came for {limits.segment_pause_s:g} s inside a segment",
                    fix="send audio as it is spoken, and SEGMENT_END when it stops",
                ),
            )
        asked = session.settings
        idle_s = limits.idle_s if asked is None or not asked.idle_timeout_ms else asked.idle_timeout_ms / 1000
        start_s = 0.0 if asked is None or self._spoken else asked.speech_start_timeout_ms / 1000
        return min(
            _after(
                self._began_s,
                limits.maximum_stream_s,
                UnavailableError(
                    f"the stream is {limits.maximum_stream_s:g} s old, which is as old as one gets here",
                    fix="open another stream",
                ),
            ),
            _after(
                self._moved_s,
                idle_s,
                DeadlineError(f"no message came for {idle_s:g} s", fix="open another stream when somebody speaks"),
            ),
            # Until somebody speaks the only message was the config.
            _after(
                self._moved_s,
                start_s,
                DeadlineError(f"nobody spoke for {start_s:g} s", fix="open another stream when somebody speaks"),
            ),
            key=lambda limit: limit[0],
        )


def _after(since_s: float, wait_s: float, error: TidegateError) -> tuple[float, TidegateError]:
    return (since_s + wait_s if wait_s else math.inf), error
