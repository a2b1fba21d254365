"""A channel: a directory of static files that says, signed, which release each track offers.

Every change has the same steps: take the lock, read and verify what stands, apply a rule of `offers`, write new files,
sign. What clients see changes in one step at the end, when timestamp.json is replaced.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.errors import ConfigError, NotFoundError, StateError
from tidegate.release import offers
from tidegate.release.applying import carry_out, check_at_hand
from tidegate.release.changes import changed_metadata, content_of, deltas_of, mended, renewal
from tidegate.release.content import read_content
from tidegate.release.creation import RoleKeys, new_channel
from tidegate.release.delta import BASES
from tidegate.release.disk import Disk, make_directories
from tidegate.release.draft import Draft, sign
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ONLINE, Lifetimes
from tidegate.release.moments import Clock, utc_now
from tidegate.release.offers import Stamp, Tracks
from tidegate.release.repository import (
    METADATA,
    TARGETS,
    Repository,
    exists,
    lifetimes_of,
    read_repository,
)
from tidegate.release.track import (
    Offer,
    Track,
    check_track_name,
)
from tidegate.release.tuf_types import TargetFile
from tidegate.release.writer import Writer, Written, alone

Rule = Callable[[Tracks, Stamp], dict[str, Track]]


@dataclass(frozen=True)
class Change:
    """What a command did."""

    offers: tuple[tuple[str, Offer], ...]
    """each track that changed, with its newest offer"""
    live: bool
    """whether clients see it; otherwise `refresh` makes it so, or carrying out the draft"""
    written: Written
    """targets"""
    note: str = ""
    """what else to tell"""
    draft: Draft | None = None
    """with `in_turns`: what is still to be signed and carried out"""


class Channel:
    """The publisher's side of a channel. Holds no state between calls; two publishers exclude each other.

    With `in_turns` a command needs only some of the keys or none: it stores content, and returns the metadata as a
    draft, signed by the keys at hand, for other holders to sign and for `applying.apply` to carry out.
    """

    def __init__(self, path: Path, *, disk: Disk | None = None, clock: Clock = utc_now) -> None:
        self.path = path
        self._disk = disk or Disk()
        self._clock = clock

    def create(self, roles: Mapping[str, RoleKeys], keys: KeyRing, lifetimes: Lifetimes | None = None) -> Repository:
        """Make an empty channel. Cut short, it is no channel yet, and the same call makes it.

        Args:
            roles: `root`, `targets`, `snapshot`, `timestamp`.
            keys: private keys, enough for each role's threshold.
            lifetimes: how long signatures are good for.

        Raises:
            ConfigError: a channel is there already, a role is missing, or keys are.
        """
        writer = self._writer(keys)
        draft = new_channel(roles, lifetimes or Lifetimes(), writer.now)
        check_at_hand(draft, keys)
        make_directories(self._disk, self.path, METADATA)
        make_directories(self._disk, self.path, TARGETS)
        with alone(self.path, self._disk):
            self._check_none()
            return carry_out(writer, draft)

    def draft_creation(self, roles: Mapping[str, RoleKeys], keys: KeyRing, lifetimes: Lifetimes | None = None) -> Draft:
        """Put down what `create` would write, signed by the keys at hand: for holders who sign in turns.

        Raises:
            ConfigError: a channel is there already, or a role is missing.
        """
        self._check_none()
        draft = new_channel(roles, lifetimes or Lifetimes(), self._writer(keys).now)
        sign(draft, keys)
        return draft

    def publish(
        self,
        bundle: Path,
        *,
        track: str,
        keys: KeyRing,
        percent: int = 100,
        staged: bool = False,
        in_turns: bool = False,
        delta_bases: int = BASES,
    ) -> Change:
        """Verify a bundle, store its files by content, and offer it on a track.

        Args:
            bundle: a `.tide` file or a directory.
            track: such as `stable`.
            keys: those of targets, and unless staged of snapshot and timestamp.
            percent: share of the devices, 0 to 100.
            staged: stop before the online roles sign; `refresh` elsewhere makes it live.
            in_turns: return a draft for several holders to sign.
            delta_bases: from how many releases before it on the track deltas are made.

        Raises:
            BundleError: the bundle is not as its format says, or fails its golden fixture.
            StateError: the version has other content here, is withdrawn, or is not newer.
        """
        check_track_name(track)
        with self._opened(keys, staged, in_turns) as (writer, repository), read_content(bundle) as content:
            tracks = repository.tracks_of(content.release.model)
            try:
                changed = offers.publish(tracks, track, content.release, percent, _stamp(writer))
            except StateError:
                if not mended(writer, repository, content):
                    raise
                return Change((), not repository.staged, writer.written, "damaged files were mended, no offer changed")
            files = [*content_of(writer, content), *deltas_of(writer, repository, changed, delta_bases)]
            return self._sign(writer, repository, changed, files, staged, in_turns, f"golden fixture: {content.golden}")

    def promote(
        self,
        model: str,
        *,
        track: str,
        keys: KeyRing,
        source: str | None = None,
        version: str | None = None,
        percent: int = 100,
        staged: bool = False,
        in_turns: bool = False,
        delta_bases: int = BASES,
    ) -> Change:
        """Offer on `track` what `source` offers, or without `source` raise the share of what `track` offers."""

        def rule(tracks: Tracks, stamp: Stamp) -> dict[str, Track]:
            if source is None:
                return offers.ramp(tracks, track, version, percent)
            return offers.promote(tracks, source, track, version, percent, stamp)

        check_track_name(track)
        # A ramp offers nothing new, so it needs no deltas.
        return self._apply(model, rule, keys, staged, in_turns, 0 if source is None else delta_bases)

    def roll_back(
        self,
        model: str,
        *,
        track: str,
        version: str,
        reason: str,
        keys: KeyRing,
        staged: bool = False,
        in_turns: bool = False,
        delta_bases: int = BASES,
    ) -> Change:
        """Offer older content under a higher counter, to every device at once, and withdraw what is newer."""

        def rule(tracks: Tracks, stamp: Stamp) -> dict[str, Track]:
            return offers.roll_back(tracks, track, version, reason, stamp)

        return self._apply(model, rule, keys, staged, in_turns, delta_bases)

    def withdraw(
        self,
        model: str,
        *,
        version: str,
        reason: str,
        keys: KeyRing,
        track: str | None = None,
        staged: bool = False,
        in_turns: bool = False,
    ) -> Change:
        """Stop a version: nobody installs it any more, on one track or on all."""
        return self._apply(
            model, lambda tracks, stamp: offers.withdraw(tracks, version, track, reason, stamp), keys, staged, in_turns
        )

    def refresh(self, keys: KeyRing, *, renew_targets: bool = False) -> Repository:
        """Sign the timestamp again, with the online keys alone; the snapshot too when half its life is over.

        What offline keys have signed and clients do not see yet becomes live.

        Args:
            keys: those of timestamp and snapshot; with `renew_targets` those of targets too.
            renew_targets: sign the targets again, for a channel that had no release for long.
        """
        with alone(self.path, self._disk):
            repository = read_repository(self.path)
            writer = self._writer(keys)
            root = repository.root.signed
            if renew_targets:
                draft = renewal(writer, repository)
                check_at_hand(draft, keys)
                return carry_out(writer, draft)
            half_life = lifetimes_of(root).of("snapshot") / 2
            if repository.staged or repository.snapshot.signed.expires - writer.now < half_life:
                writer.require(root, ONLINE)
                return writer.go_live(repository)
            timestamp = writer.timestamp(root, repository.snapshot, repository.timestamp.version + 1)
            return replace(repository, timestamp=timestamp)

    def draft_refresh(self, keys: KeyRing) -> Draft:
        """Put down what `refresh` with `renew_targets` would write, signed by the keys at hand."""
        with alone(self.path, self._disk):
            draft = renewal(self._writer(keys), read_repository(self.path))
            sign(draft, keys)
            return draft

    def read(self) -> Repository:
        """Read and verify what stands."""
        return read_repository(self.path)

    def _apply(
        self, model: str, rule: Rule, keys: KeyRing, staged: bool, in_turns: bool, delta_bases: int = 0
    ) -> Change:
        with self._opened(keys, staged, in_turns) as (writer, repository):
            tracks = repository.tracks_of(model)
            if not tracks:
                known = ", ".join(sorted({track.model for track in repository.tracks()})) or "none"
                raise NotFoundError(f"{self.path} has no model {model!r}; it has {known}", fix="name one of these")
            changed = rule(tracks, _stamp(writer))
            return self._sign(
                writer, repository, changed, deltas_of(writer, repository, changed, delta_bases), staged, in_turns
            )

    def _sign(
        self,
        writer: Writer,
        repository: Repository,
        changed: Mapping[str, Track],
        files: Sequence[TargetFile],
        staged: bool,
        in_turns: bool,
        note: str = "",
    ) -> Change:
        draft = changed_metadata(writer, repository, changed, files, staged)
        newest = tuple((track.track, track.offers[-1]) for track in changed.values())
        if in_turns and draft.documents:
            sign(draft, writer.keys)
            return Change(newest, False, writer.written, note, draft)
        if draft.steps and not in_turns:
            repository = carry_out(writer, draft)
        return Change(newest, not repository.staged, writer.written, note)

    @contextmanager
    def _opened(self, keys: KeyRing, staged: bool, in_turns: bool) -> Iterator[tuple[Writer, Repository]]:
        """Hold the lock; give what stands, once it is clear that the keys suffice."""
        with alone(self.path, self._disk):
            repository = read_repository(self.path)
            writer = self._writer(keys)
            if not in_turns:
                writer.require(repository.root.signed, ("targets",) if staged else ("targets", *ONLINE))
            yield writer, repository

    def _check_none(self) -> None:
        if exists(self.path):
            raise ConfigError(f"{self.path} is a channel already", fix="name an empty or new directory")

    def _writer(self, keys: KeyRing) -> Writer:
        return Writer(self.path, self._disk, keys, self._clock().replace(microsecond=0))


def _stamp(writer: Writer) -> Stamp:
    return Stamp(at=writer.now.strftime("%Y-%m-%dT%H:%M:%SZ"), salt=secrets.token_hex(8))
