"""Right answers: dtypes, names, shapes that change, strides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import NAMES, is_float, numpy_dtype
from tidegate.errors import InputError
from tidegate.testing.backend_subject import Checks, Subject, assert_close, assert_refused, dense, rows_of

CHECKS = Checks()


def _example(dtype: str) -> NDArray[Any]:
    if dtype == "BYTES":
        return np.array([b"yes", b"", "grün".encode()], dtype=object)
    if dtype == "BOOL":
        return np.array([True, False, True])
    kind = numpy_dtype(dtype)
    if is_float(kind):
        largest = 3.3e38 if dtype == "BF16" else np.finfo(kind).max
        return np.array([0.5, -2.25, largest], dtype=kind)
    limits = np.iinfo(kind)
    return np.array([limits.min, 1, limits.max], dtype=kind)


def _check_dtype(dtype: str) -> None:
    def carries(subject: Subject, folder: Path) -> None:
        with subject.load(f"column_{dtype}") as model:
            assert model.signature.inputs[0].dtype == model.signature.outputs[0].dtype == dtype
            example = _example(dtype)
            for _ in range(3):
                found = model(example)
                assert found.dtype == numpy_dtype(dtype)
                assert found.shape == (3, 1)
                assert found[:, 0].tolist() == example.tolist()

    CHECKS[f"carries_{dtype}"] = carries


for _dtype in sorted(NAMES):
    _check_dtype(_dtype)


@CHECKS.add
def golden_values(subject: Subject, folder: Path) -> None:
    """Both ways to call give what numpy computes."""
    with subject.load("dense") as model:
        for seed in range(5):
            rows = rows_of(1, seed)
            assert_close(model(rows), dense(rows))
            assert_close(model.run({"x": rows})["y"], dense(rows))


@CHECKS.add
def signature_as_in_the_file(subject: Subject, folder: Path) -> None:
    """Names, dtypes and shapes are the file's, -1 for a free axis."""
    with subject.load("batch") as model:
        (given,), (wanted,) = model.signature.inputs, model.signature.outputs
        assert (given.name, given.dtype, given.shape) == ("x", "FP32", (-1, 64))
        assert (wanted.name, wanted.dtype, wanted.shape) == ("y", "FP32", (-1, 10))


@CHECKS.add
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


@CHECKS.add
def several_inputs_and_outputs(subject: Subject, folder: Path) -> None:
    """They go by name, whatever the order of the mapping."""
    a, b = np.array([[1, 2, 3]], np.float32), np.array([[10, 20, 30]], np.float32)
    with subject.load("two") as model:
        for feeds in ({"a": a, "b": b}, {"b": b, "a": a}):
            found = model.run(feeds)
            assert set(found) == {"sum", "difference"}
            assert found["sum"].tolist() == [[11, 22, 33]]
            assert found["difference"].tolist() == [[-9, -18, -27]]
        assert_refused(InputError, lambda: model(a), "2 inputs", "2 outputs")


@CHECKS.add
def inputs_of_several_dtypes(subject: Subject, folder: Path) -> None:
    """Each input keeps its own dtype."""
    values, indices = np.array([5, 6, 7, 8], np.float32), np.array([3, 0], np.int32)
    with subject.load("mixed") as model:
        assert model.run({"values": values, "indices": indices})["picked"].tolist() == [8, 5]
        assert_refused(
            InputError, lambda: model.run({"values": values, "indices": indices.astype(np.int64)}), "int64", "int32"
        )


@CHECKS.add
def scalars_stay_scalars(subject: Subject, folder: Path) -> None:
    """An array without axes in, an array without axes out."""
    with subject.load("scalar") as model:
        for value in (3.0, -1.5):
            found = model(np.array(value, np.float32))
            assert isinstance(found, np.ndarray)
            assert found.shape == ()
            assert found.dtype == np.float32
            assert float(found) == 2 * value


@CHECKS.add
def batch_grows_shrinks_and_comes_back(subject: Subject, folder: Path) -> None:
    """A free axis may change at every call."""
    with subject.load("batch") as model:
        for count in (1, 7, 2, 1, 64, 3, 5, 8, 9, 7, 1):
            for seed in (count, count + 100):
                assert_close(model(rows_of(count, seed)), dense(rows_of(count, seed)))


@CHECKS.add
def free_axes_of_several_inputs(subject: Subject, folder: Path) -> None:
    """All inputs change their size together."""
    with subject.load("two") as model:
        for count in (2, 5, 1, 5):
            a = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
            found = model.run({"a": a, "b": a})
            assert found["sum"].tolist() == (a + a).tolist()
            assert found["difference"].tolist() == np.zeros_like(a).tolist()


@CHECKS.add
def zero_rows(subject: Subject, folder: Path) -> None:
    """An empty batch gives an empty result, and the next batch is right."""
    with subject.load("batch") as model:
        assert_close(model(rows_of(2)), dense(rows_of(2)))
        found = model(rows_of(0))
        assert found.shape == (0, 10)
        assert found.dtype == np.float32
        assert_close(model(rows_of(2)), dense(rows_of(2)))


@CHECKS.add
def strided_arrays_read_right(subject: Subject, folder: Path) -> None:
    """Reversed, transposed, stepped and read-only arrays give the same as their copies."""
    wide = np.ascontiguousarray(np.random.default_rng(3).uniform(-1, 1, (6, 128)).astype(np.float32))
    frozen = rows_of(6)
    frozen.flags.writeable = False
    with subject.load("batch") as model:
        for rows in (wide[:, ::2], wide[::-1, 64:], np.asfortranarray(wide[:, :64]), wide[:, 63::-1], frozen):
            for _ in range(2):
                assert_close(model(rows), dense(np.ascontiguousarray(rows)))


@CHECKS.add
def subclasses_of_arrays_accepted(subject: Subject, folder: Path) -> None:
    """A memory-mapped file is an array like any other."""
    rows_of(1).tofile(folder / "rows.bin")
    with subject.load("dense") as model:
        mapped = np.memmap(folder / "rows.bin", dtype=np.float32, mode="r", shape=(1, 64))
        for _ in range(2):
            assert_close(model(mapped), dense(rows_of(1)))


@CHECKS.add
def nan_passes(subject: Subject, folder: Path) -> None:
    """A bare model promises nothing about NaN, so it goes through and comes out."""
    rows = rows_of(1)
    rows[0, 0] = np.nan
    with subject.load("dense") as model:
        assert np.isnan(model(rows)).all()
        assert_close(model(rows_of(1)), dense(rows_of(1)))
