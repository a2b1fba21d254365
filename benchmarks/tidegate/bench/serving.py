"""`tidegate serve` beside bare grpcio, in one run: what the server adds to what grpcio costs anyway.

python -m tidegate.bench.serving --rounds 5

The servers run one after the other in each round, so that what disturbs the machine disturbs all of them; what counts
is the ratio to the bare echo of the same round, and of those the median. Server and load generator (h2load, from the
Debian package nghttp2-client) have a core each. The model is a perceptron of 64, 256, 256 and 10 units, one row
per request.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tidegate.bench.serving_foreign import FOREIGN, NOT_COMPARED, Start, installed
from tidegate.bench.serving_models import write_perceptron
from tidegate.client import Client
from tidegate.errors import DependencyError, ResourceError
from tidegate.wire import messages

CALLERS = (1, 32)
BASE = "bare echo"
START_TIMEOUT_S = 120.0
ENVIRONMENTS = Path("build/foreign")


@dataclass(frozen=True)
class Run:
    """One server under one load."""

    server: str
    callers: int
    rate_hz: float
    """answers per second"""
    p50_ms: float
    cpu_us: float
    """of the server per request, over warm-up and measurement"""


def compare(rounds: int, seconds: int, environments: Path) -> list[Run]:
    """Run every server `rounds` times and return all runs in order.

    Args:
        rounds: how often.
        seconds: of each load.
        environments: where those of other projects' servers are.

    Raises:
        DependencyError: h2load is not installed.
        ResourceError: a server did not start, or refused requests.
    """
    if shutil.which("h2load") is None:
        raise DependencyError("h2load is not installed", fix="apt install nghttp2-client")
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        model, bundle, body = write_perceptron(Path(scratch))
        python = [sys.executable, "-m"]
        servers: dict[str, Start] = {
            BASE: Start((*python, "tidegate.bench.serving_peers", "echo")),
            "bare runtime": Start((*python, "tidegate.bench.serving_peers", "runtime", str(model))),
            "tidegate serve": Start((*python, "tidegate.cli", "serve", str(bundle), "--listen", "127.0.0.1:0")),
        }
        for name, (_, prepare) in FOREIGN.items():
            own_python = installed(environments, name)
            if own_python is not None:
                servers[name] = prepare(own_python, model, Path(scratch))
        for turn in range(rounds):
            # Another order each time: nobody always comes after the same neighbour.
            names = list(servers)[turn % len(servers) :] + list(servers)[: turn % len(servers)]
            for name in names:
                start = servers[name]
                with serving(start.command, start.address, start.environment) as (process, address):
                    for callers in CALLERS:
                        runs.append(load(name, process, address, body, callers, seconds))
    return runs


def ratios(runs: Sequence[Run]) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Return, by server and callers, the medians of rate, p50 and CPU relative to the bare echo of the same round."""
    bases = {callers: [run for run in runs if (run.server, run.callers) == (BASE, callers)] for callers in CALLERS}
    found = {}
    for name in dict.fromkeys(run.server for run in runs):
        for callers in CALLERS:
            own = [run for run in runs if (run.server, run.callers) == (name, callers)]
            pairs = list(zip(own, bases[callers], strict=True))
            found[name, callers] = (
                statistics.median(run.rate_hz / base.rate_hz for run, base in pairs),
                statistics.median(run.p50_ms / base.p50_ms for run, base in pairs),
                statistics.median(run.cpu_us / base.cpu_us for run, base in pairs),
            )
    return found


def load(name: str, process: int, address: str, body: Path, callers: int, seconds: int) -> Run:
    """Warm up for a second, then call in a closed loop, one request in flight per connection."""
    log = body.with_suffix(".tsv")
    log.unlink(missing_ok=True)
    before_s = _cpu_s(process)
    done = subprocess.run(  # noqa: S603 - our own words
        [
            *("h2load", "-D", str(seconds), "--warm-up-time", "1", "-c", str(callers), "-m", "1", "-t", "1"),
            *("-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", str(log)),
            f"http://{address}/{messages.SERVICE_NAME}/ModelInfer",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    cpu_s = _cpu_s(process) - before_s
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    latencies_us = [int(line.split("\t")[2]) for line in log.read_text().splitlines()] if log.exists() else []
    if rate is None or not latencies_us:
        raise ResourceError(f"h2load says: {done.stdout or done.stderr}", fix="look whether the server runs")
    rate_hz = float(rate[1])
    p50_ms = statistics.median(latencies_us) / 1e3
    return Run(name, callers, rate_hz, p50_ms, cpu_s / (rate_hz * (seconds + 1)) * 1e6)


@contextmanager
def serving(
    command: Sequence[str], address: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[tuple[int, str]]:
    """Run a server on the first core until the block ends; give its process id and address.

    Args:
        command: prints `listening on HOST:PORT` when it serves, unless `address` says where.
        address: of a server that does not print it; waited for.
        environment: variables; default: ours.
    """
    cores = sorted(os.sched_getaffinity(0))
    # What a foreign server writes goes nowhere: a pipe that nobody reads would stop it.
    output = subprocess.DEVNULL if address else subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - our own words
        command, stdout=output, stderr=subprocess.DEVNULL, text=True, env=environment or None
    ) as process:
        try:
            os.sched_setaffinity(process.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:] or cores)
            if address:
                _await_server(address)
            else:
                line = process.stdout.readline() if process.stdout else ""
                if not line.startswith("listening on "):
                    raise ResourceError(f"{' '.join(command)} did not start", fix="run it by hand")
                address = line.removeprefix("listening on ").strip()
            yield process.pid, address
        finally:
            os.sched_setaffinity(0, cores)
            process.kill()
            process.wait()


def _await_server(address: str) -> None:
    """Wait until the model can be called."""
    from tidegate.client import RetrySettings

    with Client(address, timeout_s=START_TIMEOUT_S, retries=RetrySettings(wait_for_server=True)) as client:
        while not client.model_ready("mlp"):
            time.sleep(0.1)


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="every run, for machines")
    parser.add_argument(
        "--foreign",
        type=Path,
        default=ENVIRONMENTS,
        metavar="DIR",
        help="environments of other servers, as tests.conformance.foreign_servers makes them; default build/foreign",
    )
    options = parser.parse_args(arguments)
    runs = compare(options.rounds, options.seconds, options.foreign.absolute())
    if options.json:
        print(json.dumps([asdict(run) for run in runs]))
        return 0
    print(
        f"{'server':16} {'callers':>7} {'rate/s':>8} {'p50 ms':>8} {'cpu µs':>7}   relative to {BASE}: rate, p50, cpu"
    )
    for (name, callers), (rate, p50, cpu) in ratios(runs).items():
        own = [run for run in runs if (run.server, run.callers) == (name, callers)]
        middle = [statistics.median(getattr(run, key) for run in own) for key in ("rate_hz", "p50_ms", "cpu_us")]
        absolute = f"{middle[0]:8.0f} {middle[1]:8.3f} {middle[2]:7.0f}"
        print(f"{name:16} {callers:7} {absolute}   {rate:6.2f} {p50:6.2f} {cpu:6.2f}")
    for name in FOREIGN:
        if installed(options.foreign, name) is None:
            print(f"{name:16} not installed in {options.foreign}")
    for name, reason in NOT_COMPARED.items():
        print(f"{name:16} not compared: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
