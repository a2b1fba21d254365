"""Carry out a draft: check all of it against the channel, then write it step by step, the timestamp last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, NotFoundError, StateError
from tidegate.release.disk import Disk, make_directories
from tidegate.release.draft import Draft, askers, check_signed, name_of, sign
from tidegate.release.keys import KeyRing
from tidegate.release.moments import Clock, utc_now
from tidegate.release.repository import (
    METADATA,
    TARGETS,
    Document,
    Repository,
    exists,
    read_document,
    read_repository,
    versions_on_disk,
)
from tidegate.release.tuf_types import Metadata, Root, Snapshot, Targets, Timestamp
from tidegate.release.writer import Writer, alone, require_keys

_AGAIN = "make the draft again: the same command, with --draft and a new file"


@dataclass(frozen=True)
class _Standing:
    """What the next online role refers to."""

    targets: Document[Targets] | None = None
    snapshot: Document[Snapshot] | None = None
    timestamp: Document[Timestamp] | None = None


def apply(path: Path, draft: Draft, keys: KeyRing, *, disk: Disk | None = None, clock: Clock = utc_now) -> Repository:
    """Carry out a draft whose signatures are complete. Cut short, the same call completes it.

    Args:
        path: the channel's directory; for a draft of a new channel a new or empty one.
        draft: as read from a file.
        keys: private keys of the online roles that `draft.online` names; what they can sign of the rest, they sign.
        disk: where to write.
        clock: what time it is.

    Raises:
        ConfigError: signatures or keys are missing.
        StateError: the channel is not the one that the draft was made for, or has moved on since.
        NotFoundError: there is no channel, or content that the draft offers is not in it.
    """
    layer = disk or Disk()
    if draft.base is None:
        make_directories(layer, path, METADATA)
        make_directories(layer, path, TARGETS)
    with alone(path, layer):
        return carry_out(Writer(path, layer, keys, clock().replace(microsecond=0)), draft)


def check_at_hand(draft: Draft, keys: KeyRing) -> None:
    """Check, before anybody is asked for a passphrase, that the keys at hand can sign all of a draft.

    Raises:
        ConfigError: names the role, and the keys that are missing.
    """
    for document, roots in askers(draft):
        role = document.signed.type
        for root in roots:
            require_keys(role, root.roles[role].keyids, root.roles[role].threshold, keys.keyids)
    for role in draft.online:
        holders = draft.last_root.roles[role]
        require_keys(role, holders.keyids, holders.threshold, keys.keyids)


def carry_out(writer: Writer, draft: Draft) -> Repository:
    """Sign with the keys at hand, check everything, then write. For the holder of the channel's lock."""
    before = _read_base(writer.path, draft)
    _check_not_expired(writer, draft)
    sign(draft, writer.keys)
    check_signed(draft)
    writer.require(draft.last_root, draft.online)
    _check_content(writer, draft, before)
    if before is not None:
        _check_clients_follow(draft, before)

    standing = _Standing(before.targets, before.snapshot, before.timestamp) if before else _Standing()
    for step in draft.steps:
        if isinstance(step, str):
            standing = _sign_online(writer, draft.last_root, standing, step)
        else:
            document = writer.put(step, replaceable=before is None)
            if isinstance(document.signed, Targets):
                standing = replace(standing, targets=document)
    return read_repository(writer.path)


def _sign_online(writer: Writer, root: Root, standing: _Standing, role: str) -> _Standing:
    """Sign snapshot or timestamp with the keys of the last root, which the roots before it accept too."""
    if role == "snapshot":
        assert standing.targets is not None
        after = standing.snapshot.version if standing.snapshot else 0
        return replace(standing, snapshot=writer.snapshot(root, standing.targets, after=after))
    assert standing.snapshot is not None
    version = standing.timestamp.version + 1 if standing.timestamp else 1
    return replace(standing, timestamp=writer.timestamp(root, standing.snapshot, version))


