"""A bad model on the whole path, from the author's channel to the app: never kept, and the old one keeps answering."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from tests.slots import ROWS, endless, hungry, slow, times, write_model
from tests.update_site import QUICK_PROBE, QUICK_TRIAL, use

from tidegate.bundle import Budgets
from tidegate.edge.update import ActiveModel, DeviceSettings, State, Updater, initialise
from tidegate.edge.update.counters import Counters
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing
from tidegate.runtime.verify import VariantReport
from tidegate.testing.channels import StaticServer, make_channel, open_keys, serve, write_keys

X = ROWS[:1]


@dataclass
class World:
    home: Path
    channel: Channel
    keys: KeyRing
    server: StaticServer

    def publish(self, version: str, model: bytes, **options: Any) -> None:
        """Offer a model that promises to multiply by 2, from a machine that cannot run it."""
        bundle = write_model(self.home / f"{version}.tide", model, version=version, golden=ROWS * 2, **options)
        unproven = VariantReport("only", "not runnable", problem="there is no runtime")
        with patch("tidegate.runtime.verify.verify_bundle", return_value=[unproven]):
            self.channel.publish(bundle, track="stable", keys=self.keys)

    def device(self) -> Path:
        factory = write_model(self.home / "1.0.0.tide", times(2), version="1.0.0", golden=ROWS * 2)
        root = (self.channel.path / "metadata" / "1.root.json").read_bytes()
        settings = DeviceSettings(
            device_id="kiosk-1",
            url=self.server.url,
            model="bench",
            probe=QUICK_PROBE | {"timeout_s": 10.0},
            trial=QUICK_TRIAL | {"maximum_empty_rate": 0.5},
        )
        initialise(self.home / "kiosk", settings, root, factory)
        return self.home / "kiosk"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    write_keys(tmp_path / "keys")
    channel = make_channel(tmp_path / "site", tmp_path / "keys")
    with serve(channel.path) as server:
        yield World(tmp_path, channel, open_keys(tmp_path / "keys"), server)


BAD: dict[str, tuple[Callable[[], bytes], Budgets | None, str]] = {
    "wrong output": (lambda: times(3), None, "off by"),
    "ten times slower than its budget": (lambda: slow(2), Budgets(latency_p95_ms=2), "the budget is 2 ms"),
    "does not load": (lambda: times(2)[:60], None, "ModelError"),
    "takes 4 GB": (lambda: hungry(2, megabytes=4_000), None, "memory|stopped at"),
    "never answers": (endless, None, "no answer within 10 s"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_model_is_never_activated_and_the_old_one_answers_all_the_while(kind: str, world: World) -> None:
    make, budgets, words = BAD[kind]
    device = world.device()
    world.publish("1.1.0", make(), budgets=budgets)
    with ActiveModel(device, check_interval_s=0) as model:
        answers: list[bool] = []

        def meanwhile(*_: object) -> None:
            answers.append(bool(np.array_equal(model(X), X * 2)))

        result = Updater(device, on_progress=meanwhile).update()
        meanwhile()
        assert all(answers)
        assert len(answers) > 1
        assert model.slot.version == "1.0.0"
    assert result.outcome == "probe failed"
    assert result.probe is not None
    assert re.search(words, result.reason), result.reason
    check_left_alone(device, world, "1.1.0")


FAILS_IN_USE = {
    "exceptions": Counters(calls=100, failed=60, last_problem="it raised"),
    "empty answers": Counters(calls=100, answers=100, empty=95),
    "slow": Counters(calls=100, answers=100, over_budget=90),
    "failed loads": Counters(load_failures=3),
    "restarts": Counters(calls=5, restarts=(1.0, 2.0, 3.0, 4.0)),
}


@pytest.mark.parametrize("kind", FAILS_IN_USE)
def test_what_passes_the_probe_and_fails_in_use_is_left_and_not_tried_again(kind: str, world: World) -> None:
    device = world.device()
    world.publish("1.1.0", times(2), budgets=Budgets(latency_p95_ms=1_000))
    assert Updater(device).update().outcome == "activated"
    use(device, FAILS_IN_USE[kind])
    result = Updater(device).update()
    assert (result.outcome, result.running.version) == ("rolled back", "1.0.0")
    check_left_alone(device, world, "1.1.0")


def test_failures_that_an_app_reports_end_the_trial(world: World) -> None:
    device = world.device()
    world.publish("1.1.0", times(2))
    assert Updater(device).update().outcome == "activated"
    with ActiveModel(device, check_interval_s=0) as model:
        for _ in range(20):
            model(X)
            model.report_failure("nobody said that")
        np.testing.assert_array_equal(model(X), X * 2)
        assert model.slot.version == "1.0.0"
        assert Updater(device).settle().outcome == "rolled back"
        assert model.slot.version == "1.0.0"
    check_left_alone(device, world, "1.1.0")


def check_left_alone(device: Path, world: World, bad: str) -> None:
    """The bad version is in quarantine and stays there until there is a newer counter."""
    status = Updater(device).status()
    assert (status.phase, status.active.version) == (State.IDLE, "1.0.0")
    assert [one.version for one in status.quarantined] == [bad]
    asked = len(world.server.requests)
    assert Updater(device).update().outcome == "up to date"
    assert not any("/targets/" in path for path, _ in world.server.requests[asked:])
    world.publish("1.2.0", times(2))
    assert Updater(device).update().outcome == "activated"
    with ActiveModel(device) as model:
        np.testing.assert_array_equal(model(X), X * 2)
        assert model.slot.version == "1.2.0"
