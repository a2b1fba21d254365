"""A channel (TUF) as source of versions: the server is one more verified client of it.

    DIR/metadata/          of the channel, as last verified
    DIR/store/             files by SHA-256
    DIR/releases.json      what serves, what is tried, what failed
    DIR/.lock              held while one of several workers fetches or tries

The rules are those of a device (docs/channel.md, "What a device does with it"): the newest release that fits this
server, never one with a lower counter; a roll-back comes under a higher one; a withdrawal stops a release from
spreading. A release that fails its golden fixture, or ends the process while it is loaded, goes into quarantine.

`list` looks and fetches, `open` only reads the store. The first look of a process offers what is proven and here
already, without the network: a server starts offline, and a broken newest release never keeps it from starting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.cloud.channel_record import Followed, Installed, read_record, write_record
from tidegate.cloud.file_lock import locked
from tidegate.cloud.sources import Listing, Offer
from tidegate.errors import BundleError, ConfigError, IntegrityError, ModelError, NotFoundError, TidegateError
from tidegate.fetch.choice import Choice, DeviceFacts, choose
from tidegate.fetch.download import fetch, plan
from tidegate.fetch.installed import installed_files, open_installed
from tidegate.fetch.settings import FetchSettings, check_url
from tidegate.fetch.store import Store
from tidegate.fetch.trusted import ChannelReader
from tidegate.release.track import check_track_name
from tidegate.runtime import installed_backends

MOST_TRIES = 2
"""Times that the process may end while it loads a release, before the release is taken for the cause."""


@dataclass(frozen=True)
class ChannelSettings:
    """Which models of which channel are served."""

    url: str
    """of the channel"""
    trusted_root: bytes
    """content of a root.json that was got in a trusted way; all trust begins there"""
    models: tuple[str, ...]
    """by name; of each the newest release that fits"""
    directory: Path
    """keeps metadata and releases over restarts, so that a start needs no network"""
    track: str = "stable"
    """which track is followed"""
    server_id: str = "server"
    """decides the place in a roll-out; servers that should change together share it"""
    hardware: tuple[str, ...] = ()
    """tags that this machine answers to"""
    fetch: FetchSettings = field(default_factory=FetchSettings)
    """time-outs, limits, proxy"""

    def __post_init__(self) -> None:
        check_url(self.url, "the channel's address")
        check_track_name(self.track)
        if not self.models or len(set(self.models)) < len(self.models):
            raise ConfigError(
                f"models of the channel: {', '.join(self.models) or 'none'}; expected each one once",
                fix="name each model with --channel-model",
            )
        if not self.server_id:
            raise ConfigError("the server id is empty", fix="leave it out, or give one that never changes")


class ChannelSource:
    """Offers one version of each model: what serves and is whole, or its successor on the channel."""

    def __init__(self, settings: ChannelSettings, on_event: Callable[[str], None] = lambda text: None) -> None:
        """Note what to follow; nothing is asked or read yet.

        Args:
            settings: what to follow.
            on_event: told in words what was fetched.
        """
        self._settings = settings
        self._on_event = on_event
        self._store = Store(settings.directory / "store")
        self._record = settings.directory / "releases.json"
        self._offered: dict[str, Installed] = {}
        """by model, what the last look came to"""
        self._reader: ChannelReader | None = None
        self._trying = contextlib.ExitStack()
        """holds the lock from `open` to `told`"""

    def list(self) -> Listing:
        """Look at the channel and fetch what is new: two requests when there is no news.

        What serves already is offered, and the reason noted, when the channel cannot be read or the fetch fails.

        Raises:
            TidegateError: that is so, and of a model there is nothing proven here yet.
        """
        self._trying.close()
        notes: list[tuple[str, TidegateError]] = []
        with self._alone():
            record = read_record(self._record)
            whole = {model: self._whole(record.get(model, Followed())) for model in self._settings.models}
            if self._offered or not all(whole.values()):
                reader = self._reader = self._reader or self._new_reader()
                refreshed = _Once(reader.refresh)
                for model in self._settings.models:
                    try:
                        refreshed()
                        whole[model] = self._newest(reader, model, whole[model])
                    except TidegateError as error:
                        if whole[model] is None:
                            raise
                        notes.append((f"{self._settings.url} {model}", error))
            self._offered = {model: found for model, found in whole.items() if found is not None}
        return Listing(tuple(self._offer(*item) for item in self._offered.items()), notes=_each_once(notes))

    def open(self, offer: Offer) -> Bundle:
        """Open a release out of the store; every read is checked against its digest. Other workers wait until `told`.

        Raises:
            ModelError: the process ended more than once while it loaded this release.
            NotFoundError, IntegrityError, BundleError, ResourceError: as `tidegate.fetch.open_installed`.
        """
        self._trying.close()
        self._trying.enter_context(self._alone())
        installed = self._offered.get(offer.name)
        if installed is None or self._offer(offer.name, installed) != offer:
            raise NotFoundError(f"{offer.name} {offer.version} is not offered any more", fix="look again")
        record = read_record(self._record)
        followed = record.get(offer.name, Followed())
        if not _same_content(followed.active, installed):
            tries = followed.tries if followed.candidate == installed else 0
            if tries >= MOST_TRIES:
                raise ModelError(
                    f"the process ended {tries} times while it loaded release {installed.release} of {offer.name!r}",
                    fix="tell the channel's owner",
                )
            write_record(self._record, {**record, offer.name: followed.trying(installed, tries + 1)})
        return open_installed(self._store, installed.manifest_sha256, installed.variant)

    def told(self, offer: Offer, problem: TidegateError | None) -> None:
        """Note that a release serves, or put it into quarantine when it is itself the cause that it does not."""
        with self._trying:
            record = read_record(self._record)
            followed = record.get(offer.name, Followed())
            installed = self._offered.get(offer.name)
            if installed is None or self._offer(offer.name, installed) != offer:
                return
            if problem is None:
                after = followed.serving(installed)
            elif isinstance(problem, (ModelError, BundleError)) and not isinstance(problem, IntegrityError):
                after = followed.without(installed.release)
            else:
                after = followed.trying(None, 0)
            if after != followed:
                record[offer.name] = after
                write_record(self._record, record)
            if problem is None:
                self._collect(record.values())

    def _newest(self, reader: ChannelReader, model: str, active: Installed | None) -> Installed | None:
        """Return what is to be served, its files in the store."""
        record = read_record(self._record)
        followed = record.get(model, Followed())
        choice = self._choose(reader, model, active, followed)
        if choice.offer is None or choice.variant is None:
            if active is None:
                reasons = "; ".join(f"{one.version}: {one.reason}" for one in choice.passed_over)
                raise NotFoundError(
                    f"track {self._settings.track!r} has no release of {model!r} for this server: {reasons or 'none'}",
                    fix="publish one that fits",
                )
            return active
        chosen = Installed(
            release=choice.offer.release,
            version=choice.offer.version,
            manifest_sha256=choice.offer.manifest.sha256,
            variant=choice.variant.id,
            variant_sha256=choice.variant.sha256,
        )
        if active is not None and _same_content(active, chosen):
            write_record(self._record, {**record, model: followed.noted(chosen.release)})
            return chosen
        bases = {one.variant_sha256 for one in (followed.active, followed.previous) if one is not None}
        planned = plan(reader, self._store, choice.offer, choice.variant.id, bases)
        if planned.manifest.name != model:
            raise BundleError(
                f"release {chosen.release} holds model {planned.manifest.name!r}; expected {model!r}",
                fix="tell the channel's owner",
            )
        report = fetch(reader, self._store, planned)
        how = f", {len(report.deltas_used)} files by delta" if report.deltas_used else ""
        self._on_event(f"fetched {model} {chosen.version}: {report.received_bytes} bytes{how}")
        return chosen

    def _choose(self, reader: ChannelReader, model: str, active: Installed | None, followed: Followed) -> Choice:
        settings = self._settings
        facts = DeviceFacts(
            device_id=settings.server_id, hardware=settings.hardware, runtimes=installed_backends(), memory_mb=None
        )
        # What serves and was damaged on the disk may come again, under its own counter.
        known = active.release if active else followed.active.release - 1 if followed.active else 0
        return choose(
            reader.track(model, settings.track), facts, running_release=known, quarantined=followed.quarantined
        )

    def _whole(self, followed: Followed) -> Installed | None:
        """Return what serves if all of it is here. Its bytes are looked at by the first look only."""
        active = followed.active
        if active is None:
            return None
        try:
            files = {active.manifest_sha256, *installed_files(self._store, active.manifest_sha256, active.variant)}
        except (NotFoundError, BundleError):
            return None
        sound = self._store.has if self._offered else self._store.check
        return active if all(sound(sha256) for sha256 in files) else None

    def _collect(self, models: Iterable[Followed]) -> None:
        """Remove the files that no release of the record needs."""
        kept: set[str] = set()
        for followed in models:
            for one in (followed.active, followed.previous, followed.candidate):
                if one is not None:
                    with contextlib.suppress(NotFoundError, BundleError):
                        kept |= {one.manifest_sha256, *installed_files(self._store, one.manifest_sha256, one.variant)}
        self._store.remove_except(kept | {one.manifest_sha256 for one in self._offered.values()})

    def _new_reader(self) -> ChannelReader:
        settings = self._settings
        return ChannelReader(settings.directory / "metadata", settings.url, settings.trusted_root, settings.fetch)

    def _offer(self, model: str, installed: Installed) -> Offer:
        fingerprint = f"{installed.manifest_sha256} {installed.variant}"
        return Offer(model, installed.version, fingerprint, f"{self._settings.url} {model}")

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._settings.directory / ".lock")


class _Once:
    """Calls a function at the first call, and raises what it raised at each further one."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._outcome: list[TidegateError | None] = []

    def __call__(self) -> None:
        if not self._outcome:
            try:
                self._function()
                self._outcome.append(None)
            except TidegateError as error:
                self._outcome.append(error)
        if self._outcome[0] is not None:
            raise self._outcome[0]


def _same_content(one: Installed | None, other: Installed) -> bool:
    return one is not None and (one.manifest_sha256, one.variant) == (other.manifest_sha256, other.variant)


def _each_once(notes: Iterable[tuple[str, TidegateError]]) -> tuple[tuple[str, TidegateError], ...]:
    """Leave out what is the same error for several models."""
    return tuple({id(error): (place, error) for place, error in notes}.values())
