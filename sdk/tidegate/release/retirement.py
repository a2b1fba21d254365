"""Which releases of a model no device needs any more, pure: given its tracks, what is kept and what is retired.

A retired offer stays on record, marked as withdrawn, so its counter and its version are never used again; what goes are
its files. Retiring changes nothing for any device that could take a release: whoever would be led to a retired offer is
led to a newer one that is kept, whatever its hardware, runtime, memory and place in a roll-out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tidegate.errors import ConfigError
from tidegate.release.offers import Stamp, Tracks
from tidegate.release.track import Offer, OfferedVariant, Track, Withdrawal
from tidegate.runtime.loading import runtime_suffices


@dataclass(frozen=True)
class Retirement:
    """What a model's tracks become."""

    tracks: dict[str, Track]
    """those that change, by name"""
    retired: tuple[tuple[str, Offer], ...]
    """track and offer, as it stands then"""
    kept: frozenset[str]
    """SHA-256 of the manifests whose files are kept"""


def retired(tracks: Tracks, releases: int, stamp: Stamp) -> Retirement:
    """Keep the newest releases of each track, and every older one that some device may still be led to.

    Args:
        tracks: all of one model, by name.
        releases: of other content than each other, on each track, withdrawn or not: 1 or more.
        stamp: when.

    Raises:
        ConfigError: less than one release would be kept.
    """
    if releases < 1:
        raise ConfigError(f"{releases} releases to keep; expected 1 or more", fix="keep some to go back to, such as 5")
    kept = frozenset(sha256 for track in tracks.values() for sha256 in _kept(track, releases))
    gone = Withdrawal(reason=f"not among the newest {releases} any more, its files are gone", at=stamp.at)
    changed: dict[str, Track] = {}
    retired: list[tuple[str, Offer]] = []
    for name, track in tracks.items():
        offers = [_unless_kept(offer, kept, gone) for offer in track.offers]
        retired += [(name, new) for new, old in zip(offers, track.offers, strict=True) if new != old]
        if tuple(offers) != track.offers:
            changed[name] = msgspec.structs.replace(track, offers=tuple(offers))
    return Retirement(changed, tuple(retired), kept)


def covers(newer: Offer, older: Offer) -> bool:
    """Return whether every device that may take `older` may take `newer`, if that goes to all."""
    return (
        newer.bundle_schema == older.bundle_schema
        and newer.rss_mb <= older.rss_mb
        and all(any(_runs_wherever(new, old) for new in newer.variants) for old in older.variants)
    )


def _kept(track: Track, releases: int) -> set[str]:
    """Return the contents that one track keeps."""
    newest = list(dict.fromkeys(offer.manifest.sha256 for offer in reversed(track.offers)))[:releases]
    kept = set(newest)
    to_all: list[Offer] = []
    for offer in track.standing:
        if offer.manifest.sha256 not in kept and any(covers(newer, offer) for newer in to_all):
            continue
        kept.add(offer.manifest.sha256)
        if offer.rollout.percent == 100:
            to_all.append(offer)
    return kept


def _runs_wherever(new: OfferedVariant, old: OfferedVariant) -> bool:
    return (
        new.backend == old.backend
        and runtime_suffices(old.minimum_runtime, new.minimum_runtime)
        and (not new.hardware or (bool(old.hardware) and set(old.hardware) <= set(new.hardware)))
    )


def _unless_kept(offer: Offer, kept: Iterable[str], gone: Withdrawal) -> Offer:
    if offer.manifest.sha256 in kept or offer.withdrawn is not None:
        return offer
    return msgspec.structs.replace(offer, withdrawn=gone)
