"""Deltas of a channel: for a new offer, from each of the releases that devices of its track may have.

A delta is a target of its own, `deltas/<SHA-256 of the old file>/<SHA-256 of the new file>`, so a device that knows
what it has and what it wants asks for one name. Its signed custom metadata say what it is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.delta import Delta, choose
from tidegate.errors import ConfigError, IntegrityError, ResourceError
from tidegate.release.repository import TARGETS
from tidegate.release.track import DELTAS, Offer, Track, file_target
from tidegate.release.tuf_types import TargetFile

SCHEMA = "tidegate.delta/1"

BASES = 3
"""From how many releases before an offer deltas are made, unless told otherwise."""


def custom_of(delta: Delta) -> dict[str, Any]:
    """Return what is signed about a delta; its own length and digest are the target's."""
    header = delta.header
    return {
        "schema": SCHEMA,
        "method": header.method,
        "from": {"sha256": header.base.sha256, "size_bytes": header.base.size_bytes},
        "to": {"sha256": header.full.sha256, "size_bytes": header.full.size_bytes},
    }


def deltas_for(previous: Mapping[str, Callable[[], bytes]], new: bytes) -> Iterator[Delta]:
    """Yield the best delta to `new` from each older file, where one is worth while.

    Args:
        previous: how to read each older file, by SHA-256; one is in memory at a time.
        new: the new file.

    Raises:
        DependencyError: zstandard is not installed.
    """
    for sha256, read in previous.items():
        if sha256 != hashlib.sha256(new).hexdigest():
            delta = choose(read(), new)
            if delta is not None:
                yield delta


def deltas_to_newest(channel: Path, track: Track, bases: int, signed: Collection[str]) -> Iterator[Delta]:
    """Yield the deltas to each variant of a track's newest offer from the releases before it on the track.

    What was withdrawn counts too: its devices are those that are to be updated soonest.

    Args:
        channel: its directory.
        track: with the new offer last.
        bases: how many releases before it.
        signed: targets that the channel names; a release whose files it does not name any more is no base.

    Raises:
        ConfigError: `bases` is negative.
        IntegrityError: a file of a release is missing from the channel, or altered.
        ResourceError: the system refused to read one.
        DependencyError: zstandard is not installed.
    """
    if bases < 0:
        raise ConfigError(f"deltas from {bases} releases", fix="give 0 or more")
    newest = track.offers[-1]
    before = _releases_before(track, bases)
    for variant in newest.variants:
        older = {
            old.sha256: _reader(channel, old.sha256)
            for offer in before
            for old in offer.variants
            if old.id == variant.id and old.sha256 != variant.sha256 and file_target(old.sha256) in signed
        }
        if older:
            yield from deltas_for(older, read_file(channel, variant.sha256))


def without_stale_deltas(files: Mapping[str, TargetFile], tracks: Iterable[Track]) -> dict[str, TargetFile]:
    """Return the targets without deltas to what no device is led to any more.

    Every device reads the whole list, so it must not grow with each release of the past. The files stay on the server
    for clients that are in the middle of an update.
    """
    reached = {variant.sha256 for track in tracks for offer in _within_reach(track) for variant in offer.variants}
    return {
        path: file
        for path, file in files.items()
        if not path.startswith(f"{DELTAS}/") or path.rpartition("/")[2] in reached
    }


def _within_reach(track: Track) -> Iterator[Offer]:
    """Yield the offers that devices may take: down to the first that goes to all."""
    for offer in track.standing:
        yield offer
        if offer.rollout.percent == 100:
            return


def _releases_before(track: Track, bases: int) -> list[Offer]:
    """Return the newest `bases` releases of other content than the track's newest offer."""
    found: dict[str, Offer] = {}
    for offer in reversed(track.offers):
        found.setdefault(offer.manifest.sha256, offer)
    return list(found.values())[1 : 1 + bases]


def _reader(channel: Path, sha256: str) -> Callable[[], bytes]:
    return lambda: read_file(channel, sha256)


def read_file(channel: Path, sha256: str) -> bytes:
    """Return the content of a file of a release, checked.

    Raises:
        IntegrityError: it is missing or altered.
        ResourceError: the system refused to read it.
    """
    folder, _, name = file_target(sha256).rpartition("/")
    path = channel / TARGETS / folder / f"{sha256}.{name}"
    fix = "restore the channel's targets from a copy, or publish without deltas: --deltas 0"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing", fix=fix) from error
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror}", fix="check its permissions") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise IntegrityError(f"{path} has SHA-256 {found}; expected {sha256}", fix=fix)
    return data
