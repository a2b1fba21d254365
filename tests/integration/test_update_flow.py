"""A device over a real channel: every way that an update can go, with real models in real probes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.update_site import Site, conditions_that_say, use
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.edge.update import Record, State, Updater, initialise
from tidegate.edge.update.counters import Counters
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import read_record, write_record
from tidegate.edge.update.settings import write_settings
from tidegate.errors import (
    BundleError,
    ConfigError,
    ModelError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
    UnavailableError,
)
from tidegate.fetch.installed import open_installed
from tidegate.release.channel import Channel
from tidegate.release.moments import utc_now
from tidegate.runtime import load
from tidegate.testing.channels import make_channel, open_keys, serve, write_keys

GOOD = Counters(calls=100, answers=100)
BAD = Counters(calls=100, failed=90, last_problem="it crashed")


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory)
    return directory


@pytest.fixture
def site(tmp_path: Path, key_files: Path) -> Iterator[Site]:
    channel = make_channel(tmp_path / "site", key_files)
    with serve(channel.path) as server:
        yield Site(tmp_path, channel, open_keys(key_files), server)


def record_of(device: Path) -> Record:
    return read_record(Layout(device).state)


def everything(device: Path) -> dict[str, bytes]:
    return {str(path.relative_to(device)): path.read_bytes() for path in device.rglob("*") if path.is_file()}


def check_it_runs(device: Path) -> str:
    """Load what the record points to, as an app would, and return its version."""
    slot = record_of(device).active
    with (
        open_installed(Layout(device).store, slot.manifest_sha256, slot.variant) as bundle,
        load(bundle, variant=slot.variant) as model,
    ):
        golden = bundle.golden()
        assert golden is not None
        assert all(error.within for error in golden.compare(model.run(golden.inputs), 1e-3))
        return bundle.manifest.version


def updated(device: Path, **options: Any) -> str:
    return Updater(device, **options).update().outcome


def events(device: Path) -> list[str]:
    return [entry.event for entry in Updater(device).history()]


@pytest.mark.parametrize("backend", ["onnx", "litert"])
def test_a_version_is_fetched_proven_switched_to_and_committed(site: Site, backend: Any) -> None:
    site.backend = backend
    site.publish("1.0.0")
    device = site.device()
    assert updated(device) == "noted"
    assert site.fetched() == []
    assert record_of(device).active.release == 1

    site.publish("1.1.0")
    heard: list[int] = []
    result = Updater(device, on_progress=lambda progress: heard.append(progress.done_bytes)).update()
    assert (result.outcome, result.release, result.version) == ("activated", 2, "1.1.0")
    assert result.fetched is not None
    assert result.fetched.files == ("assets/labels.txt",)
    assert result.probe is not None
    assert result.probe.passed
    assert heard
    assert check_it_runs(device) == "1.1.0"
    status = Updater(device).status()
    assert (status.phase, status.active.version, status.candidate) == (State.TRIAL, "1.1.0", None)
    assert status.previous is not None
    assert status.previous.version == "1.0.0"

    assert Updater(device).settle().outcome == "waiting"
    use(device, GOOD)
    assert Updater(device).settle().outcome == "committed"
    assert record_of(device).phase is State.IDLE
    assert Updater(device).settle().outcome == "up to date"
    assert events(device) == ["noted", "offered", "fetched", "begun", "activated", "committed"]


def test_a_check_without_news_is_two_requests(site: Site) -> None:
    site.publish("1.0.0")
    device = site.device()
    Updater(device).check()
    found = Updater(device).check()
    assert (found.news, found.requests) == (False, 2)
    assert site.fetched() == []


def test_a_check_tells_news_and_why_others_were_passed_over(site: Site) -> None:
    site.publish("1.1.0")
    site.publish("1.2.0", percent=0)
    device = site.device()
    before = record_of(device)
    found = Updater(device).check(explain=True)
    assert found.offer is not None
    assert (found.offer.version, [one.version for one in found.passed_over]) == ("1.1.0", ["1.2.0"])
    assert Updater(device).check().passed_over == ()
    assert record_of(device).active == before.active


def test_a_version_with_wrong_answers_is_never_activated_and_not_tried_again(site: Site) -> None:
    device = site.device()
    site.publish_unproven("1.1.0", wrong=5.0)
    result = Updater(device).update()
    assert (result.outcome, result.running.version) == ("probe failed", "1.0.0")
    assert check_it_runs(device) == "1.0.0"
    asked = len(site.fetched())
    assert updated(device) == "up to date"
    assert len(site.fetched()) == asked
    assert [one.version for one in record_of(device).quarantined] == ["1.1.0"]
    assert "quarantine" in Updater(device).check(explain=True).passed_over[0].reason

    site.publish("1.2.0")
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.2.0"


def test_a_trial_that_goes_wrong_leads_back_and_the_next_counter_is_tried(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0")
    assert updated(device) == "activated"
    use(device, BAD)
    result = Updater(device).update()
    assert (result.outcome, result.version, result.running.version) == ("rolled back", "1.1.0", "1.0.0")
    assert "it crashed" in result.reason
    assert updated(device) == "up to date"
    site.channel.promote("dense", track="beta", source="stable", keys=site.keys)
    write_settings(Layout(device).settings, site.settings(track="beta"))
    assert updated(device) == "activated", "the same content under a newer counter has another chance"


def test_roll_back_needs_no_network_and_ends_at_the_factory_version(site: Site) -> None:
    device = site.device()
    for version in ("1.1.0", "1.2.0"):
        site.publish(version)
        assert updated(device) == "activated"
        use(device, GOOD)
        assert Updater(device).settle().outcome == "committed"
    shutil.rmtree(site.channel.path)
    outcomes = [Updater(device).rollback("mishears").running.version for _ in range(2)]
    assert outcomes == ["1.1.0", "1.0.0"]
    assert check_it_runs(device) == "1.0.0"
    with pytest.raises(StateError, match="no older version"):
        Updater(device).rollback("again")
    assert check_it_runs(device) == "1.0.0"
    assert [one.version for one in record_of(device).quarantined] == ["1.2.0", "1.1.0"]


def test_a_signed_roll_back_is_taken_although_its_content_is_older(site: Site) -> None:
    device = site.device()
    site.publish("1.0.0")
    assert updated(device) == "noted"
    site.publish("1.1.0", shift=1.0)
    site.publish("1.2.0", shift=2.0)
    assert updated(device) == "activated"
    use(device, GOOD)
    assert Updater(device).settle().outcome == "committed"
    site.channel.roll_back("dense", track="stable", version="1.1.0", reason="too eager", keys=site.keys)
    result = Updater(device).update()
    assert (result.outcome, result.version, result.release) == ("activated", "1.1.0", 4)
    assert "too eager" in record_of(device).active.why
    assert check_it_runs(device) == "1.1.0"


def test_a_signed_roll_back_ends_a_trial_at_once_and_other_news_wait_for_it(site: Site) -> None:
    device = site.device()
    site.publish("1.0.0")
    assert updated(device) == "noted"
    site.publish("1.1.0")
    assert updated(device) == "activated"
    site.publish("1.2.0")
    assert updated(device) == "waiting"
    site.channel.roll_back("dense", track="stable", version="1.0.0", reason="deaf", keys=site.keys)
    asked = len(site.fetched())
    assert updated(device) == "noted"
    assert len(site.fetched()) == asked
    record = record_of(device)
    assert (record.phase, record.active.version, record.active.release) == (State.IDLE, "1.0.0", 4)
    assert record.quarantined == ()


def test_a_version_that_is_withdrawn_once_it_has_proven_itself_keeps_running(site: Site) -> None:
    device = site.device()
    site.publish("1.0.0")
    site.publish("1.1.0")
    assert updated(device) == "activated"
    use(device, GOOD)
    assert updated(device) == "committed"
    site.channel.withdraw("dense", version="1.1.0", reason="typo", keys=site.keys)
    found = Updater(device).check()
    assert (found.withdrawn, found.is_on_trial, found.news) == ("typo", False, False)
    assert updated(device) == "up to date"
    assert check_it_runs(device) == "1.1.0"


@pytest.mark.parametrize("has_proven_itself", [False, True])
def test_a_version_that_is_withdrawn_in_its_trial_is_left_at_once(site: Site, has_proven_itself: bool) -> None:
    device = site.device()
    site.publish("1.0.0")
    site.publish("1.1.0")
    assert updated(device) == "activated"
    if has_proven_itself:  # The trial could be passed by the same call that hears of the withdrawal.
        use(device, GOOD)
    site.channel.withdraw("dense", version="1.1.0", reason="deaf", keys=site.keys)
    found = Updater(device).check()
    assert (found.withdrawn, found.is_on_trial) == ("deaf", True)
    result = Updater(device).update()
    assert (result.outcome, result.version, result.running.version) == ("rolled back", "1.1.0", "1.0.0")
    assert "its author has withdrawn it: deaf" in result.reason
    record = record_of(device)
    assert (record.phase, record.quarantined) == (State.IDLE, ())
    assert check_it_runs(device) == "1.0.0"
    assert events(device)[-2:] == ["withdrawn", "rolled_back"]
    assert updated(device) == "up to date"


def test_a_fix_comes_at_once_where_what_is_on_trial_was_withdrawn(site: Site) -> None:
    device = site.device()
    site.publish("1.0.0")
    site.publish("1.1.0")
    assert updated(device) == "activated"
    site.channel.withdraw("dense", version="1.1.0", reason="deaf", keys=site.keys)
    site.publish("1.1.1", shift=1.0)
    result = Updater(device).update()
    assert (result.outcome, result.version) == ("activated", "1.1.1")
    record = record_of(device)
    assert record.previous is not None
    assert (record.phase, record.previous.version) == (State.TRIAL, "1.0.0"), "what has proven itself stands behind it"


def test_a_trial_that_stands_badly_gives_way_to_a_newer_release(site: Site) -> None:
    device = site.device()
    site.publish("1.0.0")
    site.publish("1.1.0")
    assert updated(device) == "activated"
    use(device, Counters(calls=20, answers=20, failed=2, last_problem="it stuttered"))
    assert updated(device) == "waiting"
    site.publish("1.1.1", shift=1.0)
    result = Updater(device).update()
    assert (result.outcome, result.version) == ("activated", "1.1.1")
    reasons = [entry.reason for entry in Updater(device).history() if entry.event == "superseded"]
    assert "release 3 is newer, and 2 of 20 calls failed" in reasons[0]


def test_without_a_channel_a_trial_is_decided_by_what_the_device_knows(site: Site) -> None:
    device = site.device()
    site.publish("1.0.0")
    site.publish("1.1.0")
    assert updated(device) == "activated"
    use(device, GOOD)
    write_settings(Layout(device).settings, site.settings(url="http://127.0.0.1:9"))
    with pytest.raises(UnavailableError):
        updated(device)
    assert (record_of(device).phase, record_of(device).active.version) == (State.IDLE, "1.1.0")


def unreachable(site: Site, stack: ExitStack) -> str:
    with serve(site.home) as gone:
        return gone.url


def out_of_date(site: Site, stack: ExitStack) -> str:
    channel = Channel(site.channel.path, clock=lambda: utc_now() - timedelta(days=2))
    channel.publish(site.bundle("1.1.0"), track="stable", keys=site.keys)
    return site.server.url


def altered(site: Site, stack: ExitStack) -> str:
    (newest,) = sorted((site.channel.path / "metadata").glob("*.targets.json"))[-1:]
    newest.write_bytes(newest.read_bytes().replace(b"dense", b"dents"))
    return site.server.url


def signed_by_another(site: Site, stack: ExitStack) -> str:
    write_keys(site.home / "other keys")
    other = make_channel(site.home / "other", site.home / "other keys")
    return stack.enter_context(serve(other.path)).url


@pytest.mark.parametrize("fault", [unreachable, out_of_date, altered, signed_by_another])
def test_a_channel_that_cannot_be_trusted_changes_nothing(site: Site, fault: Any) -> None:
    site.publish("1.0.0")
    with ExitStack() as stack:
        url = fault(site, stack)
        device = site.device(url=url)
        before = record_of(device)
        for call in (Updater(device).check, Updater(device).update):
            with pytest.raises((UnavailableError, BundleError)):
                call()
    after = record_of(device)
    assert after.last_check is not None
    assert after.last_check.problem
    assert msgspec.structs.replace(after, last_check=None) == before
    assert check_it_runs(device) == "1.0.0"


def test_conditions_are_asked_before_the_fetch_and_before_the_switch(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0")
    result = Updater(device, conditions=conditions_that_say("battery at 12 %")).update()
    assert (result.outcome, result.reason) == ("postponed", "battery at 12 %")
    assert site.fetched() == []
    assert record_of(device).phase is State.IDLE

    assert updated(device, conditions=conditions_that_say(None, "model busy")) == "postponed"
    record = record_of(device)
    assert (record.phase, record.active.version) == (State.STAGED, "1.0.0")
    asked = len(site.fetched())
    assert updated(device, conditions=conditions_that_say("still busy")) == "postponed"
    assert updated(device, conditions=conditions_that_say(None)) == "activated"
    assert len(site.fetched()) == asked


def test_what_was_staged_goes_when_the_channel_offers_something_else(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0")
    assert updated(device, conditions=conditions_that_say(None, "model busy")) == "postponed"
    site.publish("1.2.0")
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.2.0"
    assert "superseded" in events(device)


def test_a_track_that_the_channel_does_not_have_changes_nothing(site: Site) -> None:
    device = site.device(track="nightly")
    site.publish("1.1.0")
    with pytest.raises(NotFoundError, match="nightly"):
        Updater(device).update()
    assert check_it_runs(device) == "1.0.0"


def test_tracks_have_counters_of_their_own(site: Site) -> None:
    device = site.device(track="beta")
    site.publish("1.1.0", track="stable")
    site.publish("1.2.0", track="beta")
    assert updated(device) == "activated"
    use(device, GOOD)
    assert Updater(device).settle().outcome == "committed"
    write_settings(Layout(device).settings, site.settings(track="stable"))
    assert updated(device) == "activated"
    record = record_of(device)
    assert (record.active.version, record.counters) == ("1.1.0", {"beta": 2, "stable": 1})


@pytest.mark.parametrize("activated_at", ["1970-01-01T00:00:09Z", "2099-01-01T00:00:00Z"])
def test_a_clock_that_was_wrong_ends_no_trial(site: Site, activated_at: str) -> None:
    device = site.device()
    site.publish("1.1.0")
    assert updated(device) == "activated"
    record = record_of(device)
    assert record.active.offered_at <= record.active.activated_at
    wrong = msgspec.structs.replace(record.active, activated_at=activated_at)
    write_record(Layout(device).state, msgspec.structs.replace(record, active=wrong))
    assert Updater(device).settle().outcome == "waiting"
    assert record_of(device).active.activated_at >= record.active.activated_at
    assert record_of(device).active.activated_at != activated_at
    use(device, GOOD)
    assert Updater(device).settle().outcome == "committed"


def test_files_of_a_factory_version_stay_though_its_manifest_is_damaged(site: Site) -> None:
    device = site.device()
    factory = record_of(device).factory
    store = Layout(device).store
    manifest = store.read(factory.manifest_sha256)
    store.path(factory.manifest_sha256).write_bytes(b"damaged")
    for number in (1, 2):
        site.publish(f"1.{number}.0", shift=float(number))
        assert updated(device) == "activated"
        use(device, GOOD)
        assert Updater(device).settle().outcome == "committed"
    store.path(factory.manifest_sha256).write_bytes(manifest)
    assert len(factory.files) == 4
    assert all(store.check(sha256) for sha256 in factory.files)


def test_the_store_keeps_what_slots_need_and_nothing_else(site: Site) -> None:
    device = site.device()
    for number in range(1, 4):
        site.publish(f"1.{number}.0", shift=float(number))
        assert updated(device) == "activated"
        use(device, GOOD)
        assert Updater(device).settle().outcome == "committed"
    record = record_of(device)
    assert [slot.version for slot in record.slots] == ["1.3.0", "1.2.0", "1.0.0"]
    kept = {path.name for path in (device / "store" / "files").iterdir()}
    models = {slot.variant_sha256 for slot in record.slots}
    # Three manifests, models, fixtures and lists of labels.
    assert len(kept) == 12
    assert models < kept


def test_a_second_updater_is_told_who_is_at_work(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0")
    found: list[object] = []

    def meanwhile() -> None:
        with pytest.raises(StateError, match=f"process {os.getpid()}|this process"):
            Updater(device).update()
        status = Updater(device).status()
        found.extend([status.busy, status.active.version])

    assert updated(device, conditions=meanwhile) == "activated"
    assert found == ["this process itself", "1.0.0"] * 2


KILLED = """
import os, pathlib, signal, sys
from tidegate.edge.update import Updater
from tidegate.edge.update.record import read_record, write_record

