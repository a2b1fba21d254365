"""Rows through real models: free and fixed batches, and models without a row axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.models import make_contract_onnx, make_dense_onnx, make_onnx, tflite

from tidegate.errors import InputError, ModelError
from tidegate.evaluate.running import run_rows
from tidegate.runtime import load
from tidegate.testing.backend_contract import BIAS, WEIGHTS

ROWS = np.random.default_rng(0).normal(0, 1, (70, 64)).astype(np.float32)


@pytest.mark.parametrize("rows", ["rows", 1, 16, 32])
def test_every_batch_gives_the_same_rows(tmp_path: Path, rows: int | str) -> None:
    seen: list[int] = []
    with load(make_dense_onnx(tmp_path / "m.onnx", rows)) as model:
        found = run_rows(model, {"x": ROWS}, "e.npz", seen.append)["y"]
    np.testing.assert_allclose(found, ROWS @ WEIGHTS + BIAS, rtol=1e-4, atol=1e-4)
    assert seen == sorted(seen)
    assert seen[-1] == 70


def test_tflite_with_a_batch(tmp_path: Path) -> None:
    with load(tflite("batch")) as model:
        found = run_rows(model, {"x": ROWS}, "e.npz", lambda _: None)["y"]
    np.testing.assert_allclose(found, ROWS @ WEIGHTS + BIAS, rtol=1e-4, atol=1e-4)


def test_a_model_without_a_row_axis_is_called_once_a_row(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    indices = np.array([[0, 1], [3, 3], [2, 0]], np.int32)
    with load(make_contract_onnx(tmp_path, "mixed")) as model:
        found = run_rows(model, {"values": values, "indices": indices}, "e.npz", lambda _: None)["picked"]
    assert found.tolist() == [[0, 1], [7, 7], [10, 8]]
    with load(make_contract_onnx(tmp_path, "scalar")) as model:
        assert run_rows(model, {"x": values[0]}, "e.npz", lambda _: None)["y"].tolist() == [0, 2, 4, 6]


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with load(make_dense_onnx(tmp_path / "m.onnx", "rows")) as model, pytest.raises(InputError, match="first axis"):
        run_rows(model, {"x": ROWS[:, :, None, None]}, "e.npz", lambda _: None)


def test_outputs_without_a_row_each_are_refused(tmp_path: Path) -> None:
    model_file = make_onnx(
        tmp_path / "m.onnx", [("NonZero", ["x"], ["y"])], {"x": ("FP32", ["rows", 2])}, {"y": ("INT64", [2, None])}
    )
    with load(model_file) as model, pytest.raises(ModelError, match=r"output 'y' has shape \[2, 6\] for 3 rows"):
        run_rows(model, {"x": np.ones((3, 2), np.float32)}, "e.npz", lambda _: None)
