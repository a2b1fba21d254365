"""One device's updates, from the look at the channel to the verdict of the trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tidegate.edge.update.history import HistoryEntry
from tidegate.edge.update.results import CheckResult, Status, UpdateResult


class Updater:
    def __init__(
        self,
        directory: Path,
        *,
        conditions: Callable[[], str | None] = lambda: None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        raise NotImplementedError

    def check(self, explain: bool = False) -> CheckResult:
        raise NotImplementedError

    def update(self) -> UpdateResult:
        raise NotImplementedError

    def settle(self) -> UpdateResult:
        raise NotImplementedError

    def status(self) -> Status:
        raise NotImplementedError

    def rollback(self, reason: str) -> UpdateResult:
        raise NotImplementedError

    def history(self) -> list[HistoryEntry]:
        raise NotImplementedError
