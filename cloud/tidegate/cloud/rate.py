"""How often each client may call: a token bucket per client, in a table of bounded size."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import ConfigError, ResourceError

MOST_CLIENTS = 10_000
"""Clients that are remembered; about 2 MB. Beyond that, the one that has not called for longest is forgotten."""


@dataclass(frozen=True)
class Rate:
    """What one client may ask for."""

    per_second: float
    """requests in the long run"""
    burst: int = 0
    """requests at once after a pause; 0: those of one second"""

    def __post_init__(self) -> None:
        if not 0 < self.per_second < 1e9:
            raise ConfigError(f"rate is {self.per_second} per second; expected more than 0", fix="choose such as 100")
        if self.burst < 0:
            raise ConfigError(
                f"burst is {self.burst}; expected 0 or more", fix="leave it out for one second's requests"
            )

    @property
    def tolerance_s(self) -> float:
        """How far ahead of the even pace a client may be."""
        return max(1, self.burst or round(self.per_second)) / self.per_second


class LimitsRate(Protocol):
    """Counts requests and refuses those that come too soon."""

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            ResourceError: it comes too soon; it was not counted.
        """


class RateLimiter:
    """Refuses clients that ask too often. Safe for several threads.

    The bucket is kept as one number, the time at which it would be full again: the generic cell rate algorithm of
    ITU-T I.371, which lets the same requests pass as a token bucket and needs no timer.
    """

    def __init__(
        self, rate: Rate, *, maximum_clients: int = MOST_CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / rate.per_second
        self._tolerance_s = rate.tolerance_s
        self._rate = rate
        self._maximum = maximum_clients
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            ResourceError: it comes too soon; it was not counted.
        """
        now_s = self._clock()
        with self._lock:
            full_at_s = max(now_s, self._full_at_s.get(client, 0.0)) + self._interval_s
            ahead_s = full_at_s - now_s
            # A part in a million more, for sums of numbers that are not exact.
            if ahead_s <= self._tolerance_s * (1 + 1e-6):
                self._full_at_s[client] = full_at_s
                self._full_at_s.move_to_end(client)
                if len(self._full_at_s) > self._maximum:
                    self._full_at_s.popitem(last=False)
                return
        raise refused(client, self._rate, ahead_s)


def refused(client: str, rate: Rate, ahead_s: float) -> ResourceError:
    """Return what a client is told that asks too often; `ahead_s`: how far ahead of the even pace it is."""
    return ResourceError(
        f"{client} has asked more often than {rate.per_second:g} times a second",
        fix=f"wait {ahead_s - rate.tolerance_s:.3g} s, then call at a lower rate",
    )


def client_address(peer: str) -> str:
    """Return the address that stands for a client that shows no key.

    Ports do not count, since a client has many. Of an IPv6 address the first 64 bits do, since a host has the rest.

    Args:
        peer: as the transport writes it: `ipv4:10.0.0.1:40000`, `ipv6:[2001:db8::1]:40000`, `unix:`, `10.0.0.1:40000`.
    """
    kind, _, rest = peer.partition(":")
    if kind == "ipv6" or peer.startswith("["):
        import ipaddress

        text = (rest if kind == "ipv6" else peer).replace("%5B", "[").replace("%5D", "]")
        host = text.rpartition("]")[0].lstrip("[").partition("%")[0]
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            return peer
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    if kind == "unix" or not rest:
        return peer
    return (rest if kind == "ipv4" else peer).rpartition(":")[0]
