"""A channel: a directory of static files that says, signed, which release each track offers.

Every change has the same steps: take the lock, read and verify what stands, apply a rule of `offers`, write new files,
sign. What clients see changes in one step at the end, when timestamp.json is replaced.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from tidegate.errors import ConfigError, NotFoundError
from tidegate.release import offers
from tidegate.release.content import read_content
from tidegate.release.delta import BASES, custom_of, deltas_to_newest, without_stale_deltas
from tidegate.release.disk import Disk, exclusive, make_directories, remove_leftovers
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ROLES, Lifetimes
from tidegate.release.offers import Stamp, Tracks
from tidegate.release.repository import (
    LIFETIMES_FIELD,
    METADATA,
    TARGETS,
    Repository,
    exists,
    lifetimes_of,
    read_repository,
    versions_on_disk,
)
from tidegate.release.track import (
    Offer,
    Track,
    check_track_name,
    delta_target,
    file_target,
    to_bytes,
    to_custom,
    track_target,
)
from tidegate.release.tuf_types import Root, SSlibKey, TargetFile
from tidegate.release.writer import Writer, Written

ONLINE = ("snapshot", "timestamp")
"""Roles whose keys may lie on a machine that refreshes the channel by itself."""

Clock = Callable[[], datetime]
Rule = Callable[[Tracks, Stamp], dict[str, Track]]


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class RoleKeys:
    """Who may sign for a role."""

    keys: Sequence[SSlibKey]
    """public keys"""
    threshold: int = 1
    """how many of them must"""

    def __post_init__(self) -> None:
        distinct = {key.keyid for key in self.keys}
        if len(distinct) != len(self.keys):
            raise ConfigError("the same key was named twice for one role", fix="name each key once")
        if not 1 <= self.threshold <= len(distinct):
            raise ConfigError(
                f"a threshold of {self.threshold} with {len(distinct)} keys", fix="choose 1 to the number of keys"
            )


@dataclass(frozen=True)
class Change:
    """What a command did."""

    offers: tuple[tuple[str, Offer], ...]
    """each track that changed, with its newest offer"""
    live: bool
    """whether clients see it; otherwise `refresh` makes it so"""
    written: Written
    """targets"""
    note: str = ""
    """what else to tell"""


class Channel:
    """The publisher's side of a channel. Holds no state between calls; two publishers exclude each other."""

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
        if set(roles) != set(ROLES):
            raise ConfigError(f"keys were named for {sorted(roles)}", fix=f"name them for {', '.join(ROLES)}")
        make_directories(self._disk, self.path, METADATA)
        make_directories(self._disk, self.path, TARGETS)
        with self._alone():
            if exists(self.path):
                raise ConfigError(f"{self.path} is a channel already", fix="name an empty or new directory")
            if versions_on_disk(self.path, "root") not in ([], [1]):
                raise ConfigError(f"{self.path} holds the remains of a channel", fix="name an empty or new directory")
            writer = self._writer(keys)
            root = _first_root(roles, lifetimes or Lifetimes(), writer.now)
            writer.require(root, ROLES)
            writer.root(root, None)
            snapshot = writer.snapshot(root, writer.targets(root, {}, after=0), after=0)
            writer.timestamp(root, snapshot, version=1)
            return read_repository(self.path)

    def publish(
        self,
        bundle: Path,
        *,
        track: str,
        keys: KeyRing,
        percent: int = 100,
        staged: bool = False,
        delta_bases: int = BASES,
    ) -> Change:
        """Verify a bundle, store its files by content, and offer it on a track.

        Args:
            bundle: a `.tide` file or a directory.
            track: such as `stable`.
            keys: those of targets, and unless staged of snapshot and timestamp.
            percent: share of the devices, 0 to 100.
            staged: stop before the online roles sign; `refresh` elsewhere makes it live.
            delta_bases: from how many releases before it on the track deltas are made.

        Raises:
            BundleError: the bundle is not as its format says, or fails its golden fixture.
            StateError: the version has other content here, is withdrawn, or is not newer.
        """
        check_track_name(track)
        with self._alone(), read_content(bundle) as content:
            repository = read_repository(self.path)
            writer = self._writer(keys)
            writer.require(repository.root.signed, _roles(staged))
            model = content.release.model
            changed = offers.publish(
                repository.tracks_of(model), track, content.release, percent, self._stamp(writer.now)
            )
            files = [writer.target(file_target(hashlib.sha256(data).hexdigest()), data) for data in content.files()]
            files += self._deltas(writer, changed, delta_bases)
            return self._sign(writer, repository, changed, files, staged, f"golden fixture: {content.golden}")

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
        delta_bases: int = BASES,
    ) -> Change:
        """Offer on `track` what `source` offers, or without `source` raise the share of what `track` offers."""

        def rule(tracks: Tracks, stamp: Stamp) -> dict[str, Track]:
            if source is None:
                return offers.ramp(tracks, track, version, percent)
            return offers.promote(tracks, source, track, version, percent, stamp)

        check_track_name(track)
        # A ramp offers nothing new, so it needs no deltas.
        return self._apply(model, rule, keys, staged, 0 if source is None else delta_bases)

    def roll_back(
        self, model: str, *, track: str, version: str, reason: str, keys: KeyRing, staged: bool = False
    ) -> Change:
        """Offer older content under a higher counter, to every device at once, and withdraw what is newer."""
        return self._apply(
            model, lambda tracks, stamp: offers.roll_back(tracks, track, version, reason, stamp), keys, staged
        )

    def withdraw(
        self, model: str, *, version: str, reason: str, keys: KeyRing, track: str | None = None, staged: bool = False
    ) -> Change:
        """Stop a version: nobody installs it any more, on one track or on all."""
        return self._apply(
            model, lambda tracks, stamp: offers.withdraw(tracks, version, track, reason, stamp), keys, staged
        )

    def refresh(self, keys: KeyRing, *, renew_targets: bool = False) -> Repository:
        """Sign the timestamp again, with the online keys alone; the snapshot too when half its life is over.

        What offline keys have signed and clients do not see yet becomes live.

        Args:
            keys: those of timestamp and snapshot; with `renew_targets` those of targets too.
            renew_targets: sign the targets again, for a channel that had no release for long.
        """
        with self._alone():
            repository = read_repository(self.path)
            writer = self._writer(keys)
            root = repository.root.signed
            if renew_targets:
                writer.require(root, ("targets", *ONLINE))
                repository = replace(
                    repository, targets=writer.targets(root, repository.files, after=repository.targets.version)
                )
            half_life = lifetimes_of(root).of("snapshot") / 2
            if repository.staged or repository.snapshot.signed.expires - writer.now < half_life:
                writer.require(root, ONLINE)
                return writer.go_live(repository)
            timestamp = writer.timestamp(root, repository.snapshot, repository.timestamp.version + 1)
            return replace(repository, timestamp=timestamp)

    def read(self) -> Repository:
        """Read and verify what stands."""
        return read_repository(self.path)

    def _apply(self, model: str, rule: Rule, keys: KeyRing, staged: bool, delta_bases: int = 0) -> Change:
        with self._alone():
            repository = read_repository(self.path)
            writer = self._writer(keys)
            writer.require(repository.root.signed, _roles(staged))
            tracks = repository.tracks_of(model)
            if not tracks:
                known = ", ".join(sorted({track.model for track in repository.tracks()})) or "none"
                raise NotFoundError(f"{self.path} has no model {model!r}; it has {known}", fix="name one of these")
            changed = rule(tracks, self._stamp(writer.now))
            return self._sign(writer, repository, changed, self._deltas(writer, changed, delta_bases), staged)

    def _deltas(self, writer: Writer, changed: Mapping[str, Track], bases: int) -> list[TargetFile]:
        """Store the deltas to what is offered newly."""
        described = []
        for track in changed.values():
            for delta in deltas_to_newest(self.path, track, bases):
                path = delta_target(delta.header.base.sha256, delta.header.full.sha256)
                described.append(writer.target(path, delta.data))
                described[-1].unrecognized_fields["custom"] = custom_of(delta)
        return described

    def _sign(
        self,
        writer: Writer,
        repository: Repository,
        changed: Mapping[str, Track],
        files: Sequence[TargetFile],
        staged: bool,
        note: str = "",
    ) -> Change:
        described = {file.path: file for file in files}
        for track in changed.values():
            target = writer.target(track_target(track.model, track.track), to_bytes(track))
            target.unrecognized_fields["custom"] = to_custom(track)
            described[target.path] = target
        if any(repository.files.get(path) != file for path, file in described.items()):
            tracks = {(track.model, track.track): track for track in (*repository.tracks(), *changed.values())}
            wanted = without_stale_deltas({**repository.files, **described}, tracks.values())
            targets = writer.targets(repository.root.signed, wanted, after=repository.targets.version)
            repository = replace(repository, targets=targets)
        if repository.staged and not staged:
            repository = writer.go_live(repository)
        newest = tuple((track.track, track.offers[-1]) for track in changed.values())
        return Change(newest, not repository.staged, writer.written, note)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self.path.is_dir():
            raise NotFoundError(f"{self.path} is not a directory", fix="make a channel with `tidegate channel init`")
        with exclusive(self.path / ".lock"):
            for part in (METADATA, TARGETS):
                remove_leftovers(self._disk, self.path / part)
            yield

    def _writer(self, keys: KeyRing) -> Writer:
        return Writer(self.path, self._disk, keys, self._clock().replace(microsecond=0))

    def _stamp(self, now: datetime) -> Stamp:
        return Stamp(at=now.strftime("%Y-%m-%dT%H:%M:%SZ"), salt=secrets.token_hex(8))


def _roles(staged: bool) -> tuple[str, ...]:
    """Return the roles whose keys a change needs."""
    return ("targets",) if staged else ("targets", *ONLINE)


def _first_root(roles: Mapping[str, RoleKeys], lifetimes: Lifetimes, now: datetime) -> Root:
    root = Root(
        version=1,
        expires=now + lifetimes.of("root"),
        consistent_snapshot=True,
        unrecognized_fields={LIFETIMES_FIELD: lifetimes.as_dict()},
    )
    for role, holders in roles.items():
        for key in holders.keys:
            root.add_key(key, role)
        root.roles[role].threshold = holders.threshold
    return root
