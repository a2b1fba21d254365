"""uvicorn's connection with the limits it lacks: a time for a request to arrive, a size of its head, a slow reader.

uvicorn has a limit for the rest between two requests only. Whoever opens connections and sends nothing, or a byte now
and then, would hold them for ever; and whoever sends headers without end would fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

MAXIMUM_HEAD_BYTES = 64 * 1024


def limited_protocol(request_timeout_s: float) -> Any:
    """Return the protocol class for uvicorn's setting `http`.

    Args:
        request_timeout_s: from the opening, or a request's first byte, until the request is there as a whole.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class LimitedProtocol(HttpToolsProtocol):
        """One connection."""

        _arrival: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _in_head = True
        _unread_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._head_bytes > MAXIMUM_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

        def on_message_begin(self) -> None:
            self._head_bytes, self._in_head = 0, True
            if self._arrival is None:
                self._expect()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._arrived()
            self._head_bytes, self._in_head = 0, True
            super().on_message_complete()

        def timeout_keep_alive_handler(self) -> None:
            """Close a connection at rest; cut one whose reader took nothing of the answer in all that time."""
            left_bytes = self.transport.get_write_buffer_size()
            if self.transport.is_closing() or not left_bytes:
                super().timeout_keep_alive_handler()
            elif left_bytes == self._unread_bytes:
                self.transport.abort()
            else:
                self._unread_bytes = left_bytes
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def _expect(self) -> None:
            self._arrival = self.loop.call_later(request_timeout_s, self._give_up)

        def _arrived(self) -> None:
            if self._arrival is not None:
                self._arrival.cancel()
                self._arrival = None

        def _give_up(self) -> None:
            self._arrival = None
            self.transport.abort()

    return LimitedProtocol
