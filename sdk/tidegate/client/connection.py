"""One gRPC channel: its options, its calls, and the translation of what goes wrong on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

from tidegate.errors import ConfigError, DependencyError, StateError, TidegateError
from tidegate.wire.report import Headers
from tidegate.wire.status import error_of

KEEPALIVE_MS = 20_000
"""A peer that is silent this long is asked whether it still lives."""

KEEPALIVE_TIMEOUT_MS = 10_000

LARGEST_RECONNECT_WAIT_MS = 2_000
"""After a server came back, calls reach it again within this time."""


def import_grpc() -> ModuleType:
    """Import grpc, which takes a while and is only needed once a server is called.

    Raises:
        DependencyError: grpcio or protobuf is not installed.
    """
    try:
        import google.protobuf
        import grpc
    except ImportError as error:
        raise DependencyError(
            f"calling a server needs grpcio and protobuf: {error}", fix="pip install 'tidegate[client]'"
        ) from error
    del google
    module: ModuleType = grpc
    return module


class Connection:
    """A lazily connecting channel to one target. Safe to use from several threads."""

    def __init__(self, target: str, *, maximum_message_bytes: int) -> None:
        """Prepare the channel; nothing is sent.

        Raises:
            ConfigError: `target` is not HOST:PORT.
            DependencyError: grpcio is not installed.
        """
        _check_target(target)
        self._grpc = import_grpc()
        self.target = target
        self._lock = threading.Lock()
        self._closed = False
        self._channel = self._grpc.insecure_channel(target, options=_options(maximum_message_bytes))
        self._callables: dict[str, Any] = {}

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
            headers: sent with the call.
            on_headers: given the headers of the answer; None when they are not wanted.

        Raises:
            StateError: after close.
            TidegateError: the class that `tidegate.wire.status` has for the server's status.
        """
        try:
            if on_headers is None:
                return self._callable(service, name)(request, timeout=timeout_s, metadata=headers or None)
            answer, call = self._callable(service, name).with_call(request, timeout=timeout_s, metadata=headers)
            on_headers(call.initial_metadata())
            return answer
        except self._grpc.RpcError as error:
            raise self.translated(error) from error
        except ValueError as error:
            # grpc raises it for a channel that another thread closed in between.
            raise self._closed_error() from error

    def open_stream(self, service: Any, name: str, requests: Any, *, headers: Headers = ()) -> Any:
        """Start a call with a stream in both directions, without a deadline, and return grpc's call object."""
        try:
            return self._callable(service, name)(requests, metadata=headers or None)
        except ValueError as error:
            raise self._closed_error() from error

    def translated(self, error: Any) -> TidegateError:
        """Return our error for a grpc.RpcError (or a finished call, which has the same two methods)."""
        return error_of(error.code().name, error.details() or "", peer=self.target)

    def close(self) -> None:
        """Close the channel; calls under way end. Closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._channel.close()

    def _callable(self, service: Any, name: str) -> Any:
        with self._lock:
            if self._closed:
                raise self._closed_error()
            path = f"/{service.name}/{name}"
            if path not in self._callables:
                method = service.method(name)
                make = self._channel.stream_stream if method.streaming else self._channel.unary_unary
                self._callables[path] = make(
                    path,
                    request_serializer=method.request.SerializeToString,
                    response_deserializer=method.response.FromString,
                )
            return self._callables[path]

    def _closed_error(self) -> StateError:
        return StateError(f"{self.target}: the client is closed", fix="make a new Client")


def _check_target(target: str) -> None:
    host, _, port = target.rpartition(":")
    if not target.startswith("unix:") and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(
            f"server address {target!r}; expected HOST:PORT", fix="give an address such as 127.0.0.1:8001"
        )


def _options(maximum_message_bytes: int) -> list[tuple[str, int | str]]:
    return [
        ("grpc.max_send_message_length", maximum_message_bytes),
        ("grpc.max_receive_message_length", maximum_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # A stream is silent while nobody speaks; the pings of that time must not be limited to two.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", LARGEST_RECONNECT_WAIT_MS),
        ("grpc.primary_user_agent", f"tidegate/{version('tidegate')}"),
    ]
