"""The same model over HTTP and over gRPC, in one run; and what metrics cost a request.

python -m tidegate.bench.serving_http --rounds 5

Server and load generator (h2load, from the Debian package nghttp2-client) have a core each; a closed loop with one
request in flight per connection. What counts is the ratio to gRPC of the same round, and of those the median.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tidegate.bench.serving import serving
from tidegate.bench.serving_models import UNITS, write_perceptron
from tidegate.errors import DependencyError, ResourceError, TidegateError
from tidegate.wire import messages
from tidegate.wire.status import text_of

CALLERS = (1, 32)
BASE = "gRPC"

GRPC = ("-m", "1", "-H", "content-type: application/grpc", "-H", "te: trailers")


@dataclass(frozen=True)
class Run:
    """One way of asking under one load."""

    way: str
    callers: int
    rate_hz: float
    cpu_us: float
    """of the server per request, over warm-up and measurement"""


@dataclass(frozen=True)
class Way:
    """How to ask."""

    name: str
    path: str
    body: Path
    options: tuple[str, ...]


def compare(rounds: int, seconds: int) -> list[Run]:
    """Run every way under every load, round by round."""
    if shutil.which("h2load") is None:
        raise DependencyError("there is no h2load, which makes the load", fix="apt-get install nghttp2-client")
    runs = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _, bundle, body = write_perceptron(scratch)
        for _ in range(rounds):
            for metrics in (False, True):
                http = f"127.0.0.1:{_free_port()}"
                command = [sys.executable, "-m", "tidegate.cli", "serve", str(bundle), "--listen", "127.0.0.1:0"]
                command += ["--http", http, *(["--metrics", "127.0.0.1:0"] if metrics else ["--no-metrics"])]
                with serving(command) as (process, address):
                    for way in _ways(scratch, body, metrics):
                        target = address if way.path.startswith(f"/{messages.SERVICE_NAME}") else http
                        runs += [_load(way, process, target, callers, seconds) for callers in CALLERS]
    return runs


def _ways(scratch: Path, grpc_body: Path, metrics: bool) -> list[Way]:
    values = np.random.default_rng(2).standard_normal((1, UNITS[0])).astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, UNITS[0]]}
    text, raw = scratch / "body.json", scratch / "body.raw"
    text.write_text(json.dumps({"inputs": [{**tensor, "data": values.ravel().tolist()}]}))
    data = values.tobytes()
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    raw.write_bytes(head + data)
    length = ("--h1", "-H", f"inference-header-content-length: {len(head)}")
    infer, suffix = "/v2/models/mlp/infer", ", metrics" if metrics else ""
    return [
        Way(BASE + suffix, f"/{messages.SERVICE_NAME}/ModelInfer", grpc_body, GRPC),
        Way("HTTP, JSON" + suffix, infer, text, ("--h1", "-H", "content-type: application/json")),
        Way("HTTP, binary" + suffix, infer, raw, length),
    ]


def _load(way: Way, process: int, address: str, callers: int, seconds: int) -> Run:
    before_s = _cpu_s(process)
    done = subprocess.run(  # noqa: S603 - our own words
        [
            *("h2load", "-D", str(seconds), "--warm-up-time", "1", "-c", str(callers), "-t", "1", "-d", str(way.body)),
            *(*way.options, f"http://{address}{way.path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    used_s = _cpu_s(process) - before_s
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    if rate is None or not re.search(r"[1-9]\d* 2xx, 0 3xx, 0 4xx, 0 5xx", done.stdout):
        raise ResourceError(f"h2load says: {done.stdout or done.stderr}", fix="look whether the server runs")
    return Run(way.name, callers, float(rate[1]), used_s / (float(rate[1]) * (seconds + 1)) * 1e6)


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tidegate.bench.serving_http",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken; default 5")
    parser.add_argument("--seconds", type=int, default=2, help="of each load; default 2")
    parser.add_argument("--json", action="store_true", help="every run, for machines")
    options = parser.parse_args(arguments)
    try:
        runs = compare(options.rounds, options.seconds)
    except TidegateError as error:
        print(text_of(error), file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(run) for run in runs]))
        return 0
    print(f"{'way':22} {'callers':>7} {'rate/s':>8} {'cpu µs':>7}   relative to {BASE}: rate, cpu")
    for way, callers in dict.fromkeys((run.way, run.callers) for run in runs):
        own = [run for run in runs if (run.way, run.callers) == (way, callers)]
        base = [run for run in runs if (run.way, run.callers) == (BASE, callers)]
        rate, cpu = (statistics.median(getattr(run, key) for run in own) for key in ("rate_hz", "cpu_us"))
        by_rate = statistics.median(run.rate_hz / one.rate_hz for run, one in zip(own, base, strict=True))
        by_cpu = statistics.median(run.cpu_us / one.cpu_us for run, one in zip(own, base, strict=True))
        print(f"{way:22} {callers:7} {rate:8.0f} {cpu:7.0f}   {by_rate:6.2f} {by_cpu:6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
