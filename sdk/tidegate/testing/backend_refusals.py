"""What is refused, with which error and which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tidegate.errors import InputError, ModelError, ResourceError
from tidegate.testing.backend_subject import Checks, Subject, assert_close, assert_refused, dense, raised, rows_of

CHECKS = Checks()


@CHECKS.add
def wrong_rank_refused(subject: Subject, folder: Path) -> None:
    """The message names input, shape found and shape expected; the model still works."""
    with subject.load("dense") as model:
        for bad in (np.zeros(64, np.float32), np.zeros((1, 1, 64), np.float32), np.array(1, np.float32)):
            assert_refused(InputError, lambda bad=bad: model(bad), "'x'", str(list(bad.shape)), "[1, 64]")  # type: ignore[misc]
            assert_close(model(rows_of(1)), dense(rows_of(1)))


@CHECKS.add
def wrong_size_refused(subject: Subject, folder: Path) -> None:
    """A fixed axis is fixed; a free one is named `any`."""
    with subject.load("dense") as model:
        assert_refused(InputError, lambda: model(np.zeros((1, 63), np.float32)), "'x'", "[1, 63]", "[1, 64]")
        assert_refused(InputError, lambda: model(np.zeros((2, 64), np.float32)), "'x'", "[2, 64]", "[1, 64]")
    with subject.load("batch") as model:
        assert_refused(InputError, lambda: model(np.zeros((2, 65), np.float32)), "'x'", "[2, 65]", "[any, 64]")
        assert_close(model(rows_of(2)), dense(rows_of(2)))


@CHECKS.add
def wrong_names_refused(subject: Subject, folder: Path) -> None:
    """Wrong, missing and extra names, with the names that there are."""
    rows, three = rows_of(1), np.zeros((1, 3), np.float32)
    with subject.load("dense") as model:
        assert_refused(InputError, lambda: model.run({"X": rows}), "'X'", "'x'")
        assert_refused(InputError, lambda: model.run({}), "'x'", "missing")
        assert_refused(InputError, lambda: model.run({"x": rows, "z": rows}), "'z'", "'x'")
        assert_close(model.run({"x": rows})["y"], dense(rows))
        assert_refused(InputError, lambda: model.run({"X": rows}), "'X'", "'x'")
    with subject.load("two") as model:
        assert_refused(InputError, lambda: model.run({"a": three}), "'b'", "missing")
        assert_refused(InputError, lambda: model.run({"a": three, "b": three, "c": three}), "'c'")


@CHECKS.add
def wrong_dtype_refused(subject: Subject, folder: Path) -> None:
    """Nothing is cast: not float64, not integers, not another byte order."""
    with subject.load("dense") as model:
        model(rows_of(1))
        for dtype in (np.float64, np.float16, np.int32, np.bool_, object, ">f4"):
            bad = rows_of(1).astype(dtype)
            assert_refused(InputError, lambda bad=bad: model(bad), "'x'", str(bad.dtype), "float32")  # type: ignore[misc]
            assert_refused(InputError, lambda bad=bad: model.run({"x": bad}), "'x'", str(bad.dtype), "float32")  # type: ignore[misc]


@CHECKS.add
def what_is_no_array_refused(subject: Subject, folder: Path) -> None:
    """Lists, numbers, strings and None are errors that name their type."""
    with subject.load("dense") as model:
        model(rows_of(1))
        for bad in (rows_of(1).tolist(), 1.0, "x", None, np.float32(1), rows_of(1).data):
            wrong: Any = bad
            assert_refused(InputError, lambda wrong=wrong: model(wrong), "'x'", type(bad).__name__, "float32")  # type: ignore[misc]
            assert_refused(InputError, lambda wrong=wrong: model.run({"x": wrong}), "'x'", type(bad).__name__)  # type: ignore[misc]


@CHECKS.add
def failure_at_run_time(subject: Subject, folder: Path) -> None:
    """What the runtime refuses is a ModelError that names the file, and the model works afterwards."""
    values = np.array([5, 6, 7, 8], np.float32)
    with subject.load("mixed") as model:
        for _ in range(2):
            feeds = {"values": values, "indices": np.array([0, 99], np.int32)}
            assert_refused(ModelError, lambda feeds=feeds: model.run(feeds), str(subject.file("mixed")))  # type: ignore[misc]
            assert model.run({"values": values, "indices": np.array([1, 2], np.int32)})["picked"].tolist() == [6, 7]


@CHECKS.add
def garbage_refused(subject: Subject, folder: Path) -> None:
    """Bytes that are no model are a ModelError that names the file."""
    for name, content in (
        ("empty", b""),
        ("zeros", bytes(4096)),
        ("text", b"not a model\n" * 50),
        ("random", np.random.default_rng(0).bytes(4096)),
    ):
        path = folder / f"{name}{subject.file('dense').suffix}"
        path.write_bytes(content)
        assert_refused(ModelError, lambda path=path: subject.load_file(path), str(path))  # type: ignore[misc]


@CHECKS.add
def truncated_model_refused(subject: Subject, folder: Path) -> None:
    """A file cut anywhere is a ModelError that names it."""
    whole = subject.file("dense").read_bytes()
    for tenths in range(1, 10):
        path = folder / f"cut{tenths}{subject.file('dense').suffix}"
        path.write_bytes(whole[: len(whole) * tenths // 10])
        assert_refused(ModelError, lambda path=path: subject.load_file(path), str(path))  # type: ignore[misc]


@CHECKS.add
def batch_beyond_any_memory(subject: Subject, folder: Path) -> None:
    """More rows than any machine holds: ResourceError or ModelError that names the shape, and the model works on."""
    with subject.load("batch") as model:
        for count in (2**31 + 5, 10**13):
            endless = np.broadcast_to(np.float32(0), (count, 64))
            error = raised(lambda endless=endless: model(endless))  # type: ignore[misc]
            assert isinstance(error, ResourceError | ModelError), repr(error)
            assert f"[{count}, 64]" in error.message, error.message
            assert_close(model(rows_of(2)), dense(rows_of(2)))
