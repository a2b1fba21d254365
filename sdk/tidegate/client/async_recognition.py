"""Speech segments to the server and transcripts back, over one stream, for asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidegate.client.async_connection import AsyncConnection
from tidegate.client.async_duplex import AsyncDuplex
from tidegate.client.recognition import LARGEST_QUEUE_BYTES, check_begun, no_answer
from tidegate.client.recognized import (
    RecognizedSegment,
    audio_request,
    end_request,
    start_request,
)
from tidegate.client.segment_answers import SegmentAnswers
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

        self._answers = SegmentAnswers()
        self._timeout_s = timeout_s
        self._stream = AsyncDuplex(
            connection,
            SPEECH,
            "StreamingRecognize",
            largest_queue_bytes=LARGEST_QUEUE_BYTES,
            take=self._answers.take,
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
        self._answers.waiting_for.add(segment_id)

    async def send(self, start_sample: int, audio: NDArray[np.int16]) -> None:
        """Send audio of the open segment; see `RecognizeStream.send`."""
        await self._put(audio_request(start_sample, audio))

    async def end(self, segment_id: int, end_sample: int) -> None:
        """Announce the end of the open segment; see `RecognizeStream.end`."""
        await self._put(end_request(segment_id, end_sample))

    def poll(self) -> list[RecognizedSegment]:
        """Return the answers that have arrived and were not returned yet; see `RecognizeStream.poll`."""
        answers = self._answers.pop_finals()
        if not answers:
            self._stream.check_usable()
        return answers

    def interim(self) -> list[RecognizedSegment]:
        """Return what is understood so far of each open segment; see `RecognizeStream.interim`."""
        answers = self._answers.pop_interims()
        if not answers:
            self._stream.check_usable()
        return answers

    async def wait(
        self, segment_id: int, timeout_s: float, on_interim: Callable[[RecognizedSegment], object] | None = None
    ) -> RecognizedSegment:
        """Wait for the final answer of one segment; see `RecognizeStream.wait`. `on_interim` is called, not awaited."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            answer = await self._next(segment_id, deadline_s, timeout_s, interim=on_interim is not None)
            if on_interim is None or answer.is_final:
                return answer
            on_interim(answer)

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

    async def _next(self, segment_id: int, deadline_s: float, timeout_s: float, *, interim: bool) -> RecognizedSegment:
        def is_here() -> bool:
            return self._answers.has(segment_id, interim=interim)

        if not is_here():
            self._stream.check_usable()
            check_begun(segment_id, self._answers.waiting_for)
        await self._stream.changes.until(
            lambda: is_here() or segment_id not in self._answers.waiting_for or not self._stream.is_open,
            deadline_s - time.monotonic(),
        )
        if is_here():
            return self._answers.pop(segment_id)
        self._stream.check_usable()
        check_begun(segment_id, self._answers.waiting_for)
        raise no_answer(self._stream.target, segment_id, timeout_s)
