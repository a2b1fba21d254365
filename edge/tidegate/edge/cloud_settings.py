"""How far a listener trusts its server."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import ConfigError


@dataclass(frozen=True)
class CloudSettings:
    """How far the server is trusted."""

    target: str
    """HOST:PORT, for messages"""
    timeout_s: float = 2.0
    """longest wait for an answer, from the end of the segment"""
    first_backoff_s: float = 1.0
    """rest after a failure"""
    largest_backoff_s: float = 30.0
    """the rest doubles with each failure in a row, up to this"""

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 60:
            raise ConfigError(
                f"cloud_timeout_s is {self.timeout_s}; expected more than 0, at most 60", fix="2 seconds are usual"
            )
        if not 0 < self.first_backoff_s <= self.largest_backoff_s:
            raise ConfigError(
                f"first_backoff_s is {self.first_backoff_s} and largest_backoff_s {self.largest_backoff_s}; "
                "expected 0 < first <= largest",
                fix="1 and 30 seconds are usual",
            )
