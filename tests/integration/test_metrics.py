"""What Prometheus reads from a real server: counts, labels, values in a profile's bins, workers together."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.http_server import call, infer_body, scrape, total
from tests.processes import workers_of
from tests.served import linear_bundle, server_process, slow_bundle
from tests.waiting import wait_until

from tidegate.bundle import Asset, Bundle, digest, write_bundle
from tidegate.client import Client
from tidegate.cloud.http import HttpSettings
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.profile import Options, encode, profile_from

ROW = np.array([[1, 2, 3, 4]], np.float32)
INFER = "/v2/models/linear/infer"
BODY = infer_body("x", "FP32", [1, 4], [1, 2, 3, 4])


def with_metrics(**http: object) -> ServerSettings:
    settings = {"metrics_listen": "127.0.0.1:0", **http}
    return ServerSettings(outside=OutsideSettings(http=HttpSettings(**settings)))  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    bundles = [linear_bundle(tmp_path), linear_bundle(tmp_path, version="2.0.0", factor=2)]
    with Server(bundles, settings=with_metrics(listen="127.0.0.1:0")) as running:
        yield running


def test_calls_over_grpc_and_http_are_counted_by_model_version_label_and_outcome(server: Server) -> None:
    server.repository.set_label("linear", "canary", "2.0.0")
    with Client(server.address) as client:
        for _ in range(3):
            client.infer("linear", {"x": ROW}, version="1.0.0")
    for _ in range(2):
        assert call(server.http_address, "POST", "/v2/models/linear/versions/canary/infer", BODY).status == 200
    for name in ("other", "another", "linear/versions/7.0.0"):
        assert call(server.http_address, "POST", f"/v2/models/{name}/infer", BODY).status == 404
    wrong = infer_body("x", "FP32", [1, 3], [1, 2, 3])
    assert call(server.http_address, "POST", "/v2/models/linear/versions/1.0.0/infer", wrong).status == 400
    count = "tidegate_request_seconds_count"
    # A request is counted after its answer is out.
    wait_until(lambda: total(scrape(server.metrics_address), count) == 9)
    for address in (server.http_address, server.metrics_address):
        found = scrape(address)
        assert total(found, count, model="linear", version="1.0.0", label="", code="OK") == 3
        assert total(found, count, model="linear", version="2.0.0", label="canary", code="OK") == 2
        assert total(found, count, model="linear", version="1.0.0", code="INVALID_ARGUMENT") == 1
        assert total(found, count, model="linear", version="", code="NOT_FOUND") == 1
        assert total(found, count, model="", code="NOT_FOUND") == 2  # names that callers make up are no series
        assert total(found, "tidegate_compute_seconds_count", model="linear") == 5
        assert total(found, "tidegate_queue_seconds_count", model="linear") == 5
        assert total(found, "tidegate_batch_rows_bucket", model="linear", le="1") == 5
        assert total(found, "tidegate_rows_total", model="linear") == 5
        assert total(found, "tidegate_model_label", model="linear", version="2.0.0", label="canary") == 1
        assert total(found, "tidegate_model_state", model="linear", state="READY") == 2
        assert total(found, "tidegate_ready") == 1
        assert total(found, "process_resident_memory_bytes") > 1e6


def test_histograms_grow_towards_infinity_and_end_in_their_count(server: Server) -> None:
    call(server.http_address, "POST", INFER, BODY)
    found = scrape(server.metrics_address)
    series = [name.removesuffix("_bucket") for name in found if name.endswith("_bucket")]
    assert {"tidegate_request_seconds", "tidegate_queue_seconds", "tidegate_compute_seconds"} <= set(series)
    for name in series:
        by_series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for labels, value in found[f"{name}_bucket"]:
            key = tuple(sorted((label, text) for label, text in labels.items() if label != "le"))
            by_series.setdefault(key, []).append((float(labels["le"]), value))
        for key, bins in by_series.items():
            assert bins == sorted(bins)
            assert [count for _, count in bins] == sorted(count for _, count in bins)
            assert bins[-1] == (float("inf"), total(found, f"{name}_count", **dict(key)))


def test_the_port_for_metrics_has_no_inference(server: Server) -> None:
    assert call(server.metrics_address, "GET", "/v2/health/live").status == 200
    assert call(server.metrics_address, "GET", "/v2/health/ready").status == 200
    assert call(server.metrics_address, "POST", INFER, BODY).status == 404
    assert call(server.metrics_address, "POST", "/v2/repository/models/linear/unload", b"").status == 404


def test_states_follow_unloading(server: Server) -> None:
    server.repository.unload("linear", "1.0.0")
    found = scrape(server.metrics_address)
    assert total(found, "tidegate_model_state", version="1.0.0", state="UNLOADED") == 1
    assert total(found, "tidegate_model_state", version="1.0.0", state="READY") == 0
    assert total(found, "tidegate_model_memory_bytes", version="2.0.0") >= 0


def test_a_watcher_of_health_learns_of_unloading_and_loading(server: Server) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        version = stub.Watch(health_pb2.HealthCheckRequest(service="linear/1.0.0"))
        model = stub.Watch(health_pb2.HealthCheckRequest(service="linear"))
        assert (next(version).status, next(model).status) == (serving, serving)
        server.repository.unload("linear", "1.0.0")
        assert next(version).status == not_serving
        assert stub.Check(health_pb2.HealthCheckRequest(service="linear")).status == serving
        server.repository.load("linear", "1.0.0")
        assert next(version).status == serving
        server.repository.unload("linear")
        assert (next(version).status, next(model).status) == (not_serving, not_serving)
        version.cancel()
        model.cancel()


def test_a_full_queue_is_counted(tmp_path: Path) -> None:
    from tidegate.cloud.batching import BatchSettings
    from tidegate.cloud.queueing import QueueSettings
    from tidegate.cloud.repository import LoadSettings, RepositorySettings

    loading = LoadSettings(batching=BatchSettings(queue=QueueSettings(maximum_length=1)))
    held = RepositorySettings(loading=loading)
    with Server([slow_bundle(tmp_path)], settings=with_metrics(listen="127.0.0.1:0"), repository=held) as server:

        def ask(turns: int) -> int:
            body = infer_body("turns", "INT64", [1], [turns])
            return call(server.http_address, "POST", "/v2/models/slow/infer", body).status

        with ThreadPoolExecutor(6) as pool:
            first = pool.submit(ask, 3_000_000)
            wait_until(lambda: server.computing)
            others = list(pool.map(ask, [1] * 5))
            assert first.result() == 200
        assert sorted(others) == [200, 429, 429, 429, 429]
        assert total(scrape(server.metrics_address), "tidegate_refused_total", model="slow") == 4
        refused = {"model": "slow", "code": "RESOURCE_EXHAUSTED"}
        wait_until(lambda: total(scrape(server.metrics_address), "tidegate_request_seconds_count", **refused) == 4)


def test_values_are_counted_in_the_bins_of_the_profile_and_nowhere_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4)).astype(np.float32)
    profile = profile_from({"x": rows}, {"y": rows}, options=Options(window_rows=(200,), replicates=1000))
    bare = linear_bundle(tmp_path, name="bare")
    with Bundle.open(linear_bundle(tmp_path)) as opened:
        from msgspec.structs import replace

        raw = encode(profile)
        asset = Asset(file="profile.json", sha256=digest(raw), size_bytes=len(raw))
        files = {file.path: opened.read(file.path) for file in opened.files} | {"profile.json": raw}
        manifest = replace(opened.manifest, reference_profile=asset)
    profiled = tmp_path / "profiled.tide"
    write_bundle(manifest, files, profiled)
    with Server([profiled, bare], settings=with_metrics(values_per_s=1e9)) as server, Client(server.address) as client:
        for _ in range(3):
            client.infer("linear", {"x": ROW})
            client.infer("bare", {"x": ROW})

        def counts() -> list[float]:
            found, names = scrape(server.metrics_address), [f"input/x/column/{column}" for column in range(4)]
            return [total(found, "tidegate_value_count", feature=name) for name in names]

        wait_until(lambda: counts() == [3] * 4)
        found = scrape(server.metrics_address)
        assert {labels["model"] for labels, _ in found["tidegate_value_count"]} == {"linear"}
        for column, value in enumerate(ROW[0]):
            of = {"model": "linear", "version": "1.0.0", "feature": f"input/x/column/{column}"}
            below = [
                count
                for labels, count in found["tidegate_value_bucket"]
                if of.items() <= labels.items() and float(labels["le"]) < value
            ]
            assert set(below) == {0}
            assert total(found, "tidegate_value_count", **of) == 3
            assert total(found, "tidegate_value_sum", **of) == pytest.approx(3 * value, rel=0.01)


def test_workers_are_seen_together_and_a_killed_one_comes_back(tmp_path: Path) -> None:
    options = ("--workers", "2", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with server_process([linear_bundle(tmp_path)], *options) as running:
        assert running.process.stdout is not None
        http_address = running.process.stdout.readline().removeprefix("http on ").strip()
        metrics_address = running.process.stdout.readline().removeprefix("metrics on ").strip()
        for _ in range(20):
            assert call(http_address, "POST", INFER, BODY).status == 200
        with Client(running.address) as client:
            client.infer("linear", {"x": ROW})
        wait_until(lambda: total(scrape(metrics_address), "tidegate_request_seconds_count", code="OK") == 21)
        for _ in range(8):  # whichever worker answers
            found = scrape(metrics_address)
            assert {labels["worker"] for labels, _ in found["tidegate_ready"]} == {"0", "1"}
            assert total(found, "tidegate_request_seconds_count", code="OK") == 21
            assert total(found, "tidegate_rows_total") == 21
        kept = total(found, "tidegate_request_seconds_count", worker="1")
        killed = workers_of(running.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(pids := workers_of(running.process.pid)) == 2 and killed not in pids)
        wait_until(lambda: len(_ready_workers(metrics_address)) == 2)
        assert total(scrape(metrics_address), "tidegate_request_seconds_count", worker="1") in (0, kept)
        running.terminate()
        assert running.process.wait(60) == 0


def _ready_workers(address: str) -> set[str]:
    try:
        return {labels["worker"] for labels, _ in scrape(address)["tidegate_ready"]}
    except (OSError, http.client.HTTPException):  # the connection was the killed one's
        return set()
