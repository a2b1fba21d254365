"""What a server says about one segment of speech, and the messages of a speech stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputError
from tidegate.speech.transcript import SearchResult, Transcript, Word
from tidegate.wire.pairing import SignalPath

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
    is_final: bool = True
    """False: what is understood so far, up to `end_s`; the next one replaces it, and the final one all"""
    stability: float = 1.0
    """of an interim answer: the share of its words, from the first on, that the one before it had as well"""


@dataclass(frozen=True)
class SpeechRequest:
    """What is asked of the server at the beginning of a call for speech; 0 and empty stand for its own choice."""

    sample_rate_hz: int
    """of the audio that will be sent"""
    model: str = ""
    version: str = ""
    maximum_search_results: int = 0
    """per segment; 0: none"""
    device_bundle: str = ""
    """NAME VERSION of what runs on the device"""
    signal_path: SignalPath | None = None
    """front end and prefilter of the device's bundle; None: not checked here"""
    interim_results: bool = False
    """streams only, as is all that follows"""
    interim_interval_ms: int = 0
    speech_start_timeout_ms: int = 0
    idle_timeout_ms: int = 0

    def __post_init__(self) -> None:
        """Refuse what the message cannot carry; the server checks the rest.

        Raises:
            InputError: a number that is negative or beyond 32 bits.
        """
        for name in _NUMBERS:
            found = getattr(self, name)
            if not 0 <= found < 2**31:
                raise InputError(f"{name} is {found}; expected 0 to 2147483647", fix=f"correct {name}")

    def message(self) -> speech_pb2.StreamingConfig:
        """Return the config as it is sent."""
        from tidegate.v1 import speech_pb2

        return speech_pb2.StreamingConfig(
            model=self.model,
            model_version=self.version,
            encoding=speech_pb2.LINEAR16,
            sample_rate_hz=self.sample_rate_hz,
            maximum_search_results=self.maximum_search_results,
            device_bundle=self.device_bundle,
            interim_results=self.interim_results,
            interim_interval_ms=self.interim_interval_ms,
            speech_start_timeout_ms=self.speech_start_timeout_ms,
            idle_timeout_ms=self.idle_timeout_ms,
        )


_NUMBERS = (
    "sample_rate_hz",
    "maximum_search_results",
    "interim_interval_ms",
    "speech_start_timeout_ms",
    "idle_timeout_ms",
)


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
        is_final=response.is_final,
        stability=response.stability,
    )


def config_request(request: SpeechRequest) -> speech_pb2.StreamingRecognizeRequest:
    """Return the first message of a stream."""
    from tidegate.v1 import speech_pb2

    return speech_pb2.StreamingRecognizeRequest(config=request.message())


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

    chunk = speech_pb2.AudioChunk(sample_offset=start_sample, content=pcm_bytes(audio))
    return speech_pb2.StreamingRecognizeRequest(audio=chunk)


def pcm_bytes(audio: NDArray[np.int16]) -> bytes:
    """Return int16 [n] as LINEAR16.

    Raises:
        InputError: not int16 with one axis.
    """
    if audio.dtype != np.int16 or audio.ndim != 1:
        raise InputError(
            f"audio is {audio.dtype} {list(audio.shape)}; expected int16 [n]",
            fix="convert with tidegate.speech.pcm.int16_from_float32",
        )
    return audio.astype("<i2", copy=False).tobytes()


def _activity(
    event: speech_pb2.VoiceActivity.Event, segment_id: int, sample: int
) -> speech_pb2.StreamingRecognizeRequest:
    from tidegate.v1 import speech_pb2

    activity = speech_pb2.VoiceActivity(event=event, segment_id=segment_id, sample_offset=sample)
    return speech_pb2.StreamingRecognizeRequest(voice_activity=activity)
