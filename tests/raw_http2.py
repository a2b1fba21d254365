"""Just enough of HTTP/2 (RFC 9113) to misbehave: a client that sends what no library would, and reads when it likes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

TIMEOUT_S = 60


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame: 24 bits of length, type, flags, stream, payload."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field, not compressed (RFC 7541, section 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def grpc_headers(path: str, *more: tuple[str, str]) -> bytes:
    """The headers of a gRPC call."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]
    return b"".join(literal(name, value) for name, value in fields)


def message(raw: bytes, *, claimed_bytes: int | None = None) -> bytes:
    """A gRPC message with its prefix; the length may be a lie."""
    return b"\x00" + struct.pack(">I", len(raw) if claimed_bytes is None else claimed_bytes) + raw


class RawClient:
    """A connection on which frames are written by hand."""

    def __init__(self, address: str, *, window: int = 65_535) -> None:
        """Connect and introduce ourselves; `window` is how many bytes of each stream the server may send unasked."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)))
        self._received = b""

    def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(raw)

    def begin(self, stream: int, path: str, *more: tuple[str, str]) -> None:
        """Open a call and say nothing else."""
        self.send(frame(HEADERS, END_HEADERS, stream, grpc_headers(path, *more)))

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Read frames until the server closes: kind, stream, payload."""
        while True:
            head = self._read(9)
            if len(head) < 9:
                return
            payload = self._read(int.from_bytes(head[:3], "big"))
            yield head[3], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload

    def await_end(self, streams: set[int]) -> None:
        """Read until each of these streams was ended by the server, or the connection was."""
        self.await_some_end(streams, len(streams))

    def await_some_end(self, streams: set[int], count: int) -> set[int]:
        """Read until so many of these streams were ended by the server, or the connection was; return which."""
        ended: set[int] = set()
        for kind, stream, payload in self.frames():
            if kind == PING and len(payload) == 8:
                self.send(frame(PING, ACK, 0, payload))
            if kind == RST_STREAM and stream in streams:
                ended.add(stream)
            if len(ended) >= count:
                break
        return ended

    def vanish(self) -> None:
        """Be gone without a goodbye: the connection is reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            more = self.socket.recv(65536)
            if not more:
                return b""
            self._received += more
        taken, self._received = self._received[:count], self._received[count:]
        return taken


@contextmanager
def raw_client(address: str, *, window: int = 65_535) -> Iterator[RawClient]:
    """Connect until the block ends."""
    client = RawClient(address, window=window)
    try:
        yield client
    finally:
        client.socket.close()


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    length, rest = b"\x7f", len(raw) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + raw
