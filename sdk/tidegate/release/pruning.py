"""Keep a channel from growing for ever: retire old releases, and remove the files that no client can ask for.

Two steps, since clients are in the middle of things. `retire` signs targets that name fewer files; it is a change like
any other. `prune` removes files that nothing names: neither what clients see, nor what is signed and not live yet, nor
what clients saw within a time of grace. It signs nothing, and whenever it dies the channel is as valid as before. Roots
are never removed: a client walks all of them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

from tidegate.bundle.bundle import listed_files
from tidegate.bundle.manifest import decode
from tidegate.errors import ConfigError, IntegrityError, ResourceError
from tidegate.release.applying import carry_out
from tidegate.release.changes import changed_metadata
from tidegate.release.channel import Change
from tidegate.release.delta import read_file, without_stale_deltas
from tidegate.release.disk import Disk
from tidegate.release.draft import sign
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ONLINE
from tidegate.release.moments import Clock, utc_now
from tidegate.release.offers import Stamp
from tidegate.release.repository import (
    METADATA,
    TARGETS,
    Repository,
    read_document,
    read_repository,
    versions_on_disk,
)
from tidegate.release.retirement import Retirement, retired
from tidegate.release.track import DELTAS, FILES, Track, file_target
from tidegate.release.tuf_types import Snapshot, Targets
from tidegate.release.writer import Writer, alone

GRACE = timedelta(days=7)
"""How long files stay after the last metadata that names them; drafts and slow clients may need them."""

_TARGET_NAME = re.compile(r"[0-9a-f]{64}\..+\Z")


@dataclass(frozen=True)
class Pruned:
    """What nothing names any more."""

    files: tuple[str, ...]
    """below the channel's directory, metadata first"""
    size_bytes: int


def retire(
    path: Path,
    releases: int,
    keys: KeyRing,
    *,
    staged: bool = False,
    in_turns: bool = False,
    dry_run: bool = False,
    disk: Disk | None = None,
    clock: Clock = utc_now,
) -> Change:
    """Sign targets without the files of releases that no device needs; see `retirement`.

    Args:
        path: the channel.
        releases: to keep on each track, and what else some device may still be led to.
        keys: those of targets, and unless staged of snapshot and timestamp.
        staged: stop before the online roles sign.
        in_turns: return a draft for several holders to sign.
        dry_run: sign and write nothing; `offers` says what would be retired.
        disk: where to write.
        clock: what time it is.

    Raises:
        ConfigError: keys are missing, or less than one release would be kept.
        IntegrityError: the channel is damaged, or the manifest of a release that is kept.
    """
    with alone(path, disk or Disk()):
        repository = read_repository(path)
        writer = Writer(path, disk or Disk(), keys, clock().replace(microsecond=0))
        if not (in_turns or dry_run):
            writer.require(repository.root.signed, ("targets",) if staged else ("targets", *ONLINE))
        stamp = Stamp(at=writer.now.strftime("%Y-%m-%dT%H:%M:%SZ"), salt=secrets.token_hex(8))
        models = sorted({track.model for track in repository.tracks()})
        found = [retired(repository.tracks_of(model), releases, stamp) for model in models]
        told = tuple(offer for one in found for offer in one.retired)
        dropped = _dropped(repository, found)
        note = _note(repository, dropped)
        if dry_run:
            return Change(told, False, writer.written, note)
        changed = {f"{track.model}/{name}": track for one in found for name, track in one.tracks.items()}
        draft = changed_metadata(writer, repository, changed, [], staged, dropped=dropped)
        if in_turns and draft.documents:
            sign(draft, keys)
            return Change(told, False, writer.written, note, draft)
        if draft.steps and not in_turns:
            repository = carry_out(writer, draft)
        return Change(told, not repository.staged, writer.written, note)


def prune(
    path: Path,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    disk: Disk | None = None,
    clock: Clock = utc_now,
) -> Pruned:
    """Remove metadata and content that no client can ask for. Needs no key. Cut short, the same call completes it.

    Args:
        path: the channel.
        grace: what clients saw within this time stays, and so does every file that is younger.
        dry_run: remove nothing; say what would be.
        disk: where to remove.
        clock: what time it is.

    Raises:
        ConfigError: a negative grace.
        IntegrityError: the channel is damaged; then nothing is removed.
        ResourceError: the disk refuses, or another publisher is at work.
    """
    if grace < timedelta(0):
        raise ConfigError(f"a grace of {grace}; expected 0 or more", fix="7 days are usual")
    layer = disk or Disk()
    with alone(path, layer):
        repository = read_repository(path)
        try:
            files = _unneeded(repository, clock() - grace)
            size_bytes = sum(file.stat().st_size for file in files)
            if not dry_run:
                _remove(layer, repository.path, files)
        except OSError as error:
            raise ResourceError(
                f"{path} could not be pruned: {error.strerror or error}",
                fix="check permissions, then repeat the same command; the channel is valid as it is",
            ) from error
    return Pruned(tuple(str(file.relative_to(path)) for file in files), size_bytes)


