"""Make an empty channel: its first root, which devices are shipped with, and empty targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tidegate.errors import ConfigError
from tidegate.release.draft import Draft
from tidegate.release.lifetimes import ONLINE, ROLES, Lifetimes
from tidegate.release.repository import LIFETIMES_FIELD
from tidegate.release.tuf_types import Metadata, Root, SSlibKey, Targets


@dataclass(frozen=True)
class RoleKeys:
    """Who may sign for a role."""

    keys: Sequence[SSlibKey]
    """public keys"""
    threshold: int = 1
    """how many of them must"""

    def __post_init__(self) -> None:
        distinct = {key.keyid for key in self.keys}
        if len(distinct) != len(self.keys):
            raise ConfigError("the same key was named twice for one role", fix="name each key once")
        if not 1 <= self.threshold <= len(distinct):
            raise ConfigError(
                f"a threshold of {self.threshold} with {len(distinct)} keys", fix="choose 1 to the number of keys"
            )


def check_threshold(role: str, threshold: int) -> None:
    """Refuse that several keys must sign for an online role.

    Snapshot and timestamp are signed by one machine, by itself, several times a day. Keys on one machine fall together,
    and holders in turns cannot keep up with a lifetime of a day. What these roles say binds nobody to install anything:
    that takes the targets, which have holders.

    Raises:
        ConfigError: the role is snapshot or timestamp, and the threshold is above one.
    """
    if role in ONLINE and threshold > 1:
        raise ConfigError(
            f"a threshold of {threshold} for {role}; expected 1: one machine signs it by itself, several times a day",
            fix="give root and targets a higher threshold, which is what devices' trust in content rests on; "
            f"{role} may have several keys of which any one signs",
        )


def new_channel(roles: Mapping[str, RoleKeys], lifetimes: Lifetimes, now: datetime) -> Draft:
    """Return the steps that make a channel, not signed yet.

    Args:
        roles: `root`, `targets`, `snapshot`, `timestamp`.
        lifetimes: how long signatures are good for.
        now: UTC, whole seconds.

    Raises:
        ConfigError: a role is missing, or an online role has a threshold above one.
    """
    if set(roles) != set(ROLES):
        raise ConfigError(f"keys were named for {sorted(roles)}", fix=f"name them for {', '.join(ROLES)}")
    root = Root(
        version=1,
        expires=now + lifetimes.of("root"),
        consistent_snapshot=True,
        unrecognized_fields={LIFETIMES_FIELD: lifetimes.as_dict()},
    )
    for role, holders in roles.items():
        check_threshold(role, holders.threshold)
        for key in holders.keys:
            root.add_key(key, role)
        root.roles[role].threshold = holders.threshold
    targets = Targets(version=1, expires=now + lifetimes.of("targets"))
    return Draft(None, 0, (Metadata(root), Metadata(targets), "snapshot", "timestamp"))
