"""Versions on a running server: reload under load, labels, unloading, broken releases, workers that die."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.processes import children_of, is_there, workers_of
from tests.served import PROCESS_TIMEOUT_S, identity_bundle, linear_bundle, server_process, slow_bundle, with_golden
from tests.waiting import wait_until

from tidegate.bundle import GoldenFixture
from tidegate.client import Client, RetrySettings
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.batching import BatchSettings
from tidegate.cloud.lifecycle import State
from tidegate.cloud.repository import LoadSettings, ReloadReport, RepositorySettings
from tidegate.cloud.versions import Latest
from tidegate.errors import (
    BundleError,
    InputError,
    ModelError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
    UnavailableError,
)
from tidegate.runtime.process import resident_bytes

ONES = np.ones((1, 4), np.float32)


@contextmanager
def callers(address: str, count: int = 3) -> Iterator[list[TidegateError]]:
    """Call `linear` without a pause from several threads; give the list of what failed."""
    stopping, failures, calls = threading.Event(), [], threading.Semaphore(0)

    def call() -> None:
        with Client(address, timeout_s=PROCESS_TIMEOUT_S) as client:
            while not stopping.is_set():
                try:
                    outputs = client.infer("linear", {"x": ONES})
                    assert outputs["total"][0, 0] == 4 * outputs["y"][0, 0]
                except TidegateError as error:
                    failures.append(error)
                calls.release()

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(call) for _ in range(count)]
        try:
            for _ in range(count):
                assert calls.acquire(timeout=PROCESS_TIMEOUT_S)
            yield failures
        finally:
            stopping.set()
        for one in running:
            one.result(PROCESS_TIMEOUT_S)


def put(bundle: Path, directory: Path) -> Path:
    """Move a bundle into a watched directory in one step."""
    directory.mkdir(exist_ok=True)
    return bundle.replace(directory / bundle.name)


def test_reloading_a_hundred_times_under_load_fails_no_request(tmp_path: Path) -> None:
    models = tmp_path / "models"
    put(linear_bundle(tmp_path, factor=1.0), models)
    with Server([models]) as server, callers(server.address) as failures:
        for turn in range(100):
            put(linear_bundle(tmp_path, factor=float(turn + 2)), models)
            report = server.reload()
            assert (report.loaded, report.failed) == ((("linear", "1.0.0"),), ())
        with Client(server.address) as client:
            assert client.infer("linear", {"x": ONES})["y"][0, 0] == 101
    assert failures == []


def test_versions_come_and_go_under_load(tmp_path: Path) -> None:
    models = tmp_path / "models"
    put(linear_bundle(tmp_path, version="1.0.0"), models)
    held = RepositorySettings(policy=Latest(1))
    with Server([models], repository=held) as server, callers(server.address) as failures:
        for minor in range(1, 6):
            put(linear_bundle(tmp_path, version=f"1.{minor}.0"), models)
            report = server.reload()
            assert report.loaded == (("linear", f"1.{minor}.0"),)
            assert report.unloaded == (("linear", f"1.{minor - 1}.0"),)
            assert server.repository.versions("linear") == (f"1.{minor}.0",)
    assert failures == []


def test_a_broken_new_version_never_replaces_a_good_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    good = put(linear_bundle(tmp_path, factor=2.0), models)
    wrong = GoldenFixture({"x": ONES}, {"y": 9 * ONES, "total": np.full((1, 1), 36, np.float32)})
    with Server([models]) as server, Client(server.address) as client:
        put(with_golden(linear_bundle(tmp_path, version="1.1.0"), wrong, 1e-6), models)
        (models / "cut-1.0.0.tide").write_bytes(good.read_bytes()[:-100])
        report = server.reload()
        assert report.loaded == ()
        assert {type(error) for _, error in report.failed} >= {ModelError}
        assert len(report.failed) == 2
        statuses = {status.version: status for status in server.repository.statuses()}
        assert statuses["1.1.0"].state is State.UNLOADED
        assert "golden" in statuses["1.1.0"].reason
        # The same version with a broken content: what serves goes on.
        good.write_bytes(good.read_bytes()[:-100])
        assert len(server.reload().failed) == 3
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 2
        assert server.repository.versions("linear") == ("1.0.0",)


def test_a_broken_new_version_keeps_no_watching_server_from_starting_with_the_good_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    good = put(linear_bundle(tmp_path, factor=2.0), models)
    (models / "cut-1.1.0.tide").write_bytes(good.read_bytes()[:-100])
    told: list[ReloadReport] = []
    with pytest.raises(BundleError, match="truncated"):
        Server([models]).start()
    watching = ServerSettings(watch_interval_s=60)
    with Server([models], settings=watching, on_reload=told.append) as server, Client(server.address) as client:
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 2
        assert [place for report in told for place, _ in report.failed] == [str(models / "cut-1.1.0.tide")]
    good.unlink()
    with pytest.raises(BundleError, match="truncated"):
        Server([models], settings=watching).start()


def test_a_killed_worker_comes_back_beside_a_broken_new_version(tmp_path: Path) -> None:
    models = tmp_path / "models"
    good = put(linear_bundle(tmp_path, factor=2.0), models)
    with server_process([models], "--workers", "2", "--watch-s", "60") as server:
        (models / "cut-1.1.0.tide").write_bytes(good.read_bytes()[:-100])
        # Both are killed, so that only workers that came back can answer.
        workers = workers_of(server.process.pid)
        assert len(workers) == 2
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        patient = RetrySettings(wait_for_server=True)
        with Client(server.address, timeout_s=PROCESS_TIMEOUT_S, retries=patient) as client:
            assert client.infer("linear", {"x": ONES})["y"][0, 0] == 2


def test_a_server_without_a_model_says_so(tmp_path: Path) -> None:
    told: list[ReloadReport] = []
    with Server([tmp_path], on_reload=told.append):
        pass
    ((place, problem),) = told[0].notes
    assert (place, "no model is served" in problem.message) == (str(tmp_path), True)


def test_labels_are_called_like_versions_and_move_only_to_what_is_ready(tmp_path: Path) -> None:
    bundles = [linear_bundle(tmp_path, version=f"1.{minor}.0", factor=float(minor)) for minor in (1, 2)]
    with Server(bundles) as server, Client(server.address) as client:

        def factor(version: str = "") -> float:
            return float(client.infer("linear", {"x": ONES}, version=version)["y"][0, 0])

        repository = server.repository
        assert factor() == 2
        repository.set_label("linear", "stable", "1.1.0")
        repository.set_label("linear", "canary", "1.2.0")
        assert (factor(), factor("stable"), factor("canary"), factor("1.2.0")) == (1, 1, 2, 2)
        repository.set_label("linear", "stable", "1.2.0")
        assert factor() == 2
        assert repository.roll_back("linear", "stable").version == "1.1.0"
        assert factor() == 1
        for version in ("3.0.0", ""):
            with pytest.raises(StateError, match="is not ready"):
                repository.set_label("linear", "stable", version)
        with pytest.raises(NotFoundError):
            repository.set_label("nobody", "stable", "1.0.0")
        with pytest.raises(StateError, match="label 'canary' points at"):
            repository.unload("linear", "1.2.0")
        repository.remove_label("linear", "canary")
        with pytest.raises(NotFoundError, match="'canary'"):
            factor("canary")


def test_a_labelled_version_outlives_the_policy(tmp_path: Path) -> None:
    models = tmp_path / "models"
    put(linear_bundle(tmp_path, version="1.0.0"), models)
    with Server([models], repository=RepositorySettings(policy=Latest(1))) as server:
        server.repository.set_label("linear", "stable", "1.0.0")
        put(linear_bundle(tmp_path, version="1.1.0"), models)
        assert server.reload().unloaded == ()
        server.repository.set_label("linear", "stable", "1.1.0")
        assert server.reload().unloaded == (("linear", "1.0.0"),)


def test_unloading_waits_for_the_request_in_flight(tmp_path: Path) -> None:
    with (
        Server([slow_bundle(tmp_path), linear_bundle(tmp_path)]) as server,
        Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        usage, turns = server.repository.find("slow").usage, np.array([1_000_000], np.int64)
        request = pool.submit(client.infer, "slow", {"turns": turns})
        wait_until(lambda: usage.users)
        server.repository.unload("slow")
        assert request.result()["sum"].tolist() == turns.tolist()
        with pytest.raises(NotFoundError):
            client.infer("slow", {"turns": turns})
        assert not client.model_ready("slow")
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 1
        assert server.reload().loaded == ()
        assert server.repository.load("slow") == ("1.0.0",)
        assert client.infer("slow", {"turns": np.array([5], np.int64)})["sum"].tolist() == [5]


def test_the_memory_of_models_is_limited(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path)
    own_bytes = resident_bytes()
    assert own_bytes is not None
    assert own_bytes > 2**20
    with Server([bundle], repository=RepositorySettings(maximum_memory_bytes=2**40)) as server:
        assert 0 <= server.repository.find("linear").memory_bytes < (resident_bytes() or 0)
    with pytest.raises(ResourceError, match="of 1 are in use"):
        Server([bundle], repository=RepositorySettings(maximum_memory_bytes=1)).start()


def test_a_watched_directory_is_followed(tmp_path: Path) -> None:
    models, reports = tmp_path / "models", threading.Semaphore(0)
    put(linear_bundle(tmp_path), models)
    seen: list[ReloadReport] = []

    def on_reload(report: ReloadReport) -> None:
        seen.append(report)
        reports.release()

    with Server([models], settings=ServerSettings(watch_interval_s=0.05), on_reload=on_reload) as server:
        put(linear_bundle(tmp_path, version="1.1.0"), models)
        assert reports.acquire(timeout=PROCESS_TIMEOUT_S)
        assert server.repository.versions("linear") == ("1.0.0", "1.1.0")
        (models / "linear-1.0.0.tide").unlink()
        assert reports.acquire(timeout=PROCESS_TIMEOUT_S)
        assert server.repository.versions("linear") == ("1.1.0",)
    assert [len(report.loaded) + len(report.unloaded) for report in seen] == [1, 1]


def test_batching_is_on_only_where_rows_are_independent(tmp_path: Path) -> None:
    settings = RepositorySettings(loading=LoadSettings(batching=BatchSettings(maximum_rows=8)))
    with Server([linear_bundle(tmp_path), slow_bundle(tmp_path)], repository=settings) as server:
        assert server.repository.find("linear").batcher.batched
        assert not server.repository.find("slow").batcher.batched


@pytest.mark.parametrize("direct", [True, False])
def test_many_callers_get_their_own_answers(tmp_path: Path, direct: bool) -> None:
    settings = ServerSettings(direct=direct)
    with Server([linear_bundle(tmp_path, factor=3.0), identity_bundle(tmp_path, "BYTES")], settings=settings) as server:

        def call(seed: int) -> None:
            random = np.random.default_rng(seed)
            with Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client:
                for _ in range(30):
                    x = random.standard_normal((int(random.integers(0, 5)), 4)).astype(np.float32)
                    np.testing.assert_array_equal(client.infer("linear", {"x": x})["y"], x * np.float32(3))
                    with pytest.raises(InputError):
                        client.infer("linear", {"x": np.ones((1, 5), np.float32)})
                    text = np.array([[str(seed).encode()]], object)
                    assert client.infer("identity-bytes", {"x": text})["y"].tolist() == text.tolist()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, range(8)))
        statistics = server.repository.find("linear").statistics.read()
        assert statistics.success.count == 240
        assert statistics.fail.count == 0


def test_this_grpcio_lets_unary_calls_go_without_a_thread() -> None:
    from tidegate.cloud.direct import supported

    assert supported()


def test_a_worker_that_is_killed_is_replaced_and_sigterm_drains_all(tmp_path: Path) -> None:
    with server_process([linear_bundle(tmp_path, factor=2.0)], "--workers", "2") as server:

        def call() -> bool:
            try:
                with Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client:
                    return float(client.infer("linear", {"x": ONES})["y"][0, 0]) == 2
            except UnavailableError:
                return False

        assert call()
        os.kill(workers_of(server.process.pid)[-1], signal.SIGKILL)
        wait_until(lambda: call() and any("starting another" in line for line in server.diagnostics))
        assert all(call() for _ in range(20))
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 0


def test_a_worker_that_cannot_load_ends_the_start(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path)
    shutil.copy(bundle, tmp_path / "again.tide")
    with pytest.raises(AssertionError, match="given twice"), server_process([bundle, tmp_path / "again.tide"]):
        pass


def test_workers_end_when_their_parent_was_killed(tmp_path: Path) -> None:
    with server_process([linear_bundle(tmp_path)], "--workers", "2") as server:
        children = children_of(server.process.pid)
        assert len(children) >= 2
        server.process.kill()
        server.process.wait(PROCESS_TIMEOUT_S)
        wait_until(lambda: not any(is_there(pid) for pid in children))
