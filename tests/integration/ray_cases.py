"""Ray Data and Ray Serve on a real local cluster of three nodes, one of which is killed under load."""

from __future__ import annotations

import json
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
from tests.served import linear_bundle

from tidegate.client import Client
from tidegate.cloud.ray_serving import RayPlace, free_port, running
from tidegate.cloud.ray_settings import RaySettings
from tidegate.errors import InputError, ModelError, NotFoundError, TidegateError, UnavailableError
from tidegate.predict import BundleMapper, PredictSettings

REPLICAS = 2
CALLERS = 4
ENOUGH = 30
"""Answers in a row, over all callers, that count as recovered."""

TIMEOUT_S = 120
ONES = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without cores and two nodes with one each, so that each takes one replica."""
    made = Cluster()
    made.add_node(num_cpus=0, include_dashboard=False)
    for _ in range(REPLICAS):
        made.add_node(num_cpus=1, wait=False)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


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


def test_ray_serve_speaks_the_protocol_and_outlives_a_node(cluster: Cluster, tmp_path: Path) -> None:
    settings = RaySettings(
        bundles=(str(linear_bundle(tmp_path, factor=3.0)),), min_replicas=REPLICAS, max_replicas=REPLICAS
    )
    place = RayPlace(free_port(), cluster.address, every_node=False)
    with running(settings, place), Client(f"127.0.0.1:{place.port}", timeout_s=30) as client:
        check_protocol(client, f"127.0.0.1:{place.port}")
        outcomes = load_while_a_node_dies(cluster, client)
        assert outcomes["answered"] > 0
        for _ in range(ENOUGH):
            np.testing.assert_array_equal(client.infer("linear", {"x": ONES})["y"], ONES * 3)
        assert wait_for_replicas()


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
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=30)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as malformed:
            infer(b"\xff\xff", timeout=30)
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
            cluster.add_node(num_cpus=1)
            take(in_a_row)
            assert wait_for_replicas()
        finally:
            over.set()
        for caller in callers:
            caller.result(TIMEOUT_S)
    return outcomes


def take(answers: threading.Semaphore) -> None:
    for _ in range(ENOUGH):
        assert answers.acquire(timeout=TIMEOUT_S)


def wait_for_replicas() -> bool:
    """Wait until Ray has as many replicas running as were asked for."""
    pause = threading.Event()
    for _ in range(TIMEOUT_S * 4):
        deployment = serve.status().applications["tidegate"].deployments["OpenInference"]
        if deployment.replica_states.get("RUNNING") == REPLICAS and deployment.status.value == "HEALTHY":
            return True
        pause.wait(0.25)
    return False


def test_a_bundle_that_does_not_load_is_told(cluster: Cluster, tmp_path: Path) -> None:
    place = RayPlace(free_port(), cluster.address, every_node=False)
    with pytest.raises(TidegateError), running(RaySettings(bundles=(str(tmp_path / "none.tide"),)), place):
        pass
