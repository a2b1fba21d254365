"""When a failing server may be tried again."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """When a failing server may be tried again: at once, then after rests that double."""

    def __init__(self, first_s: float, largest_s: float, clock: Callable[[], float]) -> None:
        """Start with a trial allowed; `clock` is monotonic, in seconds."""
        self._first_s, self._largest_s, self._clock = first_s, largest_s, clock
        self._rest_s = 0.0
        self._until_s = clock()

    @property
    def failing(self) -> bool:
        """True from a failure to the next success."""
        return self._rest_s > 0

    def may_try(self) -> bool:
        """Tell whether the rest is over."""
        return self._clock() >= self._until_s

    def failed(self) -> float:
        """Start the next rest and return its length in seconds."""
        self._rest_s = min(self._rest_s * 2, self._largest_s) if self.failing else self._first_s
        self._until_s = self._clock() + self._rest_s
        return self._rest_s

    def succeeded(self) -> None:
        """Forget the failures."""
        self._rest_s = 0.0
