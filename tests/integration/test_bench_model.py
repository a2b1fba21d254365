import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.served import linear_bundle, with_golden
from tests.terminals import run_on_terminal
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bench import report as reports
from tidegate.bench.child import Progress
from tidegate.bench.runner import ModelOptions, bench_model
from tidegate.bundle import Bundle, GoldenFixture, Variant, digest, write_bundle
from tidegate.cli.main import main
from tidegate.errors import NotFoundError
from tidegate.runtime.timing import Plan

QUICK = Plan(minimum_duration_s=0.05, minimum_calls=100, warm_up_s=0.01)
QUICK_WORDS = ["--min-duration-s", "0.05", "--min-calls", "100", "--warm-up-s", "0.01"]
TFLITE = Path(__file__).parents[1] / "data" / "dense.tflite"
X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runnable variants, one for a runtime that nobody has, one that is not a model at all; a golden fixture."""
    directory = tmp_path_factory.mktemp("bench")
    fixture = GoldenFixture({"x": X}, {"y": X, "total": X.sum(axis=1, keepdims=True)})
    one = with_golden(linear_bundle(directory), fixture, tolerance=1e-6)
    with Bundle.open(one) as opened:
        manifest, files = opened.manifest, {file.path: opened.read(file.path) for file in opened.files}
    model = files["variants/model.onnx"]
    contents = {"first": model, "second": model, "future": model, "broken": b"no model"}
    manifest = msgspec.structs.replace(
        manifest,
        variants=tuple(
            Variant(
                id=id,
                backend="onnx",
                precision="fp32",
                file=f"variants/{id}.onnx",
                sha256=digest(content),
                size_bytes=len(content),
                minimum_runtime="999.0" if id == "future" else "",
            )
            for id, content in contents.items()
        ),
    )
    out = directory / "several.tide"
    golden = {"golden.npz": files["golden.npz"]}
    write_bundle(manifest, {f"variants/{id}.onnx": content for id, content in contents.items()} | golden, out)
    return out


@pytest.fixture(scope="module")
def report(bundle: Path) -> reports.Report:
    return bench_model(str(bundle), ModelOptions(plan=QUICK))


def test_every_variant_is_in_the_report(report: reports.Report) -> None:
    assert {result.name: result.status for result in report.results} == {
        "first": "ok",
        "second": "ok",
        "future": "not-runnable",
        "broken": "failed",
    }
    problems = {result.name: result.problem for result in report.results if result.problem is not None}
    assert "999.0" in problems["future"].message
    assert problems["broken"].kind == "ModelError"


def test_samples_latencies_and_blocks_agree(report: reports.Report) -> None:
    for result in report.results[:2]:
        assert result.latency is not None
        assert result.samples_ns is not None
        assert result.blocks is not None
        assert result.undisturbed is not None
        assert result.latency.calls == len(result.samples_ns) == sum(result.blocks.calls) >= 100
        ordered = sorted(result.samples_ns)
        assert result.latency.p50_ns == ordered[(len(ordered) + 1) // 2 - 1]
        assert result.latency.maximum_ns == ordered[-1]
        assert result.elapsed_ns is not None
        assert result.elapsed_ns >= max(sum(ordered), 50_000_000)


def test_every_figure_is_there(report: reports.Report) -> None:
    first = report.results[0]
    assert first.backend == "onnx"
    assert first.runtime is not None
    assert first.runtime.startswith("onnxruntime ")
    assert first.provider == "CPUExecutionProvider"
    assert first.cold_start is not None
    assert first.cold_start.load_ns > 0
    assert first.cold_start.first_call_ns > 0
    assert first.throughput is not None
    assert first.throughput.calls_per_s > 0
    assert first.cpu is not None
    assert first.cpu.process == "model"
    assert first.cpu.per_call_ns > 0
    assert first.conditions is not None
    assert first.input is not None
    assert first.input.origin == "golden"
    assert first.input.shapes == {"x": (1, 4)}


def test_memory_of_a_runtime_is_more_than_nothing(report: reports.Report) -> None:
    memory = report.results[0].memory
    assert memory is not None
    assert memory.above_baseline_bytes is not None
    assert memory.above_baseline_bytes > 1_000_000


def test_json_holds_every_field_of_the_schema(report: reports.Report) -> None:
    raw = reports.encode(report)
    assert reports.decode(raw) == report
    assert set(json.loads(raw)) == set(reports.json_schema()["$defs"]["Report"]["properties"])
    assert json.loads(raw)["schema"] == "tidegate.bench/1"


def test_a_killed_child_is_reported_and_the_rest_goes_on(bundle: Path) -> None:
    def kill_the_first(progress: Progress) -> None:
        if progress.name == "first" and progress.phase == "timing":
            os.kill(progress.pid, signal.SIGKILL)

    plan = Plan(minimum_duration_s=1, minimum_calls=1, warm_up_s=0)
    report = bench_model(str(bundle), ModelOptions(variants=("first", "second"), plan=plan), kill_the_first)
    killed, other = report.results
    assert killed.status == "crashed"
    assert killed.problem is not None
    assert killed.problem.kind == "SIGKILL"
    assert killed.latency is None
    assert other.status == "ok"


def test_batch_repeats_the_rows_of_the_fixture(bundle: Path) -> None:
    report = bench_model(str(bundle), ModelOptions(variants=("first",), batch=5, plan=QUICK))
    (result,) = report.results
    assert result.input is not None
    assert result.throughput is not None
    assert result.input.shapes == {"x": (5, 4)}
    assert result.input.notes
    assert result.throughput.rows_per_s == pytest.approx(5 * result.throughput.calls_per_s)


def test_bare_model_file(bundle: Path, tmp_path: Path) -> None:
    model = tmp_path / "bare.onnx"
    with Bundle.open(bundle) as opened:
        model.write_bytes(opened.variant_bytes("first"))
    report = bench_model(str(model), ModelOptions(plan=QUICK))
    assert report.subject.kind == "model-file"
    assert report.results[0].status == "ok"
    assert report.results[0].input is not None
    assert report.results[0].input.origin == "random"


def test_bare_tflite_file_runs_on_its_own_runtime() -> None:
    report = bench_model(str(TFLITE), ModelOptions(plan=QUICK))
    (result,) = report.results
    assert result.status == "ok"
    assert result.backend == "litert"
    assert result.name == "dense.tflite"


def test_unknown_variant_names_those_that_exist(bundle: Path) -> None:
    with pytest.raises(NotFoundError, match=r"first, second, future, broken"):
        bench_model(str(bundle), ModelOptions(variants=("third",)))


def test_command_writes_the_report_and_prints_a_table(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, given = tmp_path / "report.json", tmp_path / "in.npz"
    np.savez(given, x=X)
    words = ["bench", str(bundle), "--variant", "second", "--input", str(given), "-o", str(out), *QUICK_WORDS]
    assert main(words) == 0
    (result,) = reports.decode(out.read_bytes()).results
    assert result.samples_ns
    assert result.input is not None
    assert (result.input.origin, result.input.rows_per_call) == ("file", 3)
    captured = capfd.readouterr()
    assert "second" in captured.out
    assert "machine " in captured.out
    assert captured.err == ""


def test_standard_output_is_json_and_nothing_else(bundle: Path) -> None:
    command = [sys.executable, "-m", "tidegate.cli", "bench", str(bundle), "--json", "--no-samples", *QUICK_WORDS]
    done = subprocess.run(command, capture_output=True, check=False, timeout=COMMAND_TIMEOUT_S)
    report = reports.decode(done.stdout)
    assert done.returncode == 1  # `broken` failed
    assert done.stderr == b""
    assert [result.samples_ns for result in report.results] == [None] * 4


def test_a_terminal_sees_a_bar_and_standard_output_stays_clean(bundle: Path) -> None:
    command = [sys.executable, "-m", "tidegate.cli", "bench", str(bundle), "--variant", "first", "--json", *QUICK_WORDS]
    done, seen = run_on_terminal(command)
    assert "first: timing [" in seen
    assert reports.decode(done.stdout).results[0].status == "ok"


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ([], 2, "expected a BUNDLE or --server"),
        (["{bundle}", "--server", "127.0.0.1:1"], 2, "expected a BUNDLE or --server"),
        (["{bundle}", "--concurrency", "2"], 2, "--concurrency goes with --server"),
        (["--server", "127.0.0.1:1", "--threads", "2"], 2, "--threads goes with a BUNDLE"),
        (["{bundle}", "--batch", "0"], 2, "batch is 0"),
        (["{bundle}", "--threads", "0"], 2, "threads is 0"),
        (["{bundle}", "--min-calls", "0"], 2, "number of calls is 0"),
        (["{bundle}", "-o", "nowhere/report.json"], 2, "nowhere is not a directory"),
        (["{bundle}", "--variant", "third"], 1, "first, second, future, broken"),
        (["{bundle}", "--input", "nowhere.npz"], 1, "there is no file nowhere.npz"),
        (["nowhere.tide"], 1, "nowhere.tide"),
        (["nowhere.onnx"], 1, "nowhere.onnx"),
    ],
)
def test_bad_use(words: list[str], code: int, complaint: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *(word.format(bundle=bundle) for word in words)]) == code
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


def test_a_variant_asked_for_by_name_that_cannot_run_is_a_failure(bundle: Path) -> None:
    assert main(["bench", str(bundle), "--variant", "future", *QUICK_WORDS]) == 1
