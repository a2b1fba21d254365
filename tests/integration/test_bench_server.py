from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.served import ServerProcess, linear_bundle, server_process, simple_bundle

from tidegate.bench import report as reports
from tidegate.bench.figures import joined
from tidegate.bench.scenario import concurrent_streams
from tidegate.bench.server import ServerOptions, bench_server
from tidegate.bench.system.grpc import GrpcSystem
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud.server import Server
from tidegate.errors import ConfigError, NotFoundError, TidegateError, UnavailableError
from tidegate.runtime.timing import Plan, WarmUp

QUICK = Plan(minimum_duration_s=0.05, minimum_calls=30, warm_up_s=0.01)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Server([linear_bundle(tmp_path_factory.mktemp("bench"))]) as server:
        yield server.address


def test_the_only_model_needs_no_name(address: str) -> None:
    report = bench_server(ServerOptions(target=address, plan=QUICK))
    (result,) = report.results
    assert (report.subject.kind, report.subject.name, report.subject.version) == ("server", "linear", "1.0.0")
    assert report.scenario == "single-stream"
    assert result.status == "ok"
    assert result.latency is not None
    assert result.samples_ns is not None
    assert result.latency.calls == len(result.samples_ns) >= 30
    assert result.cpu is not None
    assert result.cpu.process == "caller"
    assert result.memory is None
    assert reports.decode(reports.encode(report)) == report


def test_each_concurrent_caller_has_its_blocks(address: str) -> None:
    plan = Plan(minimum_duration_s=0.05, minimum_calls=30, warm_up_s=0.01, concurrency=3)
    report = bench_server(ServerOptions(target=address, model="linear", version="1.0.0", batch=8, plan=plan))
    (result,) = report.results
    assert report.scenario == "concurrent"
    assert result.blocks is not None
    assert result.latency is not None
    assert set(result.blocks.caller) == {0, 1, 2}
    assert sum(result.blocks.calls) == result.latency.calls
    assert result.input is not None
    assert result.input.shapes == {"x": (8, 4)}


def test_unknown_version_is_named(address: str) -> None:
    with pytest.raises(NotFoundError, match=r"9\.9\.9"):
        bench_server(ServerOptions(target=address, model="linear", version="9.9.9", plan=QUICK))


def test_several_models_need_a_name(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path), simple_bundle(tmp_path)]) as server:
        with pytest.raises(ConfigError, match=r"linear, simple"):
            bench_server(ServerOptions(target=server.address, plan=QUICK))
        report = bench_server(ServerOptions(target=server.address, model="simple", plan=QUICK))
    assert report.results[0].status == "ok"


class KillsItsServer:
    """A system whose server is killed in front of its 20th call."""

    def __init__(self, system: GrpcSystem, server: ServerProcess) -> None:
        self._system = system
        self._server = server
        self._calls = 0

    def call(self) -> None:
        self._calls += 1
        if self._calls == 20:
            self._server.kill()
        self._system.call()

    def close(self) -> None:
        self._system.close()


def test_a_server_killed_in_the_middle_is_counted_and_the_caller_gives_up(tmp_path: Path) -> None:
    with server_process([linear_bundle(tmp_path)]) as server, Client(server.address) as client:
        system = GrpcSystem(client, "linear", "", {"x": np.zeros((1, 4), np.float32)})
        plan = Plan(minimum_duration_s=60, minimum_calls=1)
        recordings = concurrent_streams(
            [KillsItsServer(system, server)], plan, WarmUp(1, 1_000_000), tolerated=(TidegateError,)
        )
    latencies_ns, _, errors = joined(recordings)
    assert len(latencies_ns) == 19
    assert set(errors) == {"UnavailableError"}
    assert recordings[0].stopped_by == "unavailable"


def test_a_dead_server_is_a_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server_process([linear_bundle(tmp_path)]) as server:
        server.kill()
        with pytest.raises(UnavailableError):
            bench_server(ServerOptions(target=server.address, plan=QUICK))
        assert main(["bench", "--server", server.address]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert server.address in captured.err
    assert "what to do" in captured.err


def test_command_prints_json(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--server", address, "--min-duration-s", "0.05", "--min-calls", "10", "--json", "--no-samples"]
    assert main(words) == 0
    report = reports.decode(capsys.readouterr().out.encode())
    assert report.results[0].samples_ns is None
    assert report.results[0].errors == {}


def test_command_prints_a_table(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--server", address, "--min-duration-s", "0", "--min-calls", "10"]) == 0
    out = capsys.readouterr().out
    assert "linear" in out
    assert "p99 needs" in out
