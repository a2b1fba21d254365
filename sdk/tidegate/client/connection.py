"""The channels to one server, for threads: opened when first used, kept for all calls."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from tidegate.client.channel import ChannelSettings, Credentials, import_grpc
from tidegate.client.settings import authorization
from tidegate.client.tls_trouble import Troubleshooter, is_worth_a_look
from tidegate.client.trace_context import trace_headers
from tidegate.errors import TidegateError
from tidegate.wire.report import Headers


class Connection:
    """One channel for the Open Inference Protocol and, once a stream of speech is opened, one for that.

    Safe to use from several threads.
    """

    def __init__(self, settings: ChannelSettings) -> None:
        """Prepare the channel; nothing is sent.

        Raises:
            ConfigError, NotFoundError: a file of the TLS settings cannot be used.
            DependencyError: grpcio is not installed.
        """
        self.settings = settings
        self._grpc = import_grpc()
        self._credentials = None if settings.tls is None else Credentials(self._grpc, settings.tls)
        self._troubleshooter = Troubleshooter(settings.target, settings.tls)
        self._lock = threading.Lock()
        self._closed = False
        self._channels: dict[bool, Any] = {}
        self._retired: list[Any] = []
        self._callables: dict[str, Any] = {}

    @property
    def target(self) -> str:
        """The server's address as it was given."""
        return self.settings.target

    def call(
        self,
        service: Any,
        name: str,
        request: Any,
        timeout_s: float,
        *,
        headers: Headers = (),
        on_headers: Callable[[Headers], None] | None = None,
    ) -> Any:
        """Make one unary call and return the answer.

        Args:
            service: table of methods.
            name: method.
            request: message.
            timeout_s: deadline.
            headers: sent with the call, besides the token.
            on_headers: given the headers of the answer; None when they are not wanted.

        Raises:
            StateError: after close.
            TidegateError: the class that `tidegate.wire.status` has for the server's status.
        """
        deadline_s = time.monotonic() + timeout_s
        metadata = self._metadata(headers)
        try:
            if on_headers is None:
                return self._callable(service, name)(request, timeout=timeout_s, metadata=metadata)
            answer, call = self._callable(service, name).with_call(request, timeout=timeout_s, metadata=metadata)
            on_headers(call.initial_metadata())
            return answer
        except self._grpc.RpcError as error:
            raise self.translated(error, deadline_s - time.monotonic()) from error
        except ValueError as error:
            # grpc raises it for a channel that another thread closed in between.
            raise self.settings.closed_error() from error

    def open_stream(
        self, service: Any, name: str, requests: Any, *, headers: Headers = (), timeout_s: float | None = None
    ) -> Any:
        """Start a call with a stream in both directions and return grpc's call object.

        Args:
            service: table of methods.
            name: method.
            requests: iterator of messages, which grpc's writer thread asks.
            headers: sent with the call, besides the token.
            timeout_s: of the whole stream; None: it may stay open.
        """
        try:
            return self._callable(service, name)(requests, metadata=self._metadata(headers), timeout=timeout_s)
        except ValueError as error:
            raise self.settings.closed_error() from error

    def translated(self, error: Any, left_s: float = math.inf) -> TidegateError:
        """Return our error for a grpc.RpcError (or a finished call, which has the same two methods).

        Args:
            error: of grpc.
            left_s: of the call's time, to look why a server cannot be connected to.
        """
        code, details = error.code(), error.details() or ""
        trouble = None
        if is_worth_a_look(code.name, details):
            if self._credentials is not None and self._credentials.renew():
                self._forget_channels()
                return self.settings.renewed_error()
            trouble = self._troubleshooter.trouble(code.name, details, left_s)
        return self.settings.error(code, details, trouble)

    def close(self) -> None:
        """Close the channels; calls under way end. Closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for channel in (*self._channels.values(), *self._retired):
            channel.close()

    def _forget_channels(self) -> None:
        """Have the next calls open new ones; calls that are under way keep theirs until `close`."""
        self._troubleshooter.forget()
        with self._lock:
            self._retired += self._channels.values()
            self._channels, self._callables = {}, {}

    def _metadata(self, headers: Headers) -> Headers | None:
        return authorization(self.settings.token) + trace_headers() + headers or None

    def _callable(self, service: Any, name: str) -> Any:
        path = f"/{service.name}/{name}"
        found = self._callables.get(path)
        if found is not None and not self._closed:
            return found
        with self._lock:
            if self._closed:
                raise self.settings.closed_error()
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

    def _channel(self, *, is_speech: bool) -> Any:
        if is_speech not in self._channels:
            options = self.settings.options(is_speech=is_speech)
            self._channels[is_speech] = (
                self._grpc.insecure_channel(self.target, options=options)
                if self._credentials is None
                else self._grpc.secure_channel(self.target, self._credentials.current, options=options)
            )
        return self._channels[is_speech]
