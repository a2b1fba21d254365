"""What each way of running more than one process costs, in one run: a process, workers, Ray Serve.

python -m tidegate.bench.scaling --rounds 3

The servers run one after the other in each round, in another order each time, and share the machine's cores with the
load generator (h2load, from the Debian package nghttp2-client); what counts is the ratio to the one process of the same
round, and of those the median. The model is a perceptron of 64, 256, 256 and 10 units, one row per request.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from tidegate.bench.serving import load
from tidegate.bench.serving_models import write_perceptron
from tidegate.errors import DependencyError, ResourceError

CALLERS = (1, 8, 32)
BASE = "one process"
STOP_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Cost:
    """One server under one load."""

    server: str
    callers: int
    rate_hz: float
    """answers per second"""
    p50_ms: float
    start_s: float
    """from the command to `listening`"""
    memory_mb: float
    """of all its processes, what they share counted once"""


def compare(rounds: int, seconds: int) -> list[Cost]:
    """Run every server `rounds` times and return all runs in order.

    Args:
        rounds: how often.
        seconds: of each load.

    Raises:
        DependencyError: h2load is not installed.
        ResourceError: a server did not start, or refused requests.
    """
    if shutil.which("h2load") is None:
        raise DependencyError("h2load is not installed", fix="apt install nghttp2-client")
    costs = []
    with tempfile.TemporaryDirectory() as scratch:
        _, bundle, body = write_perceptron(Path(scratch))
        servers = commands(bundle)
        for turn in range(rounds):
            names = list(servers)[turn % len(servers) :] + list(servers)[: turn % len(servers)]
            for name in names:
                with _serving(servers[name]) as (process, address, start_s):
                    runs = [load(name, process, address, body, callers, seconds) for callers in CALLERS]
                    memory_mb = sum(map(_memory_mb, _family(process)))
                costs += [Cost(name, run.callers, run.rate_hz, run.p50_ms, start_s, memory_mb) for run in runs]
    return costs


def commands(bundle: Path) -> dict[str, Sequence[str]]:
    """Return how each server is started; Ray's only where it is installed."""
    serve = (sys.executable, "-m", "tidegate.cli", "serve", str(bundle), "--listen")
    own: dict[str, Sequence[str]] = {
        BASE: (*serve, "127.0.0.1:0"),
        "two workers": (*serve, "127.0.0.1:0", "--workers", "2"),
    }
    if find_spec("ray") is None:
        return own
    from tidegate.cloud.ray_serving import free_port

    ray = (*serve, f"0.0.0.0:{free_port()}", "--insecure", "--engine", "ray", "--replicas")
    return own | {"Ray, one replica": (*ray, "1"), "Ray, two replicas": (*ray, "2")}


def table(costs: Sequence[Cost]) -> list[str]:
    """Return the medians, and the medians of the ratios to one process, a line for each server and load."""
    lines = [f"{'server':18} {'callers':>7} {'rate/s':>8} {'p50 ms':>8} {'start s':>8} {'MB':>6}   rate, p50 to {BASE}"]
    for name in dict.fromkeys(cost.server for cost in costs):
        for callers in CALLERS:
            own = [cost for cost in costs if (cost.server, cost.callers) == (name, callers)]
            base = [cost for cost in costs if (cost.server, cost.callers) == (BASE, callers)]
            pairs = list(zip(own, base, strict=True))
            rate = statistics.median(cost.rate_hz / other.rate_hz for cost, other in pairs)
            p50 = statistics.median(cost.p50_ms / other.p50_ms for cost, other in pairs)
            kinds = ("rate_hz", "p50_ms", "start_s", "memory_mb")
            rate_hz, p50_ms, start_s, mb = (statistics.median(getattr(cost, kind) for cost in own) for kind in kinds)
            figures = f"{rate_hz:8.0f} {p50_ms:8.2f} {start_s:8.1f} {mb:6.0f}   {rate:6.2f} {p50:6.2f}"
            lines.append(f"{name:18} {callers:7} {figures}")
    return lines


@contextmanager
def _serving(command: Sequence[str]) -> Iterator[tuple[int, str, float]]:
    """Run a server until the block ends; give its process id, its address and how long the start took."""
    began_s = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603 - our own words
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                raise ResourceError(f"{' '.join(command)} did not start", fix="run it by hand")
            _, _, port = line.strip().rpartition(":")
            yield process.pid, f"127.0.0.1:{port}", time.monotonic() - began_s
        finally:
            # Ray's processes go with the command only when it ends by itself.
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


def _family(process: int) -> set[int]:
    """Return a process and everything that it started, as far as it is still there."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, size = {process}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def _memory_mb(process: int) -> float:
    """Return the proportional set size; 0 of a process that has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="every run, for machines")
    options = parser.parse_args(arguments)
    costs = compare(options.rounds, options.seconds)
    print(json.dumps([asdict(cost) for cost in costs]) if options.json else "\n".join(table(costs)))
    if find_spec("ray") is None:
        sys.stderr.write("Ray is not measured: pip install 'tidegate[ray]'\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
