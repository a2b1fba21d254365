"""Recordings to the server and what was said in each back: the messages of Recognize and BatchRecognize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.client.recognized import RecognizedSegment, SpeechRequest, pcm_bytes, read_segment
from tidegate.errors import ModelError, ResourceError, TidegateError
from tidegate.wire.status import error_of

if TYPE_CHECKING:
    from tidegate.v1 import speech_pb2

Stretches = Sequence[tuple[int, int]]
"""Where somebody speaks in a recording: first sample and the sample after the last one, in order, without overlap."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording of a batch."""

    id: str
    """chosen by the caller; the answer has the same"""
    samples: NDArray[np.int16]
    """int16 [n], one channel, at the rate of the batch"""
    segments: Stretches = ()
    """empty: the whole recording is one segment"""


@dataclass(frozen=True)
class RecognizedRecording:
    """The server's answer for one recording of a batch."""

    id: str
    segments: tuple[RecognizedSegment, ...]
    """one for each segment of the recording, in order; empty when there is an error"""
    error: TidegateError | None = None
    """what is wrong with this recording; the batch goes on"""


def recognize_request(
    request: SpeechRequest, samples: NDArray[np.int16], segments: Stretches
) -> speech_pb2.RecognizeRequest:
    """Return the one message for one recording. Raises InputError: the samples are not int16 [n]."""
    from tidegate.v1 import speech_pb2

    return speech_pb2.RecognizeRequest(
        config=request.message(), content=pcm_bytes(samples), segments=_segments(segments)
    )


def batch_config(request: SpeechRequest) -> speech_pb2.BatchRecognizeRequest:
    """Return the first message of a batch."""
    from tidegate.v1 import speech_pb2

    return speech_pb2.BatchRecognizeRequest(config=request.message())


def batch_recording(recording: Recording) -> speech_pb2.BatchRecognizeRequest:
    """Return the message for one recording of a batch. Raises InputError: the samples are not int16 [n]."""
    from tidegate.v1 import speech_pb2

    utterance = speech_pb2.Utterance(
        id=recording.id, content=pcm_bytes(recording.samples), segments=_segments(recording.segments)
    )
    return speech_pb2.BatchRecognizeRequest(utterance=utterance)


def check_size(message: Any, maximum_bytes: int, target: str) -> Any:
    """Return the message if this client may send it; grpc itself would end the whole call, asyncio's with no reason.

    Raises:
        ResourceError: it is larger.
    """
    size = message.ByteSize()
    if size > maximum_bytes:
        raise ResourceError(
            f"{target}: the recording is a message of {size} bytes; this client sends at most {maximum_bytes}",
            fix="send it in parts, or raise maximum_message_bytes here and --max-message-mb on the server",
        )
    return message


def read_segments(response: Any) -> tuple[RecognizedSegment, ...]:
    """Read a RecognizeResponse or a BatchRecognizeResponse."""
    return tuple(read_segment(result) for result in response.results)


def read_recording(response: Any, expected_id: str, target: str) -> RecognizedRecording:
    """Read a BatchRecognizeResponse.

    Raises:
        ModelError: it answers another recording than the one whose turn it is.
    """
    if response.id != expected_id:
        raise ModelError(
            f"{target}: the answer is for recording {response.id!r}; the next one is {expected_id!r}",
            fix="look whether the server answers in order, as the protocol says",
        )
    if not response.HasField("error"):
        return RecognizedRecording(response.id, read_segments(response))
    error = error_of(_code_name(response.error.code), response.error.message, peer=target)
    return RecognizedRecording(response.id, (), error)


def _segments(stretches: Stretches) -> list[speech_pb2.Segment]:
    from tidegate.v1 import speech_pb2

    return [
        speech_pb2.Segment(segment_id=number, start_sample=start, end_sample=end)
        for number, (start, end) in enumerate(stretches)
    ]


def _code_name(number: int) -> str:
    import grpc

    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")
