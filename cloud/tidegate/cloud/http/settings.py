"""What the HTTP ports are, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import ConfigError


@dataclass(frozen=True)
class HttpSettings:
    """Ports and limits of HTTP; picklable, for workers."""

    listen: str = ""
    """HOST:PORT of the inference API, health and metrics; port 0 takes a free one; empty: no such port"""
    metrics_listen: str = ""
    """HOST:PORT of health and metrics alone; empty: no such port"""
    metrics: bool = True
    """whether `listen` answers /metrics too"""
    maximum_body_bytes: int = 64 * 2**20
    """largest request, also after it was decompressed"""
    maximum_connections: int = 20_000
    """open at once; more are closed when they come"""
    maximum_requests: int = 2000
    """under way at once; one more is answered with 503"""
    maximum_arriving_bytes: int = 256 * 2**20
    """of all bodies together that are not answered yet, those over 64 KB; the oldest make room for new ones"""
    request_timeout_s: float = 30.0
    """from the opening of a connection, or the first byte of a request, until the request is there as a whole"""
    keep_alive_s: float = 75.0
    """how long a connection may rest between two requests, and a reader take nothing of an answer"""
    values_per_s: float = 20.0
    """requests a second of each model whose values are counted in the bins of its reference profile; 0: none"""

    def __post_init__(self) -> None:
        for name in ("maximum_body_bytes", "maximum_connections", "maximum_requests", "maximum_arriving_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        for name in ("request_timeout_s", "keep_alive_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0", fix=f"raise {name}")
        if not self.values_per_s >= 0:
            raise ConfigError(f"values_per_s is {self.values_per_s}; expected 0 or more", fix="use 0 for none")

    @property
    def has_metrics(self) -> bool:
        """Whether any port shows metrics."""
        return bool(self.metrics_listen or (self.listen and self.metrics))


@dataclass(frozen=True)
class Siblings:
    """Where the workers of one port find each other, so that whichever is asked shows the metrics of all."""

    directory: str = ""
    """of one Unix socket for each worker; empty: this process is alone"""
    index: int = 0
    """of this worker"""
