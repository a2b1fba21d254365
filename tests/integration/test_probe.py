"""The probe on models that are really good and really bad, in real child processes."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.processes import children_of, has_loaded, is_there, runs
from tests.slots import ROWS, endless, hungry, install, slow, times, write_model
from tests.waiting import wait_until

from tidegate.bundle import Budgets, Bundle
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.probe import ProbeReport, ProbeSettings, probe
from tidegate.errors import ConfigError, DependencyError, ResourceError

QUICK = ProbeSettings(timeout_s=60, calls=30, minimum_duration_s=0.05, warm_up_s=0.01)
GENEROUS = Budgets(latency_p95_ms=1_000, rss_mb=1_000)
DEADLINE_S = 60.0


def probed(
    directory: Path, model: bytes, settings: ProbeSettings = QUICK, *, budgets: Budgets | None = None, factor: float = 2
) -> ProbeReport:
    """Probe a model that promises to multiply by `factor`."""
    bundle = write_model(directory / "probed.tide", model, golden=ROWS * factor, budgets=budgets)
    return probe(directory, install(directory, bundle, "only", release=1), settings)


def test_a_good_model_passes_and_is_measured(tmp_path: Path) -> None:
    report = probed(tmp_path, times(2), budgets=GENEROUS)
    assert report.passed, report.problem
    assert report.problem == ""
    assert report.latency_p95_ms is not None
    assert 0 < report.latency_p95_ms < 1_000
    assert report.rss_mb is not None
    assert 10 < report.rss_mb < 1_000
    assert report.maximum_error == 0
    assert report.runtime.startswith("onnxruntime ")
    assert report.calls >= QUICK.calls


def test_the_shipped_bundle_passes_on_both_runtimes(tmp_path: Path) -> None:
    bundle = Path(__file__).parents[2] / "examples" / "voice_commands" / "voice-commands.tide"
    for variant in ("tflite-int8", "onnx-fp32"):
        report = probe(tmp_path, install(tmp_path, bundle, variant, release=1), QUICK)
        assert report.passed, report.problem


def test_wrong_output_fails(tmp_path: Path) -> None:
    report = probed(tmp_path, times(3))
    assert not report.passed
    assert report.maximum_error == 4
    assert "'y' is off by 4; the tolerance is 1e-05" in report.problem


def test_the_variants_own_tolerance_counts(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "a.tide", times(2.001), golden=ROWS * 2, tolerance=0.1)
    assert probe(tmp_path, install(tmp_path, bundle, "only", release=1), QUICK).passed


def test_a_model_that_is_ten_times_slower_than_its_budget_fails(tmp_path: Path) -> None:
    budgets = Budgets(latency_p95_ms=2)
    assert probed(tmp_path, times(2), budgets=budgets).passed
    report = probed(tmp_path, slow(2), replace(QUICK, calls=1), budgets=budgets)
    assert not report.passed
    assert "the budget is 2 ms" in report.problem
    assert report.latency_p95_ms is not None
    assert report.latency_p95_ms > 10 * budgets.latency_p95_ms
    assert report.maximum_error is not None
    assert report.maximum_error < 1e-5


def test_budgets_of_zero_are_not_judged(tmp_path: Path) -> None:
    report = probed(tmp_path, slow(2), replace(QUICK, calls=1), budgets=Budgets())
    assert report.passed, report.problem


def test_more_memory_than_the_budget_fails(tmp_path: Path) -> None:
    report = probed(tmp_path, hungry(2, megabytes=200), budgets=Budgets(rss_mb=150))
    assert not report.passed
    assert report.rss_mb is not None
    assert report.rss_mb > 200
    assert "the budget is 150 MB" in report.problem


def test_a_model_that_takes_four_gigabytes_is_stopped(tmp_path: Path) -> None:
    report = probed(tmp_path, hungry(2, megabytes=4_000))
    assert not report.passed
    assert "Failed to allocate memory" in report.problem or "it was stopped at 1024 MB" in report.problem


def test_the_parent_stops_a_child_that_grows_below_the_systems_limit(tmp_path: Path) -> None:
    report = probed(tmp_path, hungry(2, megabytes=900), replace(QUICK, memory_limit_mb=300))
    assert not report.passed
    assert "it was stopped at 300 MB" in report.problem


def test_a_model_that_never_answers_is_stopped(tmp_path: Path) -> None:
    report = probed(tmp_path, endless(), replace(QUICK, timeout_s=5))
    assert not report.passed
    # How far it got in 5 s, a busy machine decides.
    assert report.problem.startswith("no answer within 5 s while ")


@pytest.mark.parametrize("backend", ["onnx", "litert"])
def test_a_truncated_model_file_fails(tmp_path: Path, backend: str) -> None:
    """The digest is right: it was truncated before the bundle was made."""
    whole = times(2) if backend == "onnx" else (Path(__file__).parents[1] / "data" / "dense.tflite").read_bytes()
    bundle = write_model(tmp_path / "a.tide", whole[: len(whole) // 2], backend=backend)
    report = probe(tmp_path, install(tmp_path, bundle, "only", release=1), QUICK)
    assert not report.passed
    assert report.problem.startswith("ModelError: ")


def test_a_byte_that_changed_on_the_disk_fails_before_anything_runs(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "a.tide", times(2), golden=ROWS * 2)
    slot = install(tmp_path, bundle, "only", release=1)
    path = Layout(tmp_path).store.path(slot.variant_sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    report = probe(tmp_path, slot, QUICK)
    assert not report.passed
    assert slot.variant_sha256[:12] in report.problem


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_child_that_dies_of_a_signal_fails(tmp_path: Path, number: signal.Signals) -> None:
    reports: list[ProbeReport] = []
    thread = threading.Thread(target=lambda: reports.append(probed(tmp_path, endless())))
    thread.start()
    os.kill(worker_of(os.getpid()), number)
    thread.join(DEADLINE_S)
    assert not reports[0].passed
    assert f"the child process ended with {number.name} while" in reports[0].problem


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "a.tide", endless(), golden=ROWS)
    install(tmp_path, bundle, "only", release=1)
    program = f"""
        from pathlib import Path
        from tests.slots import install
        from tidegate.edge.update.probe import ProbeSettings, probe
        slot = install(Path({str(tmp_path)!r}), Path({str(bundle)!r}), "only", release=1)
        probe(Path({str(tmp_path)!r}), slot, ProbeSettings())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2])
    try:
        child = worker_of(parent.pid)
    finally:
        parent.kill()
        parent.wait(DEADLINE_S)
    wait_until(lambda: not is_there(child))


