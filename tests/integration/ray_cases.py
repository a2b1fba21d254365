"""Ray Data and Ray Serve on a real local cluster of three nodes: one is killed under load, replicas come and go."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ray import serve
from ray.cluster_utils import Cluster
from tests.served import linear_bundle, slow_bundle

from tidegate.client import Client
from tidegate.cloud.ray_serving import RayPlace, free_port, running
from tidegate.cloud.ray_settings import RaySettings
from tidegate.errors import InputError, ModelError, NotFoundError, ResourceError, TidegateError, UnavailableError
from tidegate.predict import BundleMapper, PredictSettings

REPLICAS = 2
CALLERS = 4
ENOUGH = 30
"""Answers in a row, over all callers, that count as recovered."""

STARTS = 4
TIMEOUT_S = 120
ONES = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without cores and two nodes with one each, so that each takes one replica."""
    # Every process of the cluster takes it from here: how often a proxy tells what is under way.
    os.environ["RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "0.1"
    made = Cluster()
    add_node(made, num_cpus=0, include_dashboard=False)
    for _ in range(REPLICAS):
        add_node(made, num_cpus=1, wait=False)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    serve.shutdown()
    ray.shutdown()
    made.shutdown()


def add_node(cluster: Cluster, **options: Any) -> None:
    """Start a node. Ray gives its own processes 15 s, which a busy machine may not keep; then it is tried again."""
    for _ in range(STARTS - 1):
        try:
            cluster.add_node(**options)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
        else:
            return
    cluster.add_node(**options)


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> RayPlace:
    """One port for all cases: Serve keeps the one that it was started with."""
    return RayPlace(free_port(), cluster.address, every_node=False)


def test_ray_data_answers_as_the_command_does(cluster: Cluster, tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    rows: list[Any] = x.tolist()
    rows[150] = [1.0]
    pq.write_table(pa.table({"id": range(200), "x": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "in.parquet")
    settings = PredictSettings(keys=("id",), on_error="skip")
    answers = (
        ray.data.read_parquet(str(tmp_path / "in.parquet"))
        .map_batches(
            BundleMapper,
            fn_constructor_args=(linear_bundle(tmp_path, factor=2.0), settings),
            fn_constructor_kwargs={"errors": tmp_path / "errors"},
            batch_format="numpy",
            batch_size=64,
            concurrency=1,
        )
        .take_all()
    )
    found = {row["id"]: row["y"] for row in answers}
    assert sorted(found) == [row for row in range(200) if row != 150]
    for row, y in found.items():
        np.testing.assert_array_equal(np.array(y, np.float32), x[row] * 2)
    (side,) = (tmp_path / "errors").iterdir()
    assert json.loads(side.read_text())["keys"] == {"id": 150}


def test_ray_serve_speaks_the_protocol_and_outlives_a_node(cluster: Cluster, place: RayPlace, tmp_path: Path) -> None:
    settings = RaySettings(
        bundles=(str(linear_bundle(tmp_path, factor=3.0)),), min_replicas=REPLICAS, max_replicas=REPLICAS
    )
    with running(settings, place), Client(f"127.0.0.1:{place.port}", timeout_s=120) as client:
        check_protocol(client, f"127.0.0.1:{place.port}")
        outcomes = load_while_a_node_dies(cluster, client)
        assert outcomes["answered"] > 0
        for _ in range(ENOUGH):
            np.testing.assert_array_equal(client.infer("linear", {"x": ONES})["y"], ONES * 3)
        assert wait_for_replicas(REPLICAS)


def check_protocol(client: Client, address: str) -> None:
    assert client.live()
    assert client.ready()
    assert client.model_ready("linear")
    assert not client.model_ready("other")
    assert [model.name for model in client.models()] == ["linear"]
    assert client.model_metadata("linear").signature.inputs[0].name == "x"
    assert not [name for name in client.server_metadata().extensions if name.startswith("model_repository")]
    np.testing.assert_array_equal(client.infer("linear", {"x": ONES}, outputs=["total"])["total"], [[12.0]])
    with pytest.raises(InputError, match=r"has shape \[1, 5\]; expected \[any, 4\]"):
        client.infer("linear", {"x": np.ones((1, 5), np.float32)})
    with pytest.raises(NotFoundError, match="no model 'other'"):
        client.infer("other", {"x": ONES})
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "linear", "linear/1.0.0"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=120)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=120)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as malformed:
            infer(b"\xff\xff", timeout=120)
        assert malformed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def load_while_a_node_dies(cluster: Cluster, client: Client) -> Counter[str]:
    """Call without a pause, kill a node, add another; return what became of the calls."""
    over, in_a_row = threading.Event(), threading.Semaphore(0)
    outcomes: Counter[str] = Counter()

    def call() -> None:
        while not over.is_set():
            try:
                found = client.infer("linear", {"x": ONES})["y"]
            except (UnavailableError, ModelError) as error:
                outcomes[type(error).__name__] += 1
            else:
                assert found.tolist() == [[3.0] * 4]
                outcomes["answered"] += 1
                in_a_row.release()

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call) for _ in range(CALLERS)]
        try:
            take(in_a_row)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            take(in_a_row)
            add_node(cluster, num_cpus=1)
            take(in_a_row)
            assert wait_for_replicas(REPLICAS)
        finally:
            over.set()
        for caller in callers:
            caller.result(TIMEOUT_S)
    return outcomes