def _dropped(repository: Repository, found: Iterable[Retirement]) -> frozenset[str]:
    """Return the targets of releases that nothing that is kept needs."""
    kept = {sha256 for one in found for sha256 in one.kept}
    tracks = {(track.model, track.track): track for track in repository.tracks()}
    tracks |= {(track.model, track.track): track for one in found for track in one.tracks.values()}
    needed = {file_target(sha256) for sha256 in kept}
    for sha256 in kept & _offered(tracks.values()):
        manifest = decode(read_file(repository.path, sha256), origin=f"manifest {sha256[:12]}")
        needed |= {file_target(listed.sha256) for listed in listed_files(manifest).values()}
    # What a live delta starts from stays, so that anybody can check the delta.
    live = without_stale_deltas(repository.files, tracks.values())
    needed |= {file_target(name.split("/")[1]) for name in live if name.startswith(f"{DELTAS}/")}
    return frozenset(name for name in repository.files if name.startswith(f"{FILES}/") and name not in needed)


def _offered(tracks: Iterable[Track]) -> set[str]:
    return {offer.manifest.sha256 for track in tracks for offer in track.offers}


def _note(repository: Repository, dropped: frozenset[str]) -> str:
    size_bytes = sum(repository.files[name].length for name in dropped if name in repository.files)
    return f"{len(dropped)} files ({size_bytes:,} bytes) are needed by no release that is kept" if dropped else ""


def _unneeded(repository: Repository, before: datetime) -> list[Path]:
    """Return the files to remove, metadata first: then nothing that stays ever names a file that is gone."""
    directory = repository.path
    snapshots, targets = _kept_metadata(repository, before)
    metadata = [
        directory / METADATA / f"{version}.{role}.json"
        for role, kept in (("snapshot", snapshots), ("targets", targets))
        for version in versions_on_disk(directory, role)
        if version not in kept
    ]
    named = {directory / TARGETS / name for version in targets for name in _names_in(directory, version)}
    content = [
        file
        for kind in (DELTAS, FILES, "tracks")
        for file in sorted((directory / TARGETS / kind).rglob("*"))
        if _TARGET_NAME.match(file.name) and file.is_file() and file not in named and _age(file) < before
    ]
    return metadata + content


def _kept_metadata(repository: Repository, before: datetime) -> tuple[set[int], set[int]]:
    """Return the versions of snapshots and targets that stay: live, not live yet, or live after `before`."""
    path, live = repository.path, repository.snapshot.version
    on_disk = versions_on_disk(path, "snapshot")
    snapshots = {version for version in on_disk if version >= live}
    for version, successor in pairwise(on_disk):
        # Clients saw a snapshot until the next one was written.
        if _age(path / METADATA / f"{successor}.snapshot.json") >= before:
            snapshots.add(version)
    live_targets = repository.live_targets_version
    targets = {version for version in versions_on_disk(path, "targets") if version >= live_targets}
    for version in snapshots:
        try:
            snapshot = read_document(path, f"{version}.snapshot.json", Snapshot)
        except IntegrityError:  # No client accepts it either.
            continue
        targets.add(int(snapshot.signed.meta["targets.json"].version))
    return snapshots, targets


def _names_in(directory: Path, version: int) -> Iterator[str]:
    """Yield the files that one version of the targets names, as they lie below `targets/`."""
    try:
        document = read_document(directory, f"{version}.targets.json", Targets)
    except IntegrityError:  # Torn or foreign: no client accepts it, and the one that counts was verified.
        return
    for described in document.signed.targets.values():
        yield from described.get_prefixed_paths()


def _age(file: Path) -> datetime:
    """Return when a file was written."""
    return datetime.fromtimestamp(file.stat().st_mtime, tz=timezone.utc)


def _remove(disk: Disk, directory: Path, files: Iterable[Path]) -> None:
    folders = set()
    for file in files:
        disk.remove(file)
        folders.add(file.parent)
    deltas = directory / TARGETS / DELTAS
    for folder in sorted(folders):
        if folder.parent == deltas and not any(folder.iterdir()):
            disk.remove_directory(folder)
            folder = deltas
        disk.sync_directory(folder)