def _read_base(path: Path, draft: Draft) -> Repository | None:
    """Read the channel and check that the draft builds on it, or that the draft itself was begun here before."""
    if draft.base is None:
        return _begun_channel(path, draft)
    repository = read_repository(path)
    for document in (draft.base, *draft.documents):
        if isinstance(document.signed, Root) and document.signed.version <= repository.root.version:
            _check_same(path, document)
    if draft.last_root.version < repository.root.version:
        raise StateError(f"{path} has root {repository.root.version}, later than the draft's", fix=_AGAIN)
    for document in draft.documents:
        if isinstance(document.signed, Targets) and repository.targets.version != draft.base_targets:
            if document.signed.version != repository.targets.version:
                raise StateError(
                    f"{path} has moved on to targets {repository.targets.version} since the draft was made, "
                    f"which follows {draft.base_targets}",
                    fix=_AGAIN,
                )
            _check_same(path, document)
    return repository


def _begun_channel(path: Path, draft: Draft) -> Repository | None:
    if exists(path):
        repository = read_repository(path)
        if repository.root.version > 1 or _differs(path, draft.documents[0]):
            raise ConfigError(f"{path} is a channel already", fix="name an empty or new directory")
        return repository
    if versions_on_disk(path, "root") not in ([], [1]):
        raise ConfigError(f"{path} holds the remains of a channel", fix="name an empty or new directory")
    return None


def _check_same(path: Path, document: Metadata[Any]) -> None:
    if _differs(path, document):
        raise StateError(
            f"{path} has another {name_of(document)} than the draft: it was made for another channel, "
            "or something else was signed since",
            fix=_AGAIN,
        )


def _differs(path: Path, document: Metadata[Any]) -> bool:
    there = read_document(path, name_of(document), type(document.signed))
    return bool(there.signed != document.signed)


def _check_not_expired(writer: Writer, draft: Draft) -> None:
    for document in draft.documents:
        if document.signed.expires <= writer.now:
            raise StateError(
                f"{name_of(document)} in the draft expired at {document.signed.expires:%Y-%m-%d %H:%M} UTC", fix=_AGAIN
            )


def _check_clients_follow(draft: Draft, before: Repository) -> None:
    """Check that no root of the draft leaves clients with metadata that it does not accept.

    The order of the steps is not signed, so an altered draft could write a root before what it asks for.
    """
    live_targets = f"{before.live_targets_version}.targets.json"
    shown: dict[str, Document[Any]] = {
        "timestamp": before.timestamp,
        "snapshot": before.snapshot,
        "targets": read_document(before.path, live_targets, Targets),
    }
    signed_again: set[str] = set()
    for step in draft.steps:
        if step == "timestamp":  # from here on clients see what was signed again, by keys of the last root
            shown = {role: document for role, document in shown.items() if role not in {*signed_again, step}}
        elif isinstance(step, str) or isinstance(step.signed, Targets):
            signed_again.add(step if isinstance(step, str) else "targets")
        else:
            for role, document in shown.items():
                _check_accepts(step.signed, role, document)


def _check_accepts(root: Root, role: str, document: Document[Any]) -> None:
    metadata: Metadata[Any] = Metadata.from_bytes(document.raw)
    if not root.get_verification_result(role, metadata.signed_bytes, metadata.signatures):
        raise StateError(
            f"root {root.version} in the draft does not accept the {role} that clients would have then; "
            "expected it to be signed again first",
            fix=_AGAIN,
        )


def _check_content(writer: Writer, draft: Draft, before: Repository | None) -> None:
    """Check that what is newly offered is there: the draft may have been made on a copy of the channel."""
    known = before.files if before else {}
    for document in draft.documents:
        if not isinstance(document.signed, Targets):
            continue
        for target, described in document.signed.targets.items():
            if target not in known and not writer.holds(described):
                (name,) = described.get_prefixed_paths()
                raise NotFoundError(
                    f"{writer.path / TARGETS / name} is not there, or has other content",
                    fix=f"copy {TARGETS}/ of the directory where the draft was made into it first",
                )
