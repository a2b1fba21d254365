"""The servicer of tidegate.v1.Speech: messages to a session and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tidegate.cloud.access import Action
from tidegate.cloud.core import Caller, Core
from tidegate.cloud.devices import Reception
from tidegate.cloud.grpc_caller import ContextCaller
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_clock import StreamClock
from tidegate.cloud.speech_messages import FIX, failure, kind_of, recording_settings, response, settings_of
from tidegate.cloud.speech_model import Turns
from tidegate.cloud.speech_observers import SegmentObserver, SpeechCall, SpeechObserver
from tidegate.cloud.speech_segment import SAMPLE_BYTES, SegmentAnswer
from tidegate.cloud.speech_session import Session
from tidegate.cloud.speech_settings import SpeechSettings, StreamSettings
from tidegate.cloud.speech_watch import Watchdog, wake_call
from tidegate.cloud.stalled import StreamCaller, Streams, WatchedStream
from tidegate.cloud.work import Token
from tidegate.errors import InputError, StateError, TidegateError, UnavailableError
from tidegate.v1 import speech_pb2
from tidegate.wire.pairing import EXPECTS_HEADER, SignalPath
from tidegate.wire.services import ACCEPTED_HEADER


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
            observers: told after every segment; with any, sessions keep the audio of the open segment. Observers of
                the core are told of calls where they are SpeechObservers.
        """
        self._core = core
        self._reception = reception
        self._limits = limits
        self._observers = tuple(observers)
        self._call_observers = tuple(one for one in core.observers if isinstance(one, SpeechObserver))
        self._turns = Turns(limits.settings.turns)
        self._watchdog = Watchdog()

    def streaming_recognize(
        self, requests: Iterator[speech_pb2.StreamingRecognizeRequest], context: Any
    ) -> Iterator[speech_pb2.StreamingRecognizeResponse]:
        """Serve one stream. A segment counts as work from its start until its answer is out, idle streams do not."""
        caller = ContextCaller(context)
        open_work: list[Token] = []
        context.add_callback(lambda: _release_all(open_work))
        with self._call(caller, "StreamingRecognize") as call, closing(self._session(caller, call)) as session:
            heard = self._reception.hear(context.invocation_metadata())
            clock = StreamClock(session, self._limits.settings)
            for request in self._watchdog.watched(requests, lambda: wake_call(context), clock.limit):
                kind = kind_of(request)
                if kind == "config":
                    self._core.check_taking_work()
                    served = self._configure(session, settings_of(request.config, heard), caller, call)
                    context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
                elif kind == "audio":
                    interim = session.audio(request.audio.sample_offset, request.audio.content)
                    if interim is not None:
                        call.answered(interim)
                        yield response(interim)
                elif kind == "start":
                    open_work.append(self._core.work.begin())
                    session.start(request.voice_activity.segment_id, request.voice_activity.sample_offset)
                else:
                    answer = session.end(request.voice_activity.segment_id, request.voice_activity.sample_offset)
                    self._tell(caller, session, answer, call)
                    yield response(answer)
                    _release_all(open_work)
                clock.moved(kind)
            last = session.finish()
            if last is not None:
                self._tell(caller, session, last, call)
                yield response(last)

    def recognize(
        self, read: Callable[[], speech_pb2.RecognizeRequest], caller: ContextCaller
    ) -> speech_pb2.RecognizeResponse:
        """Answer one recording, which `read` waits for."""
        with self._call(caller, "Recognize") as call, closing(self._session(caller, call)) as session:
            request = read()
            caller.when_over(self._core.work.begin().release)
            heard = self._reception.hear(caller.context.invocation_metadata())
            served = self._configure(session, recording_settings(request.config, heard), caller, call)
            caller.context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
            answers = self._recording(session, request.content, request.segments, caller, call)
            return speech_pb2.RecognizeResponse(results=[response(answer) for answer in answers])

    def batch_recognize(
        self, requests: Iterator[speech_pb2.BatchRecognizeRequest], context: Any
    ) -> Iterator[speech_pb2.BatchRecognizeResponse]:
        """Answer recordings one by one. What is wrong with one is said in its answer."""
        caller = ContextCaller(context)
        with self._call(caller, "BatchRecognize") as call:
            yield from self._batch(requests, context, caller, call)

    def _batch(
        self,
        requests: Iterator[speech_pb2.BatchRecognizeRequest],
        context: Any,
        caller: ContextCaller,
        call: SpeechCall,
    ) -> Iterator[speech_pb2.BatchRecognizeResponse]:
        heard = self._reception.hear(context.invocation_metadata())
        settings: StreamSettings | None = None
        open_work: list[Token] = []
        context.add_callback(lambda: _release_all(open_work))
        for request in requests:
            kind: str | None = request.WhichOneof("payload")
            if kind == "config" and settings is None:
                self._core.check_taking_work()
                with closing(self._session(caller, call)) as probe:
                    settings = recording_settings(request.config, heard)
                    served = self._configure(probe, settings, caller, call)
                context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
            elif kind == "utterance" and settings is not None:
                open_work.append(self._core.work.begin())
                yield self._utterance(settings, request.utterance, caller, call)
                _release_all(open_work)
            else:
                expected = "config" if settings is None else "utterance"
                raise InputError(f"the message holds {kind or 'nothing'}; expected {expected}", fix=FIX)

    def _utterance(
        self, settings: StreamSettings, utterance: speech_pb2.Utterance, caller: Caller, call: SpeechCall
    ) -> speech_pb2.BatchRecognizeResponse:
        try:
            with closing(self._session(caller, call)) as session:
                session.configure(settings)
                answers = self._recording(session, utterance.content, utterance.segments, caller, call)
        except (UnavailableError, StateError):
            # Not this utterance's fault: the caller is gone, or the server is about to be.
            raise
        except TidegateError as error:
            return speech_pb2.BatchRecognizeResponse(id=utterance.id, error=failure(error))
        return speech_pb2.BatchRecognizeResponse(id=utterance.id, results=[response(answer) for answer in answers])

    def _recording(
        self,
        session: Session,
        content: bytes,
        segments: Iterable[speech_pb2.Segment],
        caller: Caller,
        call: SpeechCall,
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
            self._tell(caller, session, answer, call)
            answers.append(answer)
        return answers

    def telling(self, streams: Streams, method: str) -> TellingStreams:
        """Return what opens the streams of a method and tells the observers of those it refuses."""
        return TellingStreams(streams, lambda caller: self._call(caller, method))

    def _call(self, caller: Caller, method: str) -> SpeechCall:
        return SpeechCall(self._call_observers, caller, method)

    def _session(self, caller: Caller, call: SpeechCall) -> Session:
        return Session(
            self._core.repository,
            maximum_segment_s=self._limits.maximum_segment_s,
            limits=self._limits.settings,
            turns=self._turns,
            computing=self._core.work.compute,
            caller=caller,
            keep_audio=bool(self._observers),
            on_left=call.left,
        )

    def _configure(self, session: Session, settings: StreamSettings, caller: Caller, call: SpeechCall) -> ServedModel:
        """Choose the model and ask whether this caller may have it."""
        served = session.configure(settings)
        self._core.admit(caller, served.name)
        call.accepted(settings, served)
        return served

    def _tell(self, caller: Caller, session: Session, answer: SegmentAnswer, call: SpeechCall) -> None:
        call.answered(answer)
        for observer in self._observers:
            observer.segment_finished(caller, session.configured, answer)


class TellingStreams:
    """Opens streams as `Streams` does; a call that is refused there is a call that was opened and ended."""

    def __init__(self, streams: Streams, call: Callable[[Caller], SpeechCall]) -> None:
        self._streams = streams
        self._call = call

    def open(self, caller: StreamCaller, action: Action) -> WatchedStream:
        """Open one; raises as `Streams.open`."""
        try:
            return self._streams.open(caller, action)
        except TidegateError:
            with self._call(caller):
                raise


def _release_all(tokens: list[Token]) -> None:
    while tokens:
        tokens.pop().release()


def _accepted(served: ServedModel) -> list[tuple[str, str]]:
    """Return the headers that accept a stream: who will answer, and what it expects in front of it."""
    return [
        (ACCEPTED_HEADER, f"{served.name} {served.version}"),
        (EXPECTS_HEADER, SignalPath.of(served.manifest).to_header()),
    ]
