from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from tests.served import identity_bundle, linear_bundle, slow_bundle
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.errors import (
    ConfigError,
    DeadlineError,
    InputError,
    NotFoundError,
    ResourceError,
    StateError,
    UnavailableError,
)

LIMIT_BYTES = 2**20
LONG_TURNS = np.array([500_000], np.int64)

ONES = np.ones((2, 4), np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("bundles")
    bundles = [linear_bundle(directory, factor=2.0), identity_bundle(directory, "BYTES"), slow_bundle(directory)]
    with Server(bundles, settings=ServerSettings(maximum_message_bytes=LIMIT_BYTES)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout_s=120) as opened:
        yield opened


def test_health_and_metadata(client: Client) -> None:
    assert client.live()
    assert client.ready()
    assert client.model_ready("linear")
    assert not client.model_ready("linear", "9.9.9")
    assert not client.model_ready("nobody")
    assert client.server_metadata().name == "tidegate"
    assert {(model.name, model.version, model.ready) for model in client.models()} == {
        ("linear", "1.0.0", True),
        ("identity-bytes", "1.0.0", True),
        ("slow", "1.0.0", True),
    }
    model = client.model_metadata("linear")
    assert model.versions == ("1.0.0",)
    assert [(spec.name, spec.dtype, spec.shape) for spec in model.signature.inputs] == [("x", "FP32", (-1, 4))]


def test_infer_returns_arrays_by_name(client: Client) -> None:
    outputs = client.infer("linear", {"x": ONES}, request_id="7")
    np.testing.assert_array_equal(outputs["y"], 2 * ONES)
    np.testing.assert_array_equal(outputs["total"], np.full((2, 1), 8, np.float32))
    assert list(client.infer("linear", {"x": ONES}, outputs=["total"], version="1.0.0")) == ["total"]


def test_strings_travel_as_bytes(client: Client) -> None:
    assert client.infer("identity-bytes", {"x": np.array([["a", "é"]])})["y"].tolist() == [[b"a", "é".encode()]]


def test_errors_are_typed_and_name_the_server_and_what_to_do(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no model 'nobody'") as missing:
        client.infer("nobody", {"x": ONES})
    with pytest.raises(InputError, match="'x'") as wrong:
        client.infer("linear", {"x": ONES.astype(np.float64)})
    for caught in (missing.value, wrong.value):
        assert caught.message.startswith(client.target)
        assert caught.fix
        assert "What to do" not in caught.message


def test_too_large_a_message_is_a_resource_error_and_the_next_call_works(client: Client) -> None:
    with pytest.raises(ResourceError):
        client.infer("linear", {"x": np.ones((LIMIT_BYTES // 16 + 1, 4), np.float32)})
    assert client.live()


def test_a_deadline_is_kept(client: Client) -> None:
    with pytest.raises(DeadlineError):
        client.infer("slow", {"turns": LONG_TURNS}, timeout_s=0.05)


def test_a_client_is_used_from_several_threads(client: Client) -> None:
    answers: list[float] = []

    def call(value: float) -> None:
        for _ in range(20):
            answers.append(float(client.infer("linear", {"x": np.full((1, 4), value, np.float32)})["y"][0, 0]) / value)

    threads = [threading.Thread(target=call, args=(float(number),)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [2.0] * 100


def test_a_dead_server_is_unavailable_at_once_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        # The deadline is far beyond the test's own time limit: what is raised is not the deadline.
        with Client(target, timeout_s=3600) as client:
            for call in (client.live, client.models, lambda: client.recognize(sample_rate_hz=16_000)):
                with pytest.raises(UnavailableError, match=target) as caught:
                    call()
                assert type(caught.value) is UnavailableError
                assert caught.value.fix


def test_a_server_that_says_nothing_is_a_deadline_error() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3) as client:
            with pytest.raises(DeadlineError):
                client.live()
            with pytest.raises(DeadlineError):
                client.recognize(sample_rate_hz=16_000)


def test_after_close_every_call_is_a_state_error(server: Server) -> None:
    client = Client(server.address)
    assert client.live()
    client.close()
    client.close()
    with pytest.raises(StateError):
        client.live()
    with pytest.raises(StateError):
        client.recognize(sample_rate_hz=16_000)


@pytest.mark.parametrize("target", ["", "127.0.0.1", ":8001", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "h:x"])
def test_an_address_that_cannot_be_meant(target: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Client(target)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_that_cannot_be_meant(timeout_s: float) -> None:
    with pytest.raises(ConfigError):
        Client("127.0.0.1:1", timeout_s=timeout_s)


def test_importing_the_client_loads_neither_grpc_nor_protobuf() -> None:
    program = "import sys, tidegate.client; print({'grpc', 'google.protobuf'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout == "set()\n"
