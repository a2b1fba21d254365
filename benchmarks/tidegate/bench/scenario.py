"""Several callers at the same time, each in a thread with a system of its own, each a single stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tidegate.bench.system import System
from tidegate.errors import TidegateError
from tidegate.runtime.timing import Plan, Recording, WarmUp, single_stream


def concurrent_streams(
    systems: Sequence[System],
    plan: Plan,
    warm: WarmUp,
    tolerated: tuple[type[TidegateError], ...],
    on_tick: Callable[[], None] = lambda: None,
    tick_s: float | None = None,
) -> list[Recording]:
    """Let one thread per system call at the same time, each as a single stream; all start together.

    The minimum number of calls is shared out among the callers. An error outside `tolerated` ends that caller's run and
    is raised here after the others have finished.

    Args:
        on_tick: called here every `tick_s` seconds while the callers are at work; never if that is None.
    """
    share = Plan(
        minimum_duration_s=plan.minimum_duration_s,
        minimum_calls=-(-plan.minimum_calls // len(systems)),
        warm_up_s=plan.warm_up_s,
        warm_up_calls=plan.warm_up_calls,
    )
    recordings: list[Recording | None] = [None] * len(systems)
    failures: list[TidegateError] = []
    start = threading.Barrier(len(systems))

    def caller(index: int) -> None:
        start.wait()
        try:
            recordings[index] = single_stream(systems[index], share, warm, tolerated)
        except TidegateError as error:
            failures.append(error)

    threads = [threading.Thread(target=caller, args=(index,), daemon=True) for index in range(len(systems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(tick_s)
            on_tick()
    if failures:
        raise failures[0]
    return [recording for recording in recordings if recording is not None]