directory, where = sys.argv[1:]

def die_there(*_):
    if read_record(pathlib.Path(directory) / "state.json").phase.value == where:
        os.kill(os.getpid(), signal.SIGKILL)

Updater(directory, conditions=die_there, on_progress=die_there).update()
"""


def kill_while(device: Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(device), where], check=False, capture_output=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("where", ["fetching", "probing"])
def test_a_killed_updater_leaves_a_device_that_goes_on(site: Site, where: str) -> None:
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    kill_while(device, where)
    assert record_of(device).phase.value == where
    assert check_it_runs(device) == "1.0.0"
    status = Updater(device).status()
    assert status.busy == ""
    assert status.phase is (State.STAGED if where == "probing" else State.IDLE)
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.1.0"


@pytest.mark.parametrize("where", ["fetching", "probing"])
def test_a_version_that_kills_the_updater_again_and_again_is_quarantined(site: Site, where: str) -> None:
    device = site.device(interruptions=2)
    site.publish("1.1.0", shift=1.0)
    for _ in range(3):
        assert not record_of(device).quarantined
        kill_while(device, where)
    status = Updater(device).status()
    assert (status.phase, status.active.version) == (State.IDLE, "1.0.0")
    assert "3 times" in status.quarantined[0].reason
    assert updated(device) == "up to date"


@pytest.mark.parametrize(
    ("phase", "version", "previous"),
    [(State.ROLLING_BACK, "1.1.0", None), (State.COMMITTED, "1.2.0", "1.1.0"), (State.TRIAL, "1.2.0", "1.1.0")],
)
def test_each_other_phase_that_a_dead_updater_left_is_brought_to_its_end(
    site: Site, phase: State, version: str, previous: str | None
) -> None:
    device = site.device()
    for one in ("1.1.0", "1.2.0"):
        site.publish(one)
        assert updated(device) == "activated"
        use(device, GOOD)
        assert Updater(device).settle().outcome == "committed"
    left = msgspec.structs.replace(record_of(device), phase=phase)
    Layout(device).state.write_bytes(msgspec.json.encode(left))
    stray = Layout(device).store.path("0" * 64)
    stray.write_bytes(b"of a version that nobody needs")
    # As writers name them: of the record, and of the key of reports.
    leftovers = [device / f"{name}.{'0' * 16}.part" for name in (".state.json", "")]
    for leftover in leftovers:
        leftover.write_bytes(b"half a rec")
    status = Updater(device).status()
    assert status.phase is (State.TRIAL if phase is State.TRIAL else State.IDLE)
    assert status.active.version == version
    assert (status.previous and status.previous.version) == previous
    assert stray.exists() is (phase is State.TRIAL)
    assert not any(leftover.exists() for leftover in leftovers)
    assert check_it_runs(device) == version


@pytest.mark.parametrize("part", ["variant_sha256", "manifest_sha256"])
def test_a_damaged_active_version_is_left_and_fetched_anew(site: Site, part: str) -> None:
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    assert updated(device) == "activated"
    use(device, GOOD)
    assert Updater(device).settle().outcome == "committed"
    file = Layout(device).store.path(getattr(record_of(device).active, part))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    result = Updater(device).update()
    assert (result.outcome, result.version) == ("activated", "1.1.0")
    assert check_it_runs(device) == "1.1.0"
    assert "damaged" in events(device)


def test_a_damaged_active_version_is_left_without_a_network(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    assert updated(device) == "activated"
    Layout(device).store.path(record_of(device).active.variant_sha256).unlink()
    assert Updater(device).settle().outcome == "rolled back"
    assert check_it_runs(device) == "1.0.0"


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_device_whose_every_file_is_gone_fetches_what_the_channel_offers(site: Site, is_committed: bool) -> None:
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    assert updated(device) == "activated"
    if is_committed:
        use(device, GOOD)
        assert Updater(device).settle().outcome == "committed"
    shutil.rmtree(device / "store")
    Updater(device).settle()
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.1.0"


def test_a_factory_version_that_is_damaged_is_fetched_when_the_channel_offers_it(site: Site) -> None:
    site.publish("1.0.0")
    device = site.device()
    assert updated(device) == "noted"
    shutil.rmtree(device / "store")
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.0.0"


def test_what_was_damaged_while_staged_is_not_activated(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    assert updated(device, conditions=conditions_that_say(None, "model busy")) == "postponed"
    candidate = record_of(device).candidate
    assert candidate is not None
    Layout(device).store.path(candidate.variant_sha256).write_bytes(b"evil")
    with pytest.raises(BundleError):
        Updater(device).update()
    assert check_it_runs(device) == "1.0.0"
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.1.0"


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def foreign_phase(raw: bytes) -> bytes:
    return raw.replace(b'"idle"', b'"waltzing"')


def foreign_schema(raw: bytes) -> bytes:
    return raw.replace(b"tidegate.device/1", b"tidegate.device/9")


def fetching_nothing(raw: bytes) -> bytes:
    return raw.replace(b'"idle"', b'"fetching"')


@pytest.mark.parametrize(
    ("damage", "version"),
    [
        (cut, "1.0.0"),
        (lambda raw: b"\xff\x00", "1.0.0"),
        (lambda raw: b"", "1.0.0"),
        (foreign_phase, "1.1.0"),
        (foreign_schema, "1.1.0"),
        (fetching_nothing, "1.1.0"),
    ],
    ids=["cut", "no text", "empty", "unknown phase", "unknown schema", "no candidate"],
)
def test_a_record_that_cannot_be_understood_rolls_back(site: Site, damage: Any, version: str) -> None:
    device = site.device()
    for one in ("1.1.0", "1.2.0"):
        site.publish(one)
        assert updated(device) == "activated"
        use(device, GOOD)
        assert Updater(device).settle().outcome == "committed"
    state = Layout(device).state
    state.write_bytes(damage(state.read_bytes()))
    assert Updater(device).status().active.version == version
    assert check_it_runs(device) == version
    assert "recovered" in events(device)
    assert updated(device) == "activated"
    assert check_it_runs(device) == "1.2.0"


def test_a_record_that_is_gone_leads_to_the_factory_version(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0")
    assert updated(device) == "activated"
    Layout(device).state.unlink()
    assert Updater(device).status().active.version == "1.0.0"
    assert check_it_runs(device) == "1.0.0"


def test_a_disk_that_takes_no_bytes_changes_nothing(site: Site) -> None:
    device = site.device()
    site.publish("1.1.0")
    Updater(device).check()
    before = everything(device)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        for call in (Updater(device).update, Updater(device).check):
            with pytest.raises(ResourceError):
                call()
        assert Updater(device).status().active.version == "1.0.0"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    after = everything(device)
    unchanged = {name: data for name, data in before.items() if name != "lock"}
    assert {name: after[name] for name in unchanged} == unchanged
    assert updated(device) == "activated"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "sparse"}, ConfigError, "holds model 'dense'"),
        ({"probe": {"speed": 3}}, ConfigError, "probe has no setting 'speed'"),
        ({"probe": {"calls": "many"}}, ConfigError, "probe: "),
    ],
)
def test_settings_that_cannot_be_meant(
    site: Site, changes: dict[str, Any], error: type[TidegateError], words: str
) -> None:
    site.publish("1.1.0")

    def go() -> None:
        device = site.device(**changes)
        try:
            Updater(device).update()
        finally:
            assert check_it_runs(device) == "1.0.0"
            assert record_of(device).quarantined == ()

    with pytest.raises(error, match=words):
        go()


def test_initialise_refuses_a_factory_version_that_does_not_work_here(site: Site) -> None:
    root = (site.channel.path / "metadata" / "1.root.json").read_bytes()
    wrong = site.bundle("1.0.0", wrong=3.0)
    with pytest.raises(ModelError, match="does not work here"):
        initialise(site.home / "kiosk", site.settings(), root, wrong)
    timestamp = (site.channel.path / "metadata" / "timestamp.json").read_bytes()
    factory = site.bundle("1.0.0")
    with pytest.raises(ConfigError, match="expected 'root'"):
        initialise(site.home / "kiosk", site.settings(), timestamp, factory)
    with pytest.raises(NotFoundError, match="is not a device"):
        Updater(site.home / "kiosk").status()
    device = site.device()
    with pytest.raises(ConfigError, match="already"):
        site.device()
    assert check_it_runs(device) == "1.0.0"


def test_initialise_goes_on_where_it_was_interrupted(site: Site) -> None:
    device = site.device()
    Layout(device).state.unlink()
    site.device()
    assert check_it_runs(device) == "1.0.0"
