"""Several sources of versions beside each other, and which ones a server has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.cloud.fleet_files import FleetFiles
from tidegate.cloud.sources import BundleFiles, Listing, Offer, Source
from tidegate.errors import ConfigError, TidegateError


class SeveralSources:
    """Sources beside each other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Join them; of a version that two of them have, the later one is refused."""
        self._sources = tuple(sources)
        self._owner: dict[tuple[str, str], Source] = {}

    def list(self) -> Listing:
        """Return what all of them have.

        Raises:
            ConfigError: two of them have the same version of a model.
            TidegateError: one of them cannot be asked.
        """
        offers: dict[tuple[str, str], Offer] = {}
        owner: dict[tuple[str, str], Source] = {}
        listings = [(source, source.list()) for source in self._sources]
        for source, listing in listings:
            for offer in listing.offers:
                key = offer.name, offer.version
                if key in offers:
                    raise ConfigError(
                        f"model {offer.name!r} version {offer.version} comes from {offers[key].location} and from "
                        f"{offer.location}",
                        fix="give each version of a model once",
                    )
                offers[key], owner[key] = offer, source
        self._owner = owner
        return Listing(
            tuple(offers.values()),
            tuple(problem for _, listing in listings for problem in listing.problems),
            tuple(note for _, listing in listings for note in listing.notes),
        )

    def open(self, offer: Offer) -> Bundle:
        """Open the bundle of an offer where it comes from."""
        return self._owner[offer.name, offer.version].open(offer)

    def told(self, offer: Offer, problem: TidegateError | None) -> None:
        """Pass it on to where the offer comes from."""
        self._owner[offer.name, offer.version].told(offer, problem)


def joined_sources(
    bundles: Sequence[str | Path], other: Source | None, *, fleet: Path | None = None, follows: bool = False
) -> Source:
    """Return bundles by path, another source, or both beside each other.

    Args:
        bundles: paths.
        other: such as a channel.
        fleet: directory of copies where this process is one of several that serve the same; None: it is alone.
        follows: whether later looks find what has changed; only asked with `fleet`.
    """
    sources: list[Source] = []
    if bundles:
        files = BundleFiles([Path(bundle) for bundle in bundles])
        sources.append(files if fleet is None else FleetFiles(files, fleet, follows=follows))
    sources += [] if other is None else [other]
    return sources[0] if len(sources) == 1 else SeveralSources(sources)
