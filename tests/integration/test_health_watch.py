"""Watching health: every change arrives, and whoever leaves at the wrong moment holds up nobody."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.served import PROCESS_TIMEOUT_S, linear_bundle
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud.server import Server

ONES = np.ones((1, 4), np.float32)
LEAVERS = 4
LEAVES_OF_EACH = 40
STATUS = health_pb2.HealthCheckResponse


def watch(channel: grpc.Channel, service: str) -> grpc.Call:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PROCESS_TIMEOUT_S)


def test_watchers_that_leave_while_something_changes_hold_up_nobody(tmp_path: Path) -> None:
    changed = threading.Event()
    with Server([linear_bundle(tmp_path)]) as server, ThreadPoolExecutor(LEAVERS + 1) as pool, ExitStack() as ending:
        ending.callback(changed.set)

        def change() -> None:
            while not changed.is_set():
                server.repository.unload("linear", "1.0.0")
                server.repository.load("linear", "1.0.0")

        def come_and_go() -> None:
            with grpc.insecure_channel(server.address) as channel:
                for _ in range(LEAVES_OF_EACH):
                    call = watch(channel, "linear/1.0.0")
                    assert next(call).status in (STATUS.SERVING, STATUS.NOT_SERVING)
                    call.cancel()

        changing = pool.submit(change)
        for leaving in [pool.submit(come_and_go) for _ in range(LEAVERS)]:
            leaving.result(PROCESS_TIMEOUT_S)
        changed.set()
        changing.result(PROCESS_TIMEOUT_S)
        with Client(server.address) as client:
            assert client.infer("linear", {"x": ONES})["y"].shape == (1, 4)
        assert server.stop()


def test_a_name_that_appears_later_is_told_and_a_drain_is_the_last_word(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    linear_bundle(tmp_path, version="1.0.0").rename(models / "first.tide")
    with Server([models]) as server, grpc.insecure_channel(server.address) as channel:
        later, unknown = watch(channel, "linear/2.0.0"), watch(channel, "nobody")
        assert (next(later).status, next(unknown).status) == (STATUS.SERVICE_UNKNOWN, STATUS.SERVICE_UNKNOWN)
        with pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        linear_bundle(tmp_path, version="2.0.0").rename(models / "second.tide")
        server.reload()
        assert next(later).status == STATUS.SERVING
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert next(later).status == STATUS.NOT_SERVING
        stopping.join(PROCESS_TIMEOUT_S)


def test_who_has_left_is_forgotten(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path)]) as server, grpc.insecure_channel(server.address) as channel:
        calls = [watch(channel, f"name-{number}") for number in range(20)]
        assert {next(call).status for call in calls} == {STATUS.SERVICE_UNKNOWN}
        for call in calls:
            call.cancel()
        health = server._health
        assert health is not None
        wait_until(lambda: not health._watchers)
