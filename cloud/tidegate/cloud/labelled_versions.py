"""Labels on ready versions, and what was decided by hand: in memory, and in a file that other workers follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from tidegate.cloud.label_file import HandMade, LabelFile
from tidegate.cloud.ready_versions import ReadyVersions
from tidegate.cloud.versions import LabelMove
from tidegate.errors import NotFoundError, StateError, TidegateError


class LabelledVersions(ReadyVersions):
    """Ready versions and the labels that point at them. Safe for several threads; changes take turns."""

    def __init__(self, label_file: LabelFile | None, on_change: Callable[[], None]) -> None:
        """Begin without labels; `_follow_file` reads those of the file.

        Args:
            label_file: where they are kept; None: in memory only.
            on_change: told after a call may reach another version than before.
        """
        super().__init__()
        self._label_file = label_file
        self._on_change = on_change
        self._turn = threading.RLock()
        self._lock = threading.Lock()
        self._hand = HandMade()

    def set_label(self, name: str, label: str, version: str) -> LabelMove:
        """Point a label at a version that is ready; calls follow it at once.

        Raises:
            NotFoundError: there is no such model.
            StateError: the version is not ready, so the label stays where it is.
            ConfigError: not a label's form.
        """
        with self._turn:
            ready = self.versions(name)
            if not ready:
                raise self._not_found(name, "")
            if version not in ready:
                raise StateError(
                    f"model {name!r} version {version!r} is not ready; ready: {', '.join(ready)}",
                    fix="load it first; a label moves only to a version that is loaded and warm",
                )
            with self._deciding():
                move = self.labels_by_model.move(name, label, version, time.time())
        self._on_change()
        return move

    def remove_label(self, name: str, label: str) -> LabelMove:
        """Take a label away.

        Raises:
            NotFoundError: there is no such label.
        """
        with self._turn, self._deciding():
            return self.labels_by_model.take_away(name, label, time.time())

    def roll_back(self, name: str, label: str) -> LabelMove:
        """Move a label back to where it pointed before its latest move.

        Raises:
            NotFoundError: it never pointed anywhere else.
            StateError: that version is not loaded any more.
        """
        with self._turn:
            self._follow_file()
            return self.set_label(name, label, self.labels_by_model.previous(name, label))

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Change labels or what was loaded by hand: in memory, and first of all in the file that others follow."""
        with self._label_file.locked() if self._label_file else nullcontext():
            self._follow_file()
            before = self._hand_now()
            try:
                yield
                if self._label_file is not None:
                    self._label_file.write(self._hand_now())
            except BaseException:
                self._adopt(before)
                raise
            self._adopt(self._hand_now())

    def _follow_file(self) -> None:
        if self._label_file is not None and self._label_file.changed:
            self._adopt(self._label_file.read())

    def _hand_now(self) -> HandMade:
        return replace(self._hand, moves=self.labels_by_model.moves)

    def _adopt(self, hand: HandMade) -> None:
        with self._lock:
            self._hand = hand
            self.labels_by_model.restore(hand.moves)
            self._refresh_calls()

    def _place_labels(self, wished: Mapping[str, Mapping[str, str]]) -> list[tuple[str, TidegateError]]:
        """Set the labels of the settings that were never moved; tell of all whose version is not ready."""
        missing: list[tuple[str, TidegateError]] = []
        for name, label, version in self._unplaced(wished):
            try:
                self.set_label(name, label, version)
            except (NotFoundError, StateError) as error:
                missing.append((f"{name} {label}", error))
        for name in {move.model for move in self.labels_by_model.moves}:
            for label, version in self.labels_by_model.of(name).items():
                if version not in self.versions(name):
                    lost = StateError(
                        f"label {label!r} of model {name!r} points at version {version}, which is not ready",
                        fix="bring that version back, or move the label",
                    )
                    missing.append((f"{name} {label}", lost))
        return missing

    def _unplaced(self, wished: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str, str]]:
        """Return model, label and version of the wishes that nobody has overruled by moving the label."""
        return [
            (name, label, version)
            for name, labels in wished.items()
            for label, version in labels.items()
            if not self.labels_by_model.history(name, label)
        ]
