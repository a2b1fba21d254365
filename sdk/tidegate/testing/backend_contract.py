"""The contract of a runtime backend: what `Model` promises, whichever library runs the model.

A backend's author brings the models of `MODELS` in the backend's own format and runs every check on them:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name, tmp_path):
        CHECKS[name](Subject(load=..., load_file=..., file=...), tmp_path)

A check raises AssertionError when the promise is broken. Nothing here needs pytest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import NUMPY_BY_NAME
from tidegate.errors import InputError, ModelError, StateError, TidegateError
from tidegate.runtime import Model

WEIGHTS: NDArray[np.float32] = ((np.arange(640) % 7 - 3) / 8).reshape(64, 10).astype(np.float32)
BIAS: NDArray[np.float32] = (np.arange(10) / 4).astype(np.float32)

MODELS: dict[str, str] = {
    "dense": "y[1,10] = x[1,64] @ WEIGHTS + BIAS, all FP32",
    "batch": "the same with the first axis of x and y free",
    "two": "sum[any,3] = a + b, difference[any,3] = a - b, all FP32",
    "mixed": "picked[2] FP32 = values[4] FP32 at indices[2] INT32; an index outside fails at run time",
    "scalar": "y = 2 x, FP32 without axes",
    **{f"column_{dtype}": f"y[3,1] = x[3] reshaped, {dtype}" for dtype in NUMPY_BY_NAME},
}
"""Name -> what it computes. Tensors are named as here."""


@dataclass(frozen=True)
class Subject:
    """A backend under test."""

    load: Callable[[str], Model]
    """loads a model of `MODELS` by its name"""
    load_file: Callable[[Path], Model]
    """loads a file"""
    file: Callable[[str], Path]
    """where a model of `MODELS` lies"""


Check = Callable[[Subject, Path], None]
"""Takes the backend and an empty folder to write in."""

CHECKS: dict[str, Check] = {}
"""Every check by name."""


def _check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def _example(dtype: str) -> NDArray[Any]:
    if dtype == "BYTES":
        return np.array([b"yes", b"", "grün".encode()], dtype=object)
    if dtype == "BOOL":
        return np.array([True, False, True])
    kind = NUMPY_BY_NAME[dtype]
    if kind.kind == "f":
        return np.array([0.5, -2.25, np.finfo(kind).max], dtype=kind)
    limits = np.iinfo(kind)
    return np.array([limits.min, 1, limits.max], dtype=kind)


def _rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 64)).astype(np.float32)


def _expected(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows.astype(np.float64) @ WEIGHTS + BIAS, dtype=np.float32)


def _close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def _refused(kind: type[TidegateError], call: Callable[[], object], *words: str) -> None:
    """Assert that a call raises exactly this class, with these words, and says what to do."""
    error = _raised(call)
    assert type(error) is kind, f"raised {type(error).__name__}, expected {kind.__name__}: {error}"
    missing = [word for word in words if word not in error.message]
    assert not missing, f"the message lacks {missing}: {error.message}"
    assert error.fix, f"the message does not say what to do: {error.message}"


def _raised(call: Callable[[], object]) -> TidegateError:
    try:
        result = call()
    except TidegateError as error:
        return error
    raise AssertionError(f"returned {result!r}, expected an error")


def _check_dtype(dtype: str) -> None:
    def carries(subject: Subject, folder: Path) -> None:
        with subject.load(f"column_{dtype}") as model:
            assert model.signature.inputs[0].dtype == model.signature.outputs[0].dtype == dtype
            example = _example(dtype)
            for _ in range(3):
                found = model(example)
                assert found.dtype == NUMPY_BY_NAME[dtype]
                assert found.shape == (3, 1)
                assert found[:, 0].tolist() == example.tolist()

    CHECKS[f"carries_{dtype}"] = carries


for _dtype in NUMPY_BY_NAME:
    _check_dtype(_dtype)


@_check
def golden_values(subject: Subject, folder: Path) -> None:
    """Both ways to call give what numpy computes."""
    with subject.load("dense") as model:
        for seed in range(5):
            rows = _rows(1, seed)
            _close(model(rows), _expected(rows))
            _close(model.run({"x": rows})["y"], _expected(rows))


@_check
def signature_as_in_the_file(subject: Subject, folder: Path) -> None:
    """Names, dtypes and shapes are the file's, -1 for a free axis."""
    with subject.load("batch") as model:
        (given,), (wanted,) = model.signature.inputs, model.signature.outputs
        assert (given.name, given.dtype, given.shape) == ("x", "FP32", (-1, 64))
        assert (wanted.name, wanted.dtype, wanted.shape) == ("y", "FP32", (-1, 10))


