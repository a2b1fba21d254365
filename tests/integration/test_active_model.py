"""The handle of the active model, with real models in a real store and a record that changes under its hands."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.slots import ROWS, activate, install, times, write_model
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Budgets, TrialSettings
from tidegate.edge.update import ActiveModel, following
from tidegate.edge.update.health import read_health
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.loaded import load_version
from tidegate.edge.update.record import Slot
from tidegate.edge.update.states import State
from tidegate.errors import BundleError, ConfigError, InputError, ModelError, NotFoundError, StateError

X = ROWS


class Device:
    """A device whose version N multiplies by N."""

    def __init__(self, directory: Path, work: Path) -> None:
        self.directory = directory
        self._work = work

    def version(self, factor: int, model: bytes | None = None, **options: object) -> Slot:
        path = self._work / f"{factor}.tide"
        content = times(factor) if model is None else model
        bundle = write_model(path, content, version=f"{factor}.0.0", **options)  # type: ignore[arg-type]
        return install(self.directory, bundle, "only", release=factor)

    def activate(self, active: Slot, previous: Slot | None = None, phase: State = State.IDLE) -> None:
        activate(self.directory, active, factory=self.version(1), previous=previous, phase=phase)

    def open(self) -> ActiveModel:
        """Open a handle that looks at the record before every call."""
        return ActiveModel(self.directory, check_interval_s=0)

    @property
    def health(self) -> Path:
        return Layout(self.directory).health


@pytest.fixture
def device(tmp_path: Path) -> Device:
    directory = tmp_path / "device"
    directory.mkdir()
    return Device(directory, tmp_path)


def test_it_runs_the_active_version_and_the_next_one_between_calls(device: Device) -> None:
    two, three = device.version(2), device.version(3)
    device.activate(two)
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X * 2)
        np.testing.assert_array_equal(model.run({"x": X})["y"], X * 2)
        device.activate(three, previous=two)
        np.testing.assert_array_equal(model(X), X * 3)
        assert (model.slot, model.fallback_reason) == (three, "")
        assert model.manifest.version == "3.0.0"


def test_a_hold_keeps_its_version_and_the_old_one_is_freed_after_it(device: Device) -> None:
    device.activate(device.version(2))
    with device.open() as model:
        with model.hold() as held:
            device.activate(device.version(3))
            np.testing.assert_array_equal(model(X), X * 3)
            np.testing.assert_array_equal(held(X), X * 2)
            assert held.slot.release == 2
            old = held.model
        with pytest.raises(StateError, match="closed"):
            old(X)
        forgotten = weakref.ref(old)
        del old, held
        gc.collect()
        assert forgotten() is None


def test_the_record_is_looked_at_no_more_often_than_asked(device: Device) -> None:
    device.activate(device.version(2))
    with ActiveModel(device.directory, check_interval_s=1_000) as model:
        device.activate(device.version(3))
        np.testing.assert_array_equal(model(X), X * 2)
        model.refresh()
        np.testing.assert_array_equal(model(X), X * 3)


def test_threads_see_whole_versions_while_it_changes(device: Device) -> None:
    slots = [device.version(factor) for factor in (2, 3)]
    device.activate(slots[0])
    done = threading.Event()

    def call(model: ActiveModel) -> set[float]:
        factors: set[float] = set()
        while not done.is_set():
            factors.update(np.unique((model(X) / np.where(X == 0, 1, X))[X != 0]).tolist())
            with model.hold() as held:
                first, second = held(X), held(X)
                assert np.array_equal(first, second)
        return factors

    with device.open() as model, ThreadPoolExecutor(4) as pool, ExitStack() as at_the_end:
        # Also when something fails below: the pool waits for its callers.
        at_the_end.callback(done.set)
        answers = [pool.submit(call, model) for _ in range(4)]
        for turn in range(20):
            device.activate(slots[turn % 2])
            model.refresh()
        done.set()
        assert set().union(*(answer.result() for answer in answers)) <= {2.0, 3.0}
        assert len(model._follower.versions) == 1


def test_calls_are_counted_by_release(device: Device) -> None:
    device.activate(device.version(2))
    with device.open() as model:
        for _ in range(10):
            model(X)
        with pytest.raises(InputError):
            model(X.astype(np.float64))
        model.report_failure("the user pressed undo")
        device.activate(device.version(3))
        model.refresh()
        for _ in range(4):
            model.run({"x": X})
        model(np.zeros((0, 4), np.float32))
    two, three = read_health(device.health).of(2), read_health(device.health).of(3)
    assert (two.calls, two.refused, two.reported, two.answers, two.empty, two.starts) == (11, 1, 1, 10, 0, 1)
    assert two.last_problem == "the user pressed undo"
    assert (three.calls, three.failed, three.answers, three.empty, three.starts) == (5, 0, 5, 1, 1)
    assert read_health(device.health).processes == {}


def test_calls_over_the_latency_budget_are_counted_per_row(device: Device) -> None:
    device.activate(device.version(2, budgets=Budgets(latency_p95_ms=1e-6)))
    with device.open() as model:
        model(X)
        model(np.zeros((25, 4), np.float32))
    assert read_health(device.health).of(2).over_budget == 2
    device.activate(device.version(3, budgets=Budgets(latency_p95_ms=1e6)))
    with device.open() as model:
        model(X)
    assert read_health(device.health).of(3).over_budget == 0


def test_calls_of_several_threads_are_all_counted(device: Device) -> None:
    device.activate(device.version(2))
    with device.open() as model, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: model(X), range(400)))
    assert read_health(device.health).of(2).calls == 400


def test_an_active_version_that_does_not_load_falls_to_the_previous_one(device: Device) -> None:
    two, broken = device.version(2), device.version(9, b"no model")
    device.activate(broken, previous=two)
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X * 2)
        assert model.slot == two
        assert model.fallback_reason.startswith("9.0.0 (release 9): ")
        (process,) = read_health(device.health).processes.values()
        assert (process.release, process.is_fallback) == (2, True)
    failed = read_health(device.health).of(9)
    assert failed.load_failures == 1
    assert "cannot load this as an ONNX model" in failed.last_problem


def test_and_then_to_the_factorys(device: Device) -> None:
    device.activate(device.version(9, b"no model"), previous=device.version(8, b"no model either"))
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X)
        assert model.slot.release == 1
        assert "9.0.0" in model.fallback_reason
        assert "8.0.0" in model.fallback_reason


def test_what_is_damaged_on_the_disk_falls_back_too(device: Device) -> None:
    two, three = device.version(2), device.version(3)
    Layout(device.directory).store.path(three.variant_sha256).write_bytes(times(4))
    device.activate(three, previous=two)
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X * 2)


def test_a_running_model_goes_on_when_the_next_one_does_not_load(device: Device) -> None:
    two = device.version(2)
    device.activate(two)
    with device.open() as model:
        model(X)
        device.activate(device.version(9, b"no model"), previous=two)
        np.testing.assert_array_equal(model(X), X * 2)
        assert model.fallback_reason
        for _ in range(5):
            model(X)
        device.activate(device.version(3), previous=two)
        np.testing.assert_array_equal(model(X), X * 3)
        assert model.fallback_reason == ""
    assert read_health(device.health).of(9).load_failures == 1, "it is not tried again at every call"


def test_a_version_that_did_not_load_is_tried_again_later(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RETRY_S", 0.0)
    two, three = device.version(2), device.version(3)
    path = Layout(device.directory).store.path(three.variant_sha256)
    path.rename(path.with_suffix(".away"))
    device.activate(three, previous=two)
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X * 2)
        path.with_suffix(".away").rename(path)
        np.testing.assert_array_equal(model(X), X * 3)
        assert model.fallback_reason == ""


def test_a_record_that_cannot_be_read_leaves_what_runs_and_starts_the_factorys(device: Device) -> None:
    device.activate(device.version(2))
    state = Layout(device.directory).state
    with device.open() as model:
        state.write_bytes(b"{torn")
        np.testing.assert_array_equal(model(X), X * 2)
        state.unlink()
        np.testing.assert_array_equal(model(X), X * 2)
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X)
    state.write_bytes(b"{torn")
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X)


def test_what_a_dead_updater_was_leaving_is_not_started_again(device: Device) -> None:
    two, three = device.version(2), device.version(3)
    device.activate(three, previous=two, phase=State.ROLLING_BACK)
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X * 2)
    Layout(device.directory).store.path(two.variant_sha256).unlink()
    with device.open() as model:
        np.testing.assert_array_equal(model(X), X)


def test_a_new_counter_for_the_same_content_is_counted_apart(device: Device) -> None:
    two = device.version(2)
    device.activate(two)
    with device.open() as model:
        model(X)
        device.activate(msgspec.structs.replace(two, release=20))
        model(X)
        assert model.slot.release == 20
    assert [read_health(device.health).of(release).calls for release in (2, 20)] == [1, 1]


def test_on_trial_a_failing_version_is_left_before_the_updater_comes(device: Device) -> None:
    two, three = device.version(2), device.version(3, trial=TrialSettings(maximum_failure_rate=0.1))
    device.activate(three, previous=two, phase=State.TRIAL)
    with device.open() as model:
        for _ in range(5):
            np.testing.assert_array_equal(model(X), X * 3)
            model.report_failure("wrong")
        np.testing.assert_array_equal(model(X), X * 2)
        assert model.slot == two
        assert "5 of 5 calls failed" in model.fallback_reason
    with device.open() as model:
        assert model.slot == two, "the next process knows"
        device.activate(two, previous=None)
        np.testing.assert_array_equal(model(X), X * 2)
        assert model.fallback_reason == ""


def test_after_the_trial_failures_of_calls_change_nothing(device: Device) -> None:
    three = device.version(3)
    device.activate(three, previous=device.version(2))
    with device.open() as model:
        for _ in range(20):
            model(X)
            model.report_failure("wrong")
        assert model.slot == three


def test_an_app_that_cannot_work_with_it_leaves_it_at_once(device: Device) -> None:
    device.activate(device.version(3), previous=device.version(2), phase=State.TRIAL)
    with device.open() as model:
        model.report_unusable("its labels are unknown here")
        model.refresh()
        assert model.slot.release == 2
        assert "its labels are unknown here" in model.fallback_reason


def test_a_version_whose_load_kills_the_process_is_not_loaded_a_third_time(device: Device) -> None:
    """The process is really killed, in the middle of the load."""
    two, three = device.version(2), device.version(3)
    device.activate(three, previous=two)
    program = f"""
        import os, signal
        from tidegate.edge.update import ActiveModel, following
        load = following.load_version
        def die(store, slot, threads, lock):
            if slot.release == 3:
                os.kill(os.getpid(), signal.SIGSEGV)
            return load(store, slot, threads, lock)
        following.load_version = die
        with ActiveModel({str(device.directory)!r}) as model:
            print(model.slot.release)
    """
    ends = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        for _ in range(3)
    ]
    assert [end.returncode for end in ends] == [-signal.SIGSEGV, -signal.SIGSEGV, 0]
    assert ends[2].stdout == "2\n"
    assert read_health(device.health).of(3).crashed_loads == 2


def test_the_end_of_the_interpreter_is_a_clean_close(device: Device) -> None:
    device.activate(device.version(2))
    program = f"""
        import numpy as np
        from tidegate.edge.update import ActiveModel
        model = ActiveModel({str(device.directory)!r})
        model(np.zeros((1, 4), np.float32))
        raise SystemExit(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=COMMAND_TIMEOUT_S)
    health = read_health(device.health)
    assert health.processes == {}
    assert health.of(2).calls == 1


