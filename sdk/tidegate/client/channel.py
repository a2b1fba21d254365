"""What a gRPC channel is opened with, and what goes wrong on it in our own errors. The same for sync and asyncio."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from tidegate.client.settings import RetrySettings, TlsSettings, Token, check_target, check_token_is_safe
from tidegate.client.tls_trouble import Trouble
from tidegate.errors import ConfigError, DependencyError, NotFoundError, StateError, TidegateError, UnavailableError
from tidegate.wire.status import error_of

LARGEST_MESSAGE_BYTES = 64 * 2**20

KEEPALIVE_MS = 310_000
"""A server that is silent this long during a call is asked whether it still lives. gRPC servers allow one such question
in five minutes unless they were told otherwise, and end the connection after the third that comes too early."""

SPEECH_KEEPALIVE_MS = 20_000
"""On the connection for speech. Tidegate's server allows it; a dead network must be noticed while nobody speaks."""

KEEPALIVE_TIMEOUT_MS = 10_000
"""For the answer to that question, and for the acknowledgement of what was sent (TCP_USER_TIMEOUT, where there is one):
a network that swallows a request is noticed after this time."""

LARGEST_RECONNECT_WAIT_MS = 2_000
"""After a server came back, calls reach it again within this time."""


TLS_FAILED = ("handshake failed", "verification check failed", "not in peer certificate")
"""How grpc (1.60 to 1.85) says that two ends could not agree on a connection. Only the advice depends on it."""

TLS_FIX = "compare the authorities, this client's certificate and the server's name, or whether the server encrypts"


@dataclass(frozen=True)
class ChannelSettings:
    """All that a channel to one server needs."""

    target: str
    """HOST:PORT or unix:PATH"""
    timeout_s: float
    """deadline of each call that states none"""
    maximum_message_bytes: int
    """largest message that is sent or accepted"""
    tls: TlsSettings | None
    """None: plaintext"""
    token: Token | None
    retries: RetrySettings

    def __post_init__(self) -> None:
        """Check the address, the timeout and the token's safety.

        Raises:
            ConfigError: one of them cannot be meant.
        """
        check_target(self.target)
        check_timeout(self.timeout_s)
        check_token_is_safe(self.target, self.tls, self.token)

    def options(self, *, is_speech: bool = False) -> list[tuple[str, int | str]]:
        """Return grpc's channel arguments.

        Args:
            is_speech: for streams of speech, which are silent while nobody speaks.
        """
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", self.maximum_message_bytes),
            ("grpc.max_receive_message_length", self.maximum_message_bytes),
            ("grpc.keepalive_time_ms", SPEECH_KEEPALIVE_MS if is_speech else KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", LARGEST_RECONNECT_WAIT_MS),
            ("grpc.primary_user_agent", f"tidegate/{version('tidegate')}"),
            ("grpc.service_config", self.retries.service_config()),
        ]
        if is_speech:
            # The pings of a silent stream must not be limited to two.
            options.append(("grpc.http2.max_pings_without_data", 0))
        if self.retries.infer:
            # grpc repeats no call that it could not keep a copy of; by default it keeps 256 KiB.
            options.append(("grpc.per_rpc_retry_buffer_size", self.maximum_message_bytes))
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def error(self, code: Any, details: str | None, trouble: Trouble | None = None) -> TidegateError:
        """Return our error for the status of a call that failed.

        Args:
            code: grpc.StatusCode.
            details: the status message.
            trouble: why there is no connection, where that was found out.
        """
        if trouble is not None:
            return UnavailableError(f"{self.target}: {trouble.found}", fix=trouble.fix)
        error = error_of(code.name, details or "", peer=self.target)
        if code.name == "UNAVAILABLE" and any(words in error.message.lower() for words in TLS_FAILED):
            return UnavailableError(error.message, fix=TLS_FIX)
        return error

    def renewed_error(self) -> UnavailableError:
        """Return what is raised for a call that found no connection, after which changed TLS files were read."""
        return UnavailableError(
            f"{self.target}: no connection with the TLS files of before; they have changed and were read again",
            fix="call again",
        )

    def closed_error(self) -> StateError:
        """Return what is raised for a call after close."""
        return StateError(f"{self.target}: the client is closed", fix="make a new client")


def check_timeout(timeout_s: float) -> float:
    """Return the timeout.

    Raises:
        ConfigError: not more than 0.
    """
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s is {timeout_s}; expected more than 0", fix="give a time in seconds")
    return timeout_s


def credentials(grpc: ModuleType, tls: TlsSettings) -> Any:
    """Return grpc's channel credentials. Raises what `TlsSettings.pem` raises."""
    return grpc.ssl_channel_credentials(*tls.pem())


class Credentials:
    """The TLS files of a client, which may be renewed while it lives: grpc itself reads them once."""

    def __init__(self, grpc: ModuleType, tls: TlsSettings) -> None:
        """Read the files. Raises what `TlsSettings.pem` raises."""
        self._grpc = grpc
        self._tls = tls
        self._lock = threading.Lock()
        self._stamps = self._look()
        self.current = credentials(grpc, tls)
        """grpc's, from the files as they were read last"""

    def renew(self) -> bool:
        """Read the files again if they have changed; return whether they were. What cannot be used yet is left."""
        with self._lock:
            stamps = self._look()
            if stamps == self._stamps:
                return False
            try:
                self.current = credentials(self._grpc, self._tls)
            except (ConfigError, NotFoundError):
                # Files are never replaced all at one instant: the next failure looks again.
                return False
            self._stamps = stamps
            return True

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self._tls.ca, self._tls.cert, self._tls.key))


def _stamp(path: Path | None) -> tuple[int, ...]:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return ()
    return () if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


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
