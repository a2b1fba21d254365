"""Bundles that several workers serve: each loads a copy that they share, and what has proven itself is kept.

A worker that takes another's place has to serve what the others do, though the file it came from may be broken or gone
by then. So bundles are copied once, under the fingerprint of what was copied, into a directory of the workers' own.

- Without a watch the first look is the one for all: later workers load the copies and do not look at the source.
- With a watch the source is looked at by each. In place of a file that cannot be read, or of a content that failed its
  proof in one worker, the copy that served last is offered; the problem is told all the same.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from tidegate.bundle import Bundle
from tidegate.bundle.atomic import write_atomically
from tidegate.cloud.file_lock import locked
from tidegate.cloud.sources import BundleFiles, Listing, Offer, fingerprint_of
from tidegate.errors import BundleError, ModelError, ResourceError, TidegateError


class _Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers agree on."""

    first: tuple[Offer, ...] | None = None
    """of the first look, where it is the one for all"""
    served: tuple[Offer, ...] = ()
    """the content of each version that has proven itself last"""
    refused: tuple[Offer, ...] = ()
    """contents that have failed"""


class FleetFiles:
    """A `Source` for one of several workers."""

    def __init__(self, files: BundleFiles, directory: Path, *, follows: bool) -> None:
        """Join the parts.

        Args:
            files: where bundles come from.
            directory: of copies, the same for all workers.
            follows: whether later looks find what has changed.
        """
        self._files = files
        self._directory = directory
        self._follows = follows

    def list(self) -> Listing:
        """Return what all workers are to serve.

        Raises:
            TidegateError: as `BundleFiles.list`; the directory of copies cannot be used.
        """
        with self._fleet() as fleet:
            if not self._follows:
                if fleet.first is None:
                    listing = self._files.list()
                    if listing.problems:
                        return listing
                    self._write(msgspec.structs.replace(fleet, first=listing.offers))
                    return listing
                return Listing(fleet.first)
            listing = self._files.list()
            self._forget(fleet, listing)
            return _with_what_served(listing, fleet)

    def open(self, offer: Offer) -> Bundle:
        """Open the copy of an offer, which is made where it is not there yet.

        Raises:
            BundleError: the bundle was changed after it was listed.
            ResourceError: it cannot be copied.
        """
        with self._fleet():
            copy = self._copy(offer)
            if not copy.exists():
                self._make_copy(offer, copy)
        return Bundle.open(copy)

    def told(self, offer: Offer, problem: TidegateError | None) -> None:
        """Remember for all workers which content serves, and which has failed for good."""
        self._files.told(offer, problem)
        if problem is not None and not isinstance(problem, (BundleError, ModelError)):
            return
        with self._fleet() as fleet:
            if problem is None:
                self._remove_copies(_of(fleet.served, offer), but=offer)
                served = (*_without(fleet.served, offer), offer)
                refused = tuple(bad for bad in fleet.refused if bad != offer)
                self._write(msgspec.structs.replace(fleet, served=served, refused=refused))
            else:
                self._remove_copies(() if offer in fleet.served else (offer,))
                self._write(msgspec.structs.replace(fleet, refused=(*_without(fleet.refused, offer), offer)))

    @contextmanager
    def _fleet(self) -> Iterator[_Fleet]:
        """Hold the directory for the block and give what stands in it."""
        with locked(self._directory / ".lock"):
            try:
                raw = self._state.read_bytes()
            except FileNotFoundError:
                raw = b"{}"
            yield msgspec.json.decode(raw, type=_Fleet)

    @property
    def _state(self) -> Path:
        return self._directory / "fleet.json"

    def _write(self, fleet: _Fleet) -> None:
        write_atomically(self._state, [msgspec.json.encode(fleet)])

    def _forget(self, fleet: _Fleet, listing: Listing) -> None:
        """Let go of versions that the source neither has nor has broken."""
        broken = {place for place, _ in listing.problems}
        there = {(offer.name, offer.version) for offer in listing.offers}
        gone = [
            offer for offer in fleet.served if (offer.name, offer.version) not in there and offer.location not in broken
        ]
        if gone:
            self._remove_copies(gone)
            kept = tuple(offer for offer in fleet.served if offer not in gone)
            self._write(msgspec.structs.replace(fleet, served=kept))

    def _copy(self, offer: Offer) -> Path:
        content = "\0".join((offer.location, offer.fingerprint)).encode()
        return self._directory / f"{hashlib.sha256(content).hexdigest()}.tide"

    def _make_copy(self, offer: Offer, copy: Path) -> None:
        source, part = Path(offer.location), copy.with_suffix(".part")
        try:
            _remove(part)
            if source.is_dir():
                shutil.copytree(source, part)
            else:
                shutil.copyfile(source, part)
            if fingerprint_of(source) == offer.fingerprint:
                part.replace(copy)
                return
        except OSError as error:
            raise ResourceError(
                f"{source} cannot be copied to {self._directory}: {error.strerror or error}",
                fix="several workers share a copy of each bundle: make room there, or set TMPDIR to another disk",
            ) from error
        raise BundleError(f"{source} was changed while it was read", fix="put bundles there by renaming them")

    def _remove_copies(self, offers: Iterable[Offer], but: Offer | None = None) -> None:
        for offer in offers:
            if offer != but:
                _remove(self._copy(offer))


def _with_what_served(listing: Listing, fleet: _Fleet) -> Listing:
    """Return a look with the copies that served last in place of what is broken."""
    offers = {(offer.name, offer.version): offer for offer in listing.offers}
    problems = list(listing.problems)
    broken = {place for place, _ in listing.problems}
    refused = {(offer.name, offer.version): offer for offer in fleet.refused}
    for served in fleet.served:
        key = served.name, served.version
        new = offers.get(key)
        if new is None and served.location in broken:
            offers[key] = served
        elif new is not None and new != served and new == refused.get(key):
            offers[key] = served
            why = BundleError("the new content failed; what served before serves on", fix="look at the first failure")
            problems.append((new.location, why))
    return replace(listing, offers=tuple(offers.values()), problems=tuple(problems))


def _of(offers: tuple[Offer, ...], other: Offer) -> tuple[Offer, ...]:
    """Return those of the same version of the same model."""
    return tuple(offer for offer in offers if (offer.name, offer.version) == (other.name, other.version))


def _without(offers: tuple[Offer, ...], other: Offer) -> tuple[Offer, ...]:
    return tuple(offer for offer in offers if (offer.name, offer.version) != (other.name, other.version))


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
