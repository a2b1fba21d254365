"""Speech segments to the server and transcripts back, over one stream.

Three threads meet here: the caller's, which never waits for the network in begin, send and end; grpc's writer, which
takes requests from a bounded queue; and a reader of our own, which stores answers and notes why the stream ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.client.connection import Connection
from tidegate.errors import DeadlineError, InputError, StateError, TidegateError, UnavailableError
from tidegate.speech.transcript import SearchResult, Transcript, Word
from tidegate.wire.report import Headers

if TYPE_CHECKING:
    from tidegate.v1 import speech_pb2

LARGEST_QUEUE_BYTES = 2**20
"""Audio that may wait for a slow network: 32 seconds at 16 kHz."""

CLOSE_TIMEOUT_S = 1.0


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


class RecognizeStream:
    """Made by `Client.recognize`. One thread sends; any thread may poll or wait.

    A broken stream stays broken: open another. What broke it is raised by every later call that cannot do its work: an
    UnavailableError when the server went away, otherwise the error for the status that the server ended it with.
    """

    def __init__(
        self, connection: Connection, config: speech_pb2.StreamingConfig, *, timeout_s: float, headers: Headers = ()
    ) -> None:
        """Open the stream and wait until the server has accepted `config`; see `Client.recognize` for the errors."""
        from tidegate.v1 import speech_pb2
        from tidegate.wire.services import SPEECH

        self._pb = speech_pb2
        self._connection = connection
        self._changed = threading.Condition()
        self._queue: deque[speech_pb2.StreamingRecognizeRequest] = deque()
        self._queue_bytes = 0
        self._finished_sending = False
        self._bytes_sent = 0
        self._answer_headers: Headers = ()
        self._accepted = False
        self._closed = False
        self._broken: TidegateError | None = None
        self._waiting_for: set[int] = set()
        self._answers: dict[int, RecognizedSegment] = {}
        self._put(speech_pb2.StreamingRecognizeRequest(config=config))
        self._call = connection.open_stream(SPEECH, "StreamingRecognize", self._requests(), headers=headers)
        self._reader = threading.Thread(target=self._read, name="tidegate-recognize", daemon=True)
        self._reader.start()
        self._wait_until_accepted(timeout_s)

    @property
    def answer_headers(self) -> Headers:
        """What the server said when it accepted the stream."""
        return self._answer_headers

    @property
    def bytes_sent(self) -> int:
        """Bytes of messages handed to the network so far."""
        with self._changed:
            return self._bytes_sent

    def begin(self, segment_id: int, start_sample: int) -> None:
        """Announce a segment.

        Args:
            segment_id: rising within the stream.
            start_sample: of its first sample, counted since the device began to listen.

        Raises:
            UnavailableError: the stream is broken, or the network takes nothing and the queue is full.
            StateError: after close.
        """
        self._event(self._pb.VoiceActivity.SEGMENT_START, segment_id, start_sample)
        with self._changed:
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
        if audio.dtype != np.int16 or audio.ndim != 1:
            raise InputError(
                f"audio is {audio.dtype} {list(audio.shape)}; expected int16 [n]",
                fix="convert with tidegate.speech.pcm.int16_from_float32",
            )
        content = audio.astype("<i2", copy=False).tobytes()
        chunk = self._pb.AudioChunk(sample_offset=start_sample, content=content)
        self._put(self._pb.StreamingRecognizeRequest(audio=chunk))

    def end(self, segment_id: int, end_sample: int) -> None:
        """Announce the end of the open segment; the server then answers it.

        Raises:
            UnavailableError, StateError: as for `begin`.
        """
        self._event(self._pb.VoiceActivity.SEGMENT_END, segment_id, end_sample)

    def poll(self) -> list[RecognizedSegment]:
        """Return the answers that have arrived and were not returned yet, in order of segment id; never waits.

        Raises:
            UnavailableError: the stream is broken and no answer is left.
            StateError: after close, when no answer is left.
        """
        with self._changed:
            if not self._answers:
                self._check_usable()
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
        with self._changed:
            while segment_id not in self._answers:
                self._check_usable()
                if segment_id not in self._waiting_for:
                    raise StateError(
                        f"segment {segment_id} was not begun on this stream, or its answer was already returned",
                        fix="wait once for each segment that was begun",
                    )
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    raise DeadlineError(
                        f"{self._connection.target}: no answer for segment {segment_id} in {timeout_s:g} s",
                        fix="allow more time, or look whether the server is overloaded",
                    )
            return self._answers.pop(segment_id)

    def close(self) -> None:
        """Tell the server that nothing follows and end the call. Closing again does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._finish_sending()
        self._reader.join(CLOSE_TIMEOUT_S)
        self._call.cancel()

    def __enter__(self) -> RecognizeStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The caller's side.

    def _event(self, event: speech_pb2.VoiceActivity.Event, segment_id: int, sample: int) -> None:
        activity = self._pb.VoiceActivity(event=event, segment_id=segment_id, sample_offset=sample)
        self._put(self._pb.StreamingRecognizeRequest(voice_activity=activity))

    def _put(self, request: speech_pb2.StreamingRecognizeRequest) -> None:
        size = request.ByteSize()
        with self._changed:
            self._check_usable()
            if self._queue_bytes + size > LARGEST_QUEUE_BYTES:
                raise UnavailableError(
                    f"{self._connection.target}: {self._queue_bytes} bytes wait for the network, which takes no more",
                    fix="recognise on the device until the network is faster, or open a new stream",
                )
            self._queue.append(request)
            self._queue_bytes += size
            self._changed.notify_all()

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise StateError(
                f"{self._connection.target}: the stream is closed", fix="open another with Client.recognize"
            )

    def _wait_until_accepted(self, timeout_s: float) -> None:
        with self._changed:
            settled = self._changed.wait_for(lambda: self._accepted or self._broken is not None, timeout_s)
            if settled and self._broken is None:
                return
            broken = self._broken or DeadlineError(
                f"{self._connection.target}: the server did not accept the stream in {timeout_s:g} s",
                fix="look whether the server is overloaded, or allow more time with timeout_s",
            )
            self._closed = True
            self._finish_sending()
        self._call.cancel()
        raise broken

    def _finish_sending(self) -> None:
        self._finished_sending = True
        self._changed.notify_all()

    # The side of grpc's writer thread.

    def _requests(self) -> Iterator[speech_pb2.StreamingRecognizeRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._finished_sending)
                if not self._queue:
                    return
                request = self._queue.popleft()
                size = request.ByteSize()
                self._queue_bytes -= size
                self._bytes_sent += size
            yield request

    # The side of the reader thread.

    def _read(self) -> None:
        import grpc

        from tidegate.wire.services import ACCEPTED_HEADER

        try:
            # A refused call has headers as well, but empty ones.
            headers = tuple(self._call.initial_metadata())
            if any(key == ACCEPTED_HEADER for key, _ in headers):
                self._note_accepted(headers)
            for response in self._call:
                if response.is_final:
                    self._note_answer(_segment(response))
            self._note_end(
                UnavailableError(f"{self._connection.target}: the server ended the stream", fix="open another")
            )
        except grpc.RpcError as error:
            self._note_end(self._connection.translated(error))

    def _note_accepted(self, headers: Headers) -> None:
        with self._changed:
            self._answer_headers = headers
            self._accepted = True
            self._changed.notify_all()

    def _note_answer(self, segment: RecognizedSegment) -> None:
        with self._changed:
            self._waiting_for.discard(segment.segment_id)
            self._answers[segment.segment_id] = segment
            self._changed.notify_all()

    def _note_end(self, reason: TidegateError) -> None:
        with self._changed:
            if not self._closed:
                self._broken = reason
            self._queue.clear()
            self._queue_bytes = 0
            self._finish_sending()


def _segment(response: Any) -> RecognizedSegment:
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