@_check
def names_its_runtime(subject: Subject, folder: Path) -> None:
    """Backend, runtime with version and provider are stated; a bare file has no manifest."""
    with subject.load("dense") as model:
        name, version = model.runtime.split(" ")
        assert name
        assert version[0].isdigit()
        assert model.backend
        assert model.provider
        assert model.manifest is None
        assert model.variant_id == ""


@_check
def several_inputs_and_outputs(subject: Subject, folder: Path) -> None:
    """They go by name, whatever the order of the mapping."""
    a, b = np.array([[1, 2, 3]], np.float32), np.array([[10, 20, 30]], np.float32)
    with subject.load("two") as model:
        for feeds in ({"a": a, "b": b}, {"b": b, "a": a}):
            found = model.run(feeds)
            assert set(found) == {"sum", "difference"}
            assert found["sum"].tolist() == [[11, 22, 33]]
            assert found["difference"].tolist() == [[-9, -18, -27]]
        _refused(InputError, lambda: model(a), "2 inputs", "2 outputs")


@_check
def inputs_of_several_dtypes(subject: Subject, folder: Path) -> None:
    """Each input keeps its own dtype."""
    values, indices = np.array([5, 6, 7, 8], np.float32), np.array([3, 0], np.int32)
    with subject.load("mixed") as model:
        assert model.run({"values": values, "indices": indices})["picked"].tolist() == [8, 5]
        _refused(
            InputError, lambda: model.run({"values": values, "indices": indices.astype(np.int64)}), "int64", "int32"
        )


@_check
def scalars_stay_scalars(subject: Subject, folder: Path) -> None:
    """An array without axes in, an array without axes out."""
    with subject.load("scalar") as model:
        for value in (3.0, -1.5):
            found = model(np.array(value, np.float32))
            assert isinstance(found, np.ndarray)
            assert found.shape == ()
            assert found.dtype == np.float32
            assert float(found) == 2 * value


@_check
def batch_grows_shrinks_and_comes_back(subject: Subject, folder: Path) -> None:
    """A free axis may change at every call."""
    with subject.load("batch") as model:
        for count in (1, 7, 2, 1, 64, 3, 5, 8, 9, 7, 1):
            for seed in (count, count + 100):
                _close(model(_rows(count, seed)), _expected(_rows(count, seed)))


@_check
def free_axes_of_several_inputs(subject: Subject, folder: Path) -> None:
    """All inputs change their size together."""
    with subject.load("two") as model:
        for count in (2, 5, 1, 5):
            a = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
            found = model.run({"a": a, "b": a})
            assert found["sum"].tolist() == (a + a).tolist()
            assert found["difference"].tolist() == np.zeros_like(a).tolist()


@_check
def zero_rows(subject: Subject, folder: Path) -> None:
    """An empty batch gives an empty result, and the next batch is right."""
    with subject.load("batch") as model:
        _close(model(_rows(2)), _expected(_rows(2)))
        found = model(_rows(0))
        assert found.shape == (0, 10)
        assert found.dtype == np.float32
        _close(model(_rows(2)), _expected(_rows(2)))


@_check
def wrong_rank_refused(subject: Subject, folder: Path) -> None:
    """The message names input, shape found and shape expected; the model still works."""
    with subject.load("dense") as model:
        for bad in (np.zeros(64, np.float32), np.zeros((1, 1, 64), np.float32), np.array(1, np.float32)):
            _refused(InputError, lambda bad=bad: model(bad), "'x'", str(list(bad.shape)), "[1, 64]")  # type: ignore[misc]
            _close(model(_rows(1)), _expected(_rows(1)))


