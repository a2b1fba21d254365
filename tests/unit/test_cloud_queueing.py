"""The queue in front of a model: order, priorities, limits, who may share a run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tidegate.cloud.queueing import Job, QueueSettings, RequestQueue
from tidegate.errors import ConfigError, DeadlineError, InputError, ResourceError, UnavailableError


def job(
    rows: int = 1,
    width: int = 4,
    *,
    priority: int = 0,
    deadline_s: float | None = None,
    gone: Callable[[], bool] = lambda: False,
) -> Job:
    return Job(
        (np.zeros((rows, width), np.float32),),
        key=((width,),),
        rows=rows,
        finish=lambda outputs, error: None,
        began_ns=0,
        priority=priority,
        deadline_s=deadline_s,
        gone=gone,
    )


def filled(*jobs: Job, settings: QueueSettings | None = None) -> RequestQueue:
    queue = RequestQueue(settings or QueueSettings(), "m")
    for one in jobs:
        queue.put(one, 0.0)
    return queue


def test_compatible_requests_are_taken_together_and_the_others_keep_their_order() -> None:
    a, b, c, d = job(), job(width=5), job(), job(width=5)
    queue = filled(a, b, c, d)
    assert queue.take(64, 0.0) == ([a, c], [])
    assert queue.take(64, 0.0) == ([b, d], [])
    assert queue.take(64, 0.0) == ([], [])


def test_a_run_holds_at_most_its_rows_and_a_larger_request_runs_alone() -> None:
    large, small, more = job(100), job(3), job(6)
    queue = filled(large, small, more)
    assert queue.take(8, 0.0)[0] == [large]
    assert queue.take(8, 0.0)[0] == [small]
    assert (len(queue), queue.rows) == (1, 6)


def test_priority_1_comes_first() -> None:
    late, early = job(priority=2), job(priority=1)
    queue = filled(late, early, settings=QueueSettings(priority_levels=2, default_priority=2))
    assert queue.take(1, 0.0)[0] == [early]


@pytest.mark.parametrize("priority", [-1, 2, 9])
def test_a_priority_that_is_not_there_is_the_callers_error(priority: int) -> None:
    with pytest.raises(InputError, match=f"priority is {priority}"):
        filled(job(priority=priority))


def test_a_full_queue_refuses() -> None:
    settings = QueueSettings(maximum_length=2)
    queue = filled(job(), job(), settings=settings)
    assert queue.full
    with pytest.raises(ResourceError, match="2 requests wait for model 'm'"):
        queue.put(job(), 0.0)


def test_what_ran_out_of_time_or_lost_its_caller_is_not_run() -> None:
    expired, gone, good = job(deadline_s=1.0), job(gone=lambda: True), job(deadline_s=3.0)
    taken, lost = filled(expired, gone, good).take(64, 2.0)
    assert taken == [good]
    assert [(one, type(why)) for one, why in lost] == [(expired, DeadlineError), (gone, UnavailableError)]


def test_what_is_given_up_makes_room() -> None:
    expired, good = job(deadline_s=1.0), job()
    queue = filled(good, expired)
    assert [one for one, _ in queue.take_given_up(2.0)] == [expired]
    assert queue.take_all() == [good]
    assert len(queue) == 0


def test_the_queue_has_a_timeout_of_its_own() -> None:
    settings = QueueSettings(timeout_s=5.0)
    patient, hurried = job(deadline_s=100.0), job(deadline_s=2.0)
    filled(patient, hurried, settings=settings)
    assert (patient.deadline_s, hurried.deadline_s) == (5.0, 2.0)


@pytest.mark.parametrize("fields", [{"maximum_length": 0}, {"timeout_s": -1.0}, {"default_priority": 2}])
def test_settings_that_cannot_be_meant(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        QueueSettings(**fields)  # type: ignore[arg-type]
