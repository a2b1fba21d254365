"""Clients that mean harm, or are broken: after each the server answers others, and its memory is what it was."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.raw_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RawClient,
    frame,
    grpc_headers,
    literal,
    message,
    raw_client,
)
from tests.served import ServerProcess, linear_bundle, server_process, slow_bundle
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.limits import Safety
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

ONES = np.ones((1, 4), np.float32)

INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
LIVE = "/inference.GRPCInferenceService/ServerLive"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
RECOGNIZE = "/tidegate.v1.Speech/StreamingRecognize"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

FLAT_BYTES = 40 * 2**20
"""Allocators keep what they once had; what leaks in proportion to an attack is far more than this."""

OPTIONS = ("--message-timeout-s", "1", "--slow-reader-s", "1", "--idle-stream-s", "2", "--max-message-mb", "2")

Attack = Callable[[str, int], None]
"""Attacks an address, as the n-th round."""


def infer_message(rows: int = 1) -> bytes:
    request = messages.ModelInferRequest(model_name="linear")
    write_inputs(request, {"x": np.ones((rows, 4), np.float32)})
    return message(request.SerializeToString())


def vanish_mid_request(address: str, number: int) -> None:
    whole = infer_message(1000)
    for stop in (0, 3, 5, 200, len(whole)):
        for _ in range(10):
            client = RawClient(address)
            client.begin(1, INFER)
            client.send(frame(DATA, 0, 1, whole[:stop]))
            client.vanish()


def vanish_while_it_computes(address: str, number: int) -> None:
    request = messages.ModelInferRequest(model_name="slow")
    write_inputs(request, {"turns": np.array([20_000], np.int64)})
    for _ in range(50):
        client = RawClient(address)
        client.begin(1, INFER)
        client.send(frame(DATA, END_STREAM, 1, message(request.SerializeToString())))
        client.vanish()


def garbage(address: str, number: int) -> None:
    chance = random.Random(number)
    host, _, port = address.rpartition(":")
    openings = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", PREFACE]
    for turn in range(60):
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            raw.sendall(openings[turn % len(openings)])
            send_as_far_as_it_goes(raw, chance.randbytes(chance.randrange(1, 20_000)))


def garbage_frames(address: str, number: int) -> None:
    chance = random.Random(number)
    for _ in range(60):
        with raw_client(address) as client:
            client.begin(1, INFER)
            sent = b"".join(
                frame(chance.randrange(12), chance.randrange(256), chance.choice([0, 1, 1, 3, 2**30]), payload)
                for payload in (chance.randbytes(chance.randrange(64)) for _ in range(30))
            )
            send_as_far_as_it_goes(client.socket, sent)


def changed_requests(address: str, number: int) -> None:
    """Valid requests with a few bytes changed: every answer blames the caller or is an answer."""
    chance = random.Random(number)
    request = messages.ModelInferRequest(model_name="linear", id="a")
    write_inputs(request, {"x": ONES})
    valid = request.SerializeToString()
    codes = set()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER)
        for _ in range(300):
            raw = bytearray(valid)
            for _ in range(chance.randrange(1, 4)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            codes.add(call.future(bytes(raw), timeout=60).code())
    blame = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
    assert codes <= blame | {grpc.StatusCode.OK}


def wrong_dtypes(address: str, number: int) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER, messages.ModelInferRequest.SerializeToString)
        for dtype in (np.float64, np.int8, np.uint64, np.float16, np.bool_):
            request = messages.ModelInferRequest(model_name="linear")
            write_inputs(request, {"x": np.ones((1, 4), dtype)})
            assert call.future(request, timeout=60).code() is grpc.StatusCode.INVALID_ARGUMENT


def oversized(address: str, number: int) -> None:
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        assert (
            channel.unary_unary(INFER).future(bytes(8 * 2**20), timeout=60).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        too_many = [(f"x-{number}", "y" * 500) for number in range(100)]
        ended = channel.unary_unary(INFER).future(b"", timeout=60, metadata=too_many)
        assert ended.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for claimed in (2**31, 2**32 - 1):
        with raw_client(address) as client:
            client.begin(1, INFER)
            client.send(frame(DATA, 0, 1, message(b"x", claimed_bytes=claimed)))
            send_as_far_as_it_goes(client.socket, frame(DATA, 0, 1, bytes(16_000)) * 10)


def endless_headers(address: str, number: int) -> None:
    """Header blocks that go on in CONTINUATION frames and never end."""
    for _ in range(5):
        with raw_client(address) as client:
            client.send(frame(HEADERS, 0, 1, grpc_headers(INFER)))
            more = literal("x-filler", "y" * 8000)
            for _ in range(100):
                if not send_as_far_as_it_goes(client.socket, frame(9, 0, 1, more)):
                    break


def open_and_reset(address: str, number: int) -> None:
    """Calls that are opened and reset at once (CVE-2023-44487)."""
    with raw_client(address) as client:
        for stream in range(1, 4001, 2):
            begun = frame(HEADERS, END_HEADERS, stream, grpc_headers(INFER))
            if not send_as_far_as_it_goes(client.socket, begun + frame(3, 0, stream, (8).to_bytes(4, "big"))):
                return


def half_open_calls(address: str, number: int) -> None:
    """Calls to methods of every kind whose message never comes are ended by the server."""
    with raw_client(address) as client:
        streams = set(range(1, 401, 2))
        paths = (INFER, LOAD, LIVE, CHECK, WATCH)
        for stream in sorted(streams):
            client.begin(stream, paths[stream // 2 % len(paths)])
        client.await_end(streams)


def half_open_streams(address: str, number: int) -> None:
    """Streams on which nothing ever happens are ended by the server."""
    with raw_client(address) as client:
        streams = set(range(1, 61, 2))
        paths = (RECOGNIZE, STREAM_INFER, REFLECT)
        for stream in sorted(streams):
            client.begin(stream, paths[stream // 2 % len(paths)])
        client.await_end(streams)


def answers_not_read(address: str, number: int) -> None:
    """Callers that ask and never take the answer: no window, so it stays with the server, which then gives it up."""
    with raw_client(address, window=0) as client:
        streams = set(range(1, 101, 2))
        for stream in sorted(streams):
            client.begin(stream, INFER)
            client.send(frame(DATA, END_STREAM, stream, infer_message(100)))
        client.await_end(streams)


def stream_answers_not_read(address: str, number: int) -> None:
    with raw_client(address, window=0) as client:
        client.begin(1, STREAM_INFER)
        for _ in range(20):
            client.send(frame(DATA, 0, 1, infer_message(100)))
        client.await_end({1})


def idle_connections(address: str, number: int) -> None:
    """Connections on which nothing happens, half of them not even introduced."""
    host, _, port = address.rpartition(":")
    opened = [socket.create_connection((host, int(port)), timeout=60) for _ in range(300)]
    for raw in opened[::2]:
        raw.sendall(PREFACE + frame(4, 0, 0))
    still_answers(address)
    for raw in opened:
        raw.close()


ATTACKS: list[Attack] = [
    vanish_mid_request,
    vanish_while_it_computes,
    garbage,
    garbage_frames,
    changed_requests,
    wrong_dtypes,
    oversized,
    endless_headers,
    open_and_reset,
    half_open_calls,
    half_open_streams,
    answers_not_read,
    stream_answers_not_read,
    idle_connections,
]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("victim")
    with server_process([linear_bundle(directory), slow_bundle(directory)], *OPTIONS) as server:
        still_answers(server.address)
        yield server


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.__name__))
def test_the_server_answers_after_it_and_keeps_nothing(victim: ServerProcess, attack: Attack) -> None:
    # What the first rounds take is what threads and buffers need once.
    for number in range(2):
        attack(victim.address, number)
        still_answers(victim.address)
    before = resident_bytes(victim)
    for number in range(2, 5):
        attack(victim.address, number)
        still_answers(victim.address)
    assert resident_bytes(victim) - before < FLAT_BYTES
    assert victim.process.poll() is None
    assert not [line for line in victim.diagnostics if "Traceback" in line]


def test_an_attacker_takes_nothing_from_others_while_he_is_there(victim: ServerProcess) -> None:
    """Calls of a well-behaved client succeed while the slots of the attack are open."""
    with raw_client(victim.address, window=0) as first, raw_client(victim.address) as second:
        for stream in range(1, 201, 2):
            first.begin(stream, INFER)
            first.send(frame(DATA, END_STREAM, stream, infer_message(100)))
            second.begin(stream, RECOGNIZE)
        with Client(victim.address, timeout_s=60) as client:
            for _ in range(50):
                client.infer("linear", {"x": ONES})


def test_connections_beyond_the_limit_are_closed_and_those_there_go_on(tmp_path: Path) -> None:
    settings = ServerSettings(safety=Safety(maximum_connections=20))
    with Server([linear_bundle(tmp_path)], settings=settings) as server, Client(server.address, timeout_s=60) as client:
        client.infer("linear", {"x": ONES})
        host, _, port = server.address.rpartition(":")
        opened = [socket.create_connection((host, int(port)), timeout=60) for _ in range(40)]
        for raw in opened[-5:]:
            assert hears_nothing_more(raw)
        client.infer("linear", {"x": ONES})
        for raw in opened:
            raw.close()
        wait_until(lambda: answers(server.address))


def test_a_connection_that_never_becomes_one_is_closed(tmp_path: Path) -> None:
    settings = ServerSettings(safety=Safety(handshake_timeout_s=1))
    with Server([linear_bundle(tmp_path)], settings=settings) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            assert hears_nothing_more(raw)


def test_idle_connections_are_closed_and_clients_come_back(tmp_path: Path) -> None:
    settings = ServerSettings(safety=Safety(connection_idle_s=1))
    with Server([linear_bundle(tmp_path)], settings=settings) as server, Client(server.address, timeout_s=60) as client:
        client.infer("linear", {"x": ONES})
        with raw_client(server.address) as idle:
            kinds = [kind for kind, _, _ in idle.frames()]
        assert GOAWAY in kinds
        client.infer("linear", {"x": ONES})


def test_old_connections_are_renewed_without_a_failed_call(tmp_path: Path) -> None:
    settings = ServerSettings(safety=Safety(connection_age_s=0.5, connection_age_grace_s=30))
    with Server([linear_bundle(tmp_path)], settings=settings) as server, Client(server.address, timeout_s=60) as client:
        with raw_client(server.address) as other:
            over = threading.Event()

            def follow() -> None:
                for kind, _, _ in other.frames():
                    if kind == GOAWAY:
                        over.set()
                        return

            reader = threading.Thread(target=follow, daemon=True)
            reader.start()

            def renewed() -> bool:
                client.infer("linear", {"x": ONES})
                return over.is_set()

            wait_until(renewed)
            reader.join(60)
        for _ in range(20):
            client.infer("linear", {"x": ONES})


def still_answers(address: str) -> None:
    with Client(address, timeout_s=60) as client:
        assert client.infer("linear", {"x": ONES})["y"].tolist() == [[1, 1, 1, 1]]


def answers(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        code: Any = channel.unary_unary(LIVE).future(b"", timeout=60).code()
    return code is grpc.StatusCode.OK


def hears_nothing_more(raw: socket.socket) -> bool:
    """Read until the other side closes; a wait of a minute is a TimeoutError."""
    try:
        while raw.recv(65536):
            continue
    except ConnectionResetError:
        return True
    return True


def send_as_far_as_it_goes(raw: socket.socket, data: bytes) -> bool:
    try:
        raw.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def resident_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
