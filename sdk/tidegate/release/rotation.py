"""Change who may sign for a role: add keys, remove keys, another threshold. Clients are never left behind.

A new root alone would make the metadata of the role worthless until it is signed again, and the other way round. So a
role other than root goes over a bridge, and each file that is written leaves a channel that clients accept:

    1. a root in which old and new keys both count;
    2. the role's metadata, signed by the new keys;
    3. a root in which only the new keys count.

No private key of those that are removed is needed, so a key that was lost or stolen is rotated the same way. A new
root of its own needs the old threshold and the new one. Cut short, the same call completes it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tidegate.errors import ConfigError, NotFoundError
from tidegate.release.channel import Clock, utc_now
from tidegate.release.disk import Disk, exclusive, remove_leftovers
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ROLES, Lifetimes
from tidegate.release.repository import (
    LIFETIMES_FIELD,
    METADATA,
    TARGETS,
    Repository,
    exists,
    lifetimes_of,
    read_repository,
)
from tidegate.release.tuf_types import Root, SSlibKey
from tidegate.release.writer import Writer, require_keys

_SIGNED_AGAIN = {
    "targets": ("targets", "snapshot", "timestamp"),
    "snapshot": ("snapshot", "timestamp"),
    "timestamp": ("timestamp",),
}
"""What is signed again when the keys of a role change: it, and all that names it by digest."""


def rotate(
    path: Path,
    role: str,
    keys: KeyRing,
    *,
    add: Sequence[SSlibKey] = (),
    remove: Sequence[str] = (),
    threshold: int | None = None,
    lifetimes: Lifetimes | None = None,
    disk: Disk | None = None,
    clock: Clock = utc_now,
) -> Repository:
    """Change the keys of a role; with nothing to change, renew the root's expiry.

    Args:
        path: the channel.
        role: `root`, `targets`, `snapshot` or `timestamp`.
        keys: private keys: those of root, and for another role the new ones of that role and of all that follow it.
        add: public keys that may sign from now on.
        remove: ids, or unique beginnings of at least eight characters, of keys that may not any more.
        threshold: how many must sign; default as before.
        lifetimes: new ones for the whole channel; default as before.
        disk: where to write.
        clock: what time it is.

    Raises:
        ConfigError: keys are missing, or the threshold cannot be met.
        NotFoundError: there is no such channel, or no such key in the role.
    """
    if not exists(path):
        raise NotFoundError(f"{path} holds no channel", fix="name the channel's directory")
    with exclusive(path / ".lock"):
        layer = disk or Disk()
        for part in (METADATA, TARGETS):
            remove_leftovers(layer, path / part)
        repository = read_repository(path)
        writer = Writer(path, layer, keys, clock().replace(microsecond=0))
        before = repository.root.signed
        after = _changed(before, role, add, _full_ids(before, role, remove), threshold, lifetimes)
        if role == "root" or _same_keys(before, after, role):
            _replace_root(writer, repository, after)
        else:
            _cross_bridge(writer, repository, _bridge(before, after, role), after, role)
        return read_repository(path)


def _cross_bridge(writer: Writer, repository: Repository, bridge: Root, after: Root, role: str) -> None:
    wanted = after.roles[role]
    require_keys(role, wanted.keyids, wanted.threshold, writer.keys.keyids)
    for signed_role in _SIGNED_AGAIN[role]:
        if signed_role != role:
            writer.require(repository.root.signed, [signed_role])
    if not _same_keys(repository.root.signed, bridge, role):
        repository = _replace_root(writer, repository, bridge)
    root = repository.root.signed
    if "targets" in _SIGNED_AGAIN[role]:
        repository = replace(
            repository, targets=writer.targets(root, repository.files, after=repository.targets.version)
        )
    if "snapshot" in _SIGNED_AGAIN[role]:
        writer.go_live(repository)
    else:
        writer.timestamp(root, repository.snapshot, repository.timestamp.version + 1)
    if not _same_keys(root, after, role):
        _replace_root(writer, repository, after)


def _replace_root(writer: Writer, repository: Repository, wanted: Root) -> Repository:
    previous = repository.root.signed
    root = copy.deepcopy(wanted)
    root.version = previous.version + 1
    root.expires = writer.now + lifetimes_of(root).of("root")
    return replace(repository, root=writer.root(root, previous))


def _changed(
    before: Root,
    role: str,
    add: Sequence[SSlibKey],
    remove: Sequence[str],
    threshold: int | None,
    lifetimes: Lifetimes | None,
) -> Root:
    if role not in ROLES:
        raise ConfigError(f"there is no role {role!r}", fix=f"name one of {', '.join(ROLES)}")
    after = copy.deepcopy(before)
    for key in add:
        after.add_key(key, role)
    for keyid in remove:
        after.revoke_key(keyid, role)
    after.roles[role].threshold = threshold or before.roles[role].threshold
    if not 1 <= after.roles[role].threshold <= len(after.roles[role].keyids):
        raise ConfigError(
            f"role {role} would need {after.roles[role].threshold} of {len(after.roles[role].keyids)} keys",
            fix="add keys with --add, or lower the --threshold",
        )
    if lifetimes is not None:
        after.unrecognized_fields[LIFETIMES_FIELD] = lifetimes.as_dict()
    return after


def _bridge(before: Root, after: Root, role: str) -> Root:
    """Return a root under which what the old keys signed and what the new ones will sign both count."""
    bridge = copy.deepcopy(after)
    for keyid in before.roles[role].keyids:
        bridge.add_key(before.keys[keyid], role)
    bridge.roles[role].threshold = min(before.roles[role].threshold, after.roles[role].threshold)
    return bridge


def _same_keys(one: Root, other: Root, role: str) -> bool:
    left, right = one.roles[role], other.roles[role]
    return set(left.keyids) == set(right.keyids) and left.threshold == right.threshold


def _full_ids(root: Root, role: str, named: Sequence[str]) -> list[str]:
    if role not in ROLES:
        return []
    full = []
    for name in named:
        found = [keyid for keyid in root.roles[role].keyids if len(name) >= 8 and keyid.startswith(name)]
        if len(found) != 1:
            known = ", ".join(keyid[:8] for keyid in root.roles[role].keyids)
            raise NotFoundError(
                f"role {role} has no key {name!r}; it has {known}", fix="`tidegate keys show` tells ids"
            )
        full += found
    return full
