"""What a call took is free when it ends, and does not wait for the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tests.http_server import call, infer_body
from tests.raw_http2 import DATA, END_STREAM, RST_STREAM, frame, message, raw_client
from tests.served import linear_bundle, slow_bundle
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud.http import HttpSettings
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.errors import InputError
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLS = 20

OF_A_SERVER = ("tidegate.cloud", "grpc._server", "uvicorn")
"""Modules of what a call leaves behind."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("cycles")
    settings = ServerSettings(outside=OutsideSettings(http=HttpSettings(listen="127.0.0.1:0")))
    with Server([linear_bundle(directory), slow_bundle(directory)], settings=settings) as running:
        yield running


def infer(server: Server) -> None:
    with Client(server.address, timeout_s=60) as client:
        for _ in range(CALLS):
            client.infer("linear", {"x": np.ones((1, 4), np.float32)})


def refused(server: Server) -> None:
    with Client(server.address, timeout_s=60, check_inputs=False) as client:
        for _ in range(CALLS):
            with pytest.raises(InputError):
                client.infer("linear", {"x": np.ones((1, 5), np.float32)})


def reset_while_it_computes(server: Server) -> None:
    request = messages.ModelInferRequest(model_name="slow")
    write_inputs(request, {"turns": np.array([20_000], np.int64)})
    with raw_client(server.address) as client:
        for stream in range(1, 2 * CALLS, 2):
            client.begin(stream, INFER)
            client.send(frame(DATA, END_STREAM, stream, message(request.SerializeToString())))
            client.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")))
    infer(server)


def over_http(server: Server) -> None:
    for columns in (4, 5):
        for _ in range(CALLS):
            body = infer_body("x", "FP32", [1, columns], [1] * columns)
            reply = call(server.http_address, "POST", "/v2/models/linear/infer", body)
            assert reply.status == (200 if columns == 4 else 400)


@pytest.mark.parametrize("calls", [infer, refused, reset_while_it_computes, over_http])
def test_no_call_leaves_a_cycle(server: Server, calls: Callable[[Server], None]) -> None:
    calls(server)
    wait_until(lambda: not server.work_under_way)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        calls(server)
        wait_until(lambda: not server.work_under_way)
        gc.collect()
        left = Counter(
            f"{type(found).__module__}.{type(found).__qualname__}"
            for found in gc.garbage
            if str(type(found).__module__).startswith(OF_A_SERVER)
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert sum(left.values()) < CALLS // 2, left
