"""Pure rules of the repository: life cycle, policies, labels, the budget of cores."""

from __future__ import annotations

import itertools

import pytest

from tidegate.cloud.budget import plan
from tidegate.cloud.lifecycle import TABLE, Event, State, next_state
from tidegate.cloud.version_status import ReloadReport
from tidegate.cloud.versions import AllVersions, Labels, Latest, Specific, parse_policy
from tidegate.errors import BundleError, ConfigError, NotFoundError, StateError, TidegateError

OFFERED = ("1.10.0", "1.9.0", "2.0.0-rc.1", "2.0.0")


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_of_the_life_cycle(state: State, event: Event) -> None:
    if (state, event) in TABLE:
        assert next_state(state, event) is TABLE[state, event]
    else:
        with pytest.raises(StateError, match=state.value):
            next_state(state, event)


def test_only_ready_versions_drain_and_nothing_leaves_unloaded() -> None:
    assert {state for (state, _), following in TABLE.items() if following is State.DRAINING} == {State.READY}
    assert not [state for state, _ in TABLE if state is State.UNLOADED]


@pytest.mark.parametrize(
    ("text", "policy", "selected"),
    [
        ("all", AllVersions(), ("1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0")),
        ("latest", Latest(1), ("2.0.0",)),
        ("latest:2", Latest(2), ("2.0.0-rc.1", "2.0.0")),
        ("specific:1.9.0, 3.0.0", Specific(frozenset({"1.9.0", "3.0.0"})), ("1.9.0",)),
    ],
)
def test_policies(text: str, policy: object, selected: tuple[str, ...]) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(text).select(OFFERED) == selected


@pytest.mark.parametrize("text", ["", "newest", "latest:0", "latest:x", "specific:", "all:1"])
def test_policies_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_policy(text)


def test_a_label_keeps_its_history_and_knows_its_way_back() -> None:
    labels = Labels()
    for second, version in enumerate(("1.0.0", "1.1.0", "1.2.0")):
        labels.move("m", "stable", version, second)
    labels.move("m", "canary", "1.2.0", 3)
    assert labels.of("m") == {"stable": "1.2.0", "canary": "1.2.0"}
    assert labels.on("m", "1.2.0") == ("stable", "canary")
    assert labels.previous("m", "stable") == "1.1.0"
    assert [move.before for move in labels.history("m", "stable")] == ["", "1.0.0", "1.1.0"]
    assert labels.take_away("m", "canary", 4).version == ""
    assert labels.of("other") == {}


def test_a_label_that_never_moved_cannot_go_back() -> None:
    labels = Labels()
    labels.move("m", "stable", "1.0.0", 0)
    with pytest.raises(NotFoundError):
        labels.previous("m", "stable")
    with pytest.raises(NotFoundError):
        labels.take_away("m", "canary", 0)


@pytest.mark.parametrize("label", ["", "1.0.0", "Stable", "a b", "x" * 64])
def test_a_label_never_looks_like_a_version(label: str) -> None:
    with pytest.raises(ConfigError):
        Labels().move("m", label, "1.0.0", 0)


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [
        ((0, 1), None, None, (1, 1, ((),))),
        ((0, 1), None, 4, (1, 4, ((),))),
        ((0, 1), 2, None, (2, 1, ((0,), (1,)))),
        ((0, 2, 4, 6), 2, 2, (2, 2, ((0, 2), (4, 6)))),
    ],
)
def test_cores_are_shared_out(
    cores: tuple[int, ...], workers: int | None, threads: int | None, expected: tuple[object, ...]
) -> None:
    budget = plan(cores, workers, threads)
    assert (budget.workers, budget.threads, budget.cores_by_worker) == expected


@pytest.mark.parametrize(("workers", "threads"), [(3, None), (2, 2), (0, None), (None, 0)])
def test_more_than_there_is_cannot_be_asked_for(workers: int | None, threads: int | None) -> None:
    with pytest.raises(TidegateError):
        plan((0, 1), workers, threads)


@pytest.mark.parametrize(
    ("place", "message", "said"),
    [
        ("models/a.tide", "models/a.tide is cut off", "models/a.tide is cut off"),
        ("linear 1.0.0", "no runtime for it", "linear 1.0.0: no runtime for it"),
    ],
)
def test_a_place_is_named_once(place: str, message: str, said: str) -> None:
    report = ReloadReport(failed=((place, BundleError(message, fix="get it again")),))
    assert report.lines == (f"tidegate: {said}\n  what to do: get it again",)
