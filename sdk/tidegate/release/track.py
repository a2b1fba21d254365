"""The track document: what one track of one model offers, to whom. Signed as the custom metadata of its target.

Schema `tidegate.channel/1`. It holds integers and strings only: the signature is over OLPC canonical JSON, which has
no fractions. docs/channel.md writes the form out in full.
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from tidegate.errors import BundleError, ConfigError

SCHEMA = "tidegate.channel/1"
DELTAS = "deltas"
FILES = "files"

_TRACK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class FileReference(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a release, by content."""

    sha256: str
    size_bytes: int

    @property
    def target_path(self) -> str:
        """Its name in the repository; the same content has the same name in every release."""
        return file_target(self.sha256)


class OfferedVariant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device must know of a variant to choose, before it fetches anything."""

    id: str
    backend: str
    precision: str
    sha256: str
    size_bytes: int
    minimum_runtime: str = ""
    """lowest runtime version; empty when not stated"""
    hardware: tuple[str, ...] = ()
    """tags it is meant for; empty: any"""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets it."""

    percent: int
    """0 to 100 of the devices"""
    salt: str
    """constant through a ramp, new for each offer, so that not always the same devices come first"""


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """Taken back: nobody installs it any more."""

    reason: str
    at: str
    """UTC, ISO 8601"""


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One release as one track offers it."""

    release: int
    """the counter: rises with every new offer of the model on any track, and never falls"""
    version: str
    """of the content; lower than the one before only in a roll-back"""
    bundle_schema: str
    """schema of the manifest"""
    manifest: FileReference
    variants: tuple[OfferedVariant, ...]
    rollout: Rollout
    offered_at: str
    """UTC, ISO 8601"""
    rss_mb: int = 0
    """the bundle's memory budget, rounded up; 0 when not stated"""
    rollback_of: int = 0
    """counter of the offer that this one takes back; 0 when it is no roll-back"""
    reason: str = ""
    """of a roll-back"""
    withdrawn: Withdrawal | None = None


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """All offers of one model on one track, oldest first."""

    schema: str
    model: str
    track: str
    offers: tuple[Offer, ...]

    @property
    def standing(self) -> tuple[Offer, ...]:
        """The offers that are not withdrawn, newest first: the order in which a device considers them."""
        return tuple(offer for offer in reversed(self.offers) if offer.withdrawn is None)


def file_target(sha256: str) -> str:
    """Return the target path of a file of a release."""
    return f"{FILES}/{sha256}"


def track_target(model: str, track: str) -> str:
    """Return the target path of a track document."""
    return f"tracks/{model}/{track}.json"


def delta_target(base_sha256: str, full_sha256: str) -> str:
    """Return the target path of a delta between two files."""
    return f"{DELTAS}/{base_sha256}/{full_sha256}"


def check_track_name(track: str) -> None:
    """Refuse what cannot name a track.

    Raises:
        ConfigError: not lower-case letters, digits, `_`, `-`, at most 32.
    """
    if not _TRACK_NAME.match(track):
        raise ConfigError(
            f"track {track!r} is not lower-case letters, digits, '_', '-', at most 32",
            fix="name it such as stable or beta",
        )


def is_track_target(path: str) -> bool:
    """Return whether a target path is that of a track document."""
    return path.startswith("tracks/")


def empty_track(model: str, track: str) -> Track:
    """Return a track with no offers."""
    check_track_name(track)
    return Track(schema=SCHEMA, model=model, track=track, offers=())


def to_custom(track: Track) -> dict[str, Any]:
    """Return the plain JSON object that is signed."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(track)))


def to_bytes(track: Track) -> bytes:
    """Return the content of the track's target: the same object, indented."""
    return msgspec.json.format(msgspec.json.encode(track), indent=1) + b"\n"


def from_custom(custom: object, *, origin: str) -> Track:
    """Read a track document from signed custom metadata, and check its rules.

    Raises:
        BundleError: another major schema, a field missing or of the wrong type, or a rule broken.
    """
    schema = custom.get("schema") if isinstance(custom, dict) else None
    if schema != SCHEMA:
        raise BundleError(
            f"{origin} has schema {schema!r}; this version of Tidegate reads {SCHEMA!r}",
            fix="install the Tidegate that wrote the channel",
        )
    try:
        track = msgspec.convert(custom, type=Track)
    except msgspec.ValidationError as error:
        raise BundleError(f"{origin}: {error}", fix="tell the channel's owner") from error
    problems = _problems(track)
    if problems:
        raise BundleError(f"{origin}: {'; '.join(problems)}", fix="tell the channel's owner")
    return track


def _problems(track: Track) -> list[str]:
    problems = []
    counters = [offer.release for offer in track.offers]
    if any(later <= earlier for earlier, later in zip([0, *counters], counters, strict=False)):
        problems.append(f"release counters {counters} do not rise")
    for offer in track.offers:
        if not 0 <= offer.rollout.percent <= 100:
            problems.append(f"release {offer.release} has {offer.rollout.percent} percent; expected 0 to 100")
        for digest in (offer.manifest.sha256, *(variant.sha256 for variant in offer.variants)):
            if not _SHA256.match(digest):
                problems.append(f"release {offer.release} names {digest[:80]!r}; expected a SHA-256")
    return problems
