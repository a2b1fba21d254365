"""Where others plug into the core: admissions and observers; callers that leave; streams beside calls."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.served import PROCESS_TIMEOUT_S, linear_bundle, slow_bundle
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.batching import BatchSettings
from tidegate.cloud.core import Caller, Inference, LocalCaller, Request
from tidegate.cloud.queueing import QueueSettings
from tidegate.cloud.repository import LoadSettings, RepositorySettings
from tidegate.errors import (
    ConfigError,
    DeadlineError,
    InputError,
    NotFoundError,
    ResourceError,
    TidegateError,
    UnavailableError,
)
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.tensors import write_inputs

ONES = np.ones((1, 4), np.float32)
LONG_TURNS = np.array([2_000_000], np.int64)


class OnlyFriends:
    """Lets callers through that send a certain header."""

    def admit(self, caller: Caller, model: str) -> None:
        if caller.metadata.get("friend") != model:
            raise ConfigError(f"{caller.peer.partition(':')[0]} caller is no friend of {model}", fix="become one")


@dataclass
class Notes:
    """Keeps what it is told."""

    seen: list[tuple[str, bool, str]] = field(default_factory=list)
    told: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        assert took_ns > 0
        self.seen.append((request.id, answer is not None, type(error).__name__))
        self.told.release()


def request_of(rows: int = 1, *, request_id: str = "", model: str = "linear", **parameters: int) -> bytes:
    request = messages.ModelInferRequest(model_name=model, id=request_id)
    write_inputs(request, {"x": np.ones((rows, 4), np.float32)})
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    raw: bytes = request.SerializeToString()
    return raw


@pytest.mark.parametrize("direct", [True, False])
def test_admissions_refuse_and_observers_learn_of_every_request(tmp_path: Path, direct: bool) -> None:
    notes, settings = Notes(), ServerSettings(direct=direct)
    path = OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelInfer"))
    with (
        Server([linear_bundle(tmp_path)], settings=settings, admissions=[OnlyFriends()], observers=[notes]) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as refused:
            call(request_of(request_id="stranger"), timeout=120)
        assert "ipv4 caller is no friend of linear" in refused.value.details()
        call(request_of(request_id="friend"), timeout=120, metadata=[("friend", "linear")])
        with pytest.raises(grpc.RpcError):
            call(request_of(request_id="lost", model="nobody"), timeout=120, metadata=[("friend", "nobody")])
        for _ in range(3):
            assert notes.told.acquire(timeout=PROCESS_TIMEOUT_S)
    # Each is told of after its answer is out, so the next one may overtake it.
    assert sorted(notes.seen) == [
        ("friend", True, "NoneType"),
        ("lost", False, "NotFoundError"),
        ("stranger", False, "ConfigError"),
    ]


def test_the_core_answers_inside_the_process(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path, factor=2.0)]) as server:
        answer = server.core.infer("linear", "", {"x": ONES}, ["y"])
        assert list(answer.outputs) == ["y"]
        np.testing.assert_array_equal(answer.outputs["y"], 2 * ONES)
        for feeds, wanted in (({"x": ONES}, ["z"]), ({"z": ONES}, []), ({"x": ONES.astype(np.float64)}, [])):
            with pytest.raises(InputError):
                server.core.infer("linear", "", feeds, wanted)
        with pytest.raises(NotFoundError):
            server.core.infer("nobody", "", {"x": ONES})
        assert server.repository.find("linear").usage.users == 0


def test_a_request_whose_time_is_up_or_whose_caller_left_is_never_run(tmp_path: Path) -> None:
    with (
        Server([slow_bundle(tmp_path)]) as server,
        Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        served = server.repository.find("slow")
        first = threading.Thread(target=client.infer, args=("slow", {"turns": LONG_TURNS}))
        first.start()
        wait_until(lambda: server.computing)
        message = messages.ModelInferRequest(model_name="slow")
        write_inputs(message, {"turns": LONG_TURNS})
        call = channel.unary_unary(OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelInfer")))
        leaving = call.future(message.SerializeToString(), timeout=PROCESS_TIMEOUT_S)
        wait_until(lambda: served.batcher.waiting)
        leaving.cancel()
        with pytest.raises(DeadlineError):
            server.core.infer("slow", "", {"turns": LONG_TURNS}, caller=LocalCaller(deadline_s=0.0))
        first.join(PROCESS_TIMEOUT_S)
        assert client.infer("slow", {"turns": np.array([3], np.int64)})["sum"].tolist() == [3]
        counts = served.statistics.read()
        assert (counts.executions, counts.dropped) == (2, 2)


def test_a_full_queue_is_refused_and_a_priority_checked(tmp_path: Path) -> None:
    batching = BatchSettings(queue=QueueSettings(maximum_length=1))
    held = RepositorySettings(loading=LoadSettings(batching=batching))
    turns = {"turns": LONG_TURNS}
    with (
        Server([slow_bundle(tmp_path), linear_bundle(tmp_path)], repository=held) as server,
        Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        threads = [threading.Thread(target=client.infer, args=("slow", turns)) for _ in range(2)]
        threads[0].start()
        wait_until(lambda: server.computing)
        threads[1].start()
        wait_until(lambda: server.repository.find("slow").batcher.waiting)
        with pytest.raises(ResourceError, match="1 requests wait for model 'slow'"):
            client.infer("slow", turns)
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 1
        for thread in threads:
            thread.join(PROCESS_TIMEOUT_S)
        call = channel.unary_unary(OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelInfer")))
        call(request_of(timeout=30_000_000), timeout=120)
        with pytest.raises(grpc.RpcError) as caught:
            call(request_of(timeout=-1), timeout=120)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_calls_go_on_while_every_stream_is_taken(tone_bundle: Path, tmp_path: Path) -> None:
    settings = ServerSettings(maximum_streams=60, unary_threads=1)
    with (
        Server([tone_bundle, linear_bundle(tmp_path)], settings=settings) as server,
        Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client,
    ):
        streams = [client.recognize(sample_rate_hz=16_000) for _ in range(60)]
        assert server.open_streams == 60
        with pytest.raises((ResourceError, UnavailableError)):
            client.recognize(sample_rate_hz=16_000)
        assert client.ready()
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 1
        for stream in streams:
            stream.close()


def test_a_call_without_a_message_is_the_callers_error(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path)]) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.stream_unary(OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelInfer")))
        with pytest.raises(grpc.RpcError) as caught:
            call(iter([]), timeout=120)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_callers_that_leave_in_a_crowd_leave_nothing_behind(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path)]) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelInfer")))
        futures = [call.future(request_of(), timeout=PROCESS_TIMEOUT_S) for _ in range(600)]
        for future in futures[::2]:
            future.cancel()
        for future in futures[1::2]:
            assert messages.ModelInferResponse.FromString(future.result()).model_name == "linear"
        usage = server.repository.find("linear").usage
        wait_until(lambda: not server.work_under_way and not usage.users)