@_check
def wrong_size_refused(subject: Subject, folder: Path) -> None:
    """A fixed axis is fixed; a free one is named `any`."""
    with subject.load("dense") as model:
        _refused(InputError, lambda: model(np.zeros((1, 63), np.float32)), "'x'", "[1, 63]", "[1, 64]")
        _refused(InputError, lambda: model(np.zeros((2, 64), np.float32)), "'x'", "[2, 64]", "[1, 64]")
    with subject.load("batch") as model:
        _refused(InputError, lambda: model(np.zeros((2, 65), np.float32)), "'x'", "[2, 65]", "[any, 64]")
        _close(model(_rows(2)), _expected(_rows(2)))


@_check
def wrong_names_refused(subject: Subject, folder: Path) -> None:
    """Wrong, missing and extra names, with the names that there are."""
    rows, three = _rows(1), np.zeros((1, 3), np.float32)
    with subject.load("dense") as model:
        _refused(InputError, lambda: model.run({"X": rows}), "'X'", "'x'")
        _refused(InputError, lambda: model.run({}), "'x'", "missing")
        _refused(InputError, lambda: model.run({"x": rows, "z": rows}), "'z'", "'x'")
        _close(model.run({"x": rows})["y"], _expected(rows))
        _refused(InputError, lambda: model.run({"X": rows}), "'X'", "'x'")
    with subject.load("two") as model:
        _refused(InputError, lambda: model.run({"a": three}), "'b'", "missing")
        _refused(InputError, lambda: model.run({"a": three, "b": three, "c": three}), "'c'")


@_check
def wrong_dtype_refused(subject: Subject, folder: Path) -> None:
    """Nothing is cast: not float64, not integers, not another byte order."""
    with subject.load("dense") as model:
        model(_rows(1))
        for dtype in (np.float64, np.float16, np.int32, np.bool_, object, ">f4"):
            bad = _rows(1).astype(dtype)
            _refused(InputError, lambda bad=bad: model(bad), "'x'", str(bad.dtype), "float32")  # type: ignore[misc]
            _refused(InputError, lambda bad=bad: model.run({"x": bad}), "'x'", str(bad.dtype), "float32")  # type: ignore[misc]


@_check
def what_is_no_array_refused(subject: Subject, folder: Path) -> None:
    """Lists, numbers, strings and None are errors that name their type."""
    with subject.load("dense") as model:
        model(_rows(1))
        for bad in (_rows(1).tolist(), 1.0, "x", None, np.float32(1), _rows(1).data):
            wrong: Any = bad
            _refused(InputError, lambda wrong=wrong: model(wrong), "'x'", type(bad).__name__, "float32")  # type: ignore[misc]
            _refused(InputError, lambda wrong=wrong: model.run({"x": wrong}), "'x'", type(bad).__name__)  # type: ignore[misc]


@_check
def strided_arrays_read_right(subject: Subject, folder: Path) -> None:
    """Reversed, transposed, stepped and read-only arrays give the same as their copies."""
    wide = np.ascontiguousarray(np.random.default_rng(3).uniform(-1, 1, (6, 128)).astype(np.float32))
    frozen = _rows(6)
    frozen.flags.writeable = False
    with subject.load("batch") as model:
        for rows in (wide[:, ::2], wide[::-1, 64:], np.asfortranarray(wide[:, :64]), wide[:, 63::-1], frozen):
            for _ in range(2):
                _close(model(rows), _expected(np.ascontiguousarray(rows)))


@_check
def subclasses_of_arrays_accepted(subject: Subject, folder: Path) -> None:
    """A memory-mapped file is an array like any other."""
    _rows(1).tofile(folder / "rows.bin")
    with subject.load("dense") as model:
        mapped = np.memmap(folder / "rows.bin", dtype=np.float32, mode="r", shape=(1, 64))
        for _ in range(2):
            _close(model(mapped), _expected(_rows(1)))


@_check
def nan_passes(subject: Subject, folder: Path) -> None:
    """A bare model promises nothing about NaN, so it goes through and comes out."""
    rows = _rows(1)
    rows[0, 0] = np.nan
    with subject.load("dense") as model:
        assert np.isnan(model(rows)).all()
        _close(model(_rows(1)), _expected(_rows(1)))


