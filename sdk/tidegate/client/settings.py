"""How a client connects: encryption, token, and what is sent a second time."""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, NotFoundError
from tidegate.wire.report import Headers

Token = str | Callable[[], str]
"""A bearer token, or what is asked for one before each call, so that a token may change while the client lives."""

READ_ONLY_METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "RepositoryIndex",
)
"""Asking twice changes nothing on the server."""

MOST_ATTEMPTS = 5
"""gRPC itself makes no more of a call."""

_TOKEN = re.compile(r"[!-~]+\Z")

_OPEN_INFERENCE = "inference.GRPCInferenceService"


@dataclass(frozen=True)
class TlsSettings:
    """Encryption of the connection; with `cert` and `key` the server can tell who calls (mutual TLS)."""

    ca: Path | None = None
    """PEM file of the authorities that the server's certificate must come from; None: the public ones gRPC brings"""
    cert: Path | None = None
    """PEM file of this client's certificate, its chain after it"""
    key: Path | None = None
    """PEM file of the private key of `cert`, not encrypted"""
    server_name: str = ""
    """name in the server's certificate, where it is not the host of the address"""

    def __post_init__(self) -> None:
        """Refuse half of a pair.

        Raises:
            ConfigError: `cert` without `key`, or `key` without `cert`.
        """
        if (self.cert is None) != (self.key is None):
            raise ConfigError("TLS has a certificate or a key; expected both or none", fix="give cert and key")

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Read the files and return the authorities, the key and the certificate, as grpc takes them.

        grpc itself would take anything and fail at each connection with a line of OpenSSL's.

        Raises:
            NotFoundError: a file is not there or cannot be read.
            ConfigError: a file is not what it should be, or the key is not that of the certificate.
        """
        found = tuple(None if path is None else _read(path) for path in (self.ca, self.key, self.cert))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            self._try("ca", self.ca, lambda: context.load_verify_locations(self.ca))
        if self.cert is not None and self.key is not None:
            # Without a password of ours, OpenSSL would ask for that of an encrypted key on the terminal.
            chain, key = self.cert, self.key
            self._try("cert and key", chain, lambda: context.load_cert_chain(chain, key, password=""))
        return found[0], found[1], found[2]

    @staticmethod
    def _try(what: str, path: Path, load: Callable[[], None]) -> None:
        try:
            load()
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"TLS {what} {path} cannot be used: {error}",
                fix="give PEM files: authorities as `ca`, and a certificate with its own unencrypted key",
            ) from error


@dataclass(frozen=True)
class RetrySettings:
    """Which calls gRPC makes again by itself after UNAVAILABLE.

    A call that never left this process, or that the server says it has not looked at, is repeated once whatever stands
    here: gRPC does so, and nothing can have been done twice. Otherwise UNAVAILABLE says that no answer came, not that
    nothing was done: the connection may have broken while the model ran. So health, metadata and the index, which
    change nothing, are repeated; an inference only where `infer` says that running it twice does no harm. Streams never
    are. All attempts share the one deadline of the call.
    """

    attempts: int = 3
    """of a call, the first included; 1: never again"""
    first_backoff_s: float = 0.1
    """upper end of the random wait before the second attempt; doubles with each"""
    largest_backoff_s: float = 1.0
    infer: bool = False
    """the models are pure functions, or counting a request twice does no harm"""
    wait_for_server: bool = False
    """while nobody listens, calls wait until their deadline instead of failing at once; nothing has been sent then, so
    this is safe for every call"""

    def __post_init__(self) -> None:
        """Refuse what gRPC would quietly replace.

        Raises:
            ConfigError: a number out of its range.
        """
        if not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise ConfigError(f"attempts is {self.attempts}; expected 1 to {MOST_ATTEMPTS}", fix="choose fewer")
        if not 0 < self.first_backoff_s <= self.largest_backoff_s:
            raise ConfigError(
                f"first_backoff_s {self.first_backoff_s} and largest_backoff_s {self.largest_backoff_s}; expected "
                "0 < first <= largest",
                fix="give times in seconds",
            )

    def service_config(self) -> str:
        """Return gRPC's service config (grpc/grpc, doc/service_config.md), as JSON."""
        repeated = [*READ_ONLY_METHODS, *(["ModelInfer"] if self.infer else [])]
        config: dict[str, Any] = {"methodConfig": [self._everything()]}
        if self.attempts > 1:
            names = [{"service": _OPEN_INFERENCE, "method": method} for method in repeated]
            config["methodConfig"].append({"name": names, "retryPolicy": self._policy()} | self._waiting())
            # A server that only fails is not asked ever more: each failure takes a token, each answer gives a tenth.
            config["retryThrottling"] = {"maxTokens": 20, "tokenRatio": 0.1}
        return json.dumps(config)

    def _everything(self) -> dict[str, Any]:
        return {"name": [{}]} | self._waiting()

    def _waiting(self) -> dict[str, Any]:
        return {"waitForReady": self.wait_for_server}

    def _policy(self) -> dict[str, Any]:
        return {
            "maxAttempts": self.attempts,
            "initialBackoff": f"{self.first_backoff_s:.6f}s",
            "maxBackoff": f"{self.largest_backoff_s:.6f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }


def authorization(token: Token | None) -> Headers:
    """Return the header of a bearer token (RFC 6750), or none.

    Raises:
        ConfigError: the token is empty or no printable ASCII; it is not shown.
    """
    if token is None:
        return ()
    value = token if isinstance(token, str) else token()
    if not _TOKEN.match(value):
        raise ConfigError(
            "the token is empty, or holds a space, a line feed or a sign beyond ASCII; expected printable ASCII",
            fix="strip what surrounds it in its file",
        )
    return (("authorization", f"Bearer {value}"),)


def check_token_is_safe(target: str, tls: TlsSettings | None, token: Token | None) -> None:
    """Refuse a token that everybody on the network could read.

    Raises:
        ConfigError: a token without TLS, other than on loopback or a Unix socket.
    """
    if token is not None and tls is None and not _is_local(target):
        raise ConfigError(
            f"{target}: a token without TLS could be read on the way",
            fix="give tls=TlsSettings(ca=...), or call over loopback or a Unix socket",
        )


def check_target(target: str) -> None:
    """Refuse an address that nobody can mean.

    Raises:
        ConfigError: neither HOST:PORT nor unix:PATH.
    """
    host, _, port = target.rpartition(":")
    if not target.startswith("unix:") and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(
            f"server address {target!r}; expected HOST:PORT", fix="give an address such as 127.0.0.1:8001"
        )


def _is_local(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"TLS file {path} cannot be read: {error.strerror}", fix="correct the path") from error
