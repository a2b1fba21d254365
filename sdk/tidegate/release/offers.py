"""The rules of a track, pure: given what stands, what may be offered next.

Every function takes all tracks of one model, by name, and returns those that change. Nothing is ever taken out of a
track: a release that was offered once stays on record, at most withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from tidegate.errors import ConfigError, NotFoundError, StateError
from tidegate.release.track import FileReference, Offer, OfferedVariant, Rollout, Track, Withdrawal, empty_track
from tidegate.release.versions import precedence

Tracks = Mapping[str, Track]


@dataclass(frozen=True)
class Release:
    """The content of an offer: what a bundle says about itself."""

    model: str
    """name in the manifest"""
    version: str
    """semantic version"""
    counter_floor: int
    """the manifest's own release counter; the channel's is at least as high"""
    bundle_schema: str
    """schema of the manifest"""
    manifest: FileReference
    """of the manifest's bytes, so of every file that it lists"""
    variants: tuple[OfferedVariant, ...]
    """in the author's order of preference"""
    rss_mb: int
    """memory budget, rounded up; 0 when not stated"""


@dataclass(frozen=True)
class Stamp:
    """What an operation may not make up by itself, so that these functions stay pure."""

    at: str
    """now, UTC, ISO 8601"""
    salt: str
    """random, for a new offer"""


def publish(tracks: Tracks, track_name: str, release: Release, percent: int, stamp: Stamp) -> dict[str, Track]:
    """Offer a release on a track; nothing changes if it is its newest offer already.

    Raises:
        StateError: the version exists with other content, is withdrawn, or is not newer than what the track offers.
        ConfigError: percent out of range, or not a track name.
    """
    _check_percent(percent)
    _check_same_content(tracks, release)
    track = tracks.get(track_name) or empty_track(release.model, track_name)
    standing = track.standing
    if standing and standing[0].manifest == release.manifest:
        return _check_same_percent(standing[0], percent, track_name)
    _check_newer(track, release.version)
    offer = Offer(
        release=max(_last_counter(tracks) + 1, release.counter_floor),
        version=release.version,
        bundle_schema=release.bundle_schema,
        manifest=release.manifest,
        variants=release.variants,
        rss_mb=release.rss_mb,
        rollout=Rollout(percent=percent, salt=stamp.salt),
        offered_at=stamp.at,
    )
    return {track_name: _with(track, offer)}


def ramp(tracks: Tracks, track_name: str, version: str | None, percent: int) -> dict[str, Track]:
    """Raise the share of devices that an offer reaches; counter and salt stay, so the first devices stay reached.

    Raises:
        NotFoundError: no such track, or the version is not offered there.
        StateError: the share would fall.
    """
    _check_percent(percent)
    track = _existing(tracks, track_name)
    offer = _standing_offer(track, version)
    if percent < offer.rollout.percent:
        raise StateError(
            f"version {offer.version} is at {offer.rollout.percent} % on {track_name}; {percent} % would be less, and "
            "devices that have it would keep it",
            fix="take it back with `tidegate channel rollback`, or stop it with `tidegate channel withdraw`",
        )
    if percent == offer.rollout.percent:
        return {}
    raised = msgspec.structs.replace(offer, rollout=Rollout(percent=percent, salt=offer.rollout.salt))
    return {track_name: _replaced(track, [raised])}


def promote(
    tracks: Tracks, source: str, target: str, version: str | None, percent: int, stamp: Stamp
) -> dict[str, Track]:
    """Offer on `target` what `source` offers: its newest, or `version`. If `target` has it as its newest, ramp it.

    Raises:
        NotFoundError: no such track, or the version is not offered there.
        StateError: it is not newer than what the target offers, or the share would fall.
    """
    _check_percent(percent)
    if source == target:
        raise ConfigError(f"{source} cannot be promoted to itself", fix="name two tracks, or leave --from out to ramp")
    offer = _standing_offer(_existing(tracks, source), version)
    track = tracks.get(target) or empty_track(tracks[source].model, target)
    standing = track.standing
    if standing and standing[0].manifest == offer.manifest:
        return ramp(tracks, target, offer.version, percent)
    _check_standing(other for other in track.offers if other.manifest == offer.manifest)
    _check_newer(track, offer.version)
    promoted = msgspec.structs.replace(
        offer,
        release=_last_counter(tracks) + 1,
        rollout=Rollout(percent=percent, salt=stamp.salt),
        offered_at=stamp.at,
        rollback_of=0,
        reason="",
    )
    return {target: _with(track, promoted)}


