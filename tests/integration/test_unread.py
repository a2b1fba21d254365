"""Answers of gRPC that nobody reads: bounded in bytes, while everybody else is served."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.raw_http2 import DATA, END_STREAM, frame, message, raw_client
from tests.served import zeros_bundle

from tidegate.client import Client
from tidegate.cloud.limits import Safety
from tidegate.cloud.server import Server, ServerSettings
from tidegate.errors import ResourceError
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

HELD_BYTES = 4 * 2**20
COUNT = 200_000
"""Numbers of an answer: 800 KB, of which five have room."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Time ends nothing here: only the bytes do.
    safety = Safety(maximum_unread_bytes=HELD_BYTES, slow_reader_s=3600, message_timeout_s=3600)
    with Server([zeros_bundle(tmp_path_factory.mktemp("unread"))], settings=ServerSettings(safety=safety)) as running:
        yield running


def asked(count: int) -> bytes:
    request = messages.ModelInferRequest(model_name="zeros")
    write_inputs(request, {"count": np.array([count], np.int64)})
    return message(request.SerializeToString())


@pytest.mark.parametrize(("path", "flags"), [(INFER, END_STREAM), (STREAM_INFER, 0)])
def test_the_oldest_unread_answers_make_room_and_others_are_served(server: Server, path: str, flags: int) -> None:
    with raw_client(server.address, window=0) as hoarder, Client(server.address, timeout_s=60) as client:
        streams = list(range(1, 41, 2))
        for stream in streams:
            hoarder.begin(stream, path)
            hoarder.send(frame(DATA, flags, stream, asked(COUNT)))
        # Answers of one connection may be computed in any order; of twenty, fifteen have no room.
        ended = hoarder.await_some_end(set(streams), 15)
        assert len(ended) >= 15
        for _ in range(3):
            assert client.infer("zeros", {"count": np.array([COUNT], np.int64)})["zeros"].size == COUNT


def test_an_answer_that_has_no_room_at_all_is_refused(server: Server) -> None:
    with Client(server.address, timeout_s=60) as client:
        with pytest.raises(ResourceError, match=str(HELD_BYTES)):
            client.infer("zeros", {"count": np.array([HELD_BYTES], np.int64)})
        assert client.infer("zeros", {"count": np.array([3], np.int64)})["zeros"].tolist() == [0, 0, 0]
