"""Many recordings over one call, for asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any

from tidegate.client.async_connection import AsyncConnection
from tidegate.client.async_duplex import AsyncDuplex
from tidegate.client.batch import no_answer
from tidegate.client.recognized import SpeechRequest
from tidegate.client.recordings import (
    RecognizedRecording,
    Recording,
    batch_config,
    batch_recording,
    check_size,
    read_recording,
)
from tidegate.errors import TidegateError
from tidegate.wire.report import Headers


class AsyncBatch:
    """Made by `AsyncClient.recognize_batch`: `Batch` for asyncio."""

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        in_flight: int,
        timeout_s: float,
        answer_timeout_s: float,
        headers: Headers,
    ) -> None:
        """Open the call; `accept` sends the config. The arguments are those of `Batch`."""
        from tidegate.wire.services import SPEECH

        self._in_flight = in_flight
        self._maximum_message_bytes = connection.settings.maximum_message_bytes
        self._timeout_s = timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._under_way: deque[str] = deque()
        self._answers: deque[Any] = deque()
        self._stream = AsyncDuplex(
            connection,
            SPEECH,
            "BatchRecognize",
            # What waits for the network is bounded by in_flight already.
            largest_queue_bytes=in_flight * self._maximum_message_bytes,
            take=self._answers.append,
            headers=headers,
        )

    async def accept(self, request: SpeechRequest) -> Headers:
        """Send the config and return the headers with which the server has accepted it."""
        from tidegate.wire.services import ACCEPTED_HEADER

        await self._stream.put(batch_config(request), self._timeout_s)
        await self._stream.wait_until_accepted(ACCEPTED_HEADER, self._timeout_s)
        return self._stream.answer_headers or ()

    async def recognize_each(
        self, recordings: Iterable[Recording] | AsyncIterable[Recording]
    ) -> AsyncGenerator[RecognizedRecording, None]:
        """Send recordings as answers come, and yield one answer for each, in order."""
        async with aclosing(_each(recordings)) as each:
            async for recording in each:
                try:
                    await self._send(recording)
                except TidegateError:
                    # What was answered before the call broke, or before this recording was refused, is not lost.
                    while self._answers:
                        yield await self._next()
                    raise
                # Before the next recording is read, which may take a while and memory.
                while len(self._under_way) == self._in_flight or self._answers:
                    yield await self._next()
        self._stream.finish_sending()
        while self._under_way:
            yield await self._next()
        # All is answered: let the server end the call, which counts as cancelled otherwise.
        await self._stream.close()

    async def close(self) -> None:
        """End the call, with what is under way."""
        await self._stream.close(wait_s=0)

    async def _send(self, recording: Recording) -> None:
        message = check_size(batch_recording(recording), self._maximum_message_bytes, self._stream.target)
        await self._stream.put(message, self._answer_timeout_s)
        self._under_way.append(recording.id)

    async def _next(self) -> RecognizedRecording:
        await self._stream.changes.until(
            lambda: bool(self._answers) or not self._stream.is_open, self._answer_timeout_s
        )
        if not self._answers:
            self._stream.check_usable()
            raise no_answer(self._stream.target, self._under_way[0], self._answer_timeout_s, self._stream.ended)
        return read_recording(self._answers.popleft(), self._under_way.popleft(), self._stream.target)


async def _each(recordings: Iterable[Recording] | AsyncIterable[Recording]) -> AsyncGenerator[Recording, None]:
    """Yield what an iterable of either kind has."""
    if isinstance(recordings, AsyncIterable):
        async for recording in recordings:
            yield recording
    else:
        for recording in recordings:
            yield recording
