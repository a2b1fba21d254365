"""Several workers behind one port: what starts again, with what, who listens, and which limits hold for all."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.processes import workers_of
from tests.served import PROCESS_TIMEOUT_S, ServerProcess, linear_bundle, server_process
from tests.waiting import wait_until

from tidegate.bundle import Bundle
from tidegate.client import Client, RetrySettings
from tidegate.client.channel import ChannelSettings
from tidegate.client.connection import Connection
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.port import held_port
from tidegate.cloud.sources import BundleFiles, Offer
from tidegate.errors import ResourceError
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE

ONES = np.ones((1, 4), np.float32)


class SlowFiles(BundleFiles):
    """Bundles that are opened only when they may be."""

    def __init__(self, path: Path) -> None:
        super().__init__([path])
        self.opening, self.may_open = threading.Event(), threading.Event()

    def open(self, offer: Offer) -> Bundle:
        self.opening.set()
        assert self.may_open.wait(PROCESS_TIMEOUT_S)
        return super().open(offer)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a path so short that a Unix socket may lie in it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PROCESS_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    return True


def factor_of(server: ServerProcess, connection: int) -> float:
    """Ask over a connection of its own: grpc shares one between channels whose arguments are the same."""
    with Client(server.address, timeout_s=PROCESS_TIMEOUT_S, maximum_message_bytes=2**20 + connection) as client:
        return float(client.infer("linear", {"x": ONES})["y"][0, 0])


def counted(server: ServerProcess, connection: int) -> int:
    """Return how many requests ModelStatistics says were answered."""
    settings = ChannelSettings(
        server.address, PROCESS_TIMEOUT_S, 2**20 + connection, tls=None, token=None, retries=RetrySettings()
    )
    asking = Connection(settings)
    try:
        answer = asking.call(
            OPEN_INFERENCE, "ModelStatistics", messages.ModelStatisticsRequest(name="linear"), PROCESS_TIMEOUT_S
        )
    finally:
        asking.close()
    (found,) = answer.model_stats
    return int(found.inference_stats.success.count)


def events(server: ServerProcess, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in tuple(server.diagnostics)]
    return [line for line in lines if line["event"] == name]


def test_a_worker_does_not_listen_before_its_models_are_loaded(tmp_path: Path) -> None:
    files = SlowFiles(linear_bundle(tmp_path))
    with held_port("127.0.0.1:0") as holder, ThreadPoolExecutor(1) as pool, ExitStack() as at_the_end:
        port = holder.getsockname()[1]
        server = Server([], f"127.0.0.1:{port}", source=files, settings=ServerSettings(share_port=True))
        at_the_end.callback(server.stop)
        at_the_end.callback(files.may_open.set)
        starting = pool.submit(server.start)
        assert files.opening.wait(PROCESS_TIMEOUT_S)
        assert not connects(port)
        files.may_open.set()
        assert starting.result(PROCESS_TIMEOUT_S) == port
        assert connects(port)


def test_a_killed_worker_is_replaced_by_one_that_serves_what_the_others_do(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(scratch))
    bundle = linear_bundle(tmp_path, factor=2.0)
    with server_process([bundle], "--workers", "2", "--log-format", "json") as server:
        serving = events(server, "serving")
        assert [(line["model"], line["version"]) for line in serving] == [("linear", "1.0.0")] * 2
        first = set(workers_of(server.process.pid))
        assert {line["process"] for line in serving} == first
        # Broken in place, and a version beside it: without --watch-s neither is looked at.
        bundle.write_bytes(bundle.read_bytes()[:-100])
        linear_bundle(tmp_path, version="1.1.0", factor=3.0)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(events(server, "worker_serves")) == 2)
        assert {line["exit_code"] for line in events(server, "worker_ended")} == {-signal.SIGKILL}
        assert [factor_of(server, number) for number in range(6)] == [2.0] * 6
        # Whichever worker answers has counted for both.
        assert [counted(server, number) for number in range(6)] == [6] * 6
        # Without the copies there is nothing that could be loaded: told, tried again, and the other one serves on.
        (copies,) = scratch.glob("tidegate-workers-*/bundles")
        copies.rename(copies.with_name("away"))
        killed = workers_of(server.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        (failed,) = wait_until(lambda: events(server, "worker_failed")[:1])
        assert failed["error"] == "IntegrityError"
        assert failed["fix"]
        assert failed["pause_s"] == 2
        assert [factor_of(server, number) for number in range(6, 10)] == [2.0] * 4
        for kept in [*copies.with_name("away").glob("*.tide"), copies.with_name("away") / "fleet.json"]:
            kept.replace(copies / kept.name)
        wait_until(lambda: len(events(server, "worker_serves")) == 3)
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 0
    assert list(scratch.glob("tidegate-workers-*")) == []


def test_a_rate_holds_for_all_workers_together(tmp_path: Path) -> None:
    # As good as no request comes back within the test.
    with server_process([linear_bundle(tmp_path)], "--workers", "2", "--rate", "0.0001:20") as server:
        answered = 0
        for number in range(60):
            try:
                with Client(
                    server.address,
                    timeout_s=PROCESS_TIMEOUT_S,
                    maximum_message_bytes=2**20 + number,
                    check_inputs=False,
                ) as client:
                    client.infer("linear", {"x": ONES})
                answered += 1
            except ResourceError:
                pass
        assert answered == 20
