"""Speech segments to the server and transcripts back, over one stream, for threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidegate.client.connection import Connection
from tidegate.client.duplex import Duplex
from tidegate.client.recognized import (
    RecognizedSegment,
    audio_request,
    end_request,
    start_request,
)
from tidegate.client.segment_answers import SegmentAnswers
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

        self._answers = SegmentAnswers()
        self._stream = Duplex(
            connection,
            SPEECH,
            "StreamingRecognize",
            largest_queue_bytes=LARGEST_QUEUE_BYTES,
            take=self._answers.take,
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
            self._answers.waiting_for.add(segment_id)

    def send(self, start_sample: int, audio: NDArray[np.int16], *, timeout_s: float = 0.0) -> None:
        """Send audio of the open segment; it goes out at once.

        Args:
            start_sample: of `audio[0]`; follows the audio sent before without a gap.
            audio: int16 [n], one channel.
            timeout_s: to wait for room when the network or the server is slow; 0: do not wait. For audio that comes
                faster than it was spoken.

        Raises:
            InputError: not int16 with one axis.
            UnavailableError, StateError: as for `begin`.
        """
        self._stream.put(audio_request(start_sample, audio), timeout_s)

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
            answers = self._answers.pop_finals()
            if not answers:
                self._stream.check_usable()
            return answers

    def interim(self) -> list[RecognizedSegment]:
        """Return what is understood so far of each open segment, if that is newer than what was returned; never waits.

        Only the newest is kept, and it is dropped when the final answer comes, so nobody has to ask. Always empty
        without `interim_results`.

        Raises:
            UnavailableError: the stream is broken and nothing is left.
            StateError: after close, when nothing is left.
        """
        with self._stream.changed:
            answers = self._answers.pop_interims()
            if not answers:
                self._stream.check_usable()
            return answers

    def wait(
        self, segment_id: int, timeout_s: float, on_interim: Callable[[RecognizedSegment], object] | None = None
    ) -> RecognizedSegment:
        """Wait for the final answer of one segment.

        Args:
            segment_id: of a segment that was begun.
            timeout_s: for the whole wait.
            on_interim: called in this thread with the interim answers of this segment that come meanwhile; one that a
                newer one overtakes is left out. It may use the stream.

        Raises:
            DeadlineError: no answer in `timeout_s`.
            UnavailableError: the stream broke before the answer came.
            StateError: the segment was never begun, was answered before, or the stream is closed.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            answer = self._next(segment_id, deadline_s, timeout_s, interim=on_interim is not None)
            if on_interim is None or answer.is_final:
                return answer
            on_interim(answer)

    def close(self) -> None:
        """Tell the server that nothing follows and end the call. Closing again does nothing."""
        self._stream.close()

    def __enter__(self) -> RecognizeStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, segment_id: int, deadline_s: float, timeout_s: float, *, interim: bool) -> RecognizedSegment:
        with self._stream.changed:
            while not self._answers.has(segment_id, interim=interim):
                self._stream.check_usable()
                check_begun(segment_id, self._answers.waiting_for)
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._stream.changed.wait(left_s):
                    raise no_answer(self._stream.target, segment_id, timeout_s)
            return self._answers.pop(segment_id)


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
