"""The overhead benchmark runs and reports; what it measures is not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.models import make_contract_onnx, make_dense_onnx, tflite

from tidegate.bench.overhead import main


@pytest.mark.parametrize("backend", ["litert", "onnx"])
def test_report(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tflite("dense") if backend == "litert" else make_dense_onnx(tmp_path / "dense.onnx")
    assert main([str(path), "--turns", "60", "--calls", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == path.name
    assert [row["entry"] for row in report["rows"]][1:] == ["Model(array)", "Model.run({name: array})"]
    assert report["rows"][0]["ratio"] == 1
    for row in report["rows"]:
        assert row["turns_kept"] + row["turns_set_aside"] == 60
        assert row["median_us"] > 0


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tflite("dense")), "--turns", "60", "--calls", "5"]) == 0
    assert capsys.readouterr().out.count("\n| ") == 4


def test_a_model_that_it_cannot_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_contract_onnx(tmp_path, "two"))]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 inputs and 2 outputs" in captured.err
