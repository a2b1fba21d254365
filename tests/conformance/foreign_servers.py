"""Our client against servers of other projects, each in an environment of its own, and beside them in one process.

    .venv/bin/python -m tests.conformance.foreign_servers [kserve] [mlserver]

The environments are made under build/foreign from the package index and kept (KServe 0.21: 72 packages, half a
gigabyte), so `make test` leaves this out. MLServer 1.7.1 needs Python below 3.13; --python names the one to use.
Prints a table; the exit code is 1 when a cell is not as expected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.foreign.checks import MODEL, cell, checks, many

from tidegate.client import Client, RetrySettings

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("foreign")
START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Foreign:
    """Another project's server."""

    name: str
    packages: tuple[str, ...]
    messages: str
    """module that registers the protocol in protobuf's default pool"""
    command: Callable[[Path, int], tuple[list[str], dict[str, str]]]
    """environment and gRPC port to command and variables"""
    expected: dict[str, str]
    """cells that are not `ok`"""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def kserve_command(environment: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """KServe takes its models in a program."""
    (http_port,) = free_ports(1)
    program = [str(PROGRAMS / "kserve_server.py"), str(MODEL), str(port), str(http_port)]
    return [str(environment / "bin" / "python"), *program], {}


def mlserver_command(environment: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """MLServer takes its models as directories of settings. Its default, a worker process, cannot start."""
    folder = environment / "models"
    http_port, metrics_port = free_ports(2)
    ports = {"grpc_port": port, "http_port": http_port, "metrics_port": metrics_port}
    _write(
        folder / "settings.json",
        {"parallel_workers": 0, "host": "127.0.0.1", "grpc_max_message_length": 64 * 2**20, **ports},
    )
    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 10]}],
    }
    dense = {"name": "dense", "implementation": "mlserver_models.Dense", "parameters": {"uri": str(MODEL)}, **tensors}
    _write(folder / "dense" / "model-settings.json", dense)
    _write(folder / "echo" / "model-settings.json", {"name": "echo", "implementation": "mlserver_models.Echo"})
    return [str(environment / "bin" / "mlserver"), "start", str(folder)], {"PYTHONPATH": str(PROGRAMS)}


SERVERS = {
    server.name: server
    for server in (
        Foreign(
            "kserve",
            ("kserve==0.21.0", "onnxruntime"),
            "kserve.protocol.grpc.grpc_predict_v2_pb2",
            kserve_command,
            {"inference stream": "DependencyError: Method not found!"},
        ),
        Foreign(
            "mlserver",
            ("mlserver==1.7.1", "onnxruntime"),
            "mlserver.grpc.dataplane_pb2",
            mlserver_command,
            {},
        ),
    )
}


def main() -> int:
    """Make the environments, start each server, ask it everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=sorted(SERVERS), help="default: all")
    parser.add_argument("--python", default=sys.executable, help="makes the environments; default: this one")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "foreign", help="where they are kept")
    arguments = parser.parse_args()
    results: dict[str, dict[str, str]] = {}
    for name in arguments.servers:
        environment = arguments.directory / name
        prepare(SERVERS[name], environment, arguments.python)
        with running(SERVERS[name], environment) as target:
            results[name] = ask_everything(SERVERS[name], environment, target)
    print_results(results)
    wrong = [
        f"{name}: {check} is {found!r}, expected {SERVERS[name].expected.get(check, 'ok')!r}"
        for name, cells in results.items()
        for check, found in cells.items()
        if found != SERVERS[name].expected.get(check, "ok")
    ]
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


def prepare(server: Foreign, environment: Path, python: str) -> None:
    """Make the environment unless it is there, with what our client needs besides."""
    done = environment / "installed"
    if done.exists():
        return
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *server.packages, "msgspec>=0.19", "numpy>=1.26"], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
    done.touch()


@contextmanager
def running(server: Foreign, environment: Path) -> Iterator[str]:
    """Run the server until the block ends; the block begins when it is ready."""
    (port,) = free_ports(1)
    command, variables = server.command(environment, port)
    with (
        (environment / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | variables, cwd=environment) as process,
    ):
        target = f"127.0.0.1:{port}"
        try:
            retries = RetrySettings(wait_for_server=True)
            with Client(target, timeout_s=START_TIMEOUT_S, retries=retries) as client:
                client.ready()
            yield target
        finally:
            process.kill()


def ask_everything(server: Foreign, environment: Path, target: str) -> dict[str, str]:
    """Return `ok` or what came instead, by check."""
    cells: dict[str, str] = {}
    with Client(target, timeout_s=30) as client:
        for name, check in checks(client).items():
            cells[name] = cell(check)
    cells["asyncio, 100 at once"] = cell(lambda: asyncio.run(many(target)))
    cells["imported together"] = beside(server, environment, target)
    return cells


def beside(server: Foreign, environment: Path, target: str) -> str:
    """Run the program that imports both."""
    done = subprocess.run(
        [str(environment / "bin" / "python"), str(PROGRAMS / "beside.py"), server.messages, target],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:60]


def print_results(results: dict[str, dict[str, str]]) -> None:
    """Print the table in Markdown."""
    names: Sequence[str] = list(results)
    print(f"| check | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
    for check in results[names[0]]:
        print(f"| {check} | {' | '.join(results[name][check].replace('|', '/') for name in names)} |")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
