"""The versions that can be called now, and whom each call reaches.

`find` is on the path of every request and takes no lock: it reads a table that is never changed, only replaced. Whoever
runs a model calls `served.usage.begin()` first and looks again when that says no; `Core` does both.

What a caller may give as version: a version; a label (`stable`, `canary`); or nothing, which means the version labelled
`stable` where that label is set, and the highest otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidegate.cloud.served import ServedModel
from tidegate.cloud.versions import STABLE, Labels, version_key
from tidegate.errors import NotFoundError


class ReadyVersions:
    """Ready versions by name and version. Reading is safe from any thread; one at a time may change."""

    def __init__(self) -> None:
        self.labels_by_model = Labels()
        self._models: dict[str, dict[str, ServedModel]] = {}
        """ready ones by name, then by version, lowest version first"""
        self._calls: dict[tuple[str, str], ServedModel] = {}
        """by name and what a caller may give as version; replaced as a whole"""

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

    # Changing; the repository holds its lock.

    def _put(self, served: ServedModel) -> ServedModel | None:
        """Let calls go to `served` from now on; return what it replaces."""
        versions = self._models.get(served.name, {})
        by_version = {**versions, served.version: served}
        ordered = {version: by_version[version] for version in sorted(by_version, key=version_key)}
        self._models = {**self._models, served.name: ordered}
        self._refresh_calls()
        return versions.get(served.version)

    def _take(self, name: str, version: str) -> ServedModel:
        """Let no call go to a version any more, and return it."""
        served = self._models[name][version]
        left = {key: found for key, found in self._models[name].items() if key != version}
        others = {key: found for key, found in self._models.items() if key != name or left}
        self._models = {**others, name: left} if left else others
        self._refresh_calls()
        return served

    def _take_all(self) -> tuple[ServedModel, ...]:
        everything = self.all()
        self._models, self._calls = {}, {}
        return everything

    def _refresh_calls(self) -> None:
        calls: dict[tuple[str, str], ServedModel] = {}
        for name, versions in self._models.items():
            labels = self._labels(name, versions)
            highest = next(reversed(versions.values()))
            for version, served in {**versions, **labels, "": labels.get(STABLE, highest)}.items():
                calls[name, version] = served
        self._calls = calls

    def _labels(self, name: str, versions: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
        return {label: versions[at] for label, at in self.labels_by_model.of(name).items() if at in versions}

    def _not_found(self, name: str, version: str) -> NotFoundError:
        versions = self._models.get(name)
        if versions is None:
            known = ", ".join(self._models) or "none"
            return NotFoundError(f"there is no model {name!r}; models: {known}", fix="ask for one of these")
        labels = ", ".join(self._labels(name, versions))
        return NotFoundError(
            f"model {name!r} has no version {version!r}; versions: {', '.join(versions)}"
            + (f"; labels: {labels}" if labels else ""),
            fix="ask for one of these, or leave the version empty for the highest",
        )


def served_names(served_models: Sequence[ServedModel]) -> tuple[str, ...]:
    """Return the names under which health is asked for: each model, and each version as `NAME/VERSION`."""
    return tuple(name for served in served_models for name in (served.name, f"{served.name}/{served.version}"))
