"""A worker process that is killed under load: who notices, who does not, and what comes of it."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tests.processes import workers_of
from tests.served import PROCESS_TIMEOUT_S, ServerProcess, linear_bundle, server_process
from tests.waiting import wait_until

from tidegate.client import Client, RetrySettings
from tidegate.errors import TidegateError

ONES = np.ones((1, 4), np.float32)
CALLERS = 8


@dataclass
class Caller:
    """Calls without a pause over a connection of its own."""

    answered: int = 0
    failures: list[TidegateError] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)

    def call(self, address: str, retries: RetrySettings, stopping: threading.Event) -> None:
        with Client(address, timeout_s=PROCESS_TIMEOUT_S, retries=retries) as client:
            while not stopping.is_set():
                try:
                    assert client.infer("linear", {"x": ONES})["y"][0, 0] == 2
                    self.answered += 1
                except TidegateError as error:
                    self.failures.append(error)
                self.began.set()


def others(server: ServerProcess, killed: int) -> int:
    return len([pid for pid in workers_of(server.process.pid) if pid != killed])


def test_a_retry_covers_the_calls_in_flight_on_a_killed_worker(tmp_path: Path) -> None:
    stopping, callers = threading.Event(), [Caller() for _ in range(CALLERS)]
    retries = RetrySettings(attempts=5, infer=True)
    with (
        server_process([linear_bundle(tmp_path, factor=2.0)], "--workers", "2") as server,
        ThreadPoolExecutor(CALLERS) as pool,
        ExitStack() as at_the_end,
    ):
        # Also when something fails below: the pool waits for its callers.
        at_the_end.callback(stopping.set)
        running = [pool.submit(caller.call, server.address, retries, stopping) for caller in callers]
        for caller in callers:
            assert caller.began.wait(PROCESS_TIMEOUT_S)
        killed = workers_of(server.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: others(server, killed) == 2)
        marks = [caller.answered for caller in callers]
        wait_until(lambda: all(one.answered > mark for one, mark in zip(callers, marks, strict=True)))
        stopping.set()
        for one in running:
            one.result(PROCESS_TIMEOUT_S)
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 0
    assert [error for caller in callers for error in caller.failures] == []
