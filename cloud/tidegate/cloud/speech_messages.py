"""Messages of tidegate.v1.Speech to what a session takes, and answers to messages."""

from __future__ import annotations

from tidegate.cloud.devices import Heard
from tidegate.cloud.speech_segment import SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.errors import InputError, TidegateError
from tidegate.v1 import speech_pb2
from tidegate.wire.status import code_of, text_of

FIX = "send messages as protos/tidegate/v1/speech.proto describes them"


def kind_of(request: speech_pb2.StreamingRecognizeRequest) -> str:
    """Return what a message is: `config`, `audio`, `start` or `end`.

    Raises:
        InputError: none of them.
    """
    payload: str | None = request.WhichOneof("payload")
    if payload is None:
        raise InputError("the message has no payload; expected config, audio or voice_activity", fix=FIX)
    if payload != "voice_activity":
        return payload
    event = request.voice_activity.event
    if event == speech_pb2.VoiceActivity.SEGMENT_START:
        return "start"
    if event == speech_pb2.VoiceActivity.SEGMENT_END:
        return "end"
    raise InputError(f"voice_activity has event {event}; expected SEGMENT_START or SEGMENT_END", fix=FIX)


def settings_of(config: speech_pb2.StreamingConfig, heard: Heard | None) -> StreamSettings:
    """Return what a client asks for.

    Args:
        config: the first message.
        heard: the device's report, if it made one.

    Raises:
        InputError: an unknown encoding, or a number out of range.
    """
    if config.encoding != speech_pb2.LINEAR16:
        raise InputError(f"encoding is {config.encoding}; expected LINEAR16 (1)", fix="send 16-bit PCM")
    return StreamSettings(
        sample_rate_hz=config.sample_rate_hz,
        model=config.model,
        version=config.model_version,
        maximum_search_results=config.maximum_search_results,
        device=heard.report.signal_path if heard else None,
        device_bundle=heard.report.bundle if heard else config.device_bundle,
        interim_results=config.interim_results,
        interim_interval_ms=config.interim_interval_ms,
        speech_start_timeout_ms=config.speech_start_timeout_ms,
        idle_timeout_ms=config.idle_timeout_ms,
    )


def recording_settings(config: speech_pb2.StreamingConfig, heard: Heard | None) -> StreamSettings:
    """Return what a client asks for whose audio is there already; raises as `settings_of`.

    Raises:
        InputError: it asks for what only a stream has.
    """
    for name in ("interim_results", "interim_interval_ms", "speech_start_timeout_ms", "idle_timeout_ms"):
        if getattr(config, name):
            raise InputError(f"{name} is {getattr(config, name)}; a recording has no {name}", fix="leave it out")
    return settings_of(config, heard)


def response(answer: SegmentAnswer) -> speech_pb2.StreamingRecognizeResponse:
    """Return the message for one answer."""
    transcript = answer.transcript
    return speech_pb2.StreamingRecognizeResponse(
        segment_id=answer.segment_id,
        is_final=answer.is_final,
        start_s=answer.start_s,
        end_s=answer.end_s,
        transcript=transcript.text,
        label=transcript.label,
        confidence=transcript.confidence,
        stability=answer.stability,
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


def failure(error: TidegateError) -> speech_pb2.Failure:
    """Return the message for what is wrong with one utterance."""
    import grpc

    return speech_pb2.Failure(code=grpc.StatusCode[code_of(error)].value[0], message=text_of(error))