def test_a_child_that_only_says_that_it_passed_is_not_believed(tmp_path: Path) -> None:
    forged = '{"type":"measured","token":"","runtime":"r","provider":"p","calls":1,"latency_p95_ns":1,'
    forged += '"peak_rss_bytes":1,"maximum_error":0.0,"golden_problems":[]}'
    with interpreter(tmp_path, f"print('{forged}')") as python:
        report = probed(tmp_path, times(2), replace(QUICK, python=python))
    assert not report.passed
    assert "without its token" in report.problem


def test_report_and_exit_code_must_agree(tmp_path: Path) -> None:
    program = """
        import json, sys
        job = json.loads(sys.stdin.readline())
        print(json.dumps({"type": "measured", "token": job["token"], "runtime": "r", "provider": "p", "calls": 1,
            "latency_p95_ns": 1, "peak_rss_bytes": 1, "maximum_error": 0.0, "golden_problems": []}))
        sys.exit(1)
    """
    with interpreter(tmp_path, textwrap.dedent(program)) as python:
        report = probed(tmp_path, times(2), replace(QUICK, python=python))
    assert not report.passed
    assert "ended with exit 1; expected exit 0" in report.problem


def test_noise_on_standard_output_is_no_outcome(tmp_path: Path) -> None:
    with interpreter(tmp_path, "print('passed'); import sys; print('last words', file=sys.stderr)") as python:
        report = probed(tmp_path, times(2), replace(QUICK, python=python))
    assert report.problem == "the child process ended with exit 0 while starting; its last words: last words"


def test_a_machine_that_cannot_start_a_child_is_not_the_versions_fault(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no child process could be started"):
        probed(tmp_path, times(2), replace(QUICK, python=str(tmp_path / "missing")))


def test_a_runtime_that_is_not_installed_is_not_the_versions_fault(tmp_path: Path) -> None:
    from msgspec.structs import replace as replaced

    from tidegate.bundle import write_bundle

    with Bundle.open(write_model(tmp_path / "a.tide", times(2))) as bundle:
        variant = replaced(bundle.manifest.variants[0], minimum_runtime="999.0")
        files = {file.path: bundle.read(file.path) for file in bundle.files}
        write_bundle(replaced(bundle.manifest, variants=(variant,)), files, tmp_path / "b.tide")
    with pytest.raises(DependencyError, match=r"needs version 999\.0"):
        probe(tmp_path, install(tmp_path, tmp_path / "b.tide", "only", release=1), QUICK)


@pytest.mark.parametrize("changed", [{"timeout_s": 0}, {"calls": 0}, {"memory_limit_mb": -1}, {"attempts": 0}])
def test_settings_that_cannot_be_meant_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"probe {next(iter(changed))} is"):
        ProbeSettings(**changed)  # type: ignore[arg-type]


@contextmanager
def interpreter(directory: Path, program: str) -> Iterator[str]:
    """Give an executable that runs `program` whatever module it is asked for."""
    (directory / "program.py").write_text(program)
    path = directory / "interpreter"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{directory / "program.py"}"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    yield str(path)


def worker_of(parent: int) -> int:
    """Return the process id of the probe's child, once it has loaded its libraries."""
    found: list[int] = []

    def has_worker() -> bool:
        found.extend(pid for pid in children_of(parent) if runs(pid, "probe_worker") and has_loaded(pid, "onnxruntime"))
        return bool(found)

    wait_until(has_worker)
    return found[0]
