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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tidegate.errors import ConfigError, NotFoundError
from tidegate.release.applying import carry_out, check_at_hand
from tidegate.release.creation import check_threshold
from tidegate.release.disk import Disk
from tidegate.release.draft import Draft, Step, sign
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ROLES, Lifetimes
from tidegate.release.moments import Clock, utc_now
from tidegate.release.repository import (
    LIFETIMES_FIELD,
    Repository,
    exists,
    lifetimes_of,
    read_metadata,
    read_repository,
)
from tidegate.release.tuf_types import Metadata, Root, SSlibKey
from tidegate.release.writer import Writer, alone

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
    layer = disk or Disk()
    with _opened(path, layer, keys, clock) as writer:
        draft = _draft(writer, role, add, remove, threshold, lifetimes)
        check_at_hand(draft, keys)
        return carry_out(writer, draft)


def draft_rotation(
    path: Path,
    role: str,
    keys: KeyRing,
    *,
    add: Sequence[SSlibKey] = (),
    remove: Sequence[str] = (),
    threshold: int | None = None,
    lifetimes: Lifetimes | None = None,
    clock: Clock = utc_now,
) -> Draft:
    """Put down what `rotate` would write, signed by the keys at hand: for holders who sign in turns.

    Args and errors are those of `rotate`, but keys may be missing.
    """
    with _opened(path, Disk(), keys, clock) as writer:
        draft = _draft(writer, role, add, remove, threshold, lifetimes)
        sign(draft, keys)
        return draft


@contextmanager
def _opened(path: Path, disk: Disk, keys: KeyRing, clock: Clock) -> Iterator[Writer]:
    if not exists(path):
        raise NotFoundError(f"{path} holds no channel", fix="name the channel's directory")
    with alone(path, disk):
        yield Writer(path, disk, keys, clock().replace(microsecond=0))


def _draft(
    writer: Writer,
    role: str,
    add: Sequence[SSlibKey],
    remove: Sequence[str],
    threshold: int | None,
    lifetimes: Lifetimes | None,
) -> Draft:
    repository = read_repository(writer.path)
    before = repository.root.signed
    after = _changed(before, role, add, _full_ids(before, role, remove), threshold, lifetimes)
    base = read_metadata(writer.path, before)
    if role == "root" or _same_keys(before, after, role):
        return Draft(base, repository.targets.version, (_following(before, after, writer.now),))
    return Draft(base, repository.targets.version, tuple(_across_bridge(writer, repository, after, role)))


def _across_bridge(writer: Writer, repository: Repository, after: Root, role: str) -> Iterator[Step]:
    current = repository.root.signed
    bridge = _bridge(current, after, role)
    if not _same_keys(current, bridge, role):
        first = _following(current, bridge, writer.now)
        current = first.signed
        yield first
    for signed_role in _SIGNED_AGAIN[role]:
        if signed_role == "targets":
            yield writer.new_targets(after, repository.files, after=repository.targets.version)
        else:
            yield signed_role
    if not _same_keys(current, after, role):
        yield _following(current, after, writer.now)


def _following(previous: Root, wanted: Root, now: datetime) -> Metadata[Root]:
    root = copy.deepcopy(wanted)
    root.version = previous.version + 1
    root.expires = now + lifetimes_of(root).of("root")
    return Metadata(root)


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
    after.roles[role].threshold = before.roles[role].threshold if threshold is None else threshold
    if not 1 <= after.roles[role].threshold <= len(after.roles[role].keyids):
        raise ConfigError(
            f"role {role} would need {after.roles[role].threshold} of {len(after.roles[role].keyids)} keys",
            fix="choose a --threshold of 1 to the number of keys, or add keys with --add",
        )
    if threshold is not None:
        check_threshold(role, threshold)
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
