"""Speech segments to the server and transcripts back, over one stream, for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate.client.async_connection import AsyncConnection
from tidegate.client.async_duplex import AsyncDuplex
from tidegate.client.recognition import LARGEST_QUEUE_BYTES, check_begun, no_answer
from tidegate.client.recognized import (
    RecognizedSegment,
    audio_request,
    end_request,
    read_segment,
    start_request,
)
from tidegate.wire.report import Headers

if TYPE_CHECKING:
    from tidegate.v1 import speech_pb2


class AsyncRecognizeStream:
    """Made by `AsyncClient.recognize`: `RecognizeStream` for asyncio.

    begin, send and end wait for room when the network is slow, each at most the client's `timeout_s`.
    """

    def __init__(self, connection: AsyncConnection, *, timeout_s: float, headers: Headers = ()) -> None:
        """Open the stream; `accept` sends the config."""
        from tidegate.wire.services import SPEECH

        self._waiting_for: set[int] = set()
        self._answers: dict[int, RecognizedSegment] = {}
        self._timeout_s = timeout_s
        self._stream = AsyncDuplex(
            connection,
            SPEECH,
            "StreamingRecognize",
            largest_queue_bytes=LARGEST_QUEUE_BYTES,
            take=self._take,
            headers=headers,
        )

    async def accept(self, config: speech_pb2.StreamingRecognizeRequest) -> None:
        """Send the config and wait until the server has accepted it; see `Client.recognize` for the errors."""
        from tidegate.wire.services import ACCEPTED_HEADER

        await self._put(config)
        await self._stream.wait_until_accepted(ACCEPTED_HEADER, self._timeout_s)

    @property
    def answer_headers(self) -> Headers:
        """What the server said when it accepted the stream."""
        return self._stream.answer_headers or ()

    @property
    def bytes_sent(self) -> int:
        """Bytes of messages handed to the network so far."""
        return self._stream.bytes_sent

    async def begin(self, segment_id: int, start_sample: int) -> None:
        """Announce a segment; see `RecognizeStream.begin`."""
        await self._put(start_request(segment_id, start_sample))
        self._waiting_for.add(segment_id)

    async def send(self, start_sample: int, audio: NDArray[np.int16]) -> None:
        """Send audio of the open segment; see `RecognizeStream.send`."""
        await self._put(audio_request(start_sample, audio))

    async def end(self, segment_id: int, end_sample: int) -> None:
        """Announce the end of the open segment; see `RecognizeStream.end`."""
        await self._put(end_request(segment_id, end_sample))

    def poll(self) -> list[RecognizedSegment]:
        """Return the answers that have arrived and were not returned yet; see `RecognizeStream.poll`."""
        if not self._answers:
            self._stream.check_usable()
        answers = [self._answers[segment_id] for segment_id in sorted(self._answers)]
        self._answers.clear()
        return answers

    async def wait(self, segment_id: int, timeout_s: float) -> RecognizedSegment:
        """Wait for the answer of one segment; see `RecognizeStream.wait`."""
        if segment_id not in self._answers:
            self._stream.check_usable()
            check_begun(segment_id, self._waiting_for)
        await self._stream.changes.until(
            lambda: segment_id not in self._waiting_for or not self._stream.is_open, timeout_s
        )
        if segment_id in self._answers:
            return self._answers.pop(segment_id)
        self._stream.check_usable()
        check_begun(segment_id, self._waiting_for)
        raise no_answer(self._stream.target, segment_id, timeout_s)

    async def close(self) -> None:
        """Tell the server that nothing follows and end the call. Closing again does nothing."""
        await self._stream.close()

    async def __aenter__(self) -> AsyncRecognizeStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _put(self, request: speech_pb2.StreamingRecognizeRequest) -> None:
        await self._stream.put(request, self._timeout_s)

    def _take(self, response: Any) -> None:
        if response.is_final:
            segment = read_segment(response)
            self._waiting_for.discard(segment.segment_id)
            self._answers[segment.segment_id] = segment