def roll_back(tracks: Tracks, track_name: str, version: str, reason: str, stamp: Stamp) -> dict[str, Track]:
    """Offer older content again under a higher counter, to every device, and withdraw what is newer than it.

    The content may come from any track of the model. Nothing changes if the track's newest offer has it already, so
    that a command that was cut short can be repeated.

    Raises:
        NotFoundError: there is no such track or version.
        StateError: the version is withdrawn.
    """
    _check_reason(reason)
    track = _existing(tracks, track_name)
    content = _content(tracks, track, version)
    if not track.offers:
        raise StateError(f"{track_name} never offered anything", fix="publish or promote to it instead")
    present = track.offers[-1]
    if present.manifest == content.manifest:
        return {}
    taken_back = [
        msgspec.structs.replace(offer, withdrawn=Withdrawal(reason=f"rolled back: {reason}", at=stamp.at))
        for offer in track.standing
        if precedence(offer.version) > precedence(version)
    ]
    offer = msgspec.structs.replace(
        content,
        release=_last_counter(tracks) + 1,
        rollout=Rollout(percent=100, salt=stamp.salt),
        offered_at=stamp.at,
        rollback_of=present.release,
        reason=reason,
    )
    return {track_name: _with(_replaced(track, taken_back), offer)}


def withdraw(tracks: Tracks, version: str, track_name: str | None, reason: str, stamp: Stamp) -> dict[str, Track]:
    """Mark every offer of a version as withdrawn, on one track or on all; nothing changes if it is so already.

    Raises:
        NotFoundError: the version was never offered there.
    """
    _check_reason(reason)
    within = [_existing(tracks, track_name)] if track_name else list(tracks.values())
    if not any(offer.version == version for track in within for offer in track.offers):
        raise NotFoundError(
            f"version {version} was never offered{f' on {track_name}' if track_name else ''}; there are "
            f"{_versions(offer for track in within for offer in track.offers)}",
            fix="name a version that `tidegate channel show` lists",
        )
    changed = {}
    for track in within:
        marked = [
            msgspec.structs.replace(offer, withdrawn=Withdrawal(reason=reason, at=stamp.at))
            for offer in track.offers
            if offer.version == version and offer.withdrawn is None
        ]
        if marked:
            changed[track.track] = _replaced(track, marked)
    return changed


def _check_percent(percent: int) -> None:
    if not 0 <= percent <= 100:
        raise ConfigError(f"{percent} percent; expected 0 to 100", fix="give a whole number of percent")


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise ConfigError("the reason is empty", fix="say in a few words why; devices and people will read it")


def _check_same_content(tracks: Tracks, release: Release) -> None:
    for track in tracks.values():
        for offer in track.offers:
            if offer.version != release.version:
                continue
            if offer.manifest != release.manifest:
                raise StateError(
                    f"{release.model} {release.version} was published with manifest {offer.manifest.sha256}; this "
                    f"bundle has {release.manifest.sha256}",
                    fix="a published version never changes: give this one a new version and build it again",
                )
            _check_standing([offer])


def _check_same_percent(offer: Offer, percent: int, track_name: str) -> dict[str, Track]:
    if offer.rollout.percent != percent:
        raise StateError(
            f"{track_name} offers version {offer.version} already, at {offer.rollout.percent} %, not {percent} %",
            fix=f"raise the share with `tidegate channel promote --track {track_name} --percent N`",
        )
    return {}


def _check_newer(track: Track, version: str) -> None:
    standing = track.standing
    highest = max(standing, key=lambda offer: precedence(offer.version), default=None)
    if highest is not None and precedence(version) <= precedence(highest.version):
        raise StateError(
            f"{track.track} offers version {highest.version}; {version} is not newer",
            fix="raise the version, or go back on purpose with `tidegate channel rollback`",
        )


def _last_counter(tracks: Tracks) -> int:
    return max((offer.release for track in tracks.values() for offer in track.offers), default=0)


def _existing(tracks: Tracks, name: str) -> Track:
    track = tracks.get(name)
    if track is None:
        raise NotFoundError(
            f"there is no track {name!r}; there are {', '.join(sorted(tracks))}", fix="name one of these"
        )
    return track


def _standing_offer(track: Track, version: str | None) -> Offer:
    for offer in track.standing:
        if version is None or offer.version == version:
            return offer
    what = "offers nothing" if version is None else f"does not offer version {version}"
    raise NotFoundError(
        f"{track.track} {what}; it has {_versions(track.standing)}",
        fix="publish to the track first, or name a version that `tidegate channel show` lists",
    )


def _content(tracks: Tracks, track: Track, version: str) -> Offer:
    offers = [offer for one in (track, *tracks.values()) for offer in reversed(one.offers) if offer.version == version]
    if not offers:
        known = (offer for one in tracks.values() for offer in one.offers)
        raise NotFoundError(
            f"version {version} was never published; there are {_versions(known)}",
            fix="name one of these with --to",
        )
    _check_standing(offers)
    return offers[0]


def _check_standing(offers: Iterable[Offer]) -> None:
    for offer in offers:
        if offer.withdrawn is not None:
            raise StateError(
                f"version {offer.version} was withdrawn: {offer.withdrawn.reason}", fix="use another version"
            )


def _with(track: Track, offer: Offer) -> Track:
    return msgspec.structs.replace(track, offers=(*track.offers, offer))


def _replaced(track: Track, changed: list[Offer]) -> Track:
    by_counter = {offer.release: offer for offer in changed}
    return msgspec.structs.replace(track, offers=tuple(by_counter.get(offer.release, offer) for offer in track.offers))


def _versions(offers: Iterable[Offer]) -> str:
    return ", ".join(sorted({offer.version for offer in offers}, key=precedence)) or "none"
