"""How files are fetched: time-outs, limits, proxy and trust in the server's certificate."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from urllib.parse import urlsplit

from tidegate.errors import ConfigError


@dataclass(frozen=True)
class FetchSettings:
    """Settings of every fetch from a channel. The defaults suit a device on a slow, unsteady line."""

    connect_timeout_s: float = 10.0
    """longest wait for a connection, for each address of the server"""
    read_timeout_s: float = 30.0
    """longest wait for an answer or for the next bytes; also the window over which the speed is judged"""
    minimum_bytes_per_s: float = 500.0
    """a server that is slower than this over a whole window is given up; 0 only keeps to the time-outs"""
    attempts: int = 4
    """tries in a row that bring less than a window's minimum; a file goes on where it was cut"""
    backoff_s: float = 0.5
    """wait before the second try; doubles with each further one, up to 30 s"""
    maximum_release_bytes: int = 4 << 30
    """largest sum of a release's files that the device takes"""
    parallel_files: int = 4
    """files fetched at the same time"""
    proxy: str | None = None
    """URL of an HTTP proxy; empty: none; None: what the environment says (https_proxy, http_proxy, no_proxy)"""
    ca_file: str | None = None
    """PEM file of the certificates that may vouch for the server; None: those of the system"""
    user_agent: str = "tidegate"
    """how the device names itself to the server"""

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "read_timeout_s"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; expected more than 0", fix="give seconds, such as 30")
        for name in ("minimum_bytes_per_s", "backoff_s"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; expected 0 or more", fix="leave it out for the default")
        for name in ("attempts", "maximum_release_bytes", "parallel_files"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1", fix="leave it out")
        if self.proxy:
            check_url(self.proxy, "proxy")
        if not self.user_agent or not self.user_agent.isprintable() or not self.user_agent.isascii():
            raise ConfigError(
                f"user_agent is {self.user_agent!r}; expected printable ASCII", fix="name it such as kiosk/1.0"
            )

    @property
    def window_bytes(self) -> float:
        """What a server must send in each window of `read_timeout_s`."""
        return self.minimum_bytes_per_s * self.read_timeout_s


def check_url(url: str, what: str) -> None:
    """Refuse what is no address of a web server.

    Raises:
        ConfigError: not http:// or https:// with a host, or a port that is no number.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ConfigError(
            f"{what} is {_without_password(url)!r}; expected an address with http:// or https://",
            fix="give it such as https://models.example.org/channel",
        )


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    scheme, mark, _ = head.partition("://")
    return f"{scheme}{mark}…{at}{tail}" if at else url
