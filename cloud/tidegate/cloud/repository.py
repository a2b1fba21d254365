"""The models that a server holds: loaded beside each other, switched at once, drained before they are freed.

`find` is on the path of every request and takes no lock: it reads a table that is never changed, only replaced. Whoever
runs a model calls `served.usage.begin()` first and looks again when that says no; `Core` does both.

What a caller may give as version: a version; a label (`stable`, `canary`); or nothing, which means the version labelled
`stable` where that label is set, and the highest otherwise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from tidegate.cloud.lifecycle import Event, State, next_state
from tidegate.cloud.served import LoadSettings, ServedModel, load_bundle, load_served
from tidegate.cloud.sources import Offer, Source
from tidegate.cloud.versions import STABLE, AllVersions, LabelMove, Labels, VersionPolicy, version_key
from tidegate.errors import ConfigError, NotFoundError, ResourceError, StateError, TidegateError

__all__ = ["LoadSettings", "Repository", "ServedModel", "load_served", "version_key"]

DRAIN_S = 30.0
"""How long an unload waits for requests in flight; what takes longer frees the version when it ends."""


@dataclass(frozen=True)
class RepositorySettings:
    """What is held, and how much."""

    policy: VersionPolicy = field(default_factory=AllVersions)
    """which versions of each model; a labelled version is kept whatever the policy says"""
    policy_by_model: Mapping[str, VersionPolicy] = field(default_factory=dict)
    """exceptions"""
    loading: LoadSettings = field(default_factory=LoadSettings)
    maximum_memory_bytes: int = 0
    """of all models together, as measured while each was loaded; 0: no limit"""

    def __post_init__(self) -> None:
        if self.maximum_memory_bytes < 0:
            raise ConfigError(f"maximum_memory_bytes is {self.maximum_memory_bytes}", fix="use 0 for no limit")


@dataclass(frozen=True)
class VersionStatus:
    """Where one version stands, as the repository index shows it."""

    name: str
    version: str
    state: State
    reason: str = ""
    """why it is not ready; empty when it is"""
    labels: tuple[str, ...] = ()
    memory_bytes: int = 0


@dataclass(frozen=True)
class ReloadReport:
    """What a reload changed."""

    loaded: tuple[tuple[str, str], ...] = ()
    """name and version; a version whose content changed counts as loaded"""
    unloaded: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, TidegateError], ...] = ()
    """place or `NAME VERSION`, and why; whatever served before still serves"""


class Repository:
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
        self.labels_by_model = Labels()
        self._source = source
        self._settings = settings or RepositorySettings()
        self._computing = computing
        self._on_change = on_change
        self._turn = threading.RLock()
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, ServedModel]] = {}
        """ready ones by name, then by version, lowest version first"""
        self._calls: dict[tuple[str, str], ServedModel] = {}
        """by name and what a caller may give as version; replaced as a whole"""
        self._statuses: dict[tuple[str, str], VersionStatus] = {}
        self._offers: dict[tuple[str, str], Offer] = {}
        """what each loaded version was loaded from"""
        self._unloaded_by_hand: set[tuple[str, str]] = set()

    # Looking up

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a ready version.

        Args:
            name: of the model.
            version: version or label; empty for `stable` where set, else the highest.

        Raises:
            NotFoundError: no such model, version or label; the message names those that exist.
        """
        served = self._calls.get((name, version))
        if served is None:
            raise self._not_found(name, version)
        return served

    def only_name(self) -> str:
        """Return the name of the only model; empty when there are several or none."""
        names = tuple(self._models)
        return names[0] if len(names) == 1 else ""

    def find_speech(self, name: str = "", version: str = "") -> ServedModel:
        """Return a speech model; the one that was added first when `name` is empty.

        Raises:
            NotFoundError: no such model or version, or it is not a speech model.
        """
        speech = [served.name for served in self.all() if served.transcriber is not None]
        if not name and not speech:
            raise NotFoundError("this server has no speech model", fix="serve a bundle with a front end and a decoder")
        served = self.find(name or speech[0], version)
        if served.transcriber is None:
            raise NotFoundError(
                f"model {served.name!r} version {served.version} is not a speech model; "
                f"speech models: {', '.join(dict.fromkeys(speech)) or 'none'}",
                fix="ask for one of these",
            )
        return served

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the ready versions of a model, lowest first; empty when there is no such model."""
        return tuple(self._models.get(name, {}))

    def all(self) -> tuple[ServedModel, ...]:
        """Return every ready version in the order of adding, those of a model together, lowest first."""
        return tuple(served for versions in tuple(self._models.values()) for served in versions.values())

    def statuses(self) -> tuple[VersionStatus, ...]:
        """Return where every version stands that is or was here, failed ones with the reason."""
        with self._lock:
            found = [
                replace(status, labels=self.labels_by_model.on(status.name, status.version))
                for status in self._statuses.values()
            ]
        return tuple(found)

    # Changing

    def add(self, served: ServedModel) -> None:
        """Add a version that was loaded elsewhere.

        Raises:
            ConfigError: the same name and version is there already.
        """
        with self._turn:
            if served.version in self._models.get(served.name, {}):
                raise ConfigError(
                    f"model {served.name!r} version {served.version} is given twice",
                    fix="give each version of a model once",
                )
            self._switch(served)

    def reload(self) -> ReloadReport:
        """Make the loaded versions those that the source offers and the policy selects.

        A new version, or one whose content changed, is loaded and proven beside the old one, then takes its place at
        once; requests in flight finish on the old one. One that fails changes nothing. Versions that the policy no
        longer selects are drained and freed, unless a label points at them.

        Raises:
            TidegateError: the source cannot be asked.
        """
        with self._turn:
            if self._source is None:
                return ReloadReport()
            listing = self._source.list()
            offers = {(offer.name, offer.version): offer for offer in listing.offers}
            wanted = {key for key in self._selected(offers) if key not in self._unloaded_by_hand}
            loaded, failed = [], list(listing.problems)
            for key in sorted(wanted, key=lambda key: (key[0], version_key(key[1]))):
                known = self._offers.get(key)
                if known is not None and known.fingerprint == offers[key].fingerprint:
                    continue
                try:
                    self._load(offers[key])
                    loaded.append(key)
                except TidegateError as error:
                    failed.append((" ".join(key), error))
            unloaded = self._retire_unwanted(wanted, broken={place for place, _ in listing.problems})
            return ReloadReport(tuple(loaded), tuple(unloaded), tuple(failed))

    def load(self, name: str, version: str = "") -> tuple[str, ...]:
        """Load versions on command: the one named, or those that the policy selects. Return those that are ready.

        Raises:
            NotFoundError: the source does not offer it.
            TidegateError: it cannot be loaded; whatever served before still serves.
        """
        with self._turn:
            offers = (
                {}
                if self._source is None
                else {(offer.name, offer.version): offer for offer in self._source.list().offers if offer.name == name}
            )
            chosen = [key for key in self._selected(offers) if version in ("", key[1])] or [
                key for key in offers if version and key[1] == version
            ]
            if not chosen:
                raise NotFoundError(f"there is no model {name!r} {version} to load", fix="list the repository")
            for key in chosen:
                known = self._offers.get(key)
                if known is None or known.fingerprint != offers[key].fingerprint:
                    self._load(offers[key])
                self._unloaded_by_hand.discard(key)
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
            if not version:
                for label in self.labels_by_model.of(name):
                    self.labels_by_model.take_away(name, label, time.time())
            for found in versions:
                self._unloaded_by_hand.add((name, found))
                self._retire(name, found, "unloaded on command", drain_s)

    def set_label(self, name: str, label: str, version: str) -> LabelMove:
        """Point a label at a version that is ready; calls follow it at once.

        Raises:
            NotFoundError: there is no such model.
            StateError: the version is not ready, so the label stays where it is.
            ConfigError: not a label's form.
        """
        with self._turn:
            if name not in self._models:
                raise self._not_found(name, "")
            if version not in self._models[name]:
                raise StateError(
                    f"model {name!r} version {version!r} is not ready; ready: {', '.join(self._models[name])}",
                    fix="load it first; a label moves only to a version that is loaded and warm",
                )
            with self._lock:
                move = self.labels_by_model.move(name, label, version, time.time())
                self._calls = self._table()
        self._on_change()
        return move

    def remove_label(self, name: str, label: str) -> LabelMove:
        """Take a label away.

        Raises:
            NotFoundError: there is no such label.
        """
        with self._turn, self._lock:
            move = self.labels_by_model.take_away(name, label, time.time())
            self._calls = self._table()
            return move

    def roll_back(self, name: str, label: str) -> LabelMove:
        """Move a label back to where it pointed before its latest move.

        Raises:
            NotFoundError: it never pointed anywhere else.
            StateError: that version is not loaded any more.
        """
        with self._turn:
            return self.set_label(name, label, self.labels_by_model.previous(name, label))

    def close(self) -> None:
        """Free every version and forget it."""
        with self._turn:
            served_models = self.all()
            with self._lock:
                self._models = {}
                self._calls = {}
                self._offers.clear()
            for served in served_models:
                served.close()

    # Steps

    def _selected(self, offers: Mapping[tuple[str, str], Offer]) -> list[tuple[str, str]]:
        versions: dict[str, list[str]] = {}
        for name, version in offers:
            versions.setdefault(name, []).append(version)
        settings = self._settings
        return [
            (name, version)
            for name, offered in versions.items()
            for version in settings.policy_by_model.get(name, settings.policy).select(offered)
        ]

    def _load(self, offer: Offer) -> None:
        """Load, warm, switch. On an error the version is UNLOADED with the reason, or the old content stays."""
        assert self._source is not None
        state = State.LOADING
        key = (offer.name, offer.version)
        replaces = offer.version in self._models.get(offer.name, {})

        def show(event: Event, reason: str = "") -> None:
            nonlocal state
            state = next_state(state, event)
            if not replaces:
                self._note(VersionStatus(*key, state, reason))

        if not replaces:
            self._note(VersionStatus(*key, state, "loading"))
        try:
            with self._source.open(offer) as bundle:
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
        self._offers[key] = offer
        self._switch(served)

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
            versions = self._models.get(served.name, {})
            old = versions.get(served.version)
            by_version = {**versions, served.version: served}
            ordered = {version: by_version[version] for version in sorted(by_version, key=version_key)}
            self._models = {**self._models, served.name: ordered}
            self._calls = self._table()
        self._note(VersionStatus(served.name, served.version, State.READY, memory_bytes=served.memory_bytes))
        self._on_change()
        if old is not None:
            old.usage.retire(old.let_go)

    def _retire_unwanted(self, wanted: set[tuple[str, str]], broken: set[str]) -> list[tuple[str, str]]:
        gone = []
        for key, offer in tuple(self._offers.items()):
            if key not in wanted and offer.location not in broken and not self.labels_by_model.on(*key):
                self._retire(*key, "no longer selected", DRAIN_S)
                gone.append(key)
        return gone

    def _retire(self, name: str, version: str, reason: str, drain_s: float) -> None:
        """Take a version out of the table, wait for its requests, free it."""
        with self._lock:
            served = self._models[name][version]
            left = {key: found for key, found in self._models[name].items() if key != version}
            self._models = {key: found for key, found in self._models.items() if key != name or left}
            if left:
                self._models[name] = left
            self._calls = self._table()
            self._offers.pop((name, version), None)
        state = next_state(State.READY, Event.RETIRE)
        self._note(VersionStatus(name, version, state, reason))
        self._on_change()

        def free() -> None:
            served.let_go()
            self._note(VersionStatus(name, version, next_state(state, Event.DRAINED), reason))

        served.usage.retire(free)
        served.usage.wait_until_freed(drain_s)

    def _table(self) -> dict[tuple[str, str], ServedModel]:
        """Return whom each call reaches. The lock is held."""
        calls: dict[tuple[str, str], ServedModel] = {}
        for name, versions in self._models.items():
            labels = {label: versions[at] for label, at in self.labels_by_model.of(name).items() if at in versions}
            highest = next(reversed(versions.values()))
            for version, served in {**versions, **labels, "": labels.get(STABLE, highest)}.items():
                calls[name, version] = served
        return calls

    def _note(self, status: VersionStatus) -> None:
        with self._lock:
            self._statuses[status.name, status.version] = status

    def _not_found(self, name: str, version: str) -> NotFoundError:
        versions = self._models.get(name)
        if versions is None:
            known = ", ".join(self._models) or "none"
            return NotFoundError(f"there is no model {name!r}; models: {known}", fix="ask for one of these")
        return NotFoundError(
            f"model {name!r} has no version {version!r}; versions: "
            f"{', '.join((*versions, *self.labels_by_model.of(name)))}",
            fix="ask for one of these, or leave the version empty for the highest",
        )


def served_names(served_models: Sequence[ServedModel]) -> tuple[str, ...]:
    """Return the names under which health is asked for: each model, and each version as `NAME/VERSION`."""
    return tuple(name for served in served_models for name in (served.name, f"{served.name}/{served.version}"))