def take(answers: threading.Semaphore) -> None:
    for _ in range(ENOUGH):
        assert answers.acquire(timeout=TIMEOUT_S)


def wait_for_replicas(count: int) -> bool:
    """Wait until Ray has so many replicas running, and no other on its way."""
    pause = threading.Event()
    for _ in range(TIMEOUT_S * 4):
        deployment = serve.status().applications["tidegate"].deployments["OpenInference"]
        if deployment.replica_states == {"RUNNING": count} and deployment.status.value == "HEALTHY":
            return True
        pause.wait(0.25)
    return False


def test_replicas_come_with_load_and_go_without(cluster: Cluster, place: RayPlace, tmp_path: Path) -> None:
    settings = RaySettings(
        bundles=(str(slow_bundle(tmp_path)),),
        max_replicas=REPLICAS,
        target_ongoing_requests=1,
        upscale_delay_s=0,
        downscale_delay_s=0,
        look_back_s=1,
    )
    turns = {"turns": np.array([20_000], np.int64)}
    over = threading.Event()
    with running(settings, place), Client(f"127.0.0.1:{place.port}", timeout_s=TIMEOUT_S) as client:
        assert wait_for_replicas(1)

        def call() -> int:
            count = 0
            while not over.is_set():
                assert client.infer("slow", turns)["sum"].tolist() == [20_000.0]
                count += 1
            return count

        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(call) for _ in range(CALLERS)]
            try:
                assert wait_for_replicas(REPLICAS)
            finally:
                over.set()
            assert sum(caller.result(TIMEOUT_S) for caller in callers) >= CALLERS
        assert wait_for_replicas(1)
        assert client.infer("slow", turns)["sum"].tolist() == [20_000.0]


def test_a_port_that_a_running_serve_does_not_have_is_told(cluster: Cluster, place: RayPlace, tmp_path: Path) -> None:
    with running(RaySettings(bundles=(str(linear_bundle(tmp_path)),)), place):
        other = RayPlace(free_port(), cluster.address, every_node=False)
        with (
            pytest.raises(ResourceError, match=f"without gRPC on port {other.port}"),
            running(RaySettings(bundles=(str(tmp_path),), name="other"), other),
        ):
            pass


def test_a_bundle_that_does_not_load_is_told(cluster: Cluster, place: RayPlace, tmp_path: Path) -> None:
    with pytest.raises(TidegateError), running(RaySettings(bundles=(str(tmp_path / "none.tide"),)), place):
        pass
