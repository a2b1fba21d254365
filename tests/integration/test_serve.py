"""`tidegate serve` and `tidegate call` as processes: start, drain, die."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tests.commands import Command, command_in
from tests.served import (
    PATIENT,
    PROCESS_TIMEOUT_S,
    ServerProcess,
    linear_bundle,
    server_process,
    slow_bundle,
    with_golden,
)
from tests.waiting import wait_until

from tidegate.bundle import GoldenFixture
from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.errors import ConfigError, ModelError, ResourceError, StateError, UnavailableError
from tidegate.speech.pcm import int16_from_float32

Say = Callable[..., NDArray[np.float32]]

RATE_HZ = 16_000
ONES = np.ones((1, 4), np.float32)
LONG_TURNS = np.array([3_000_000], np.int64)
"""Two seconds or more of work: long enough to drain around it."""

ENDLESS_TURNS = np.array([2**40], np.int64)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Command:
    return command_in(capfd)


@contextmanager
def health_states(address: str, service: str = "") -> Iterator[Iterator[int]]:
    """Watch the health of a service: each change arrives as an event."""
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
        yield (answer.status for answer in watch)
        watch.cancel()


def health_of(channel: grpc.Channel, service: str = "") -> int:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=120)
    return int(answer.status)


@contextmanager
def busy(server: ServerProcess, client: Client, turns: NDArray[np.int64]) -> Iterator[Any]:
    """Have a long request under way on the server; give its future."""
    assert client.ready()
    before_s = server.cpu_s()
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(client.infer, "slow", {"turns": turns}, timeout_s=PROCESS_TIMEOUT_S)

        def computes() -> bool:
            assert not request.done()
            # Nothing else asks for so much of the processor: the model has begun.
            return server.cpu_s() >= before_s + 0.3

        wait_until(computes)
        yield request


def test_call_shows_the_server_the_model_and_runs_it(tidegate: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=ONES)
    with server_process([linear_bundle(tmp_path, factor=3.0)]) as server:
        shown = tidegate("call", server.address)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "linear" in shown.stdout
        assert json.loads(tidegate("call", server.address, "--json").stdout)["models"] == [
            {"name": "linear", "version": "1.0.0", "ready": True}
        ]
        assert "total" in tidegate("call", server.address, "linear").stdout
        described = json.loads(tidegate("call", server.address, "linear", "--json").stdout)
        assert described["signature"]["inputs"] == [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}]
        out = tmp_path / "out.npz"
        done = tidegate("call", server.address, "linear", "--input", tmp_path / "in.npz", "--output", out, "--json")
        assert done.returncode == 0, done.stderr
        assert [found["name"] for found in json.loads(done.stdout)["outputs"]] == ["y", "total"]
        np.testing.assert_array_equal(np.load(out)["y"], 3 * ONES)


def test_call_says_what_is_wrong_and_what_to_do(tidegate: Command, tmp_path: Path) -> None:
    wrong, gone, output = tmp_path / "wrong.npz", tmp_path / "gone.npz", tmp_path / "out.npz"
    np.savez(wrong, x=np.ones((1, 5), np.float32))
    with Server([linear_bundle(tmp_path)]) as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        cases: list[tuple[int, str, tuple[str | Path, ...]]] = [
            (1, "no model 'nobody'", (server.address, "nobody")),
            (1, "[1, 5]", (server.address, "linear", "--input", wrong, "--output", output)),
            (1, "no file", (server.address, "linear", "--input", gone, "--output", output)),
            (1, dead, (dead,)),
            (2, "go together", (server.address, "linear", "--input", wrong)),
            (2, "no model is named", (server.address, "--version", "1.0.0")),
            (2, "HOST:PORT", ("nowhere",)),
        ]
        for code, text, words in cases:
            done = tidegate("call", *words)
            assert done.returncode == code, words
            assert text in done.stderr
            assert "what to do: " in done.stderr
            assert "Traceback" not in done.stderr
            assert done.stdout == ""
    assert not output.exists()


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (1, "gone.tide", ["gone.tide"]),
        (1, "no variant 'other'", ["linear-1.0.0.tide", "--variant", "other"]),
        (1, "no file", ["linear-1.0.0.tide", "--catalogue", "gone.jsonl"]),
        (2, "HOST:PORT", ["linear-1.0.0.tide", "--listen", "8001"]),
        (2, "given twice", ["linear-1.0.0.tide", "linear-1.0.0.tide"]),
        (2, "maximum_streams is 0", ["linear-1.0.0.tide", "--max-streams", "0"]),
        (2, "--grace-s is -1", ["linear-1.0.0.tide", "--grace-s", "-1"]),
    ],
)
def test_serve_refuses_what_it_cannot_serve(
    tidegate: Command, tmp_path: Path, code: int, text: str, words: list[str]
) -> None:
    linear_bundle(tmp_path)
    paths: list[str | Path] = [tmp_path / word if word.endswith((".tide", ".jsonl")) else word for word in words]
    done = tidegate("serve", *paths, *([] if "--listen" in words else ["--listen", "127.0.0.1:0"]))
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "what to do: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path)
    with Server([bundle]) as first:
        with pytest.raises(ResourceError, match=f"cannot listen on {first.address}"):
            Server([bundle], first.address).start()
        # In a process of its own: what gRPC has to say about it is kept away before gRPC is imported.
        command = [sys.executable, "-m", "tidegate.cli", "serve", str(bundle), "--listen", first.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_TIMEOUT_S, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"tidegate: cannot listen on {first.address}")
        with Client(first.address) as client:
            assert client.live()


def test_a_port_of_another_program_is_said_plainly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ResourceError, match="cannot listen"):
        Server([linear_bundle(tmp_path)], f"127.0.0.1:{other.getsockname()[1]}").start()


def test_sigterm_when_idle_exits_0_and_standard_output_has_the_one_line(tmp_path: Path) -> None:
    with server_process([linear_bundle(tmp_path)]) as server, Client(server.address, timeout_s=120) as client:
        assert client.ready()
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


def test_sigterm_drains_around_a_request_under_way_and_exits_0(tmp_path: Path) -> None:
    bundles = [slow_bundle(tmp_path), linear_bundle(tmp_path)]
    with (
        server_process(bundles, *PATIENT) as server,
        Client(server.address, timeout_s=120) as client,
        grpc.insecure_channel(server.address) as channel,
        health_states(server.address) as states,
    ):
        assert next(states) == SERVING
        with busy(server, client, LONG_TURNS) as request:
            server.terminate()
            assert next(states) == NOT_SERVING
            assert not request.done()
            for service in ("", "inference.GRPCInferenceService", "slow", "slow/1.0.0"):
                assert health_of(channel, service) == NOT_SERVING
            assert client.live()
            assert not client.ready()
            assert not client.model_ready("linear")
            assert not any(model.ready for model in client.models())
            with pytest.raises(UnavailableError, match="shutting down"):
                client.infer("linear", {"x": ONES})
            assert request.result()["sum"].tolist() == LONG_TURNS.tolist()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 0


def test_draining_lets_a_speech_segment_finish_and_ends_idle_streams(tone_bundle: Path, say: Say) -> None:
    samples = int16_from_float32(say([("yes", 0.5)], 1.5))
    with (
        Server([tone_bundle]) as server,
        Client(server.address, timeout_s=120) as client,
        client.recognize(sample_rate_hz=RATE_HZ) as speaking,
        client.recognize(sample_rate_hz=RATE_HZ) as idle,
        health_states(server.address) as states,
        ThreadPoolExecutor(1) as pool,
    ):
        assert next(states) == SERVING
        speaking.begin(1, 0)
        speaking.send(0, samples)
        wait_until(lambda: server.work_under_way)
        stopped = pool.submit(server.stop, PROCESS_TIMEOUT_S)
        assert next(states) == NOT_SERVING
        idle.begin(1, 0)
        with pytest.raises(UnavailableError, match="shutting down"):
            idle.wait(1, 30)
        with pytest.raises(UnavailableError):
            client.recognize(sample_rate_hz=RATE_HZ)
        assert not stopped.done()
        speaking.end(1, len(samples))
        assert speaking.wait(1, 30).transcript.text == "yes"
        assert stopped.result()


def test_work_that_outlasts_the_grace_is_cut_off_and_said(tmp_path: Path) -> None:
    with (
        server_process([slow_bundle(tmp_path)], "--grace-s", "0.2") as server,
        Client(server.address, timeout_s=120) as client,
        busy(server, client, ENDLESS_TURNS) as request,
    ):
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 1
        with pytest.raises(UnavailableError):
            request.result()
    assert any("cut off after 0.2 s" in line for line in server.diagnostics)


def test_calls_over_the_limit_are_refused_and_not_queued_without_end(tmp_path: Path) -> None:
    settings = ServerSettings(maximum_streams=1, maximum_queued_calls=1)
    with (
        Server([slow_bundle(tmp_path)], settings=settings) as server,
        Client(server.address, timeout_s=120) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        requests = [pool.submit(client.infer, "slow", {"turns": LONG_TURNS}, timeout_s=60) for _ in range(2)]
        wait_until(lambda: server.work_under_way == len(requests))
        with pytest.raises(ResourceError):
            client.live()
        assert [request.result()["sum"].tolist() for request in requests] == [LONG_TURNS.tolist()] * 2
        assert client.live()


def test_a_model_that_nobody_waits_for_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    with (
        server_process([slow_bundle(tmp_path)]) as server,
        Client(server.address, timeout_s=120) as client,
        busy(server, client, ENDLESS_TURNS) as request,
    ):
        client.close()  # cancels the request; the runtime cannot be interrupted
        with pytest.raises(UnavailableError):
            request.result()
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with (
        server_process([slow_bundle(tmp_path)], "--grace-s", "3600") as server,
        Client(server.address, timeout_s=120) as client,
        health_states(server.address) as states,
        busy(server, client, ENDLESS_TURNS) as request,
    ):
        assert next(states) == SERVING
        server.terminate()
        assert next(states) == NOT_SERVING
        server.terminate()
        assert server.process.wait(PROCESS_TIMEOUT_S) < 0
        with pytest.raises(UnavailableError):
            request.result()


def test_kill_in_the_middle_of_a_stream_is_unavailable_at_once(tone_bundle: Path, say: Say) -> None:
    samples = int16_from_float32(say([("yes", 0.5)], 1.5))
    # All time-outs lie beyond the test's own limit: what ends the waiting is the broken connection.
    with server_process([tone_bundle]) as server, Client(server.address, timeout_s=3600) as client:
        stream = client.recognize(sample_rate_hz=RATE_HZ)
        stream.begin(1, 0)
        stream.send(0, samples)
        server.kill()
        with pytest.raises(UnavailableError, match=server.address) as caught:
            stream.wait(1, 3600)
        assert type(caught.value) is UnavailableError
        for action in (stream.poll, lambda: stream.send(len(samples), samples), lambda: stream.end(1, 48_000)):
            with pytest.raises(UnavailableError):
                action()
        with pytest.raises(UnavailableError):
            client.infer("tones", {"audio": np.zeros((1, RATE_HZ), np.float32)})
        with pytest.raises(UnavailableError):
            client.recognize(sample_rate_hz=RATE_HZ)
        stream.close()


def is_ready(client: Client) -> bool:
    try:
        return client.ready()
    except UnavailableError:
        return False


def test_a_client_reaches_a_server_that_came_back(tmp_path: Path) -> None:
    """At a path: a port that was let go may be anybody's by the time it is wanted again."""
    bundle, address = linear_bundle(tmp_path), f"unix:{tmp_path / 'socket'}"
    with Client(address, timeout_s=120) as client:
        with Server([bundle], address):
            assert client.ready()
        with pytest.raises(UnavailableError):
            client.ready()
        with Server([bundle], address):
            wait_until(lambda: is_ready(client))


def test_a_golden_fixture_is_kept_before_the_server_is_ready(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path, factor=2.0)
    total = np.full((1, 1), 8, np.float32)
    kept = with_golden(bundle, GoldenFixture({"x": ONES}, {"y": 2 * ONES, "total": total}), 1e-6)
    with Server([kept]) as server, Client(server.address) as client:
        assert client.ready()
    broken = with_golden(bundle, GoldenFixture({"x": ONES}, {"y": 2.5 * ONES, "total": total}), 1e-6)
    with pytest.raises(ModelError, match=r"output 'y' is off by 0\.5"):
        Server([broken]).start()


def test_without_reflection_descriptors_are_not_served(tmp_path: Path) -> None:
    settings = ServerSettings(reflection=False)
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(ask(iter([b""]), timeout=120))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_server_is_started_once_and_stopped_any_number_of_times(tmp_path: Path) -> None:
    server = Server([linear_bundle(tmp_path)])
    assert server.stop()
    server.start()
    with pytest.raises(StateError):
        server.start()
    assert server.stop()
    assert server.stop()
    with pytest.raises(ConfigError, match="no bundle"):
        Server([])
