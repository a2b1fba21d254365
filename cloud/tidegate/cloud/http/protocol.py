"""uvicorn's connection with the limits it lacks: of connections, a head's size, arriving and unread bytes, and time.

uvicorn has a limit for the rest between two requests only. Whoever opens connections and sends nothing, or a byte now
and then, would hold them for ever; whoever sends headers without end, or reads nothing of what he asks for, would fill
the memory.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any

from tidegate.cloud.in_flight import BytesInFlight

MAXIMUM_HEAD_BYTES = 64 * 1024

JOINED_BYTES = 64 * 1024
"""A longer body is not copied for the sake of one call."""

_INTERIM = b"HTTP/1.1 1"
"""An answer of the kind `100 Continue`, which has no body and is waited for."""

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time (socket(7)): closing resets the connection and drops what was not sent."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may do, and all together."""

    maximum_connections: int
    """open at once; more are closed when they come"""
    request_timeout_s: float
    """from the opening, or a request's first byte, until the request is there as a whole"""
    reader_timeout_s: float
    """a reader who takes nothing of an answer in all that time is cut off"""
    arriving: BytesInFlight
    """bodies that are here, until they are answered"""
    unread: BytesInFlight
    """answers that are not taken"""


class WholeAnswers:
    """A transport that keeps the head of an answer until its body comes: both leave in one call of the system.

    That call is the dearest part of a small answer, and uvicorn makes one for each.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Take the head of an answer, or send its body behind it."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) > JOINED_BYTES:
                self._transport.write(head)
                self._transport.write(data)
            else:
                self._transport.write(head + data)
        elif data.startswith(_INTERIM):
            self._transport.write(data)
        else:
            self._head = data

    def flush(self) -> None:
        """Send a head that has no body."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what is kept, then close."""
        self.flush()
        self._transport.close()


def limited_protocol(limits: ConnectionLimits) -> Any:
    """Return the protocol class for uvicorn's setting `http`."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class LimitedProtocol(HttpToolsProtocol):
        """One connection."""

        _arrival: asyncio.TimerHandle | None = None
        _reader: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _in_head = True
        _arriving = False
        _body_bytes = 0
        _unread_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._whole: Any = WholeAnswers(transport)
            if len(self.connections) > limits.maximum_connections:
                self._end()
            else:
                self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            self._taken()
            limits.arriving.release(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            if self._arriving and self._arrival is None:
                self._expect()
            if self._in_head and self._head_bytes > MAXIMUM_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

        def on_message_begin(self) -> None:
            self._head_bytes, self._in_head, self._arriving = 0, True, True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()
            self.cycle.transport = self._whole

        def on_body(self, body: bytes) -> None:
            self._body_bytes += len(body)
            limits.arriving.hold(self, self._body_bytes, self._cut)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._arrived()
            self._head_bytes, self._in_head, self._arriving = 0, True, False
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._body_bytes = 0
            limits.arriving.release(self)
            self._whole.flush()
            super().on_response_complete()
            if self.transport.get_write_buffer_size():
                self._await_reader()

        def pause_writing(self) -> None:
            super().pause_writing()
            limits.unread.hold(self, self.transport.get_write_buffer_size(), self._cut)
            self._await_reader()

        def resume_writing(self) -> None:
            limits.unread.release(self)
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            """Close a connection at rest; one whose answer is not taken yet is the reader's watch's."""
            if self._reader is None:
                super().timeout_keep_alive_handler()
            else:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def _expect(self) -> None:
            self._arrival = self.loop.call_later(limits.request_timeout_s, self._give_up)

        def _arrived(self) -> None:
            if self._arrival is not None:
                self._arrival.cancel()
                self._arrival = None

        def _give_up(self) -> None:
            self._arrival = None
            if self.pipeline:
                # Not his fault: a request before this one is not answered yet, and until then nothing is read.
                self._expect()
            else:
                self._end()

        def _await_reader(self) -> None:
            if self._reader is None:
                self._unread_bytes = self.transport.get_write_buffer_size()
                self._reader = self.loop.call_later(limits.reader_timeout_s, self._look_at_reader)

        def _look_at_reader(self) -> None:
            """Cut a connection whose reader took nothing; whether it is to be closed anyway makes no difference."""
            self._reader = None
            left_bytes = self.transport.get_write_buffer_size()
            if left_bytes and left_bytes == self._unread_bytes:
                self._end()
            elif left_bytes:
                self._await_reader()

        def _taken(self) -> None:
            limits.unread.release(self)
            if self._reader is not None:
                self._reader.cancel()
                self._reader = None

        def _cut(self) -> None:
            """End the connection, from any thread."""
            self.loop.call_soon_threadsafe(self._end)

        def _end(self) -> None:
            """End the connection now. The system forgets too what it holds for a caller who does not read."""
            opened = self.transport.get_extra_info("socket")
            if opened is not None and opened.fileno() >= 0:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self.transport.abort()

    return LimitedProtocol
