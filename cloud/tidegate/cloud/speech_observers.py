"""Who learns of speech calls: spans, metrics and the log, each with an object of its own for every call.

An observer of the core that has `speech_opened` is asked by the speech service as well. A call is one of
StreamingRecognize, Recognize and BatchRecognize; what was refused before it was accepted is one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

from tidegate.cloud.core import Caller
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_segment import OpenSegment, SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.errors import TidegateError
from tidegate.wire.status import code_of

OK = "OK"
CANCELLED = "CANCELLED"
UNKNOWN = "UNKNOWN"


class SegmentObserver(Protocol):
    """Learns of every speech segment that was answered, with its audio."""

    def segment_finished(self, caller: Caller, settings: StreamSettings, answer: SegmentAnswer) -> None:
        """Take note; must not raise and must not wait. `answer.audio` is what was received."""


@dataclass(frozen=True)
class Ending:
    """How a call ended."""

    code: str
    """gRPC's name of the status; CANCELLED when the caller is gone or was cut off"""
    error: TidegateError | None = None
    server_failed: bool = False
    """whether it was through no fault of the caller"""


class CallObserver(Protocol):
    """Learns of one call, from its thread. Nothing here may raise or wait."""

    def accepted(self, settings: StreamSettings, served: ServedModel) -> None:
        """The call's config was accepted; a call that ends without it was refused."""

    def interim_answered(self, answer: SegmentAnswer) -> None:
        """An interim result goes out."""

    def segment_answered(self, answer: SegmentAnswer) -> None:
        """A final result goes out."""

    def segment_left(self, segment: OpenSegment) -> None:
        """A segment was begun and is not answered."""

    def ended(self, ending: Ending) -> None:
        """The call is over; nothing follows."""


@runtime_checkable
class SpeechObserver(Protocol):
    """Learns of every speech call."""

    def speech_opened(self, caller: Caller, method: str) -> CallObserver:
        """Return what is told of this call, whose method is one of `tidegate.v1.Speech`."""


class SpeechCall:
    """One call, for all observers: a context that tells them how it ended."""

    def __init__(self, observers: Sequence[SpeechObserver], caller: Caller, method: str) -> None:
        """Tell the observers that a call has come."""
        self._caller = caller
        self._told = [observer.speech_opened(caller, method) for observer in observers]

    def accepted(self, settings: StreamSettings, served: ServedModel) -> None:
        """Pass it on."""
        for one in self._told:
            one.accepted(settings, served)

    def answered(self, answer: SegmentAnswer) -> None:
        """Pass a final or interim answer on."""
        for one in self._told:
            (one.segment_answered if answer.is_final else one.interim_answered)(answer)

    def left(self, segment: OpenSegment) -> None:
        """Pass it on."""
        for one in self._told:
            one.segment_left(segment)

    def __enter__(self) -> SpeechCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._told:
            return
        ending = self._ending(error)
        for one in self._told:
            one.ended(ending)

    def _ending(self, error: BaseException | None) -> Ending:
        if isinstance(error, TidegateError):
            if self._caller.gone():
                return Ending(CANCELLED, error)
            failed = error.fault not in ("caller", "peer") and not error.retry
            return Ending(code_of(error), error, server_failed=failed)
        # grpc ends the generator of a call that was cancelled, or raises its own error inside it.
        if self._caller.gone() or isinstance(error, GeneratorExit):
            return Ending(CANCELLED)
        return Ending(OK) if error is None else Ending(UNKNOWN, server_failed=True)
