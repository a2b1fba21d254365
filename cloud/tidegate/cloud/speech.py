"""The servicer of tidegate.v1.Speech: messages to a session and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.cloud.core import Core
from tidegate.cloud.devices import Heard, Reception
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_session import SegmentAnswer, Session, StreamSettings
from tidegate.cloud.work import Token
from tidegate.errors import InputError
from tidegate.v1 import speech_pb2
from tidegate.wire.pairing import EXPECTS_HEADER, SignalPath
from tidegate.wire.services import ACCEPTED_HEADER

_FIX = "send messages as protos/tidegate/v1/speech.proto describes them"


class SpeechServicer:
    """Recognition streams; errors leave as tidegate.errors and end the stream."""

    def __init__(self, core: Core, reception: Reception, *, maximum_segment_s: float) -> None:
        self._core = core
        self._reception = reception
        self._maximum_segment_s = maximum_segment_s

    def streaming_recognize(
        self, requests: Iterator[speech_pb2.StreamingRecognizeRequest], context: Any
    ) -> Iterator[speech_pb2.StreamingRecognizeResponse]:
        """Serve one stream. A segment counts as work from its start until its answer is out, idle streams do not."""
        heard = self._reception.hear(context.invocation_metadata())
        session = Session(self._core.repository, maximum_segment_s=self._maximum_segment_s)
        open_work: list[Token] = []
        context.add_callback(lambda: _release_all(open_work))
        for request in requests:
            kind = _kind(request)
            if kind == "config":
                self._core.check_taking_work()
                served = session.configure(_settings(request.config, heard))
                context.send_initial_metadata([*_accepted(served), *self._reception.answer(heard)])
            elif kind == "audio":
                session.audio(request.audio.sample_offset, request.audio.content)
            elif kind == "start":
                open_work.append(self._core.work.begin())
                session.start(request.voice_activity.segment_id, request.voice_activity.sample_offset)
            else:
                with self._core.work.compute():
                    answer = session.end(request.voice_activity.segment_id, request.voice_activity.sample_offset)
                yield _response(answer)
                _release_all(open_work)
        with self._core.work.compute():
            last = session.finish()
        if last is not None:
            yield _response(last)


def _release_all(tokens: list[Token]) -> None:
    while tokens:
        tokens.pop().release()


def _kind(request: speech_pb2.StreamingRecognizeRequest) -> str:
    payload: str | None = request.WhichOneof("payload")
    if payload is None:
        raise InputError("the message has no payload; expected config, audio or voice_activity", fix=_FIX)
    if payload != "voice_activity":
        return payload
    event = request.voice_activity.event
    if event == speech_pb2.VoiceActivity.SEGMENT_START:
        return "start"
    if event == speech_pb2.VoiceActivity.SEGMENT_END:
        return "end"
    raise InputError(f"voice_activity has event {event}; expected SEGMENT_START or SEGMENT_END", fix=_FIX)


def _settings(config: speech_pb2.StreamingConfig, heard: Heard | None) -> StreamSettings:
    if config.encoding != speech_pb2.LINEAR16:
        raise InputError(f"encoding is {config.encoding}; expected LINEAR16 (1)", fix="send 16-bit PCM")
    return StreamSettings(
        sample_rate_hz=config.sample_rate_hz,
        model=config.model,
        version=config.model_version,
        maximum_search_results=config.maximum_search_results,
        device=heard.report.signal_path if heard else None,
        device_bundle=heard.report.bundle if heard else config.device_bundle,
    )


def _accepted(served: ServedModel) -> list[tuple[str, str]]:
    """Return the headers that accept a stream: who will answer, and what it expects in front of it."""
    return [
        (ACCEPTED_HEADER, f"{served.name} {served.version}"),
        (EXPECTS_HEADER, SignalPath.of(served.manifest).to_header()),
    ]


def _response(answer: SegmentAnswer) -> speech_pb2.StreamingRecognizeResponse:
    transcript = answer.transcript
    return speech_pb2.StreamingRecognizeResponse(
        segment_id=answer.segment_id,
        is_final=True,
        start_s=answer.start_s,
        end_s=answer.end_s,
        transcript=transcript.text,
        label=transcript.label,
        confidence=transcript.confidence,
        words=[
            speech_pb2.Word(text=word.text, start_s=word.start_s, end_s=word.end_s, confidence=word.confidence)
            for word in transcript.words
        ],
        search_results=[
            speech_pb2.SearchResult(id=found.id, title=found.title, snippet=found.snippet, score=found.score)
            for found in answer.search_results
        ],
        model=answer.served.name,
        model_version=answer.served.version,
        variant=answer.served.model.variant_id,
        received_bytes=answer.received_bytes,
        compute_ms=answer.compute_ms,
    )
