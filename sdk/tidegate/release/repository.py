"""Read a channel's metadata from its directory and check every signature, whatever the clock says.

Expiry is left to clients and to `report`: whoever repairs a channel must be able to read one that has expired.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tidegate.errors import BundleError, IntegrityError, NotFoundError, ResourceError
from tidegate.release.error_mapping import mapped
from tidegate.release.lifetimes import Lifetimes
from tidegate.release.track import Track, from_custom, is_track_target
from tidegate.release.tuf_types import (
    Metadata,
    RepositoryError,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

METADATA, TARGETS = "metadata", "targets"
LIFETIMES_FIELD = "x-tidegate-lifetimes-s"

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Document(Generic[S]):
    """One signed file."""

    signed: S
    """its content"""
    raw: bytes
    """its bytes, as others name them by digest"""

    @property
    def version(self) -> int:
        """Number of the file."""
        return int(self.signed.version)


@dataclass(frozen=True)
class Repository:
    """A channel as it stands: what clients see, and the newest that the offline keys have signed."""

    path: Path
    """the channel's directory"""
    root: Document[Root]
    """the newest"""
    timestamp: Document[Timestamp]
    """what clients see"""
    snapshot: Document[Snapshot]
    """the one that the timestamp names"""
    targets: Document[Targets]
    """the newest with a valid signature; live when the snapshot names it"""

    @property
    def live_targets_version(self) -> int:
        """Version of the targets that clients see."""
        return int(self.snapshot.signed.meta["targets.json"].version)

    @property
    def staged(self) -> bool:
        """Whether something is signed that clients do not see yet."""
        return self.targets.version != self.live_targets_version

    @property
    def files(self) -> dict[str, TargetFile]:
        """Every target by path."""
        return dict(self.targets.signed.targets)

    def tracks(self) -> list[Track]:
        """Every track of every model, sorted.

        Raises:
            BundleError: a track document breaks the format.
        """
        named = sorted(path for path in self.targets.signed.targets if is_track_target(path))
        return [from_custom(self.targets.signed.targets[path].custom, origin=path) for path in named]

    def tracks_of(self, model: str) -> dict[str, Track]:
        """The tracks of one model by name."""
        return {track.track: track for track in self.tracks() if track.model == model}


def lifetimes_of(root: Root) -> Lifetimes:
    """Return how long signatures of a channel are good for."""
    return Lifetimes.from_dict(root.unrecognized_fields.get(LIFETIMES_FIELD, {}))


def exists(path: Path) -> bool:
    """Return whether a channel is there: its timestamp is the last file that its making writes."""
    return (path / METADATA / "timestamp.json").is_file()


def versions_on_disk(path: Path, role: str) -> list[int]:
    """Return the numbers of a role's files, signed rightly or not, in rising order."""
    pattern = re.compile(rf"([1-9]\d{{0,17}})\.{role}\.json\Z")
    found = (pattern.match(file.name) for file in (path / METADATA).glob(f"*.{role}.json"))
    return sorted(int(match[1]) for match in found if match)


def read_repository(path: Path) -> Repository:
    """Read and verify root → timestamp → snapshot → targets.

    Raises:
        NotFoundError: there is no channel.
        IntegrityError: a file is missing, altered, or not signed as the root demands.
        ResourceError: the disk refuses.
    """
    if not exists(path):
        raise NotFoundError(
            f"{path} holds no channel", fix="name a channel's directory, or make one with `tidegate channel init`"
        )
    root = read_root(path)
    timestamp = _read(path, "timestamp.json", Timestamp, root.signed)
    live = timestamp.signed.snapshot_meta
    snapshot = _read(path, f"{live.version}.snapshot.json", Snapshot, root.signed)
    with _intact(path, f"{live.version}.snapshot.json"):
        live.verify_length_and_hashes(snapshot.raw)
    return Repository(path, root, timestamp, snapshot, _newest_targets(path, root.signed, snapshot.signed))


def read_root(path: Path) -> Document[Root]:
    """Walk the chain of roots from version 1 to the newest.

    Raises:
        IntegrityError: one is missing, or not signed by its predecessor and itself.
    """
    current: Document[Root] | None = None
    for expected, version in enumerate(versions_on_disk(path, "root"), start=1):
        if version != expected:
            raise _altered(path, f"{expected}.root.json is missing")
        document = read_document(path, f"{version}.root.json", Root)
        with _intact(path, f"{version}.root.json"):
            for delegator in (document.signed, current.signed if current else document.signed):
                _verify(document, delegator)
        current = document
    if current is None:
        raise _altered(path, "1.root.json is missing")
    return current


def _newest_targets(path: Path, root: Root, snapshot: Snapshot) -> Document[Targets]:
    """Return the newest targets with a valid signature; a newer file without one counts for nothing."""
    live = snapshot.meta["targets.json"]
    for version in reversed(versions_on_disk(path, "targets")):
        if version <= live.version:
            break
        try:
            return _read(path, f"{version}.targets.json", Targets, root)
        except IntegrityError:
            continue
    document = _read(path, f"{live.version}.targets.json", Targets, root)
    with _intact(path, f"{live.version}.targets.json"):
        live.verify_length_and_hashes(document.raw)
    return document


def _read(path: Path, name: str, kind: type[S], root: Root) -> Document[S]:
    document = read_document(path, name, kind)
    with _intact(path, name):
        _verify(document, root)
    return document


def read_document(path: Path, name: str, kind: type[S]) -> Document[S]:
    """Read one file of metadata; its signatures are not looked at.

    Raises:
        IntegrityError: it is missing, or not what its name says.
        ResourceError: the disk refuses.
    """
    try:
        raw = (path / METADATA / name).read_bytes()
    except FileNotFoundError as error:
        raise _altered(path, f"{name} is missing") from error
    except OSError as error:
        raise ResourceError(
            f"{path}: {name} cannot be read: {error.strerror or error}", fix="check its permissions"
        ) from error
    with _intact(path, name):
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
    signed: Signed = metadata.signed
    if not isinstance(signed, kind):
        raise _altered(path, f"{name} holds {signed.type} metadata; expected {kind.type}")
    prefix = name.split(".", 1)[0]
    if prefix.isdigit() and signed.version != int(prefix):
        raise _altered(path, f"{name} holds version {signed.version}")
    return Document(signed, raw)


def read_metadata(path: Path, signed: S) -> Metadata[S]:
    """Return a numbered file with its signatures, given what it holds."""
    return Metadata.from_bytes((path / METADATA / f"{signed.version}.{signed.type}.json").read_bytes())


def _verify(document: Document[Any], delegator: Root) -> None:
    """Check the signatures against the keys that `delegator` names for the role."""
    metadata: Metadata[Any] = Metadata.from_bytes(document.raw)
    try:
        delegator.verify_delegate(document.signed.type, metadata.signed_bytes, metadata.signatures)
    except ValueError as error:
        raise RepositoryError(str(error)) from error


@contextmanager
def _intact(path: Path, name: str) -> Iterator[None]:
    """Turn what a library finds wrong with a file into our error, with the publisher's remedy."""
    try:
        with mapped(name):
            yield
    except (BundleError, IntegrityError) as error:
        raise _altered(path, f"{error.message}; it is damaged, or was altered after it was signed") from error


def _altered(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"{path}: {what}", fix="restore the channel's metadata from a copy; the web server has one that clients accept"
    )
