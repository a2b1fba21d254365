"""Sign metadata and write it, each file under a new name, the timestamp last."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, ResourceError
from tidegate.release.disk import Disk, make_directories, store
from tidegate.release.error_mapping import mapped
from tidegate.release.keys import KeyRing
from tidegate.release.repository import METADATA, TARGETS, Document, Repository, S, lifetimes_of
from tidegate.release.tuf_types import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

MAXIMUM_TARGETS_BYTES = 5_000_000
"""What python-tuf's client reads at most by default."""


@dataclass
class Written:
    """What went to the disk."""

    files: int = 0
    """targets written"""
    reused: int = 0
    """targets that were there already with the same content"""
    size_bytes: int = 0
    """of the targets written"""


class Writer:
    """One change of a channel: its directory, its keys and one moment in time."""

    def __init__(self, path: Path, disk: Disk, keys: KeyRing, now: datetime) -> None:
        self.path = path
        self.disk = disk
        self.keys = keys
        self.now = now
        self.written = Written()

    def require(self, root: Root, roles: Iterable[str]) -> None:
        """Check that the keys at hand can sign for these roles, before anything is written.

        Raises:
            ConfigError: names the role, and the keys that are missing.
        """
        for role in roles:
            wanted = root.roles[role]
            require_keys(role, wanted.keyids, wanted.threshold, self.keys.keyids)

    def target(self, path: str, data: bytes) -> TargetFile:
        """Write the content of a target, unless it is there already; return its description.

        A file that is there with other bytes than its name says is mended.
        """
        described = TargetFile.from_data(path, data)
        (prefixed,) = described.get_prefixed_paths()
        final = self.path / TARGETS / prefixed
        if _holds(final, described.hashes["sha256"], len(data)):
            self.written.reused += 1
            return described
        make_directories(self.disk, self.path / TARGETS, prefixed.rpartition("/")[0])
        store(self.disk, final, data)
        self.written.files += 1
        self.written.size_bytes += len(data)
        return described

    def root(self, root: Root, previous: Root | None) -> Document[Root]:
        """Sign a root with the keys of its predecessor and its own, and write it: this makes it live.

        Raises:
            ConfigError: the keys at hand do not reach both thresholds.
        """
        signers = {*root.roles["root"].keyids, *(previous.roles["root"].keyids if previous else ())}
        for one in (previous, root):
            if one is not None:
                self.require(one, ["root"])
        return self._write(root, f"{root.version}.root.json", signers)

    def targets(self, root: Root, files: Mapping[str, TargetFile], *, after: int) -> Document[Targets]:
        """Sign and write the targets that follow version `after`. Clients see them once the timestamp is written.

        Raises:
            ResourceError: the channel has outgrown what clients read.
        """
        targets = Targets(
            version=self._free("targets", after),
            expires=self.now + lifetimes_of(root).of("targets"),
            targets=dict(files),
        )
        return self._write(targets, f"{targets.version}.targets.json", self._holders(root, "targets"))

    def snapshot(self, root: Root, targets: Document[Targets], *, after: int) -> Document[Snapshot]:
        """Sign and write the snapshot that follows version `after` and names these targets."""
        snapshot = Snapshot(
            version=self._free("snapshot", after),
            expires=self.now + lifetimes_of(root).of("snapshot"),
            meta={"targets.json": MetaFile.from_data(targets.version, targets.raw, ["sha256"])},
        )
        return self._write(snapshot, f"{snapshot.version}.snapshot.json", self._holders(root, "snapshot"))

    def timestamp(self, root: Root, snapshot: Document[Snapshot], version: int) -> Document[Timestamp]:
        """Sign a timestamp and put it in place of the last: the moment at which clients see the change."""
        timestamp = Timestamp(
            version=version,
            expires=self.now + lifetimes_of(root).of("timestamp"),
            snapshot_meta=MetaFile.from_data(snapshot.version, snapshot.raw, ["sha256"]),
        )
        return self._write(timestamp, "timestamp.json", self._holders(root, "timestamp"))

    def go_live(self, repository: Repository) -> Repository:
        """Let clients see the repository's newest targets: next snapshot, then next timestamp."""
        root = repository.root.signed
        snapshot = self.snapshot(root, repository.targets, after=repository.snapshot.version)
        timestamp = self.timestamp(root, snapshot, repository.timestamp.version + 1)
        return replace(repository, snapshot=snapshot, timestamp=timestamp)

    def _free(self, role: str, after: int) -> int:
        """Return the next version that no file has: what a writer that was killed left is never written over."""
        return next(v for v in itertools.count(after + 1) if not (self.path / METADATA / f"{v}.{role}.json").exists())

    def _holders(self, root: Root, role: str) -> Collection[str]:
        self.require(root, [role])
        return set(root.roles[role].keyids)

    def _write(self, signed: S, name: str, holders: Collection[str]) -> Document[S]:
        metadata: Metadata[Any] = Metadata(signed)
        with mapped(name):
            for keyid in sorted(self.keys.keyids & set(holders)):
                metadata.sign(self.keys.signer(keyid), append=True)
            raw = metadata.to_bytes()
        if len(raw) > MAXIMUM_TARGETS_BYTES:
            raise ResourceError(
                f"{name} would be {len(raw)} bytes long; clients read at most {MAXIMUM_TARGETS_BYTES}",
                fix="start a new channel for further releases",
            )
        store(self.disk, self.path / METADATA / name, raw)
        return Document(signed, raw)


def require_keys(role: str, wanted: Collection[str], threshold: int, at_hand: Collection[str]) -> None:
    """Check that enough of the wanted keys are at hand.

    Raises:
        ConfigError: names those that are missing.
    """
    have = [keyid for keyid in wanted if keyid in at_hand]
    if len(have) < threshold:
        absent = ", ".join(keyid[:8] for keyid in wanted if keyid not in at_hand)
        raise ConfigError(
            f"role {role} needs {threshold} of {len(wanted)} keys, and {len(have)} are at hand; missing: {absent}",
            fix="name their .pem files, or the directory that holds them, with --keys",
        )


def _holds(path: Path, sha256: str, size_bytes: int) -> bool:
    """Return whether a file is there with this content."""
    try:
        if path.stat().st_size != size_bytes:
            return False
        with path.open("rb") as file:
            found = hashlib.sha256()
            while chunk := file.read(1 << 20):
                found.update(chunk)
    except OSError:
        return False
    return found.hexdigest() == sha256
