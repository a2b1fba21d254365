"""How servers of other projects are started for the comparison, each from an environment of its own.

The environments are those that `python -m tests.conformance.foreign_servers` makes under build/foreign. What is not
there is reported as not installed.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path(__file__).parent

NOT_COMPARED = {
    "BentoML": "its gRPC speaks a protocol of its own",
    "LitServe": "HTTP only",
    "Ray Serve": "needs a cluster; see the measurements of `--engine ray`",
}
"""Servers that the same requests cannot be sent to, and why."""


@dataclass(frozen=True)
class Start:
    """How to start one."""

    command: tuple[str, ...]
    address: str = ""
    """where it will serve; empty: it prints that"""
    environment: dict[str, str] = field(default_factory=dict)


def kserve(python: Path, model: Path, scratch: Path) -> Start:
    """KServe 0.21, one worker."""
    grpc_port, http_port = _free_ports(2)
    program = str(PROGRAMS / "kserve_server.py")
    return Start((str(python), program, str(model), str(grpc_port), str(http_port)), f"127.0.0.1:{grpc_port}")


def mlserver(python: Path, model: Path, scratch: Path) -> Start:
    """MLServer 1.7 without worker processes: with them, which is its default, it is slower (and does not start)."""
    grpc_port, http_port, metrics_port = _free_ports(3)
    folder = scratch / "mlserver"
    settings = {
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_port": metrics_port,
    }
    named = {"name": "mlp", "implementation": "mlserver_models.Perceptron", "parameters": {"uri": str(model)}}
    (folder / "mlp").mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "mlp" / "model-settings.json").write_text(json.dumps(named))
    command = (str(python.with_name("mlserver")), "start", str(folder))
    return Start(command, f"127.0.0.1:{grpc_port}", {**os.environ, "PYTHONPATH": str(PROGRAMS)})


FOREIGN = {"KServe": ("kserve", kserve), "MLServer": ("mlserver", mlserver)}
"""By name: the directory of its environment, and how to start it."""


def installed(environments: Path, name: str) -> Path | None:
    """Return the Python of a server's environment; None when that is not there or not whole."""
    directory = environments / FOREIGN[name][0]
    return directory / "bin" / "python" if (directory / "installed").exists() else None


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
