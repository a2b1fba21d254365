"""The trial by table and by property; the health file with real files and real processes."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle.manifest import TrialSettings
from tidegate.edge.update.counters import RESTARTS_KEPT, Counters, most_within
from tidegate.edge.update.health import RELEASES_KEPT, Health, HealthWriter, read_health
from tidegate.edge.update.trial import FALSE_ALARM, FEWEST_BAD_CALLS, judge, log_evidence, proves_over, thresholds
from tidegate.errors import ConfigError

SETTINGS = TrialSettings(minimum_calls=50, minimum_s=300, deadline_s=86_400)
LATER = 1_000.0
AT_DEADLINE = 86_400.0


@pytest.mark.parametrize(
    ("counters", "elapsed_s", "decision", "reason"),
    [
        (Counters(), 0, "wait", "0 calls; expected at least 50"),
        (Counters(calls=49), LATER, "wait", "49 calls; expected at least 50"),
        (Counters(calls=50), 299, "wait", "299 s in use; expected at least 300 s"),
        (Counters(calls=50), -5, "wait", "0 s in use"),
        (Counters(calls=50), LATER, "commit", "50 calls in 1000 s"),
        (Counters(calls=100, failed=2), LATER, "commit", "every share within"),
        # Over the maximum, and not proven: nothing is decided yet.
        (Counters(calls=100, failed=3), LATER, "wait", "3 of 100 calls failed (3.0%); expected at most 2.0%, but"),
        (Counters(calls=100, failed=3), AT_DEADLINE, "roll back", "at the deadline 3 of 100 calls failed"),
        # A few early failures out of few calls.
        (Counters(calls=4, failed=4), 1, "wait", "4 calls"),
        (Counters(calls=5, failed=5), 1, "roll back", "5 of 5 calls failed (100.0%)"),
        (Counters(calls=5, reported=5), 1, "roll back", "5 of 5 calls failed"),
        (Counters(calls=1, failed=1), AT_DEADLINE, "roll back", "at the deadline 1 of 1 calls failed"),
        (Counters(calls=0, reported=1), AT_DEADLINE, "roll back", "at the deadline 1 of 1"),
        (Counters(calls=1000, failed=60), 1, "roll back", "60 of 1000"),
        # Latency: 5 % over a 95th percentile are as they should be.
        (Counters(calls=100, over_budget=5), LATER, "commit", ""),
        (Counters(calls=100, over_budget=60), LATER, "roll back", "60 of 100 calls were over the latency budget"),
        # Empty answers are not looked at unless asked for.
        (Counters(calls=100, answers=100, empty=100), LATER, "commit", ""),
        (Counters(calls=100, load_failures=1), LATER, "commit", ""),
        (Counters(load_failures=2, last_problem="no memory"), 0, "roll back", "2 failed loads; expected at most 1;"),
        (Counters(restarts=(0.0, 20.0, 40.0)), 0, "wait", ""),
        (Counters(restarts=(0.0, 20.0, 40.0, 60.0)), 0, "roll back", "4 processes ended without a clean close within"),
        (Counters(restarts=(0.0, 30.0, 61.0, 92.0, 123.0)), 0, "wait", ""),
        (Counters(calls=4, refused=4), 0, "wait", ""),
        (Counters(calls=5, refused=5), 0, "roll back", "the input of all 5 calls was refused"),
        (Counters(calls=50, refused=49), LATER, "commit", ""),
        (Counters(unusable=1, last_problem="no prefilter"), 0, "roll back", "an app cannot work with it; the last"),
        # Nobody called: it passed its probe, and nothing speaks against it.
        (Counters(), AT_DEADLINE, "commit", "nobody called it until the deadline"),
        (Counters(calls=7), AT_DEADLINE, "commit", "7 calls until the deadline"),
    ],
)  # fmt: skip
def test_the_table(counters: Counters, elapsed_s: float, decision: str, reason: str) -> None:
    verdict = judge(counters, SETTINGS, elapsed_s=elapsed_s)
    assert verdict.decision == decision, verdict
    assert reason in verdict.reason


def test_empty_answers_count_when_the_release_says_so() -> None:
    settings = TrialSettings(maximum_empty_rate=0.5, minimum_s=0)
    counters = Counters(calls=900, answers=90, empty=80)
    assert judge(counters, settings, elapsed_s=0).decision == "roll back"
    assert "80 of 90 answers were empty" in judge(counters, settings, elapsed_s=0).reason


def test_lost_counters_are_no_evidence_of_health() -> None:
    plenty = Counters(calls=10_000)
    assert judge(plenty, SETTINGS, elapsed_s=LATER).decision == "commit"
    assert judge(plenty, SETTINGS, elapsed_s=LATER, is_readable=False).decision == "wait"
    assert judge(plenty, SETTINGS, elapsed_s=AT_DEADLINE, is_readable=False).decision == "roll back"


counts = st.integers(0, 5_000)


@given(calls=counts, failed=counts, slow=counts, elapsed_s=st.floats(0, 2 * AT_DEADLINE))
def test_more_failures_never_make_a_verdict_better(calls: int, failed: int, slow: int, elapsed_s: float) -> None:
    failed, slow = min(failed, calls), min(slow, calls)
    order = {"commit": 0, "wait": 1, "roll back": 2}
    before = judge(Counters(calls=calls, failed=failed, over_budget=slow), SETTINGS, elapsed_s=elapsed_s)
    if failed < calls:
        after = judge(Counters(calls=calls, failed=failed + 1, over_budget=slow), SETTINGS, elapsed_s=elapsed_s)
        assert order[after.decision] >= order[before.decision]


@given(calls=counts, failed=st.integers(0, FEWEST_BAD_CALLS - 1), elapsed_s=st.floats(0, AT_DEADLINE - 1))
def test_few_failures_never_roll_back_before_the_deadline(calls: int, failed: int, elapsed_s: float) -> None:
    counters = Counters(calls=max(calls, failed), failed=failed)
    assert judge(counters, SETTINGS, elapsed_s=elapsed_s).decision != "roll back"


@given(calls=counts, elapsed_s=st.floats(AT_DEADLINE, 10 * AT_DEADLINE), failed=counts)
def test_at_the_deadline_it_is_decided(calls: int, elapsed_s: float, failed: int) -> None:
    assert judge(Counters(calls=calls, failed=min(failed, calls)), SETTINGS, elapsed_s=elapsed_s).decision != "wait"


@pytest.mark.parametrize("maximum", [0.02, 0.2, 0.5])
def test_a_version_at_its_maximum_is_rarely_rolled_back_however_often_one_looks(maximum: float) -> None:
    """Exactly, by walking through every history of 1000 calls with a look after each."""
    probability = {0: 1.0}
    rolled_back = 0.0
    for calls in range(1, 1_001):
        following: dict[int, float] = {}
        for bad, weight in probability.items():
            following[bad] = following.get(bad, 0.0) + weight * (1 - maximum)
            following[bad + 1] = following.get(bad + 1, 0.0) + weight * maximum
        limit = next((bad for bad in sorted(following) if proves_over(bad, calls, maximum)), math.inf)
        rolled_back += sum(weight for bad, weight in following.items() if bad >= limit)
        probability = {bad: weight for bad, weight in following.items() if bad < limit and weight > 1e-12}
    assert 0 < rolled_back <= FALSE_ALARM


@pytest.mark.parametrize(("share", "most_calls"), [(1.0, 5), (0.5, 20), (0.1, 200), (0.05, 700)])
def test_a_bad_version_is_found_within_so_many_calls(share: float, most_calls: int) -> None:
    found = next(calls for calls in range(1, 10_000) if proves_over(int(share * calls), calls, 0.02))
    assert found <= most_calls


def test_evidence_agrees_with_numerical_integration() -> None:
    bad, calls, maximum = 7, 60, 0.05
    steps = 200_000
    width = (1 - maximum) / steps
    shares = [maximum + (step + 0.5) * width for step in range(steps)]
    mean = sum(share**bad * (1 - share) ** (calls - bad) for share in shares) / steps
    at_maximum = maximum**bad * (1 - maximum) ** (calls - bad)
    assert log_evidence(bad, calls, maximum) == pytest.approx(math.log(mean / at_maximum), rel=1e-6)


@pytest.mark.parametrize(("bad", "maximum", "expected"), [(1, 0.0, True), (0, 0.0, False), (100, 1.0, False)])
def test_the_ends_of_the_scale(bad: int, maximum: float, expected: bool) -> None:
    assert proves_over(bad, 100, maximum) is expected


def test_the_devices_own_thresholds_go_before_the_releases() -> None:
    releases = TrialSettings(minimum_calls=7, maximum_failure_rate=0.1)
    found = thresholds(releases, {"minimum_calls": 9})
    assert (found.minimum_calls, found.maximum_failure_rate) == (9, 0.1)
    assert thresholds(None, {}) == TrialSettings()


@pytest.mark.parametrize("overrides", [{"minimum_call": 1}, {"minimum_calls": "many"}])
def test_wrong_thresholds_are_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="trial"):
        thresholds(None, overrides)


@given(st.lists(st.floats(0, 1_000), max_size=40), st.floats(0.1, 100))
def test_most_within_agrees_with_the_definition(moments: list[float], span: float) -> None:
    ordered = tuple(sorted(moments))
    naive = max((sum(first <= one and one - first <= span for one in ordered) for first in ordered), default=0)
    assert most_within(ordered, span) == naive


def test_two_writers_add_up(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    one, other = HealthWriter(path), HealthWriter(path)
    for writer in (one, other, one):
        writer.add(7, Counters(calls=10, failed=1, restarts=(1.0,), last_problem="no"))
        writer.write()
    found = read_health(path).of(7)
    assert found == Counters(calls=30, failed=3, restarts=(1.0, 1.0, 1.0), last_problem="no")
    assert read_health(path).of(8) == Counters()


def test_counts_are_written_at_most_once_in_the_interval_and_at_close(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    writer = HealthWriter(path, interval_s=1_000)
    writer.add(1, Counters(calls=1))
    assert writer.write_if_due() is not None
    writer.add(1, Counters(calls=1))
    assert writer.write_if_due() is None
    assert read_health(path).of(1).calls == 1
    writer.close()
    assert read_health(path).of(1).calls == 2
    assert read_health(path).processes == {}


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"schema": "other/1"}', b'{"releases": {"x": 1}}', b"[]"])
def test_a_damaged_file_is_no_evidence_and_is_begun_again(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "health.json"
    path.write_bytes(damage)
    assert not read_health(path).is_readable
    writer = HealthWriter(path)
    writer.add(1, Counters(calls=3))
    writer.write()
    assert read_health(path) == Health(releases={1: Counters(calls=3)})


def test_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read_health(tmp_path / "health.json") == Health()


def test_a_directory_that_refuses_keeps_the_counts_for_later(tmp_path: Path) -> None:
    directory = tmp_path / "device"
    writer = HealthWriter(directory / "health.json")
    writer.add(1, Counters(calls=5))
    writer.write()
    assert "could not be" in writer.problem
    directory.mkdir()
    writer.write()
    assert writer.problem == ""
    assert read_health(directory / "health.json").of(1).calls == 5


def test_old_releases_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    writer = HealthWriter(path)
    for release in (1, 2, 3, 4, 5, 1, 6):
        writer.add(release, Counters(calls=1))
        writer.write()
    assert list(read_health(path).releases) == [4, 5, 1, 6]
    assert len(read_health(path).releases) == RELEASES_KEPT


def test_only_so_many_restarts_are_kept() -> None:
    counters = Counters()
    for moment in range(100):
        counters.add(Counters(restarts=(float(moment),)))
    assert counters.restarts == tuple(float(moment) for moment in range(100 - RESTARTS_KEPT, 100))


@pytest.mark.parametrize(("stage", "load_failures"), [("loading", 1), ("running", 0)])
def test_a_process_that_was_killed_is_a_restart(tmp_path: Path, stage: str, load_failures: int) -> None:
    path = tmp_path / "health.json"
    kill_one(path, stage)
    before = read_health(path)
    assert [process.stage for process in before.processes.values()] == [stage]
    after = HealthWriter(path, clock=lambda: 99.0).began(3, "1.0.0", "running")
    assert after.of(3).restarts == (99.0,)
    assert (after.of(3).load_failures, after.of(3).crashed_loads) == (load_failures, load_failures)
    assert len(read_health(path).processes) == 1


def test_processes_that_died_together_are_one_restart(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    for _ in range(3):
        kill_one(path, "running", keep=True)
    after = HealthWriter(path, clock=lambda: 5.0).began(4, "1.0.0", "running")
    assert after.of(3).restarts == (5.0,)


def test_a_power_cut_is_no_restart(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    kill_one(path, "running")
    health = read_health(path)
    health.processes = {
        pid: msgspec.structs.replace(process, boot="another boot") for pid, process in health.processes.items()
    }
    path.write_bytes(msgspec.json.encode(health))
    assert HealthWriter(path).began(3, "1.0.0", "running").of(3) == Counters()


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    """In a container every app is process 1."""
    path = tmp_path / "health.json"
    writer = HealthWriter(path, clock=lambda: 7.0)
    writer.began(3, "1.0.0", "running")
    health = read_health(path)
    health.processes = {pid: msgspec.structs.replace(process, started="1") for pid, process in health.processes.items()}
    path.write_bytes(msgspec.json.encode(health))
    assert writer.began(3, "1.0.0", "running").of(3).restarts == (7.0,)


def test_a_running_process_is_no_restart(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    HealthWriter(path).began(3, "1.0.0", "running")
    assert HealthWriter(path).began(3, "1.0.0", "running").of(3).restarts == ()


def kill_one(path: Path, stage: str, *, keep: bool = False) -> None:
    """Let a process note itself and die without a close; with `keep`, beside those that are noted already."""
    noted = read_health(path).processes
    program = (
        "import os, signal, sys; from pathlib import Path; from tidegate.edge.update.health import HealthWriter;"
        f"HealthWriter(Path({str(path)!r})).began(3, '1.0.0', {stage!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, timeout=COMMAND_TIMEOUT_S)
    if keep:
        health = read_health(path)
        health.processes |= noted
        health.releases.clear()
        path.write_bytes(msgspec.json.encode(health))


def test_the_file_is_never_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise AssertionError("health is not worth a sync")

    monkeypatch.setattr("os.fsync", refuse)
    writer = HealthWriter(tmp_path / "health.json")
    writer.add(1, Counters(calls=1))
    writer.write()
    assert read_health(tmp_path / "health.json").of(1).calls == 1
