"""The channels to one server, for asyncio: opened when first used, kept for all calls of one event loop."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from tidegate.client.channel import ChannelSettings, Credentials, import_grpc
from tidegate.client.settings import authorization
from tidegate.client.tls_trouble import Troubleshooter, is_worth_a_look
from tidegate.client.trace_context import trace_headers
from tidegate.errors import StateError, TidegateError, UnavailableError
from tidegate.wire.report import Headers


class AsyncConnection:
    """As `Connection`, within one event loop: the one that runs at the first call."""

    def __init__(self, settings: ChannelSettings) -> None:
        """Prepare the channel; nothing is sent. Raises what `Connection` raises."""
        self.settings = settings
        self._grpc = import_grpc()
        self._credentials = None if settings.tls is None else Credentials(self._grpc, settings.tls)
        self._troubleshooter = Troubleshooter(settings.target, settings.tls)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._channels: dict[bool, Any] = {}
        self._retired: list[Any] = []
        self._callables: dict[str, Any] = {}

    @property
    def target(self) -> str:
        """The server's address as it was given."""
        return self.settings.target

    async def call(
        self,
        service: Any,
        name: str,
        request: Any,
        timeout_s: float,
        *,
        headers: Headers = (),
        on_headers: Callable[[Headers], None] | None = None,
    ) -> Any:
        """Make one unary call and return the answer; arguments and errors are those of `Connection.call`."""
        deadline_s = time.monotonic() + timeout_s
        call = self._callable(service, name)(request, timeout=timeout_s, metadata=self._metadata(headers))
        try:
            answer = await call
            if on_headers is not None:
                on_headers(tuple(await call.initial_metadata()))
            return answer
        except self._grpc.RpcError as error:
            raise await self.translated(error, deadline_s - time.monotonic()) from error
        except asyncio.CancelledError as error:
            # A channel that closes cancels its calls, which asyncio cannot tell from this task being cancelled.
            if self._closed and not _is_cancelled():
                raise UnavailableError(f"{self.target}: the client was closed", fix="make a new client") from error
            raise

    def open_stream(self, service: Any, name: str, *, headers: Headers = (), timeout_s: float | None = None) -> Any:
        """Start a call with a stream in both directions and return grpc's call object, to read and write."""
        return self._callable(service, name)(metadata=self._metadata(headers), timeout=timeout_s)

    async def translated(self, error: Any, left_s: float = math.inf) -> TidegateError:
        """Return our error for a grpc.aio.AioRpcError; the arguments are those of `Connection.translated`."""
        code, details = error.code(), error.details() or ""
        trouble = None
        if is_worth_a_look(code.name, details):
            if self._credentials is not None and self._credentials.renew():
                # The next calls open new channels; calls that are under way keep theirs until `close`.
                self._troubleshooter.forget()
                self._retired += self._channels.values()
                self._channels, self._callables = {}, {}
                return self.settings.renewed_error()
            # A look waits for the network, and others go on in this event loop.
            trouble = await asyncio.to_thread(self._troubleshooter.trouble, code.name, details, left_s)
        return self.settings.error(code, details, trouble)

    async def close(self) -> None:
        """Close the channels; calls under way end. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        for channel in (*self._channels.values(), *self._retired):
            await channel.close()

    def _metadata(self, headers: Headers) -> Headers | None:
        return authorization(self.settings.token) + trace_headers() + headers or None

    def _callable(self, service: Any, name: str) -> Any:
        self._check_usable()
        path = f"/{service.name}/{name}"
        if path not in self._callables:
            method = service.method(name)
            channel = self._channel(is_speech=service.name.startswith("tidegate."))
            make = channel.stream_stream if method.streaming else channel.unary_unary
            self._callables[path] = make(
                path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._callables[path]

    def _check_usable(self) -> None:
        if self._closed:
            raise self.settings.closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise StateError(
                f"{self.target}: this client belongs to another event loop", fix="make a client in each event loop"
            )

    def _channel(self, *, is_speech: bool) -> Any:
        if is_speech not in self._channels:
            options = self.settings.options(is_speech=is_speech)
            self._channels[is_speech] = (
                self._grpc.aio.insecure_channel(self.target, options=options)
                if self._credentials is None
                else self._grpc.aio.secure_channel(self.target, self._credentials.current, options=options)
            )
        return self._channels[is_speech]


def _is_cancelled() -> bool:
    """Return whether the running task was told to stop; before Python 3.11 nobody can say, so the call was."""
    task = asyncio.current_task()
    return sys.version_info >= (3, 11) and task is not None and task.cancelling() > 0
