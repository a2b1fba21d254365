"""The servicer of tidegate.v1.Speech: messages to a session and back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate.cloud.core import Caller, Core
from tidegate.cloud.devices import Reception
from tidegate.cloud.direct import ContextCaller
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_messages import FIX, failure, kind_of, recording_settings, response, settings_of
from tidegate.cloud.speech_model import Turns
from tidegate.cloud.speech_segment import SAMPLE_BYTES, SegmentAnswer
from tidegate.cloud.speech_session import Session, State
from tidegate.cloud.speech_settings import SpeechSettings, StreamSettings
from tidegate.cloud.speech_watch import Watchdog, wake_call
from tidegate.cloud.work import Token
from tidegate.errors import DeadlineError, InputError, StateError, TidegateError, UnavailableError
from tidegate.v1 import speech_pb2
from tidegate.wire.pairing import EXPECTS_HEADER, SignalPath
from tidegate.wire.services import ACCEPTED_HEADER


class SegmentObserver(Protocol):
    """Learns of every speech segment that was answered."""

    def segment_finished(self, caller: Caller, settings: StreamSettings, answer: SegmentAnswer) -> None:
        """Take note; must not raise and must not wait. `answer.audio` is what was received."""


@dataclass(frozen=True)
class SpeechLimits:
    """What bounds the speech service of one server."""

    maximum_segment_s: float
    settings: SpeechSettings


class SpeechServicer:
    """Recognition; errors leave as tidegate.errors and end the call."""

    def __init__(
        self,
        core: Core,
        reception: Reception,
        limits: SpeechLimits,
        observers: Sequence[SegmentObserver] = (),
    ) -> None:
        """Join the parts.

        Args:
            core: the models.
            reception: takes the reports of devices.
            limits: of this server.
            observers: told after every segment; with any, sessions keep the audio of the open segment.
        """
        self._core = core
        self._reception = reception
        self._limits = limits
        self._observers = tuple(observers)
        self._turns = Turns(limits.settings.turns)
        self._watchdog = Watchdog()

    def streaming_recognize(
        self, requests: Iterator[speech_pb2.StreamingRecognizeRequest], context: Any
    ) -> Iterator[speech_pb2.StreamingRecognizeResponse]:
        """Serve one stream. A segment counts as work from its start until its answer is out, idle streams do not."""
        caller = ContextCaller(context)
        heard = self._reception.hear(context.invocation_metadata())
        open_work: list[Token] = []
        context.add_callback(lambda: _release_all(open_work))
        with closing(self._session(caller)) as session:
            clock = _StreamClock(session, self._limits.settings)
            for request in self._watchdog.watched(requests, lambda: wake_call(context), clock.limit):
                kind = kind_of(request)
                if kind == "config":
                    self._core.check_taking_work()
                    served = self._configure(session, settings_of(request.config, heard), caller)
                    context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
                elif kind == "audio":
                    interim = session.audio(request.audio.sample_offset, request.audio.content)
                    if interim is not None:
                        yield response(interim)
                elif kind == "start":
                    open_work.append(self._core.work.begin())
                    session.start(request.voice_activity.segment_id, request.voice_activity.sample_offset)
                else:
                    answer = session.end(request.voice_activity.segment_id, request.voice_activity.sample_offset)
                    self._tell(caller, session, answer)
                    yield response(answer)
                    _release_all(open_work)
                clock.moved(kind)
            last = session.finish()
            if last is not None:
                self._tell(caller, session, last)
                yield response(last)

    def recognize(self, request: speech_pb2.RecognizeRequest, caller: ContextCaller) -> speech_pb2.RecognizeResponse:
        """Answer one recording."""
        caller.when_over(self._core.work.begin().release)
        heard = self._reception.hear(caller.context.invocation_metadata())
        settings = recording_settings(request.config, heard)
        with closing(self._session(caller)) as session:
            served = self._configure(session, settings, caller)
            caller.context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
            answers = self._recording(session, request.content, request.segments, caller)
            return speech_pb2.RecognizeResponse(results=[response(answer) for answer in answers])

    def batch_recognize(
        self, requests: Iterator[speech_pb2.BatchRecognizeRequest], context: Any
    ) -> Iterator[speech_pb2.BatchRecognizeResponse]:
        """Answer recordings one by one. What is wrong with one is said in its answer."""
        caller = ContextCaller(context)
        heard = self._reception.hear(context.invocation_metadata())
        settings: StreamSettings | None = None
        open_work: list[Token] = []
        context.add_callback(lambda: _release_all(open_work))
        for request in requests:
            kind: str | None = request.WhichOneof("payload")
            if kind == "config" and settings is None:
                self._core.check_taking_work()
                with closing(self._session(caller)) as probe:
                    settings = recording_settings(request.config, heard)
                    served = self._configure(probe, settings, caller)
                context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
            elif kind == "utterance" and settings is not None:
                open_work.append(self._core.work.begin())
                yield self._utterance(settings, request.utterance, caller)
                _release_all(open_work)
            else:
                expected = "config" if settings is None else "utterance"
                raise InputError(f"the message holds {kind or 'nothing'}; expected {expected}", fix=FIX)

    def _utterance(
        self, settings: StreamSettings, utterance: speech_pb2.Utterance, caller: Caller
    ) -> speech_pb2.BatchRecognizeResponse:
        try:
            with closing(self._session(caller)) as session:
                session.configure(settings)
                answers = self._recording(session, utterance.content, utterance.segments, caller)
        except (UnavailableError, StateError):
            # Not this utterance's fault: the caller is gone, or the server is about to be.
            raise
        except TidegateError as error:
            return speech_pb2.BatchRecognizeResponse(id=utterance.id, error=failure(error))
        return speech_pb2.BatchRecognizeResponse(id=utterance.id, results=[response(answer) for answer in answers])

    def _recording(
        self, session: Session, content: bytes, segments: Iterable[speech_pb2.Segment], caller: Caller
    ) -> list[SegmentAnswer]:
        """Recognise the segments of a recording: those that are given, or the whole of it as one."""
        samples = len(content) // SAMPLE_BYTES
        if len(content) % SAMPLE_BYTES or not samples:
            raise InputError(f"content has {len(content)} bytes; expected whole 16-bit samples", fix="send 16-bit PCM")
        answers = []
        for segment in tuple(segments) or (speech_pb2.Segment(start_sample=0, end_sample=samples),):
            if not 0 <= segment.start_sample < segment.end_sample <= samples:
                raise InputError(
                    f"segment {segment.segment_id} is samples {segment.start_sample} to {segment.end_sample} of a "
                    f"recording of {samples}",
                    fix="give stretches of the recording, each with a sample at least",
                )
            session.start(segment.segment_id, segment.start_sample)
            part = content[segment.start_sample * SAMPLE_BYTES : segment.end_sample * SAMPLE_BYTES]
            session.audio(segment.start_sample, part)
            answer = session.end(segment.segment_id, segment.end_sample)
            self._tell(caller, session, answer)
            answers.append(answer)
        return answers

    def _session(self, caller: Caller) -> Session:
        return Session(
            self._core.repository,
            maximum_segment_s=self._limits.maximum_segment_s,
            limits=self._limits.settings,
            turns=self._turns,
            computing=self._core.work.compute,
            caller=caller,
            keep_audio=bool(self._observers),
        )

    def _configure(self, session: Session, settings: StreamSettings, caller: Caller) -> ServedModel:
        """Choose the model and ask whether this caller may have it."""
        served = session.configure(settings)
        self._core.admit(caller, served.name)
        return served

    def _tell(self, caller: Caller, session: Session, answer: SegmentAnswer) -> None:
        for observer in self._observers:
            observer.segment_finished(caller, session.configured, answer)


class _StreamClock:
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


def _release_all(tokens: list[Token]) -> None:
    while tokens:
        tokens.pop().release()


def _accepted(served: ServedModel) -> list[tuple[str, str]]:
    """Return the headers that accept a stream: who will answer, and what it expects in front of it."""
    return [
        (ACCEPTED_HEADER, f"{served.name} {served.version}"),
        (EXPECTS_HEADER, SignalPath.of(served.manifest).to_header()),
    ]
