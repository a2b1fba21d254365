"""Speech segments to the server and transcripts back, over one stream, for threads."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.client.connection import Connection
from tidegate.client.duplex import Duplex
from tidegate.client.recognized import (
    RecognizedSegment,
    audio_request,
    end_request,
    read_segment,
    start_request,
)
from tidegate.errors import DeadlineError, StateError
from tidegate.wire.report import Headers

if TYPE_CHECKING:
    from tidegate.v1 import speech_pb2

LARGEST_QUEUE_BYTES = 2**20
"""Audio that may wait for a slow network: 32 seconds at 16 kHz."""


class RecognizeStream:
    """Made by `Client.recognize`. One thread sends; any thread may poll or wait.

    begin, send and end never wait for the network. A broken stream stays broken: open another. What broke it is raised
    by every later call that cannot do its work: an UnavailableError when the server went away, otherwise the error for
    the status that the server ended it with.
    """

    def __init__(
        self,
        connection: Connection,
        config: speech_pb2.StreamingRecognizeRequest,
        *,
        timeout_s: float,
        headers: Headers = (),
    ) -> None:
        """Open the stream and wait until the server has accepted `config`; see `Client.recognize` for the errors."""
        from tidegate.wire.services import ACCEPTED_HEADER, SPEECH

        self._waiting_for: set[int] = set()
        self._answers: dict[int, RecognizedSegment] = {}
        self._stream = Duplex(
            connection,
            SPEECH,
            "StreamingRecognize",
            largest_queue_bytes=LARGEST_QUEUE_BYTES,
            take=self._take,
            headers=headers,
        )
        self._stream.put(config)
        self._stream.wait_until_accepted(ACCEPTED_HEADER, timeout_s)

    @property
    def answer_headers(self) -> Headers:
        """What the server said when it accepted the stream."""
        return self._stream.answer_headers or ()

    @property
    def bytes_sent(self) -> int:
        """Bytes of messages handed to the network so far."""
        with self._stream.changed:
            return self._stream.bytes_sent

    def begin(self, segment_id: int, start_sample: int) -> None:
        """Announce a segment.

        Args:
            segment_id: rising within the stream.
            start_sample: of its first sample, counted since the device began to listen.

        Raises:
            UnavailableError: the stream is broken, or the network takes nothing and the queue is full.
            StateError: after close.
        """
        self._stream.put(start_request(segment_id, start_sample))
        with self._stream.changed:
            self._waiting_for.add(segment_id)

    def send(self, start_sample: int, audio: NDArray[np.int16]) -> None:
        """Send audio of the open segment; it goes out at once.

        Args:
            start_sample: of `audio[0]`; follows the audio sent before without a gap.
            audio: int16 [n], one channel.

        Raises:
            InputError: not int16 with one axis.
            UnavailableError, StateError: as for `begin`.
        """
        self._stream.put(audio_request(start_sample, audio))

    def end(self, segment_id: int, end_sample: int) -> None:
        """Announce the end of the open segment; the server then answers it.

        Raises:
            UnavailableError, StateError: as for `begin`.
        """
        self._stream.put(end_request(segment_id, end_sample))

    def poll(self) -> list[RecognizedSegment]:
        """Return the answers that have arrived and were not returned yet, in order of segment id; never waits.

        Raises:
            UnavailableError: the stream is broken and no answer is left.
            StateError: after close, when no answer is left.
        """
        with self._stream.changed:
            if not self._answers:
                self._stream.check_usable()
            answers = [self._answers[segment_id] for segment_id in sorted(self._answers)]
            self._answers.clear()
            return answers

    def wait(self, segment_id: int, timeout_s: float) -> RecognizedSegment:
        """Wait for the answer of one segment.

        Raises:
            DeadlineError: no answer in `timeout_s`.
            UnavailableError: the stream broke before the answer came.
            StateError: the segment was never begun, was answered before, or the stream is closed.
        """
        deadline = time.monotonic() + timeout_s
        with self._stream.changed:
            while segment_id not in self._answers:
                self._stream.check_usable()
                check_begun(segment_id, self._waiting_for)
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._stream.changed.wait(left_s):
                    raise no_answer(self._stream.target, segment_id, timeout_s)
            return self._answers.pop(segment_id)

    def close(self) -> None:
        """Tell the server that nothing follows and end the call. Closing again does nothing."""
        self._stream.close()

    def __enter__(self) -> RecognizeStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, response: Any) -> None:
        if response.is_final:
            segment = read_segment(response)
            self._waiting_for.discard(segment.segment_id)
            self._answers[segment.segment_id] = segment


def check_begun(segment_id: int, waiting_for: set[int]) -> None:
    """Refuse to wait for what cannot come.

    Raises:
        StateError: the segment was never begun, or was answered before.
    """
    if segment_id not in waiting_for:
        raise StateError(
            f"segment {segment_id} was not begun on this stream, or its answer was already returned",
            fix="wait once for each segment that was begun",
        )


def no_answer(target: str, segment_id: int, timeout_s: float) -> DeadlineError:
    """Return the error for a segment without an answer in time."""
    return DeadlineError(
        f"{target}: no answer for segment {segment_id} in {timeout_s:g} s",
        fix="allow more time, or look whether the server is overloaded",
    )
