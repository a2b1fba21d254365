"""How long each role's signature is good for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta

from tidegate.errors import BundleError, ConfigError

_DAY_S = 86_400

ROLES = ("root", "targets", "snapshot", "timestamp")
"""From the most to the least guarded."""

ONLINE = ("snapshot", "timestamp")
"""Roles whose keys may lie on a machine that refreshes the channel by itself."""


@dataclass(frozen=True)
class Lifetimes:
    """Seconds from signing to expiry. Signed into the root, so that whoever refreshes uses the same."""

    root_s: int = 365 * _DAY_S
    """offline; renewed by `tidegate keys rotate --role root`"""
    targets_s: int = 90 * _DAY_S
    """offline; renewed by every publish, promote, roll-back, withdrawal and `refresh --targets`"""
    snapshot_s: int = 7 * _DAY_S
    """online; renewed by `refresh`"""
    timestamp_s: int = 1 * _DAY_S
    """online; renewed by `refresh`: how long somebody can keep a device from hearing of news"""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 1 <= value <= 100 * 365 * _DAY_S:
                raise ConfigError(f"{name} is {value}; expected 1 second to 100 years", fix="give such as timestamp=2d")

    def of(self, role: str) -> timedelta:
        """Return the lifetime of `root`, `targets`, `snapshot` or `timestamp`."""
        return timedelta(seconds=int(getattr(self, f"{role}_s")))

    def as_dict(self) -> dict[str, int]:
        """Return the seconds by role, as they stand in the root."""
        return {role: int(getattr(self, f"{role}_s")) for role in ROLES}

    @classmethod
    def from_dict(cls, seconds: object) -> Lifetimes:
        """Read what `as_dict` wrote; a role that is not there has its default.

        Raises:
            BundleError: it is not that form.
            ConfigError: a lifetime is too short or too long.
        """
        if not isinstance(seconds, dict) or not all(type(value) is int for value in seconds.values()):
            raise BundleError(
                f"the root states lifetimes {str(seconds)[:80]}; expected whole seconds by role",
                fix="tell the channel's owner",
            )
        return cls(**{f"{role}_s": value for role, value in seconds.items() if role in ROLES})
