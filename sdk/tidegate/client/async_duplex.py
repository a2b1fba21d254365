"""A stream in both directions, for asyncio.

A writer task takes requests from a bounded queue and a reader task hands over answers, so that a caller who is
cancelled, or whose time is over, does not end the stream: grpc.aio would end it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from tidegate.client.async_connection import AsyncConnection
from tidegate.client.duplex import CLOSE_TIMEOUT_S
from tidegate.errors import DeadlineError, StateError, TidegateError, UnavailableError
from tidegate.wire.report import Headers


class Changes:
    """Wakes whoever waits for something to become true. One event loop, so nothing needs a lock."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Let all that wait look again."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `predicate` holds, or the time is over; return whether it holds."""
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        while not predicate():
            left_s = None if deadline_s is None else deadline_s - loop.time()
            if left_s is not None and left_s <= 0:
                return False
            changed = loop.create_future()
            self._waiting.add(changed)
            try:
                await asyncio.wait({changed}, timeout=left_s)
            finally:
                self._waiting.discard(changed)
        return True


class AsyncDuplex:
    """The mechanics of one stream; see `Duplex`."""

    def __init__(
        self,
        connection: AsyncConnection,
        service: Any,
        method: str,
        *,
        largest_queue_bytes: int,
        take: Callable[[Any], None],
        may_read: Callable[[], bool] = lambda: True,
        headers: Headers = (),
        timeout_s: float | None = None,
    ) -> None:
        """Open the stream; nothing has been sent when this returns.

        Args:
            connection: to the server.
            service: table of methods.
            method: one of them.
            largest_queue_bytes: requests that may wait for the network.
            take: given each answer.
            may_read: while it is false, no answer is read, which slows the server down.
            headers: sent when the stream opens.
            timeout_s: of the whole stream; None: it may stay open.
        """
        self.changes = Changes()
        self.target = connection.target
        self.closed = False
        self.broken: TidegateError | None = None
        self.ended = False
        self.answer_headers: Headers | None = None
        self.bytes_sent = 0
        self._connection = connection
        self._largest_queue_bytes = largest_queue_bytes
        self._take = take
        self._may_read = may_read
        self._queue: deque[Any] = deque()
        self._queue_bytes = 0
        self._finished_sending = False
        self._call = connection.open_stream(service, method, headers=headers, timeout_s=timeout_s)
        self._writer = asyncio.ensure_future(self._write())
        self._reader = asyncio.ensure_future(self._read())

    async def put(self, request: Any, timeout_s: float) -> None:
        """Queue one request, waiting for room.

        Args:
            request: message.
            timeout_s: to wait for room.

        Raises:
            UnavailableError: the stream is broken, or the network took nothing in that time.
            StateError: after close or `finish_sending`.
        """
        size = request.ByteSize()
        has_room = await self.changes.until(lambda: self._has_room(size) or not self.is_open, timeout_s)
        self.check_usable()
        if self._finished_sending:
            raise StateError(f"{self.target}: the stream was told that nothing follows", fix="open another")
        if not has_room:
            raise UnavailableError(
                f"{self.target}: {self._queue_bytes} bytes wait for the network, which takes no more",
                fix="go on without the server until the network is faster, or open a new stream",
            )
        self._queue.append(request)
        self._queue_bytes += size
        self.changes.notify()

    @property
    def is_open(self) -> bool:
        """Whether answers may still come."""
        return not self.closed and self.broken is None and not self.ended

    def check_usable(self) -> None:
        """Raise what broke the stream, or a StateError after close."""
        if self.broken is not None:
            raise self.broken
        if self.closed:
            raise StateError(f"{self.target}: the stream is closed", fix="open another")

    async def wait_until_accepted(self, header: str, timeout_s: float) -> None:
        """Wait for the server's headers, with `header` among them. Raises what `Duplex.wait_until_accepted` raises."""
        await self.changes.until(lambda: self._has_header(header) or not self.is_open, timeout_s)
        if self._has_header(header) and self.broken is None:
            return
        broken = self.broken or DeadlineError(
            f"{self.target}: the server did not accept the stream in {timeout_s:g} s",
            fix="look whether the server is overloaded, or allow more time with timeout_s",
        )
        await self.close(wait_s=0)
        raise broken

    def finish_sending(self) -> None:
        """Tell the server that nothing follows; its answers may still come."""
        self._finished_sending = True
        self.changes.notify()

    async def close(self, *, wait_s: float = CLOSE_TIMEOUT_S) -> None:
        """Tell the server that nothing follows and end the call. Closing again does nothing."""
        if self.closed:
            return
        self.closed = True
        self.finish_sending()
        if wait_s:
            await asyncio.wait({self._reader}, timeout=wait_s)
        self._call.cancel()
        await asyncio.wait({self._reader, self._writer})

    def _has_header(self, name: str) -> bool:
        return any(key == name for key, _ in self.answer_headers or ())

    def _has_room(self, size: int) -> bool:
        return not self._queue or self._queue_bytes + size <= self._largest_queue_bytes

    async def _write(self) -> None:
        import grpc

        try:
            while True:
                await self.changes.until(lambda: bool(self._queue) or self._finished_sending)
                if not self._queue:
                    await self._call.done_writing()
                    return
                request = self._queue.popleft()
                size = request.ByteSize()
                self._queue_bytes -= size
                self.bytes_sent += size
                self.changes.notify()
                await self._call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call is over; the reader knows why.
            return

    async def _read(self) -> None:
        import grpc

        try:
            self.answer_headers = tuple(await self._call.initial_metadata())
            self.changes.notify()
            async for response in self._call:
                self._take(response)
                self.changes.notify()
                await self.changes.until(lambda: self._may_read() or self.closed)
            self._note_end(None)
        except grpc.RpcError as error:
            self._note_end(await self._connection.translated(error))
        except asyncio.CancelledError:
            # This process ended the call, or the event loop stops.
            self._note_end(UnavailableError(f"{self.target}: the stream was given up", fix="open another"))
            raise
        except TidegateError as error:
            # An answer that cannot be read.
            self._note_end(error)
            self._call.cancel()

    def _note_end(self, reason: TidegateError | None) -> None:
        if reason is None and not self._finished_sending:
            reason = UnavailableError(f"{self.target}: the server ended the stream", fix="open another")
        if reason is None:
            self.ended = True
        elif not self.closed:
            self.broken = reason
        self._queue.clear()
        self._queue_bytes = 0
        self.finish_sending()
        # grpc.aio leaves a write waiting for ever when the call ends before a connection was made.
        self._writer.cancel()
