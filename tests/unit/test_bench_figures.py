from collections import Counter

import msgspec
import numpy as np
import pytest

from tidegate.bench.environment import Moment, Probe
from tidegate.bench.figures import Timed, joined, result_of_server
from tidegate.bench.report import (
    SCHEMA,
    Blocks,
    ColdStart,
    Problem,
    Report,
    Result,
    Subject,
    encode,
    without_measurement,
    worst_verdict,
)
from tidegate.bench.table import model_table, notes, server_table
from tidegate.cli.commands.bench import exit_code
from tidegate.runtime.feeds import InputRecord
from tidegate.runtime.timing import Plan, Recording

BEFORE = Moment(clock_ns=0, load_1_min=0.0, pressure_us=0, steal_ticks=0, cpu_ticks=0, frequencies_khz=(1,))
AFTER = msgspec.structs.replace(BEFORE, clock_ns=1_000_000_000, cpu_ticks=100)
INPUT = InputRecord(origin="random", rows_per_call=2, shapes={"x": (2, 3)}, dtypes={"x": "FP32"}, notes=())


def server_result(latencies_ns: list[int], errors: dict[str, int], *, gave_up: bool = False) -> Result:
    blocks = Blocks(
        caller=[0] * len(latencies_ns),
        calls=[1] * len(latencies_ns),
        involuntary_switches=[0] * len(latencies_ns),
        cpu_ns=[1] * len(latencies_ns),
    )
    timed = Timed(np.asarray(latencies_ns, dtype=np.int64), blocks, 1_000_000_000, 500_000_000, BEFORE, AFTER)
    return result_of_server(
        "mlp",
        timed,
        platform="onnx",
        input=INPUT,
        cold_start=ColdStart(load_ns=1, first_call_ns=2),
        warm_up_calls=5,
        errors=Counter(errors),
        gave_up=gave_up,
        harness_floor_ns=70,
        keep_samples=True,
    )


def report_of(*results: Result) -> Report:
    return Report(
        schema=SCHEMA,
        started="2026-01-01T00:00:00+00:00",
        subject=Subject(kind="server", source="127.0.0.1:1", name="mlp", version="1.0.0"),
        scenario="single-stream",
        plan=Plan(),
        machine=Probe().machine(),
        trust=worst_verdict(results),
        results=results,
    )


def test_figures_of_known_calls() -> None:
    result = server_result([1_000, 2_000, 3_000, 4_000], {})
    assert result.status == "ok"
    assert result.throughput is not None
    assert (result.throughput.calls_per_s, result.throughput.rows_per_s) == (4.0, 8.0)
    assert result.cpu is not None
    assert (result.cpu.per_call_ns, result.cpu.cores_busy) == (125_000_000.0, 0.5)
    assert result.conditions is not None
    assert result.conditions.trust.verdict == "clean"
    assert exit_code(report_of(result), asked_by_name=False) == 0


def test_failed_calls_make_a_failed_result_that_keeps_its_latencies() -> None:
    result = server_result([1_000], {"ResourceError": 1, "DeadlineError": 2})
    assert result.status == "failed"
    assert result.problem is not None
    assert result.problem.message == "3 of 4 calls failed: 2 DeadlineError, 1 ResourceError"
    assert result.problem.kind == "DeadlineError"
    assert result.latency is not None
    assert exit_code(report_of(result), asked_by_name=False) == 1


def test_nothing_but_failures_has_no_latency_and_still_prints() -> None:
    result = server_result([], {"UnavailableError": 10}, gave_up=True)
    assert result.latency is None
    assert result.undisturbed is None
    assert result.stopped_by == "unavailable"
    report = report_of(result)
    header, rows = server_table(report)
    assert all(len(row) == len(header) for row in rows)
    assert any("gave up" in line for line in notes(report))
    assert b'"latency":null' in encode(report)


def test_table_names_the_proven_bounds_and_the_missing_calls() -> None:
    lines = notes(report_of(server_result(list(range(1_000, 1_100)), {})))
    assert any("p90 <= 1.10 µs, p99 needs 562 more calls" in line for line in lines)


@pytest.mark.parametrize(
    ("statuses", "asked_by_name", "code"),
    [
        (["ok", "not-runnable"], False, 0),
        (["ok", "not-runnable"], True, 1),
        (["not-runnable"], False, 1),
        (["ok", "crashed"], False, 1),
        (["ok", "failed"], False, 1),
    ],
)
def test_exit_code(statuses: list[str], asked_by_name: bool, code: int) -> None:
    problem = Problem(kind="X", message="because", fix=None)
    results = [
        server_result([1], {}) if status == "ok" else without_measurement("v", status, problem)  # type: ignore[arg-type]
        for status in statuses
    ]
    report = report_of(*results)
    assert exit_code(report, asked_by_name=asked_by_name) == code
    header, rows = model_table(report)
    assert all(len(row) == len(header) for row in rows)


def test_recordings_of_several_callers_lie_one_after_another() -> None:
    one = Recording(np.array([1, 2], np.int64), [2], [0], [5], Counter(InputError=1))
    two = Recording(np.array([3], np.int64), [1], [4], [6], Counter(InputError=2))
    latencies_ns, blocks, errors = joined([one, two])
    assert latencies_ns.tolist() == [1, 2, 3]
    assert (blocks.caller, blocks.calls, blocks.involuntary_switches) == ([0, 1], [2, 1], [0, 4])
    assert errors == {"InputError": 3}
