"""Which versions are loaded, and which of them a name without a number means: policies and labels. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import ConfigError, NotFoundError

STABLE = "stable"
"""The label that a call without a version follows, once it is set."""

MOVES_KEPT = 100
"""Moves of one label that are remembered."""

_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class VersionPolicy(Protocol):
    """Chooses among the versions of one model that its source offers."""

    def select(self, offered: Iterable[str]) -> tuple[str, ...]:
        """Return the versions to hold, lowest first."""


@dataclass(frozen=True)
class AllVersions:
    """Hold whatever is offered."""

    def select(self, offered: Iterable[str]) -> tuple[str, ...]:
        """Return all, lowest first."""
        return tuple(sorted(offered, key=version_key))


@dataclass(frozen=True)
class Latest:
    """Hold the highest few."""

    count: int = 1
    """how many"""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"version policy latest:{self.count}; expected 1 or more", fix="use latest:1")

    def select(self, offered: Iterable[str]) -> tuple[str, ...]:
        """Return the `count` highest, lowest first."""
        return tuple(sorted(offered, key=version_key)[-self.count :])


@dataclass(frozen=True)
class Specific:
    """Hold these and no others."""

    versions: frozenset[str]
    """by their exact names"""

    def __post_init__(self) -> None:
        if not self.versions:
            raise ConfigError("version policy specific: names no version", fix="use specific:1.0.0,1.1.0")

    def select(self, offered: Iterable[str]) -> tuple[str, ...]:
        """Return those that are offered and named, lowest first."""
        return tuple(sorted((version for version in offered if version in self.versions), key=version_key))


def parse_policy(text: str) -> VersionPolicy:
    """Return the policy written as `all`, `latest`, `latest:N` or `specific:V,V`.

    Raises:
        ConfigError: none of these.
    """
    kind, _, argument = text.partition(":")
    if kind == "all" and not argument:
        return AllVersions()
    if kind == "latest" and (not argument or argument.isdecimal()):
        return Latest(int(argument or 1))
    if kind == "specific":
        return Specific(frozenset(part.strip() for part in argument.split(",") if part.strip()))
    raise ConfigError(f"version policy {text!r}", fix="use all, latest:N or specific:VERSION,VERSION")


def version_key(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    """Return a key that sorts semantic versions by precedence (Semantic Versioning 2.0.0, section 11)."""
    core, _, pre_release = version.partition("+")[0].partition("-")
    identifiers = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pre_release.split(".") if part
    )
    return tuple(int(number) for number in re.findall(r"\d+", core)), not pre_release, identifiers


@dataclass(frozen=True)
class LabelMove:
    """One entry of a label's history."""

    model: str
    label: str
    version: str
    """where it points from now on; empty: it was taken away"""
    before: str
    """where it pointed; empty: nowhere"""
    time_s: float
    """seconds since the epoch"""


class Labels:
    """Names for versions, per model, with the history of each. Not locked: the repository does that."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], str] = {}
        self._history: list[LabelMove] = []

    @property
    def moves(self) -> tuple[LabelMove, ...]:
        """Every move that is remembered, oldest first."""
        return tuple(self._history)

    def restore(self, moves: Iterable[LabelMove]) -> None:
        """Forget everything and take these moves, oldest first: each label points where its last one says."""
        self._history = list(moves)
        pointing = {(move.model, move.label): move.version for move in self._history}
        self._versions = {key: version for key, version in pointing.items() if version}

    def of(self, model: str) -> dict[str, str]:
        """Return version by label."""
        return {label: version for (name, label), version in self._versions.items() if name == model}

    def on(self, model: str, version: str) -> tuple[str, ...]:
        """Return the labels that point at a version."""
        return tuple(label for label, found in self.of(model).items() if found == version)

    def move(self, model: str, label: str, version: str, time_s: float) -> LabelMove:
        """Point a label at a version; the caller has checked that it is ready.

        Raises:
            ConfigError: not a label's form. A label begins with a letter, so that no version looks like one.
        """
        if not _LABEL.fullmatch(label):
            raise ConfigError(f"label {label!r}; expected a word such as stable or canary", fix="use a-z, 0-9, _ and -")
        move = LabelMove(model, label, version, self._versions.get((model, label), ""), time_s)
        self._versions[model, label] = version
        self._remember(move)
        return move

    def take_away(self, model: str, label: str, time_s: float) -> LabelMove:
        """Let a label point nowhere.

        Raises:
            NotFoundError: there is no such label.
        """
        before = self._versions.pop((model, label), "")
        if not before:
            raise NotFoundError(f"model {model!r} has no label {label!r}", fix="ask for the model's labels")
        move = LabelMove(model, label, "", before, time_s)
        self._remember(move)
        return move

    def previous(self, model: str, label: str) -> str:
        """Return where a label pointed before its latest move: what a rollback goes to.

        Raises:
            NotFoundError: it never pointed anywhere else.
        """
        moves = self.history(model, label)
        if not moves or not moves[-1].before:
            raise NotFoundError(f"label {label!r} of model {model!r} has no earlier version", fix="name a version")
        return moves[-1].before

    def history(self, model: str, label: str = "") -> tuple[LabelMove, ...]:
        """Return the moves of a model's labels, oldest first; of one label when it is named."""
        return tuple(move for move in self._history if move.model == model and label in ("", move.label))

    def _remember(self, move: LabelMove) -> None:
        """Append a move; of each label's older ones the newest are kept, so that a rollback always has its way back."""
        self._history.append(move)
        own = [known for known in self._history if (known.model, known.label) == (move.model, move.label)]
        for oldest in own[:-MOVES_KEPT]:
            self._history.remove(oldest)
