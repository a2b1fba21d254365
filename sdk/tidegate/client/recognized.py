"""What a server says about one segment of speech, and the messages of a speech stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputError
from tidegate.speech.transcript import SearchResult, Transcript, Word

if TYPE_CHECKING:
    from tidegate.v1 import speech_pb2


@dataclass(frozen=True)
class RecognizedSegment:
    """The server's answer for one segment."""

    segment_id: int
    start_s: float
    """since the device began to listen, as are all times here"""
    end_s: float
    transcript: Transcript
    search_results: tuple[SearchResult, ...]
    model: str
    version: str
    variant: str
    compute_ms: float
    """time the model took on the server"""


def read_segment(response: Any) -> RecognizedSegment:
    """Read a StreamingRecognizeResponse."""
    words = tuple(Word(word.text, word.start_s, word.end_s, word.confidence) for word in response.words)
    return RecognizedSegment(
        segment_id=response.segment_id,
        start_s=response.start_s,
        end_s=response.end_s,
        transcript=Transcript(
            text=response.transcript, confidence=response.confidence, words=words, label=response.label
        ),
        search_results=tuple(
            SearchResult(found.id, found.title, found.snippet, found.score) for found in response.search_results
        ),
        model=response.model,
        version=response.model_version,
        variant=response.variant,
        compute_ms=response.compute_ms,
    )


def config_request(
    *,
    sample_rate_hz: int,
    model: str,
    version: str,
    maximum_search_results: int,
    device_bundle: str,
) -> speech_pb2.StreamingRecognizeRequest:
    """Return the first message of a stream; see `Client.recognize`."""
    from tidegate.v1 import speech_pb2

    config = speech_pb2.StreamingConfig(
        model=model,
        model_version=version,
        encoding=speech_pb2.LINEAR16,
        sample_rate_hz=sample_rate_hz,
        maximum_search_results=maximum_search_results,
        device_bundle=device_bundle,
    )
    return speech_pb2.StreamingRecognizeRequest(config=config)


def start_request(segment_id: int, start_sample: int) -> speech_pb2.StreamingRecognizeRequest:
    """Return the message that announces a segment."""
    from tidegate.v1 import speech_pb2

    return _activity(speech_pb2.VoiceActivity.SEGMENT_START, segment_id, start_sample)


def end_request(segment_id: int, end_sample: int) -> speech_pb2.StreamingRecognizeRequest:
    """Return the message that announces the end of a segment."""
    from tidegate.v1 import speech_pb2

    return _activity(speech_pb2.VoiceActivity.SEGMENT_END, segment_id, end_sample)


def audio_request(start_sample: int, audio: NDArray[np.int16]) -> speech_pb2.StreamingRecognizeRequest:
    """Return the message with audio of the open segment.

    Args:
        start_sample: of `audio[0]`.
        audio: int16 [n], one channel.

    Raises:
        InputError: not int16 with one axis.
    """
    from tidegate.v1 import speech_pb2

    if audio.dtype != np.int16 or audio.ndim != 1:
        raise InputError(
            f"audio is {audio.dtype} {list(audio.shape)}; expected int16 [n]",
            fix="convert with tidegate.speech.pcm.int16_from_float32",
        )
    content = audio.astype("<i2", copy=False).tobytes()
    chunk = speech_pb2.AudioChunk(sample_offset=start_sample, content=content)
    return speech_pb2.StreamingRecognizeRequest(audio=chunk)


def _activity(
    event: speech_pb2.VoiceActivity.Event, segment_id: int, sample: int
) -> speech_pb2.StreamingRecognizeRequest:
    from tidegate.v1 import speech_pb2

    activity = speech_pb2.VoiceActivity(event=event, segment_id=segment_id, sample_offset=sample)
    return speech_pb2.StreamingRecognizeRequest(voice_activity=activity)