@_check
def input_left_alone(subject: Subject, folder: Path) -> None:
    """The caller's array is neither written nor kept: changing it later changes no result."""
    rows = _rows(1)
    before = rows.copy()
    with subject.load("dense") as model:
        for _ in range(2):
            found = model(rows)
            assert np.array_equal(rows, before)
            rows[:] = 9
            _close(found, _expected(before))
            rows[:] = before


@_check
def outputs_not_shared_between_calls(subject: Subject, folder: Path) -> None:
    """An output belongs to the caller: later calls, writing to it and close leave the others as they were."""
    with subject.load("batch") as model:
        first = [model(_rows(2, seed)) for seed in range(4)]
        first[0][:] = 0
        second = model(_rows(2, 1))
        assert not any(np.shares_memory(a, b) for a in [*first, second] for b in [*first, second] if a is not b)
        model(_rows(5))
    for seed in (1, 2, 3):
        _close(first[seed], _expected(_rows(2, seed)))
    assert second.flags.writeable


@_check
def failure_at_run_time(subject: Subject, folder: Path) -> None:
    """What the runtime refuses is a ModelError that names the file, and the model works afterwards."""
    values = np.array([5, 6, 7, 8], np.float32)
    with subject.load("mixed") as model:
        for _ in range(2):
            feeds = {"values": values, "indices": np.array([0, 99], np.int32)}
            _refused(ModelError, lambda feeds=feeds: model.run(feeds), str(subject.file("mixed")))  # type: ignore[misc]
            assert model.run({"values": values, "indices": np.array([1, 2], np.int32)})["picked"].tolist() == [6, 7]


@_check
def used_after_close(subject: Subject, folder: Path) -> None:
    """Both calls are refused, after one close or two, and after the `with` block."""
    with subject.load("dense") as model:
        model(_rows(1))
        model.close()
        model.close()
        _refused(StateError, lambda: model(_rows(1)), "closed")
    _refused(StateError, lambda: model.run({"x": _rows(1)}), "closed")
    unused = subject.load("dense")
    unused.close()
    _refused(StateError, lambda: unused(_rows(1)), "closed")


@_check
def eight_threads_at_once(subject: Subject, folder: Path) -> None:
    """Each thread gets the answer to its own question, though their batch sizes differ."""
    wrong: list[str] = []
    start = threading.Barrier(8)

    def work(model: Model, number: int) -> None:
        start.wait()
        for turn in range(50):
            rows = _rows(1 + (number + turn) % 4, seed=number * 1000 + turn)
            found = model(rows) if turn % 2 else model.run({"x": rows})["y"]
            if found.shape != (len(rows), 10) or not np.allclose(found, _expected(rows), atol=1e-5):
                wrong.append(f"thread {number}, turn {turn}")

    with subject.load("batch") as model:
        threads = [threading.Thread(target=work, args=(model, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong, wrong


@_check
def closed_under_other_threads(subject: Subject, folder: Path) -> None:
    """Closing while others call: each of them gets a right answer or StateError, nothing else."""
    problems: list[str] = []
    running = threading.Barrier(5)

    def work(model: Model) -> None:
        rows = _rows(1)
        _close(model(rows), _expected(rows))
        running.wait()
        try:
            while True:
                if not np.allclose(model(rows), _expected(rows), atol=1e-5):
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


@_check
def two_models_at_once(subject: Subject, folder: Path) -> None:
    """Two loads of one file share nothing that shows."""
    with subject.load("batch") as one, subject.load("batch") as other:
        _close(one(_rows(3)), _expected(_rows(3)))
        _close(other(_rows(1)), _expected(_rows(1)))
        one.close()
        _close(other(_rows(1)), _expected(_rows(1)))


@_check
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
        _refused(ModelError, lambda path=path: subject.load_file(path), str(path))  # type: ignore[misc]


@_check
def truncated_model_refused(subject: Subject, folder: Path) -> None:
    """A file cut anywhere is a ModelError that names it."""
    whole = subject.file("dense").read_bytes()
    for tenths in range(1, 10):
        path = folder / f"cut{tenths}{subject.file('dense').suffix}"
        path.write_bytes(whole[: len(whole) * tenths // 10])
        _refused(ModelError, lambda path=path: subject.load_file(path), str(path))  # type: ignore[misc]
