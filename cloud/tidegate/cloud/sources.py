"""Where versions come from: bundles, directories of bundles, or anything else that fits the Protocol.

A channel (TUF) is one more source: see `tidegate.cloud.channel_source`. `list` and `open` may raise TidegateError: what
is loaded stays loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.bundle import Bundle
from tidegate.errors import ConfigError, NotFoundError, TidegateError

MANIFEST_FILE = "manifest.json"
BUNDLE_SUFFIX = ".tide"


@dataclass(frozen=True)
class Offer:
    """One version that a source has."""

    name: str
    """of the model"""
    version: str
    fingerprint: str
    """changes when the content does: the same version with another fingerprint is loaded again"""
    location: str
    """where it lies, for messages and for the source's own `open`"""


@dataclass(frozen=True)
class Listing:
    """Everything that a source has."""

    offers: tuple[Offer, ...]
    problems: tuple[tuple[str, TidegateError], ...] = ()
    """what looks like a bundle and cannot be read: its place, and why"""
    notes: tuple[tuple[str, TidegateError], ...] = ()
    """what went wrong and leaves nothing lacking, such as a channel that is out of reach while its releases are here"""


class Source(Protocol):
    """Offers versions and opens them. Called by one thread at a time."""

    def list(self) -> Listing:
        """Return what there is now. Cheap enough to be asked every few seconds.

        Raises:
            TidegateError: the source cannot be asked; nothing is unloaded for that.
        """

    def open(self, offer: Offer) -> Bundle:
        """Return the bundle of an offer; the caller closes it.

        Raises:
            TidegateError: it cannot be had, or is not what was offered.
        """

    def told(self, offer: Offer, problem: TidegateError | None) -> None:
        """Learn what came of an offer that was to be loaded: None when it serves now, else why it does not."""


class BundleFiles:
    """Bundles by path, and directories that hold bundles."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Note the paths; nothing is read yet.

        Args:
            paths: `.tide` files, bundle directories, or directories in which either lies. What is put into such a
                directory should be renamed into it, so that it is whole when it is seen.
        """
        self._paths = tuple(paths)
        self._known: dict[Path, Offer] = {}

    def list(self) -> Listing:
        """Read the manifests of what is new or changed.

        Raises:
            NotFoundError: a path is not there.
            ConfigError: one version of a model lies in two places.
        """
        offers: dict[tuple[str, str], Offer] = {}
        problems: list[tuple[str, TidegateError]] = []
        for path in self._bundles():
            try:
                offer = self._offer(path)
            except TidegateError as error:
                problems.append((str(path), error))
                continue
            other = offers.get((offer.name, offer.version))
            if other is not None:
                raise ConfigError(
                    f"model {offer.name!r} version {offer.version} is given twice: {other.location}, {offer.location}",
                    fix="give each version of a model once",
                )
            offers[offer.name, offer.version] = offer
        return Listing(tuple(offers.values()), tuple(problems))

    def open(self, offer: Offer) -> Bundle:
        """Open the bundle of an offer."""
        return Bundle.open(Path(offer.location))

    def told(self, offer: Offer, problem: TidegateError | None) -> None:
        """Nothing to note: the files stay what they are."""

    def _bundles(self) -> tuple[Path, ...]:
        found: tuple[Path, ...] = ()
        for path in self._paths:
            if path.is_dir() and not (path / MANIFEST_FILE).is_file():
                inside = sorted(path.iterdir())
                found += tuple(item for item in inside if _is_bundle(item))
            else:
                found += (path,)
        return found

    def _offer(self, path: Path) -> Offer:
        fingerprint = fingerprint_of(path)
        known = self._known.get(path)
        if known is not None and known.fingerprint == fingerprint:
            return known
        with Bundle.open(path) as bundle:
            offer = Offer(bundle.manifest.name, bundle.manifest.version, fingerprint, str(path))
        self._known[path] = offer
        return offer


def _is_bundle(path: Path) -> bool:
    return path.suffix == BUNDLE_SUFFIX or (path / MANIFEST_FILE).is_file()


def fingerprint_of(path: Path) -> str:
    """Return what changes when a bundle is replaced: of a directory, the manifest, which holds the digests."""
    try:
        status = (path / MANIFEST_FILE if path.is_dir() else path).stat()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}", fix="check the path") from error
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