def test_a_killed_app_is_a_restart_for_the_next_one(device: Device) -> None:
    device.activate(device.version(2))
    program = f"""
        import os, signal
        from tidegate.edge.update import ActiveModel
        model = ActiveModel({str(device.directory)!r})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    for _ in range(3):
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=COMMAND_TIMEOUT_S)
    device.open().close()
    assert len(read_health(device.health).of(2).restarts) == 3


def test_health_that_cannot_be_written_never_stops_the_app(device: Device) -> None:
    device.activate(device.version(2))
    with device.open() as model:
        device.health.unlink(missing_ok=True)
        device.health.mkdir()
        np.testing.assert_array_equal(model(X), X * 2)
        model.refresh()
        assert "health.json" in model.health_problem
        device.health.rmdir()
        model.refresh()
        assert model.health_problem == ""
    assert read_health(device.health).of(2).calls == 1


def test_a_closed_handle_says_so(device: Device) -> None:
    device.activate(device.version(2))
    model = device.open()
    model.close()
    model.close()
    for use in (lambda: model(X), lambda: model.run({"x": X}), lambda: model.slot, model.refresh):
        with pytest.raises(StateError, match="handle of the active model is closed"):
            use()


def test_a_directory_that_is_no_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a device"):
        ActiveModel(tmp_path)
    Layout(tmp_path).state.write_bytes(b"{torn")
    with pytest.raises((NotFoundError, BundleError)):
        ActiveModel(tmp_path)


def test_a_device_where_nothing_loads_names_every_version(device: Device) -> None:
    broken = device.version(9, b"no model")
    activate(device.directory, broken, factory=device.version(8, b"nothing either"))
    with pytest.raises(ModelError, match=r"9\.0\.0 \(release 9\).*8\.0\.0 \(release 8\)"):
        device.open()
    assert read_health(device.health).processes == {}


def test_an_interval_that_cannot_be_meant_is_refused(device: Device) -> None:
    with pytest.raises(ConfigError, match="check_interval_s is -1"):
        ActiveModel(device.directory, check_interval_s=-1)


def test_files_that_the_updater_removed_meanwhile_are_nobodys_fault(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the record and loading, the updater moves on and collects what it left."""
    two, three = device.version(2), device.version(3)
    device.activate(two)
    load = load_version

    def overtaken(*arguments: object) -> object:
        if arguments[1] == two:
            device.activate(three)
            Layout(device.directory).store.path(two.variant_sha256).unlink()
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(following, "load_version", overtaken)
    with device.open() as model:
        assert model.slot == three
        assert model.fallback_reason == ""
    assert read_health(device.health).of(2).load_failures == 0


def test_a_manifest_that_goes_away_during_the_trial_does_not_stop_the_app(device: Device) -> None:
    three = device.version(3)
    device.activate(three, previous=device.version(2), phase=State.TRIAL)
    with device.open() as model:
        model(X)
        Layout(device.directory).store.path(three.manifest_sha256).unlink()
        for _ in range(3):
            np.testing.assert_array_equal(model(X), X * 3)
        assert model.slot == three
