"""One HTTP request and its answer, over ASGI: who asks, the body with its limits, compression, the answer."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tidegate.errors import InputError, ResourceError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
BINARY = b"application/octet-stream"

WORTH_COMPRESSING_BYTES = 1024

LONG_BYTES = 256 * 1024
"""What is longer is compressed on another thread, since it would hold up all other connections."""

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""zlib's: gzip with its head, and zlib's own form, which HTTP calls deflate."""


class HttpInputError(InputError):
    """A request that HTTP has a status code of its own for."""

    def __init__(self, http_status: int, message: str, *, fix: str, allowed: str = "") -> None:
        super().__init__(message, fix=fix)
        self.http_status = http_status
        self.allowed = allowed
        """methods of the path, where another one was used"""


class BodyTooLargeError(ResourceError):
    """A body over the limit."""

    http_status = 413


class HttpCaller:
    """The caller, from an ASGI scope."""

    __slots__ = ("deadline_s", "has_gone", "is_begun", "metadata", "peer")

    def __init__(self, scope: Scope, headers: Mapping[str, str]) -> None:
        client = scope.get("client")
        self.peer: str = _peer(client) if client else "unknown"
        self.deadline_s: float | None = None
        self.metadata = headers
        """with names in lower case; of one that came twice, the last"""
        self.has_gone = False
        self.is_begun = False
        """whether the core has his request, and tells its observers what comes of it"""

    def gone(self) -> bool:
        """Whether the connection was lost while the answer was waited for."""
        return self.has_gone


@dataclass
class Ask:
    """A request on its way through a route."""

    caller: HttpCaller
    headers: Mapping[str, str]
    does: str
    """of the route"""
    name: str = ""
    """of the model in the path; empty for none"""
    version: str = ""
    body: bytes = b""
    receive: Receive | None = None


@dataclass
class Answer:
    """What is sent back."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return an answer of JSON."""
    return Answer(status, msgspec.json.encode(value))


async def read_request_body(headers: Mapping[str, str], receive: Receive, limit_bytes: int) -> bytes:
    """Return the body, decompressed.

    Raises:
        BodyTooLargeError: over the limit, before or after decompression.
        InputError: the caller went away, or the compression is unknown or broken.
    """
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(f"{announced} bytes", limit_bytes)
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest_of_body(body, receive, limit_bytes)
    if message["type"] == "http.disconnect" or len(body) > limit_bytes:
        raise _too_large(f"{len(body)} bytes or more", limit_bytes) if body else _GONE
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return bytes(body)
    if encoding not in _WINDOW_BITS:
        raise HttpInputError(415, f"Content-Encoding is {encoding!r}; expected gzip or deflate", fix="send it as it is")
    if len(body) > LONG_BYTES:
        return await asyncio.to_thread(decompressed, body, encoding, limit_bytes)
    return decompressed(body, encoding, limit_bytes)


def decompressed(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Return a body as it was before compression, and never more than the limit in memory.

    Raises:
        BodyTooLargeError: it would be more.
        InputError: it is damaged or truncated.
    """
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        found = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InputError(f"the body is not {encoding}: {error}", fix="compress it again") from error
    if len(found) > limit_bytes:
        raise _too_large(f"{len(body)} compressed bytes", limit_bytes)
    if not stream.eof or stream.unused_data:
        raise InputError(f"the body is truncated {encoding}, or something follows it", fix="compress it again")
    return found


async def send_answer(answer: Answer, accepted: str, send: Send) -> None:
    """Send an answer, compressed where the caller accepts it and it is worth the time."""
    body, headers = answer.body, [(b"content-type", answer.content_type), *answer.headers]
    encoding = _chosen_encoding(accepted) if accepted and len(body) >= WORTH_COMPRESSING_BYTES else ""
    if encoding:
        body = (
            await asyncio.to_thread(_compressed, body, encoding)
            if len(body) > LONG_BYTES
            else _compressed(body, encoding)
        )
        headers += [(b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _compressed(body: bytes, encoding: str) -> bytes:
    # Level 1 is several times as fast as the usual 6; numbers in JSON shrink nearly as much.
    stream = zlib.compressobj(1, wbits=_WINDOW_BITS[encoding])
    return stream.compress(body) + stream.flush()


def _chosen_encoding(accepted: str) -> str:
    """Return the first of ours that Accept-Encoding names and does not forbid with a weight of 0; empty for none."""
    for part in accepted.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() in _WINDOW_BITS and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name.strip()
    return ""


async def _rest_of_body(first: bytes, receive: Receive, limit_bytes: int) -> bytes:
    parts, size, more = [first], len(first), True
    while more and size <= limit_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GONE
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    if size > limit_bytes:
        raise _too_large("more", limit_bytes)
    return b"".join(parts)


def _too_large(found: str, limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body has {found}; at most {limit_bytes} are taken", fix="send less at once, or raise --max-message-mb"
    )


_GONE = InputError("the caller went away before the request was there", fix="send the whole request")


def _peer(client: tuple[str, int]) -> str:
    host, port = client[0], client[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
