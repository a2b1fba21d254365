"""Sign metadata and write it, each file under a new name, the timestamp last."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, NotFoundError, ResourceError, StateError
from tidegate.release.disk import Disk, exclusive, make_directories, remove_leftovers, store
from tidegate.release.error_mapping import mapped
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ONLINE
from tidegate.release.repository import METADATA, TARGETS, Document, Repository, S, lifetimes_of, read_document
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

    def holds(self, described: TargetFile) -> bool:
        """Return whether the content of a target is there."""
        (prefixed,) = described.get_prefixed_paths()
        return _holds(self.path / TARGETS / prefixed, described.hashes["sha256"], described.length)

    def new_targets(self, root: Root, files: Mapping[str, TargetFile], *, after: int) -> Metadata[Targets]:
        """Return the targets that follow version `after`, not signed and not written.

        Raises:
            ResourceError: the channel has outgrown what clients read.
        """
        targets = Metadata(
            Targets(
                version=self._free("targets", after),
                expires=self.now + lifetimes_of(root).of("targets"),
                targets=dict(files),
            )
        )
        _serialised(targets)
        return targets

    def put(self, metadata: Metadata[S], *, replaceable: bool = False) -> Document[S]:
        """Write signed root or targets, unless the same are there: those that a draft cut short left.

        Args:
            metadata: with all its signatures.
            replaceable: whether other content of the same name may go: only where there is no channel yet.

        Raises:
            StateError: other content has the name.
        """
        name = f"{metadata.signed.version}.{metadata.signed.type}.json"
        if (self.path / METADATA / name).exists() and not replaceable:
            there = read_document(self.path, name, type(metadata.signed))
            if there.signed != metadata.signed:
                raise StateError(f"{self.path} has another {name} already", fix="make the draft again")
            return there
        return self._store(metadata, name)

    def snapshot(self, root: Root, targets: Document[Targets], *, after: int) -> Document[Snapshot]:
        """Sign and write the snapshot that follows version `after` and names these targets."""
        snapshot = Snapshot(
            version=self._free("snapshot", after),
            expires=self.now + lifetimes_of(root).of("snapshot"),
            meta={"targets.json": MetaFile.from_data(targets.version, targets.raw, ["sha256"])},
        )
        return self._store(self._signed(snapshot, root), f"{snapshot.version}.snapshot.json")

    def timestamp(self, root: Root, snapshot: Document[Snapshot], version: int) -> Document[Timestamp]:
        """Sign a timestamp and put it in place of the last: the moment at which clients see the change."""
        timestamp = Timestamp(
            version=version,
            expires=self.now + lifetimes_of(root).of("timestamp"),
            snapshot_meta=MetaFile.from_data(snapshot.version, snapshot.raw, ["sha256"]),
        )
        return self._store(self._signed(timestamp, root), "timestamp.json")

    def go_live(self, repository: Repository) -> Repository:
        """Let clients see the repository's newest targets: next snapshot, then next timestamp."""
        root = repository.root.signed
        snapshot = self.snapshot(root, repository.targets, after=repository.snapshot.version)
        timestamp = self.timestamp(root, snapshot, repository.timestamp.version + 1)
        return replace(repository, snapshot=snapshot, timestamp=timestamp)

    def _free(self, role: str, after: int) -> int:
        """Return the next version that no file has: what a writer that was killed left is never written over."""
        return next(v for v in itertools.count(after + 1) if not (self.path / METADATA / f"{v}.{role}.json").exists())

    def _signed(self, signed: S, root: Root) -> Metadata[S]:
        """Sign with all keys at hand that the root names for the role."""
        self.require(root, [signed.type])
        metadata = Metadata(signed)
        with mapped(f"{signed.type} {signed.version}"):
            for keyid in sorted(self.keys.keyids & set(root.roles[signed.type].keyids)):
                metadata.sign(self.keys.signer(keyid), append=True)
        return metadata

    def _store(self, metadata: Metadata[S], name: str) -> Document[S]:
        raw = _serialised(metadata)
        store(self.disk, self.path / METADATA / name, raw)
        return Document(metadata.signed, raw)


@contextmanager
def alone(path: Path, disk: Disk) -> Iterator[None]:
    """Hold a channel's lock, and clear away what a publisher that was killed left without a name.

    Raises:
        NotFoundError: there is no such directory.
        ResourceError: another publisher holds it, or the disk refuses.
    """
    if not path.is_dir():
        raise NotFoundError(f"{path} is not a directory", fix="make a channel with `tidegate channel init`")
    with exclusive(path / ".lock"):
        for part in (METADATA, TARGETS):
            remove_leftovers(disk, path / part)
        yield


def require_keys(role: str, wanted: Collection[str], threshold: int, at_hand: Collection[str]) -> None:
    """Check that enough of the wanted keys are at hand.

    Raises:
        ConfigError: names those that are missing.
    """
    have = [keyid for keyid in wanted if keyid in at_hand]
    if len(have) < threshold:
        absent = ", ".join(keyid[:8] for keyid in wanted if keyid not in at_hand)
        raise ConfigError(
            f"role {role} needs {threshold} of {len(wanted)} keys; at hand: {len(have)}; missing: {absent}",
            fix="name their .pem files, or the directory that holds them, with --keys"
            + ("" if role in ONLINE else "; holders on several machines sign in turns, with --draft"),
        )


def _serialised(metadata: Metadata[Any]) -> bytes:
    name = f"{metadata.signed.type} {metadata.signed.version}"
    with mapped(name):
        raw = metadata.to_bytes()
    if len(raw) > MAXIMUM_TARGETS_BYTES:
        raise ResourceError(
            f"{name} would be {len(raw)} bytes long; clients read at most {MAXIMUM_TARGETS_BYTES}",
            fix="start a new channel for further releases",
        )
    return raw


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
