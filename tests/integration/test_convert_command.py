"""`tidegate convert` as a user types it: exit codes, clean standard output, a line for each variant on a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.models import make_dense_onnx
from tests.terminals import run_on_terminal
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import digest
from tidegate.bundle.arrays import pack_arrays
from tidegate.cli.main import main

TIDEGATE = [sys.executable, "-m", "tidegate.cli"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_dense_onnx(tmp_path / "dense.onnx", "rows")
    x = np.random.default_rng(0).uniform(-1, 1, (40, 64))
    (tmp_path / "rows.npz").write_bytes(pack_arrays({"input/x": x}))
    return tmp_path


def test_json_says_what_was_made(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "onnx-fp32,onnx-int8", "--to", "onnx-fp16", "--data", "rows.npz", "-o", "out", "--name", "net"]
    assert main(["convert", "dense.onnx", *words, "--json"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert err == ""
    assert (report["source"], report["kind"], report["compared_on"]) == ("dense.onnx", "onnx", "data")
    assert [variant["id"] for variant in report["variants"]] == ["onnx-fp32", "onnx-int8", "onnx-fp16"]
    for variant in report["variants"]:
        content = (folder / variant["file"]).read_bytes()
        assert variant["file"] == f"out/net-{variant['id']}.onnx"
        assert (variant["sha256"], variant["size_bytes"]) == (digest(content), len(content))
        assert variant["maximum_error"] <= (0.0 if variant["id"] == "onnx-fp32" else 0.3)


def test_a_table_for_people_and_then_a_bundle(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "dense.onnx", "--to", "onnx-fp32,onnx-dynamic-int8", "-o", "out"]) == 0
    out, err = capfd.readouterr()
    assert "compared on 8 rows of random input" in out
    assert "dense-onnx-dynamic-int8.onnx" in out
    assert err == ""
    models = [f"--model=out/dense-{variant}.onnx" for variant in ("onnx-fp32", "onnx-dynamic-int8")]
    assert main(["build", *models, "--name", "d", "--version", "1.0.0", "--tolerance", "0.3", "-o", "d.tide"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["dense.onnx", "--to", "onnx-int8"], 2, "onnx-int8 of dense.onnx needs representative data"),
        (["dense.onnx", "--to", "tflite-fp32"], 2, "gives no variant 'tflite-fp32'; it gives onnx, onnx-fp32"),
        (["dense.onnx", "--to", ","], 2, "no variant was asked for"),
        (["dense.onnx", "--to", "onnx", "-o", "rows.npz"], 2, "rows.npz is a file; a directory is needed"),
        (["absent.keras", "--to", "onnx-fp32"], 1, "no model at absent.keras"),
        (["dense.onnx", "--to", "onnx", "--data", "absent.npz"], 1, "no file at absent.npz"),
        (["dense.onnx"], 2, "--to"),
    ],
)
def test_exit_codes(words: list[str], code: int, message: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        found = main(["convert", *words])
    except SystemExit as stop:  # argparse's own complaint
        found = int(stop.code or 0)
    out, err = capfd.readouterr()
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_on_a_terminal_each_variant_has_a_line(folder: Path) -> None:
    words = ["convert", "dense.onnx", "--to", "onnx,onnx-dynamic-int8", "-o", "out"]
    done, shown = run_on_terminal([*TIDEGATE, *words])
    assert done.returncode == 0
    assert shown.splitlines()[0].startswith("[1/2] onnx  ")
    assert shown.splitlines()[1].startswith("[2/2] onnx-dynamic-int8  ")
    assert b"[1/2]" not in done.stdout


def test_tensorflow_prints_nothing_among_the_results(folder: Path) -> None:
    make = "import keras; keras.Sequential([keras.Input((4,), name='x'), keras.layers.Dense(2)]).save('net.keras')"
    subprocess.run([sys.executable, "-c", make], check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    words = ["convert", "net.keras", "--to", "tflite-fp32,onnx-fp32", "-o", "out", "--json"]
    quiet = subprocess.run([*TIDEGATE, *words], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S)
    assert [variant["id"] for variant in json.loads(quiet.stdout)["variants"]] == ["tflite-fp32", "onnx-fp32"]
    assert quiet.stderr == ""
    loud = subprocess.run(
        [*TIDEGATE, *words, "--verbose"], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    # Two processes with different hash seeds: the same bytes.
    sums = [[made["sha256"] for made in json.loads(run.stdout)["variants"]] for run in (quiet, loud)]
    assert sums[0] == sums[1]
    assert loud.stderr != ""
