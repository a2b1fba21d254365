"""What waits for a model: a bounded queue with priorities, out of which compatible requests are taken together.

No locks and no clock in here: the batcher holds the one and hands in the other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tidegate.errors import ConfigError, DeadlineError, InputError, ResourceError, TidegateError, UnavailableError

Arrays = tuple[NDArray[Any], ...]

Finish = Callable[[Arrays | None, TidegateError | None], None]
"""Told exactly once: the outputs in the signature's order, or the error."""


def nobody_leaves() -> bool:
    """Say that the caller waits: the default where nobody can go away."""
    return False


@dataclass(frozen=True)
class QueueSettings:
    """How many may wait, how long, and in which order."""

    maximum_length: int = 1024
    """requests that wait for one model; one more is refused"""
    timeout_s: float = 0.0
    """longest wait; 0: only the caller's own deadline counts"""
    priority_levels: int = 1
    """priorities 1 (first) to this; one level is first come, first served"""
    default_priority: int = 1
    """of a request that names none"""

    def __post_init__(self) -> None:
        if self.maximum_length < 1:
            raise ConfigError(f"maximum_length is {self.maximum_length}; expected 1 or more", fix="raise it")
        if not self.timeout_s >= 0:
            raise ConfigError(f"timeout_s is {self.timeout_s}; expected 0 or more", fix="give seconds, or 0 for none")
        if not 1 <= self.default_priority <= self.priority_levels:
            raise ConfigError(
                f"default_priority is {self.default_priority} with {self.priority_levels} levels",
                fix="choose one from 1 to the number of levels",
            )


class Job:
    """One checked request on its way through a model."""

    __slots__ = (
        "_finish",
        "arrays",
        "began_ns",
        "deadline_s",
        "ended_ns",
        "gone",
        "key",
        "priority",
        "rows",
        "started_ns",
        "told",
        "waiter",
    )

    def __init__(
        self,
        arrays: Arrays,
        *,
        key: tuple[Any, ...],
        rows: int,
        began_ns: int,
        finish: Finish | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        gone: Callable[[], bool] = nobody_leaves,
    ) -> None:
        """Take checked arrays.

        Args:
            arrays: inputs in the signature's order.
            key: equal for requests that may share a run.
            rows: along the first axis; 1 where there is no batch axis.
            began_ns: `time.monotonic_ns()` when the request arrived.
            finish: told the outcome, from any thread; None for a job that has a `finish` of its own.
            priority: 1 comes first; 0 for the queue's default.
            deadline_s: on `time.monotonic()`; None for none.
            gone: whether nobody waits for the answer any more.
        """
        self.arrays = arrays
        self.key = key
        self.rows = rows
        self._finish = finish
        self.began_ns = began_ns
        self.started_ns = 0
        """when its run began, and below when that ended; 0 before"""
        self.ended_ns = 0
        self.told = False
        self.waiter: threading.Event | None = None
        """set when the outcome was told"""
        self.priority = priority
        self.deadline_s = deadline_s
        self.gone = gone

    def finish(self, outputs: Arrays | None, error: TidegateError | None) -> None:
        """Take the outcome, exactly once, from any thread."""
        if self._finish is not None:
            self._finish(outputs, error)

    def given_up(self, now_s: float) -> TidegateError | None:
        """Return why it need not run any more, or None."""
        if self.deadline_s is not None and now_s >= self.deadline_s:
            return DeadlineError("the time allowed ran out before the model was free", fix="allow more time, or retry")
        if self.gone():
            return UnavailableError("the caller went away", fix="call again")
        return None


class RequestQueue:
    """Requests by priority, first in first out within one."""

    def __init__(self, settings: QueueSettings, model: str) -> None:
        self._settings = settings
        self._model = model
        self._levels: tuple[deque[Job], ...] = tuple(deque() for _ in range(settings.priority_levels))
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def full(self) -> bool:
        """Whether one more is refused."""
        return self._length >= self._settings.maximum_length

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return sum(job.rows for level in self._levels for job in level)

    def put(self, job: Job, now_s: float) -> None:
        """Append a request, with the queue's own time-out.

        Raises:
            ResourceError: the queue is full.
            InputError: there is no such priority.
        """
        settings = self._settings
        priority = job.priority or settings.default_priority
        if not 1 <= priority <= settings.priority_levels:
            raise InputError(
                f"priority is {priority}; model {self._model!r} has 1 to {settings.priority_levels}",
                fix="leave the priority out, or use one of these",
            )
        if self.full:
            raise ResourceError(
                f"{self._length} requests wait for model {self._model!r}; the queue takes no more",
                fix="call later, or add servers",
            )
        if settings.timeout_s:
            last_s = now_s + settings.timeout_s
            job.deadline_s = last_s if job.deadline_s is None else min(job.deadline_s, last_s)
        self._levels[priority - 1].append(job)
        self._length += 1

    def take(self, maximum_rows: int, now_s: float) -> tuple[list[Job], list[tuple[Job, TidegateError]]]:
        """Take the first request and those behind it that may share its run, up to `maximum_rows` rows.

        Requests that cannot share the run keep their order. One of more rows than the maximum runs alone.

        Returns:
            The requests to run, and those met on the way that need not run any more, each with the reason.
        """
        taken: list[Job] = []
        lost: list[tuple[Job, TidegateError]] = []
        rows = 0
        for level in self._levels:
            passed: list[Job] = []
            while level and (not taken or rows < maximum_rows):
                job = level.popleft()
                why = job.given_up(now_s)
                if why is not None:
                    lost.append((job, why))
                elif not taken or (job.key == taken[0].key and rows + job.rows <= maximum_rows):
                    taken.append(job)
                    rows += job.rows
                else:
                    passed.append(job)
            level.extendleft(reversed(passed))
        self._length -= len(taken) + len(lost)
        return taken, lost

    def take_given_up(self, now_s: float) -> list[tuple[Job, TidegateError]]:
        """Take out everything that need not run any more: what makes room in a full queue."""
        lost: list[tuple[Job, TidegateError]] = []
        for level in self._levels:
            for _ in range(len(level)):
                job = level.popleft()
                why = job.given_up(now_s)
                if why is None:
                    level.append(job)
                else:
                    lost.append((job, why))
        self._length -= len(lost)
        return lost

    def take_all(self) -> list[Job]:
        """Take out everything."""
        jobs = [job for level in self._levels for job in level]
        for level in self._levels:
            level.clear()
        self._length = 0
        return jobs
