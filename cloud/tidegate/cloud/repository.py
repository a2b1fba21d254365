"""The models that a server holds: loaded beside each other, switched at once, drained before they are freed.

What can be called now is in `tidegate.cloud.ready_versions`, labels are in `labelled_versions`; here is what brings
versions in and takes them out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from tidegate.cloud.label_file import LabelFile
from tidegate.cloud.labelled_versions import LabelledVersions
from tidegate.cloud.lifecycle import Event, State, next_state
from tidegate.cloud.ready_versions import served_names
from tidegate.cloud.repository_settings import RepositorySettings
from tidegate.cloud.served import LoadSettings, ServedModel, load_bundle, load_served
from tidegate.cloud.sources import Listing, Offer, Source
from tidegate.cloud.statistics import Counts
from tidegate.cloud.version_status import ReloadReport, Statuses, VersionStatus
from tidegate.cloud.versions import version_key
from tidegate.errors import (
    BundleError,
    ConfigError,
    ModelError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
)

__all__ = [
    "LoadSettings",
    "ReloadReport",
    "Repository",
    "RepositorySettings",
    "ServedModel",
    "VersionStatus",
    "load_served",
    "served_names",
    "version_key",
]

DRAIN_S = 30.0
"""How long an unload waits for requests in flight; what takes longer frees the version when it ends."""

Key = tuple[str, str]
"""Name and version."""


class Repository(LabelledVersions):
    """Loaded versions. Safe to use from several threads; loading and unloading take turns."""

    def __init__(
        self,
        source: Source | None = None,
        settings: RepositorySettings | None = None,
        *,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin empty; `reload` loads.

        Args:
            source: where versions come from; None: only `add` brings any.
            settings: policies and limits.
            computing: entered around every run of a model.
            on_change: told after the callable versions changed; health follows it.
        """
        self._settings = settings or RepositorySettings()
        super().__init__(LabelFile(self._settings.label_file) if self._settings.label_file else None, on_change)
        self._source = source
        self.elsewhere: Callable[[], Sequence[Mapping[str, Counts]]] = tuple
        """asks what other processes that serve the same have counted, by NAME/VERSION"""
        self._looking = threading.Lock()
        """one at a time asks the source; taken before the turn to change anything"""
        self._computing = computing
        self._statuses = Statuses()
        self._offers: dict[Key, Offer] = {}
        """what each loaded version was loaded from"""
        self._refused: dict[Key, tuple[str, TidegateError]] = {}
        """fingerprint of what was found to be broken, and why: not tried again before it changes"""
        self.failing = 0
        """what the latest reload could not load; something older may serve in its place"""

    def statuses(self) -> tuple[VersionStatus, ...]:
        """Return where every version stands that is here, and the latest of those that are not, with the reason."""
        with self._lock:
            return tuple(
                replace(status, labels=self.labels_by_model.on(status.name, status.version))
                for status in self._statuses.all()
            )

    def counts(self) -> dict[str, Counts]:
        """Return what was counted of each version that can be called, by NAME/VERSION."""
        return {f"{served.name}/{served.version}": served.statistics.read() for served in self.all()}

    def add(self, served: ServedModel) -> None:
        """Add a version that was loaded elsewhere.

        Raises:
            ConfigError: the same name and version is there already.
        """
        with self._turn:
            if served.version in self.versions(served.name):
                raise ConfigError(
                    f"model {served.name!r} version {served.version} is given twice",
                    fix="give each version of a model once",
                )
            self._switch(served)

    def reload(self) -> ReloadReport:
        """Make the loaded versions those that the source offers and the policy selects.

        A new version, or one whose content changed, is loaded and proven beside the old one, then takes its place at
        once; requests in flight finish on the old one. One that fails changes nothing: a model never loses its last
        good version to a broken one. Versions that are no longer selected are drained and freed, unless a label points
        at them.

        Raises:
            TidegateError: the source cannot be asked.
        """
        with self._looking:
            # A channel may take its time; whoever moves a label meanwhile does not wait for it.
            listing = Listing(()) if self._source is None else self._source.list()
            with self._turn:
                self._follow_file()
                report = self._take_over(listing)
                self.failing = len(report.failed)
                return report

    def follow(self) -> ReloadReport:
        """Do what another process wrote into the label file, if it wrote anything.

        Raises: as `reload`.
        """
        if self._label_file is None or not self._label_file.changed:
            return ReloadReport()
        return self.reload()

    def load(self, name: str, version: str = "") -> tuple[str, ...]:
        """Load versions on command: the one named, or those that the policy selects. Return those that are ready.

        Raises:
            NotFoundError: the source does not offer it.
            TidegateError: it cannot be loaded; whatever served before still serves.
        """
        with self._looking:
            listed = () if self._source is None else self._source.list().offers
            offers = {(offer.name, offer.version): offer for offer in listed if offer.name == name}
            chosen = [key for key in ([(name, version)] if version else self._selected(offers)) if key in offers]
            if not chosen:
                raise NotFoundError(f"there is no model {name!r} {version} to load", fix="list the repository")
            with self._turn:
                for key in chosen:
                    if not self._is_loaded(offers[key]):
                        self._refused.pop(key, None)
                        self._load(offers[key])
                with self._deciding():
                    more, back = {(name, version)} if version else set(), set(chosen)
                    self._hand = replace(
                        self._hand, loaded=self._hand.loaded | more, unloaded=self._hand.unloaded - back
                    )
                return self.versions(name)

    def unload(self, name: str, version: str = "", *, drain_s: float = DRAIN_S) -> None:
        """Drain and free a version, or all of a model. It stays away until it is loaded on command.

        Raises:
            NotFoundError: nothing of that name is loaded.
            StateError: a label points at the version; with the whole model its labels go as well.
        """
        with self._turn:
            versions = [found for found in self.versions(name) if version in ("", found)]
            if not versions:
                raise self._not_found(name, version)
            labels = self.labels_by_model.on(name, version) if version else ()
            if labels:
                raise StateError(
                    f"label {labels[0]!r} points at model {name!r} version {version}", fix="move the label first"
                )
            gone = {(name, found) for found in versions}
            with self._deciding():
                if not version:
                    for label in self.labels_by_model.of(name):
                        self.labels_by_model.take_away(name, label, time.time())
                self._hand = replace(self._hand, loaded=self._hand.loaded - gone, unloaded=self._hand.unloaded | gone)
            for found in versions:
                self._retire(name, found, "unloaded on command", drain_s)

    def close(self) -> None:
        """Free every version and forget it."""
        with self._turn:
            with self._lock:
                served_models = self._take_all()
                self._offers.clear()
            for served in served_models:
                served.close()

    def _take_over(self, listing: Listing) -> ReloadReport:
        offers = {(offer.name, offer.version): offer for offer in listing.offers}
        wanted = self._wanted(offers)
        loaded, failed = [], list(listing.problems)
        for key in sorted(wanted, key=lambda key: (key[0], version_key(key[1]))):
            if self._is_loaded(offers[key]):
                continue
            try:
                self._load(offers[key])
                loaded.append(key)
            except TidegateError as error:
                failed.append((" ".join(key), error))
        failed += self._place_labels(self._settings.labels)
        unloaded = self._retire_unwanted(wanted, broken={place for place, _ in listing.problems})
        return ReloadReport(tuple(loaded), tuple(unloaded), tuple(failed), listing.notes)

    # Which versions

    def _wanted(self, offers: Mapping[Key, Offer]) -> set[Key]:
        """Return what is to be loaded: the policy's choice, what labels point at, and what was decided by hand."""
        labelled = {(name, version) for name, _, version in self._unplaced(self._settings.labels)}
        for name, _ in offers:
            labelled |= {(name, version) for version in self.labels_by_model.of(name).values()}
        asked = set(self._selected(offers)) - self._hand.unloaded
        return (asked | labelled | self._hand.loaded) & set(offers)

    def _selected(self, offers: Mapping[Key, Offer]) -> list[Key]:
        versions: dict[str, list[str]] = {}
        for name, version in offers:
            versions.setdefault(name, []).append(version)
        settings = self._settings
        return [
            (name, version)
            for name, offered in versions.items()
            for version in settings.policy_by_model.get(name, settings.policy).select(offered)
        ]

    def _is_loaded(self, offer: Offer) -> bool:
        known = self._offers.get((offer.name, offer.version))
        return known is not None and known.fingerprint == offer.fingerprint

    # Steps

    def _load(self, offer: Offer) -> None:
        """Load, warm, switch. On an error the version is UNLOADED with the reason, or the old content stays."""
        assert self._source is not None
        key = (offer.name, offer.version)
        fingerprint, refusal = self._refused.get(key, ("", None))
        if refusal is not None and fingerprint == offer.fingerprint:
            raise refusal
        try:
            served = self._loaded(self._source, offer)
        except TidegateError as error:
            if isinstance(error, (ModelError, BundleError)):
                self._refused[key] = offer.fingerprint, error
            self._source.told(offer, error)
            raise
        self._refused.pop(key, None)
        self._offers[key] = offer
        self._switch(served)
        self._source.told(offer, None)

    def _loaded(self, source: Source, offer: Offer) -> ServedModel:
        """Return the version, proven; what the index shows of it follows."""
        state = State.LOADING
        key = (offer.name, offer.version)
        replaces = offer.version in self.versions(offer.name)

        def show(event: Event, reason: str = "") -> None:
            nonlocal state
            state = next_state(state, event)
            if not replaces:
                self._note(VersionStatus(*key, state, reason))

        if not replaces:
            self._note(VersionStatus(*key, state, "loading"))
        try:
            with source.open(offer) as bundle:
                self._check_memory(offer, bundle.manifest.variants[0].size_bytes)
                served = load_bundle(
                    bundle,
                    self._settings.loading,
                    on_loaded=lambda: show(Event.LOADED, "warming up"),
                    computing=self._computing,
                )
            try:
                self._check_memory(offer, served.memory_bytes)
            except ResourceError:
                served.close()
                raise
        except TidegateError as error:
            show(Event.FAILED, error.message)
            raise
        show(Event.WARM)
        return served

    def _check_memory(self, offer: Offer, more_bytes: int) -> None:
        limit = self._settings.maximum_memory_bytes
        used = sum(served.memory_bytes for served in self.all())
        if limit and used + more_bytes > limit:
            raise ResourceError(
                f"model {offer.name!r} version {offer.version} takes {more_bytes} bytes; {used} of {limit} are in use",
                fix="unload versions that are not needed, or raise the limit",
            )

    def _switch(self, served: ServedModel) -> None:
        """Let calls go to `served` from now on; what it replaces is drained."""
        with self._lock:
            old = self._put(served)
        self._note(VersionStatus(served.name, served.version, State.READY, memory_bytes=served.memory_bytes))
        self._on_change()
        if old is not None:
            old.usage.retire(old.let_go)

    def _retire_unwanted(self, wanted: set[Key], broken: set[str]) -> list[Key]:
        """Let go of what is no longer selected, where something that is selected serves instead."""
        replaced = {name for name, version in wanted if version in self.versions(name)}
        lacking = {name for name, _ in wanted} - replaced
        gone = []
        for key, offer in tuple(self._offers.items()):
            last_good = key[0] in lacking and key not in self._hand.unloaded
            if key in wanted or last_good or offer.location in broken or self.labels_by_model.on(*key):
                continue
            self._retire(*key, "no longer selected", DRAIN_S)
            gone.append(key)
        return gone

    def _retire(self, name: str, version: str, reason: str, drain_s: float) -> None:
        """Take a version out of the table, wait for its requests, free it."""
        with self._lock:
            served = self._take(name, version)
            self._offers.pop((name, version), None)
        state = next_state(State.READY, Event.RETIRE)
        self._note(VersionStatus(name, version, state, reason))
        self._on_change()

        def free() -> None:
            served.let_go()
            self._note(VersionStatus(name, version, next_state(state, Event.DRAINED), reason))

        served.usage.retire(free)
        served.usage.wait_until_freed(drain_s)

    def _note(self, status: VersionStatus) -> None:
        with self._lock:
            self._statuses.note(status)
