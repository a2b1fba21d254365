"""Where each version stands, for the repository index: all that are here, and the latest of those that are not."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.cloud.lifecycle import State
from tidegate.errors import TidegateError

GONE_KEPT = 64
"""Versions that were unloaded or failed and are still told of; the oldest is forgotten first."""


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
    notes: tuple[tuple[str, TidegateError], ...] = ()
    """what went wrong without anything lacking, such as a channel that cannot be reached while its releases are here"""

    @property
    def lines(self) -> tuple[str, ...]:
        """It in words, for a log."""
        changed = (("loaded", self.loaded), ("unloaded", self.unloaded))
        return tuple(f"{verb} {name} {version}" for verb, keys in changed for name, version in keys) + tuple(
            f"tidegate: {said_of(place, error)}\n  what to do: {error.fix}"
            for place, error in (*self.failed, *self.notes)
        )


def said_of(place: str, error: TidegateError) -> str:
    """Return what is wrong with a place; many messages begin with it already."""
    return error.message if error.message.startswith(place) else f"{place}: {error.message}"


class Statuses:
    """The latest status of each version. Not locked: the repository does that."""

    def __init__(self) -> None:
        self._by_version: dict[tuple[str, str], VersionStatus] = {}

    def note(self, status: VersionStatus) -> None:
        """Remember a status; those that have gone are the last to be put in and the first to be forgotten."""
        key = status.name, status.version
        if status.state is not State.UNLOADED:
            self._by_version[key] = status
            return
        self._by_version.pop(key, None)
        self._by_version[key] = status
        gone = [found for found, known in self._by_version.items() if known.state is State.UNLOADED]
        for oldest in gone[:-GONE_KEPT]:
            del self._by_version[oldest]

    def all(self) -> tuple[VersionStatus, ...]:
        """Return all that are remembered."""
        return tuple(self._by_version.values())
