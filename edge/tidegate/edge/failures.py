"""Segments that the device's model failed on: told once for each kind of failure, and the end when nothing else comes.

One bad segment is no reason to stop hearing. A model that fails on every segment is one: whoever started the listener
must learn that nobody is understood any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tidegate.edge.results import SegmentResult
from tidegate.errors import ModelError

MOST_IN_A_ROW = 10
"""Failed segments after one another, of the same version, after which listening ends."""

_NUMBER = re.compile(r"\d+")


class Failures:
    """Watches the results of one run."""

    def __init__(self, on_warning: Callable[[str], None]) -> None:
        """Begin without a failure; `on_warning` is told the first of each kind."""
        self._on_warning = on_warning
        self._told: set[tuple[str, str]] = set()
        self._failing = ""
        self._in_a_row = 0
        self._last_problem = ""

    def note(self, results: list[SegmentResult]) -> None:
        """Look at results in the order of segments."""
        for result in results:
            if result.problem:
                self._note_failure(result)
            else:
                self._in_a_row = 0

    def raise_if_nothing_else_comes(self) -> None:
        """Raise when so many segments in a row have failed that no other end is in sight.

        Raises:
            ModelError: `MOST_IN_A_ROW` segments of one version failed after one another.
        """
        if self._in_a_row >= MOST_IN_A_ROW:
            raise ModelError(
                f"{self._failing} failed on {self._in_a_row} segments in a row; the last: {self._last_problem}",
                fix="run `tidegate verify` on the bundle; on a device, `tidegate device rollback` brings the version "
                "before back",
            )

    def _note_failure(self, result: SegmentResult) -> None:
        name = f"{result.bundle} {result.version} ({result.variant})"
        self._in_a_row = self._in_a_row + 1 if name == self._failing else 1
        self._failing, self._last_problem = name, result.problem
        # Shapes and addresses differ from call to call; the words tell the kind.
        kind = (name, _NUMBER.sub("#", result.problem))
        if kind not in self._told:
            self._told.add(kind)
            self._on_warning(
                f"{name} failed on the segment at {result.start_s:.1f} s: {result.problem}; listening goes on, "
                "and further failures of this kind are counted in the summary"
            )
