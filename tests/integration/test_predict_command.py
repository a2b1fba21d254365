"""`tidegate predict` as a process: killed in the middle, its memory, its exit codes and words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.commands import Command, command_in
from tests.served import PROCESS_TIMEOUT_S, linear_bundle, slow_bundle
from tests.waiting import wait_until

from tidegate.cli.main import main


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Command:
    return command_in(capfd)


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tidegate.cli", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_after_parts(process: subprocess.Popen[bytes], directory: Path, parts: int) -> None:
    """Kill the process once it has finished that many parts."""

    def there_are_parts() -> bool:
        assert process.poll() is None, process.communicate()[1].decode()
        return len(list(directory.glob("part-*.npz"))) >= parts

    with process:
        try:
            wait_until(there_are_parts)
        finally:
            process.kill()
        assert process.wait(PROCESS_TIMEOUT_S) == -signal.SIGKILL


@pytest.mark.parametrize("written", ["parquet", "jsonl"])
def test_kill_9_and_again_gives_the_same_bytes(tidegate: Command, tmp_path: Path, written: str) -> None:
    bundle, source = slow_bundle(tmp_path), tmp_path / "in.parquet"
    turns = np.random.default_rng(3).integers(10_000, 20_000, 40)
    # The last rows take seconds, so that the kill comes before the end on a busy machine too.
    turns[30:] *= 15
    pq.write_table(pa.table({"turns": turns, "name": [f"n{row}" for row in range(40)]}), source)
    whole, cut = tmp_path / f"whole.{written}", tmp_path / f"cut.{written}"
    asked = ("predict", bundle, "--input", source, "--key", "name", "--checkpoint-s", "0", "--checkpoint-rows", "1")
    assert tidegate(*asked, "--output", whole).returncode == 0

    parts = tmp_path / f"cut.{written}.parts"
    for after in (1, 2):
        killed_after_parts(start(*asked, "--output", cut), parts, after)
        assert not cut.exists()
    done = tidegate(*asked, "--output", cut, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["rows"] == summary["answered"] == 40
    assert 0 < summary["resumed"] <= 40
    assert cut.read_bytes() == whole.read_bytes()
    assert not parts.exists()


MEASURE = """
import json, sys
from tidegate.predict import PredictSettings, predict
from tidegate.runtime.process import peak_resident_bytes
summary = predict(*sys.argv[1:4], PredictSettings(checkpoint_rows=1024))
print(json.dumps([summary.answered, peak_resident_bytes()]))
"""


def peak_bytes(bundle: Path, source: Path, output: Path, rows: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(bundle), str(source), str(output)],
        capture_output=True, text=True, timeout=PROCESS_TIMEOUT_S, check=True,
    )  # fmt: skip
    answered, peak = json.loads(done.stdout)
    assert answered == rows
    return int(peak)


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, suffix: str) -> None:
    """Ten times the rows are 120 MB more of input and as much of output."""
    from tests.served import identity_bundle

    bundle, peaks = identity_bundle(tmp_path, "FP32"), []
    for rows in (3_000, 30_000):
        source = tmp_path / f"in-{rows}.{suffix}"
        x = np.random.default_rng(0).normal(size=(rows, 1000)).astype(np.float32)
        if suffix == "npz":
            np.savez(source, x=x)
        else:
            column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 1000)
            pq.write_table(pa.table({"x": column}), source, row_group_size=1000, use_dictionary=False)
        peaks.append(peak_bytes(bundle, source, tmp_path / f"out-{rows}.{suffix}", rows))
    assert peaks[1] - peaks[0] < 30 << 20, peaks


def test_a_users_mistakes_are_told_without_a_traceback(tidegate: Command, tmp_path: Path) -> None:
    bundle, table = linear_bundle(tmp_path), tmp_path / "in.csv"
    table.write_text("a,b\n1,2\n")
    (tmp_path / "header.csv").write_text("x\n")
    (tmp_path / "nothing.jsonl").touch()
    asked = ("predict", bundle, "--output", tmp_path / "out.csv", "--input")
    cases: list[tuple[tuple[str | Path, ...], int, str]] = [
        ((table,), 2, "input 'x' has no column 'x'; there are 'a', 'b'"),
        ((table, "--column", "x"), 2, "--column 'x'; expected INPUT=COLUMN"),
        ((table, "--column", "x=a", "--column", "x=b"), 2, "maps input 'x' twice"),
        ((table, "--column", "x=a,b"), 1, "2 columns are given; the input takes [4] a row"),
        ((table, "--column", "x=a", "--key", "id"), 2, "has no column 'id'"),
        ((table, "--variant", "none"), 1, "has no variant 'none'"),
        ((tmp_path / "missing.csv",), 1, "no input at"),
        ((tmp_path / "header.csv",), 1, "header.csv holds no rows"),
        ((tmp_path / "nothing.jsonl",), 1, "nothing.jsonl holds no rows"),
        ((tmp_path / "in.xlsx",), 2, "ends in '.xlsx'"),
    ]
    for words, code, message in cases:
        done = tidegate(*asked, *words)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_rows_left_out_are_told_and_none_left_is_a_failure(tidegate: Command, tmp_path: Path) -> None:
    bundle, table, output = linear_bundle(tmp_path), tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("a,b,c,d\n1,2,3,4\n1,2,x,4\n")
    asked = ("predict", bundle, "--input", table, "--output", output, "--column", "x=a,b,c,d", "--on-error", "skip")
    done = tidegate(*asked)
    assert done.returncode == 0
    assert "1 rows were left out" in done.stderr
    assert done.stdout.splitlines()[1].split()[:3] == ["2", "1", "1"]
    table.write_text("a,b,c,d\n,,,\n")
    assert tidegate(*asked).returncode == 1
    assert output.read_text() == "row,y,total\n"


def test_options_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, source, out = linear_bundle(tmp_path, factor=2), tmp_path / "in.npz", tmp_path / "out.npz"
    rows = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    np.savez(source, x=rows)
    command = ["predict", str(bundle), "--input", str(source), "--output", str(out)]
    assert main(command) == 1
    assert "row 0" in capsys.readouterr().err
    whole = [*command, "--whole-inputs", "--backend", "onnx", "--threads", "1", "--batch-size", "2", "--json"]
    assert main(whole) == 2
    assert "throw it away with --restart" in capsys.readouterr().err
    assert main([*whole, "--restart"]) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == 3
    np.testing.assert_array_equal(np.load(out)["y"], 2 * rows)
    assert main([*command, "--whole-inputs", "--backend", "litert"]) == 1
    assert "no variant for backend 'litert'" in capsys.readouterr().err


def test_help_shows_an_example(tidegate: Command) -> None:
    done = tidegate("predict", "--help")
    assert done.returncode == 0
    assert "tidegate predict mlp.tide --input rows.parquet" in done.stdout
