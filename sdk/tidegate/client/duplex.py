"""A stream in both directions, for threads.

Three threads meet here: the caller's; grpc's writer, which takes requests from a bounded queue; and a reader of our
own, which hands over answers and notes why the stream ended.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from tidegate.client.connection import Connection
from tidegate.errors import DeadlineError, StateError, TidegateError, UnavailableError
from tidegate.wire.report import Headers

CLOSE_TIMEOUT_S = 1.0


class Duplex:
    """The mechanics of one stream. `changed` guards everything; whoever owns the stream keeps its own state under it.

    A broken stream stays broken. What broke it is raised by every later call that cannot do its work.
    """

    def __init__(
        self,
        connection: Connection,
        service: Any,
        method: str,
        *,
        largest_queue_bytes: int,
        take: Callable[[Any], None],
        headers: Headers = (),
        timeout_s: float | None = None,
    ) -> None:
        """Open the stream; nothing has been sent when this returns.

        Args:
            connection: to the server.
            service: table of methods.
            method: one of them.
            largest_queue_bytes: requests that may wait for the network.
            take: given each answer, with `changed` held; may wait on it, which slows the server down.
            headers: sent when the stream opens.
            timeout_s: of the whole stream; None: it may stay open.
        """
        self.changed = threading.Condition()
        self.target = connection.target
        self.closed = False
        self.broken: TidegateError | None = None
        self.ended = False
        """the server has ended the stream without an error"""
        self.answer_headers: Headers | None = None
        """what the server said when it began to answer; None before"""
        self.bytes_sent = 0
        """handed to the network so far"""
        self._connection = connection
        self._largest_queue_bytes = largest_queue_bytes
        self._take = take
        self._queue: deque[Any] = deque()
        self._queue_bytes = 0
        self._finished_sending = False
        self._call = connection.open_stream(service, method, self._requests(), headers=headers, timeout_s=timeout_s)
        self._reader = threading.Thread(target=self._read, name=f"tidegate-{method}", daemon=True)
        self._reader.start()

    def put(self, request: Any, timeout_s: float = 0.0) -> None:
        """Queue one request. A request that is larger than the whole queue goes out when the queue is empty.

        Args:
            request: message.
            timeout_s: to wait for room; 0: do not wait.

        Raises:
            UnavailableError: the stream is broken, or the network takes nothing and the queue is full.
            StateError: after close or `finish_sending`.
        """
        size = request.ByteSize()
        with self.changed:
            self.changed.wait_for(lambda: self._has_room(size) or not self.is_open, timeout_s)
            self.check_usable()
            if self._finished_sending:
                raise StateError(f"{self.target}: the stream was told that nothing follows", fix="open another")
            if not self._has_room(size):
                raise UnavailableError(
                    f"{self.target}: {self._queue_bytes} bytes wait for the network, which takes no more",
                    fix="go on without the server until the network is faster, or open a new stream",
                )
            self._queue.append(request)
            self._queue_bytes += size
            self.changed.notify_all()

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

    def wait_until_accepted(self, header: str, timeout_s: float) -> None:
        """Wait for the server's headers, with `header` among them.

        Raises:
            DeadlineError: none in that time. The stream is closed then.
            TidegateError: what the server ended the stream with.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._has_header(header) or not self.is_open, timeout_s)
            if self._has_header(header) and self.broken is None:
                return
            broken = self.broken or DeadlineError(
                f"{self.target}: the server did not accept the stream in {timeout_s:g} s",
                fix="look whether the server is overloaded, or allow more time with timeout_s",
            )
            self.closed = True
            self._finish_sending()
        self._call.cancel()
        raise broken

    def finish_sending(self) -> None:
        """Tell the server that nothing follows; its answers may still come."""
        with self.changed:
            self._finish_sending()

    def close(self, *, wait_s: float = CLOSE_TIMEOUT_S) -> None:
        """Tell the server that nothing follows and end the call. Closing again does nothing.

        Args:
            wait_s: time for the server to end the stream by itself.
        """
        with self.changed:
            if self.closed:
                return
            self.closed = True
            self._finish_sending()
        if wait_s:
            self._reader.join(wait_s)
        self._call.cancel()

    def _has_header(self, name: str) -> bool:
        return any(key == name for key, _ in self.answer_headers or ())

    def _has_room(self, size: int) -> bool:
        return not self._queue or self._queue_bytes + size <= self._largest_queue_bytes

    def _finish_sending(self) -> None:
        self._finished_sending = True
        self.changed.notify_all()

    # The side of grpc's writer thread.

    def _requests(self) -> Iterator[Any]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._queue or self._finished_sending)
                if not self._queue:
                    return
                request = self._queue.popleft()
                size = request.ByteSize()
                self._queue_bytes -= size
                self.bytes_sent += size
                self.changed.notify_all()
            yield request

    # The side of the reader thread.

    def _read(self) -> None:
        import grpc

        try:
            headers = tuple(self._call.initial_metadata())
            with self.changed:
                self.answer_headers = headers
                self.changed.notify_all()
            for response in self._call:
                with self.changed:
                    self._take(response)
                    self.changed.notify_all()
            self._note_end(None)
        except grpc.RpcError as error:
            self._note_end(self._connection.translated(error))
        except TidegateError as error:
            # An answer that cannot be read.
            self._note_end(error)
            self._call.cancel()

    def _note_end(self, reason: TidegateError | None) -> None:
        with self.changed:
            if reason is None and not self._finished_sending:
                reason = UnavailableError(f"{self.target}: the server ended the stream", fix="open another")
            if reason is None:
                self.ended = True
            elif not self.closed:
                self.broken = reason
            self._queue.clear()
            self._queue_bytes = 0
            self._finish_sending()
