import pytest

from tidegate.bench.scenario import concurrent_streams
from tidegate.errors import ConfigError, ModelError, ResourceError, TidegateError, UnavailableError
from tidegate.runtime.timing import (
    BLOCK_CALLS_LIMIT,
    UNAVAILABLE_LIMIT,
    Plan,
    WarmUp,
    block_calls_for,
    harness_floor_ns,
    single_stream,
    warm_up,
)

QUICK = Plan(minimum_duration_s=0, minimum_calls=50, warm_up_s=0, warm_up_calls=3)
WARM = WarmUp(calls=1, median_ns=100_000)


class Scripted:
    """Fails at the calls that the script names, counting from 1."""

    def __init__(self, script: dict[int, TidegateError] | None = None, always: TidegateError | None = None) -> None:
        self.calls = 0
        self._script = script or {}
        self._always = always

    def call(self) -> None:
        self.calls += 1
        error = self._script.get(self.calls, self._always)
        if error is not None:
            raise error

    def close(self) -> None:
        pass


def test_every_call_has_a_latency_and_lies_in_a_block() -> None:
    system = Scripted()
    recording = single_stream(system, QUICK, WARM)
    assert len(recording.latencies_ns) == system.calls >= 50
    assert sum(recording.block_calls) == system.calls
    assert len(recording.block_cpu_ns) == len(recording.block_calls)
    assert len(recording.block_switches) in (0, len(recording.block_calls))
    assert (recording.latencies_ns > 0).all()
    assert recording.elapsed_ns >= recording.latencies_ns.sum()


def test_goes_on_until_both_minimums_are_met() -> None:
    system = Scripted()
    recording = single_stream(system, Plan(minimum_duration_s=0.05, minimum_calls=1), WARM)
    assert recording.elapsed_ns >= 50_000_000
    assert system.calls > 1


def test_far_more_calls_than_the_warm_up_promised_still_fit() -> None:
    system = Scripted()
    recording = single_stream(system, Plan(minimum_duration_s=0.02, minimum_calls=1), WarmUp(1, 10_000_000))
    assert len(recording.latencies_ns) == system.calls > 10
    assert (recording.latencies_ns > 0).all()


def test_tolerated_errors_are_counted_and_leave_no_latency() -> None:
    system = Scripted({2: ResourceError("full"), 3: ResourceError("full"), 9: UnavailableError("away")})
    recording = single_stream(system, QUICK, WARM, tolerated=(TidegateError,))
    assert recording.errors == {"ResourceError": 2, "UnavailableError": 1}
    assert len(recording.latencies_ns) == system.calls - 3
    assert sum(recording.block_calls) == system.calls - 3
    assert recording.stopped_by == "enough"


def test_an_error_that_is_not_tolerated_ends_the_run() -> None:
    with pytest.raises(ModelError):
        single_stream(Scripted({5: ModelError("broken")}), QUICK, WARM)


def test_a_caller_gives_up_when_the_server_stays_away() -> None:
    system = Scripted(always=UnavailableError("away"))
    recording = single_stream(system, Plan(minimum_duration_s=60), WARM, tolerated=(TidegateError,))
    assert recording.stopped_by == "unavailable"
    assert UNAVAILABLE_LIMIT <= recording.errors["UnavailableError"] < 100
    assert len(recording.latencies_ns) == 0


def test_a_server_that_always_refuses_does_not_run_for_ever() -> None:
    recording = single_stream(Scripted(always=ResourceError("full")), QUICK, WARM, tolerated=(TidegateError,))
    assert recording.errors["ResourceError"] >= 50


def test_concurrent_callers_share_the_minimum() -> None:
    systems = [Scripted() for _ in range(3)]
    recordings = concurrent_streams(systems, QUICK, WarmUp(1, 10_000_000), tolerated=())
    assert [len(recording.latencies_ns) for recording in recordings] == [system.calls for system in systems]
    assert all(system.calls >= 17 for system in systems)


def test_an_error_of_one_concurrent_caller_is_raised() -> None:
    with pytest.raises(ModelError):
        concurrent_streams([Scripted(), Scripted({5: ModelError("broken")})], QUICK, WARM, tolerated=())


def test_warm_up_counts_its_calls() -> None:
    system = Scripted()
    assert warm_up(system, QUICK).calls == system.calls == 3


@pytest.mark.parametrize(
    ("call_ns", "calls"), [(0, BLOCK_CALLS_LIMIT), (1_000, 1_000), (4_000, 250), (900_000, 1), (10**9, 1)]
)
def test_block_size(call_ns: int, calls: int) -> None:
    assert block_calls_for(call_ns) == calls


def test_floor_is_there() -> None:
    assert harness_floor_ns() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"minimum_duration_s": -1.0},
        {"minimum_duration_s": float("nan")},
        {"minimum_duration_s": float("inf")},
        {"minimum_calls": 0},
        {"warm_up_calls": 0},
        {"concurrency": 0},
    ],
)
def test_plans_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Plan(**wrong)  # type: ignore[arg-type]
