"""Looks every few seconds whether the source of versions, or what other workers decided, has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidegate.cloud.version_status import ReloadReport
from tidegate.errors import ConfigError, TidegateError

INTERVAL_S = 5.0
"""Between two looks. A look at an unchanged directory is one `stat` per bundle."""


FOLLOW_INTERVAL_S = 0.5
"""Between two looks at the label file: one `stat`. So long may workers disagree on where a label points."""


class Watcher:
    """A thread that calls `Repository.reload`, or another look, at an interval until it is stopped."""

    def __init__(
        self,
        look: Callable[[], ReloadReport],
        *,
        interval_s: float = INTERVAL_S,
        at_once: bool = False,
        on_report: Callable[[ReloadReport], None] = lambda report: None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            look: `Repository.reload` or `Repository.follow`.
            interval_s: between two looks.
            at_once: whether the first look comes at once.
            on_report: told of every look that changed something, or failed otherwise than the one before.

        Raises:
            ConfigError: the interval is not above 0.
        """
        if not interval_s > 0:
            raise ConfigError(f"watch interval is {interval_s} s; expected more than 0", fix="use 1 or more")
        self._look = look
        self._interval_s = interval_s
        self._at_once = at_once
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
        last_problems: tuple[str, ...] = ()
        pause_s = 0.0 if self._at_once else self._interval_s
        while not self._stopping.wait(pause_s):
            pause_s = self._interval_s
            try:
                report = self._look()
            except TidegateError as error:
                report = ReloadReport(failed=(("source", error),))
            problems = tuple(f"{place}: {error}" for place, error in (*report.failed, *report.notes))
            # What stays broken is told of once.
            if report.loaded or report.unloaded or problems != last_problems:
                self._on_report(report)
            last_problems = problems
