from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.cloud.audit import REFUSALS, AuditLog
from tidegate.cloud.limits import Safety
from tidegate.cloud.stalled import ClientStreams, Watch, WatchedStream
from tidegate.errors import AccessError, ConfigError, InputError, ResourceError


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Ended:
    """What a watch ends."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def watch(clock: Clock) -> Watch:
    return Watch(Safety(message_timeout_s=10, slow_reader_s=20, idle_stream_s=30), clock=clock)


class Call:
    """One that waits."""

    def __init__(self, cancel: Ended) -> None:
        self.cancel = cancel
        self.since_s = 0.0
        self.answered = False


def stream(
    watching: Watch, ended: Ended, allowed: Callable[[], bool] = lambda: True, *, may_idle: bool = False
) -> WatchedStream:
    watched, _ = watching.stream("somebody", ended, allowed, may_idle=may_idle)
    return watched


def test_a_call_whose_message_does_not_come_is_ended_once() -> None:
    clock, ended, in_time = Clock(), Ended(), Ended()
    watching = watch(clock)
    first, second = Call(ended), Call(in_time)
    watching.expect_message(first)
    watching.expect_message(second)
    watching.message_came(second)
    clock.now_s += 10
    watching.look()
    assert ended.times == 0
    clock.now_s += 0.1
    watching.look()
    watching.look()
    assert (ended.times, in_time.times, watching.waiting) == (1, 0, 0)


def test_an_answer_that_is_not_taken_ends_the_call() -> None:
    clock, ended, taken = Clock(), Ended(), Ended()
    watching = watch(clock)
    first, second = Call(ended), Call(taken)
    watching.answer_leaves(first)
    watching.answer_leaves(second)
    watching.over(second)
    clock.now_s += 20.1
    watching.look()
    assert (ended.times, taken.times) == (1, 0)


def test_a_silent_stream_is_ended_and_one_that_moves_is_not() -> None:
    clock, silent, moving, subscription = Clock(), Ended(), Ended(), Ended()
    watching = watch(clock)
    stream(watching, silent)
    stream(watching, subscription, may_idle=True)
    requests = stream(watching, moving).requests(iter(range(100)))
    for _ in range(7):
        clock.now_s += 5
        next(requests)
        watching.look()
    assert (silent.times, moving.times, subscription.times) == (1, 0, 0)


def test_a_stream_whose_answer_is_not_read_is_ended() -> None:
    clock, ended = Clock(), Ended()
    watching = watch(clock)
    answers = stream(watching, ended).answers(iter(range(2)))
    next(answers)
    clock.now_s += 19
    watching.look()
    next(answers)
    clock.now_s += 19
    watching.look()
    assert ended.times == 0
    clock.now_s += 2
    watching.look()
    assert ended.times == 1


def test_a_stream_whose_key_does_not_count_any_more_is_ended() -> None:
    ended = Ended()
    watching = watch(Clock())
    stream(watching, ended, lambda: False)
    watching.look()
    assert ended.times == 1


def test_streams_are_counted_per_client_and_forgotten_when_over() -> None:
    streams = ClientStreams(2)
    tokens = [streams.take("a"), streams.take("a"), streams.take("b")]
    with pytest.raises(ResourceError, match="2 streams"):
        streams.take("a")
    tokens[0].release()
    tokens[0].release()
    tokens.append(streams.take("a"))
    for token in tokens:
        token.release()
    assert len(streams) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"message_timeout_s": 0},
        {"idle_stream_s": float("nan")},
        {"slow_reader_s": -1},
        {"streams_per_client": 0},
        {"calls_per_connection": -1},
        {"maximum_connections": 0},
        {"connection_age_s": -1},
        {"socket_mode": 0},
        {"socket_mode": 0o1777},
    ],
)
def test_limits_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Safety(**wrong)  # type: ignore[arg-type]


def test_strangers_cannot_fill_the_disk_with_refusals(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    for _ in range(REFUSALS.burst + 500):
        audit.record(who="x", peer="x", call="Load", model="m", error=AccessError("no key was sent", identified=False))
    audit.record(who="x", peer="x", call="Load", model="m", error=None)
    audit.record(who="x", peer="x", call="Load", model="m", error=InputError("bad\nname"))
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    # A refusal or two may have become due while the others were written.
    assert REFUSALS.burst + 2 <= len(lines) < REFUSALS.burst + 250
    assert [json.loads(line)["outcome"] for line in lines[-2:]] == ["done", "InputError"]


def test_an_audit_log_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    audit.record(who="x", peer="x", call="Load", model="m", error=None)
    path.rename(tmp_path / "audit.1")
    audit.record(who="y", peer="x", call="Load", model="m", error=None)
    assert json.loads(path.read_text())["who"] == "y"


def test_a_disk_that_refuses_is_told_of_with_the_entry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "audit.jsonl"
    audit = AuditLog(path)
    path.unlink()
    path.parent.rmdir()
    audit.record(who="somebody", peer="x", call="Load", model="m", error=None)
    assert "takes no entry" in caplog.text
    assert "somebody" in caplog.text
