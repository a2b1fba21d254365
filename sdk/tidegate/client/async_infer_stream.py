"""Inferences over one stream, for asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from tidegate.client.async_connection import AsyncConnection
from tidegate.client.async_duplex import AsyncDuplex
from tidegate.client.descriptions import Answer, Parameter
from tidegate.client.infer_stream import LARGEST_QUEUE_BYTES, MOST_WAITING_ANSWERS, ended_early, no_answer
from tidegate.client.requests import InferCall, Inputs
from tidegate.wire.report import Headers

if TYPE_CHECKING:
    from tidegate.client.stream_messages import StreamedAnswer


class AsyncInferStream:
    """Made by `AsyncClient.infer_stream`: `InferStream` for asyncio."""

    def __init__(self, connection: AsyncConnection, *, headers: Headers = (), timeout_s: float | None = None) -> None:
        """Open the stream. Errors of the server come with the first answer."""
        from tidegate.client.stream_messages import STREAMED

        self._answers: deque[Answer] = deque()
        self._stream = AsyncDuplex(
            connection,
            STREAMED,
            "ModelStreamInfer",
            largest_queue_bytes=LARGEST_QUEUE_BYTES,
            take=self._take,
            may_read=lambda: len(self._answers) < MOST_WAITING_ANSWERS,
            headers=headers,
            timeout_s=timeout_s,
        )

    async def send(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Send one request; see `InferStream.send`."""
        asked = InferCall(name, inputs, version, outputs, request_id, parameters)
        await self._stream.put(asked.message(), timeout_s)

    def finish(self) -> None:
        """Tell the server that no request follows; `receive` returns None after the last answer."""
        self._stream.finish_sending()

    async def receive(self, timeout_s: float | None = None) -> Answer | None:
        """Return the next answer, or None when the server has ended the stream; see `InferStream.receive`."""
        await self._stream.changes.until(lambda: bool(self._answers) or not self._stream.is_open, timeout_s)
        if self._answers:
            self._stream.changes.notify()
            return self._answers.popleft()
        self._stream.check_usable()
        if not self._stream.ended:
            raise no_answer(self._stream.target)
        return None

    async def infer_each(
        self, name: str, inputs: Iterable[Inputs], *, version: str = "", in_flight: int = 16
    ) -> AsyncIterator[Answer]:
        """Send one request for each element and yield one answer for each, in order; see `InferStream.infer_each`."""
        under_way = 0
        for feeds in inputs:
            if under_way == in_flight:
                yield await self._next()
                under_way -= 1
            await self.send(name, feeds, version=version)
            under_way += 1
        for _ in range(under_way):
            yield await self._next()

    async def close(self) -> None:
        """End the call, with what is under way. Closing again does nothing."""
        await self._stream.close(wait_s=0)

    async def __aiter__(self) -> AsyncIterator[Answer]:
        """Yield answers until the server ends the stream, which it does some time after `finish`."""
        while (answer := await self.receive()) is not None:
            yield answer

    async def __aenter__(self) -> AsyncInferStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _next(self) -> Answer:
        answer = await self.receive()
        if answer is None:
            raise ended_early(self._stream.target)
        return answer

    def _take(self, message: StreamedAnswer) -> None:
        self._answers.append(message.read(self._stream.target))
