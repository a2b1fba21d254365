"""Reloads the repository when its source has changed, by asking every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidegate.cloud.repository import ReloadReport, Repository
from tidegate.errors import ConfigError, TidegateError

INTERVAL_S = 5.0
"""Between two looks. A look at an unchanged directory is one `stat` per bundle."""


class Watcher:
    """A thread that calls `Repository.reload` at an interval until it is stopped."""

    def __init__(
        self,
        repository: Repository,
        *,
        interval_s: float = INTERVAL_S,
        on_report: Callable[[ReloadReport], None] = lambda report: None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            repository: what to reload.
            interval_s: between two looks.
            on_report: told of every reload that changed something or failed.

        Raises:
            ConfigError: the interval is not above 0.
        """
        if not interval_s > 0:
            raise ConfigError(f"watch interval is {interval_s} s; expected more than 0", fix="use 1 or more")
        self._repository = repository
        self._interval_s = interval_s
        self._on_report = on_report
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tidegate-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a reload under way is finished."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        last_failures: tuple[str, ...] = ()
        while not self._stopping.wait(self._interval_s):
            try:
                report = self._repository.reload()
            except TidegateError as error:
                report = ReloadReport(failed=(("source", error),))
            failures = tuple(f"{place}: {error}" for place, error in report.failed)
            # A bundle that stays broken is told of once.
            if report.loaded or report.unloaded or failures != last_failures:
                self._on_report(report)
            last_failures = failures
