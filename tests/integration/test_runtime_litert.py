"""LiteRT beyond the contract: quantised tensors, models without a signature, damage at every place, output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.models import tflite
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.errors import InputError, ModelError
from tidegate.runtime import load
from tidegate.testing.backend_contract import BIAS, WEIGHTS

ROWS: NDArray[Any] = np.linspace(-1, 1, 64, dtype=np.float32)[None]


def test_integers_inside_are_floats_outside() -> None:
    with load(tflite("dense_int8")) as model:
        assert [spec.dtype for spec in (*model.signature.inputs, *model.signature.outputs)] == ["FP32", "FP32"]
        for shift in range(5):
            rows = np.roll(ROWS, shift)
            found = model(rows)
            assert found.dtype == np.float32
            # 8 bits over the output's range of about 8: the error is a few hundredths.
            np.testing.assert_allclose(found, rows @ WEIGHTS + BIAS, atol=0.05)


def test_raw_hands_the_integers_through() -> None:
    with load(tflite("dense_int8")) as model, load(tflite("dense_int8"), raw=True) as raw:
        assert [spec.dtype for spec in (*raw.signature.inputs, *raw.signature.outputs)] == ["INT8", "INT8"]
        # The input was calibrated for -1 to 1: a step of 2/255, and zero in the middle.
        integers = np.clip(np.rint(ROWS * 127.5 - 0.5), -128, 127).astype(np.int8)
        found = raw(integers)
        assert found.dtype == np.int8
        assert np.unique(found).size > 5
        real = model(ROWS)
        order = np.argsort(found[0].astype(int), kind="stable")
        assert (np.diff(real[0][order]) >= 0).all()
        with pytest.raises(InputError, match="dtype float32; expected int8"):
            raw(ROWS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_no_integer_stands_for_is_refused(bad: float) -> None:
    rows = ROWS.copy()
    rows[0, 5] = bad
    with load(tflite("dense_int8")) as model:
        for _ in range(2):
            with pytest.raises(InputError, match="expected finite numbers only"):
                model(rows)
            with pytest.raises(InputError, match="expected finite numbers only"):
                model.run({"x": rows})
            model(ROWS)


def test_without_a_signature_tensors_go_by_their_own_names() -> None:
    with load(tflite("no_signature")) as model, load(tflite("dense")) as named:
        (given,), (wanted,) = model.signature.inputs, model.signature.outputs
        assert (given.name, wanted.name) == ("serving_default_x:0", "PartitionedCall:0")
        assert model.run({given.name: ROWS})[wanted.name].tolist() == named(ROWS).tolist()


def test_provider_is_what_runs_the_operators() -> None:
    with load(tflite("dense")) as model:
        assert model.provider == "XNNPACK"
    with load(tflite("mixed")) as model:  # XNNPACK has no gather
        assert model.provider == "CPU"


@pytest.mark.parametrize("name", ["dense", "two", "dense_int8"])
def test_cut_at_any_place(name: str, tmp_path: Path) -> None:
    whole, cut = tflite(name).read_bytes(), tmp_path / "cut.tflite"
    for size in range(0, len(whole), 13):
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"cut\.tflite"):
            load(cut)


def test_bytes_that_are_not_utf8_pass() -> None:
    with load(tflite("column_BYTES")) as model:
        assert model(np.array([b"\xff\0", b"", b"z"], object))[:, 0].tolist() == [b"\xff\0", b"", b"z"]


def test_stdout_stays_clean() -> None:
    code = f"""
import numpy, tidegate.runtime
with tidegate.runtime.load({str(tflite("dense"))!r}) as model:
    model(numpy.zeros((1, 64), numpy.float32))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout == ""
    assert "Error" not in done.stderr


def test_a_file_that_shrinks_after_loading_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dense.tflite"
    path.write_bytes(tflite("dense").read_bytes())
    with load(path) as model:
        before = model(ROWS)
        path.write_bytes(b"")
        assert model(ROWS).tolist() == before.tolist()
