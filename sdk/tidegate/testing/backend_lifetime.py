"""Who owns which array, threads and closing."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from tidegate.errors import StateError, TidegateError
from tidegate.runtime import Model
from tidegate.testing.backend_subject import Checks, Subject, assert_close, assert_refused, dense, rows_of

CHECKS = Checks()


@CHECKS.add
def input_left_alone(subject: Subject, folder: Path) -> None:
    """The caller's array is neither written nor kept: changing it later changes no result."""
    rows = rows_of(1)
    before = rows.copy()
    with subject.load("dense") as model:
        for _ in range(2):
            found = model(rows)
            assert np.array_equal(rows, before)
            rows[:] = 9
            assert_close(found, dense(before))
            rows[:] = before


@CHECKS.add
def outputs_not_shared_between_calls(subject: Subject, folder: Path) -> None:
    """An output belongs to the caller: later calls, writing to it and close leave the others as they were."""
    with subject.load("batch") as model:
        first = [model(rows_of(2, seed)) for seed in range(4)]
        first[0][:] = 0
        second = model(rows_of(2, 1))
        assert not any(np.shares_memory(a, b) for a in [*first, second] for b in [*first, second] if a is not b)
        model(rows_of(5))
    for seed in (1, 2, 3):
        assert_close(first[seed], dense(rows_of(2, seed)))
    assert second.flags.writeable


@CHECKS.add
def used_after_close(subject: Subject, folder: Path) -> None:
    """Both calls are refused, after one close or two, and after the `with` block."""
    with subject.load("dense") as model:
        model(rows_of(1))
        model.close()
        model.close()
        assert_refused(StateError, lambda: model(rows_of(1)), "closed")
    assert_refused(StateError, lambda: model.run({"x": rows_of(1)}), "closed")
    unused = subject.load("dense")
    unused.close()
    assert_refused(StateError, lambda: unused(rows_of(1)), "closed")


@CHECKS.add
def eight_threads_at_once(subject: Subject, folder: Path) -> None:
    """Each thread gets the answer to its own question, though their batch sizes differ."""
    wrong: list[str] = []
    start = threading.Barrier(8)

    def work(model: Model, number: int) -> None:
        start.wait()
        for turn in range(50):
            rows = rows_of(1 + (number + turn) % 4, seed=number * 1000 + turn)
            found = model(rows) if turn % 2 else model.run({"x": rows})["y"]
            if found.shape != (len(rows), 10) or not np.allclose(found, dense(rows), atol=1e-5):
                wrong.append(f"thread {number}, turn {turn}")

    with subject.load("batch") as model:
        threads = [threading.Thread(target=work, args=(model, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong, wrong


@CHECKS.add
def closed_under_other_threads(subject: Subject, folder: Path) -> None:
    """Closing while others call: each of them gets a right answer or StateError, nothing else."""
    problems: list[str] = []
    running = threading.Barrier(5)

    def work(model: Model) -> None:
        rows = rows_of(1)
        assert_close(model(rows), dense(rows))
        running.wait()
        try:
            while True:
                if not np.allclose(model(rows), dense(rows), atol=1e-5):
                    problems.append("a wrong answer")
        except StateError:
            return
        except TidegateError as error:
            problems.append(repr(error))

    model = subject.load("dense")
    threads = [threading.Thread(target=work, args=(model,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    running.wait()
    model.close()
    for thread in threads:
        thread.join()
    assert not problems, problems


@CHECKS.add
def two_models_at_once(subject: Subject, folder: Path) -> None:
    """Two loads of one file share nothing that shows."""
    with subject.load("batch") as one, subject.load("batch") as other:
        assert_close(one(rows_of(3)), dense(rows_of(3)))
        assert_close(other(rows_of(1)), dense(rows_of(1)))
        one.close()
        assert_close(other(rows_of(1)), dense(rows_of(1)))
