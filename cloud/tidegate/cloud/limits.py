"""What keeps a server on a network from being used up: the settings, and which addresses need them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from tidegate.cloud.rate import Rate
from tidegate.cloud.tls import TlsFiles
from tidegate.errors import ConfigError

PUBLIC_CALLS_PER_CONNECTION = 256
LOCAL_CALLS_PER_CONNECTION = 1000

PUBLIC_SHARE_OF_STREAMS = 4
"""On a public bind one client may open a quarter of the server's streams."""


@dataclass(frozen=True)
class Safety:
    """Who may call and how much; a setting that is None depends on the address that is listened on.

    *Public* is every address but loopback and Unix sockets.
    """

    tls: TlsFiles | None = None
    """certificate of the port; None: plaintext"""
    insecure: bool = False
    """whether a public port may be plaintext"""
    access_file: Path | None = None
    """keys, as `tidegate access` writes them; None: everybody may call everything that is switched on"""
    audit_file: Path | None = None
    """where calls of administration are recorded"""
    rate: Rate | None = None
    """of requests per client: per key, else per address; None: no limit"""
    rate_file: Path | None = None
    """where several processes count those requests together; None: this process is alone"""
    streams_per_client: int | None = None
    """open at once; None: a quarter of all on a public port, else all"""
    calls_per_connection: int | None = None
    """open at once on one connection, streams too; more wait in the client; None: 256 on a public port, else 1000"""
    maximum_connections: int = 20_000
    """open at once; more are closed when they come"""
    maximum_header_bytes: int = 16 * 1024
    """of one call, all headers together"""
    message_timeout_s: float = 30.0
    """how long a call may take to send its message, the last byte of it"""
    idle_stream_s: float = 1800.0
    """how long a stream may send nothing and get nothing"""
    slow_reader_s: float = 60.0
    """how long an answer may wait for its reader"""
    maximum_unread_bytes: int = 256 * 2**20
    """of all answers together that are not taken yet, those over 64 KB; the oldest make room for new ones"""
    handshake_timeout_s: float = 10.0
    """how long a connection may take to become one"""
    connection_idle_s: float = 600.0
    """a connection without calls is closed after this; clients open another one by themselves"""
    connection_age_s: float = 0.0
    """a connection takes no new calls after this; 0: no limit"""
    connection_age_grace_s: float = 60.0
    """and is closed, with its streams, after this more"""
    socket_mode: int = 0o600
    """permissions of a Unix socket"""

    def __post_init__(self) -> None:
        for name in (
            "message_timeout_s",
            "idle_stream_s",
            "slow_reader_s",
            "handshake_timeout_s",
            "connection_idle_s",
            "connection_age_grace_s",
            "maximum_connections",
            "maximum_header_bytes",
            "maximum_unread_bytes",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0", fix=f"raise {name}")
        for name in ("streams_per_client", "calls_per_connection"):
            if (getattr(self, name) or 1) < 1 or getattr(self, name) == 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        if not self.connection_age_s >= 0:
            raise ConfigError(f"connection_age_s is {self.connection_age_s}; expected 0 or more", fix="use 0 for none")
        if not 0 < self.socket_mode <= 0o777:
            raise ConfigError(f"socket mode is {self.socket_mode:o}; expected 1 to 777", fix="use such as 660")

    def options(self, listen: str) -> list[tuple[str, int]]:
        """Return what grpc is told."""
        calls = self.calls_per_connection
        if calls is None:
            calls = PUBLIC_CALLS_PER_CONNECTION if is_public(listen) else LOCAL_CALLS_PER_CONNECTION
        options = [
            ("grpc.max_concurrent_streams", calls),
            ("grpc.max_allowed_incoming_connections", self.maximum_connections),
            ("grpc.max_metadata_size", self.maximum_header_bytes),
            ("grpc.absolute_max_metadata_size", self.maximum_header_bytes),
            ("grpc.server_handshake_timeout_ms", round(self.handshake_timeout_s * 1000)),
            ("grpc.max_connection_idle_ms", round(self.connection_idle_s * 1000)),
        ]
        if self.connection_age_s:
            options += [
                ("grpc.max_connection_age_ms", round(self.connection_age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", round(self.connection_age_grace_s * 1000)),
            ]
        return options

    def streams_of_one(self, listen: str, maximum_streams: int) -> int:
        """Return how many streams one client may open."""
        if self.streams_per_client is not None:
            return self.streams_per_client
        return max(1, maximum_streams // PUBLIC_SHARE_OF_STREAMS) if is_public(listen) else maximum_streams


def is_public(listen: str) -> bool:
    """Say whether others than this machine may reach an address, `HOST:PORT` or `unix:PATH`."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return False
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def check_encrypted(listen: str, safety: Safety) -> None:
    """Refuse a public port in plaintext that was not asked for.

    Raises:
        ConfigError: it is one.
    """
    if is_public(listen) and safety.tls is None and not safety.insecure:
        raise ConfigError(
            f"{listen} can be reached from other machines and the connection would not be encrypted",
            fix="give --tls-cert and --tls-key; or listen on 127.0.0.1 or unix:PATH; or, where something in front "
            "encrypts, add --insecure",
        )
