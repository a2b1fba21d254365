"""One worker of `tidegate serve` against several, each with the same fixed share of a core.

python -m tidegate.bench.serving_scaling --workers 2 --share 0.4 --rounds 5

On a machine with as many cores as workers the load generator would need the cores that are measured. So each worker
gets a quota of the scheduler (cgroups, as root), the same for one worker as for several, and the generator has what
remains. What this shows: that workers do not get in each other's way (no shared lock, queue or socket), so that N
shares answer N times as much. What it does not: memory bandwidth, caches and clock speed of cores that are all busy.

Rounds alternate between one worker and several; what counts is the ratio within a round, and of those the median. The
numbers are only good where `generator` is well below 1 core and `used` is close to the share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from tidegate.bench.cpu_share import CpuShare
from tidegate.bench.environment import Probe
from tidegate.bench.serving_models import write_perceptron
from tidegate.errors import DependencyError, ResourceError
from tidegate.wire import messages

CONNECTIONS = 32
BUSY_GENERATOR = 0.8
"""Of a core: above this the generator may be what limits."""

STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Run:
    """So many workers under load."""

    workers: int
    rate_hz: float
    """answers per second"""
    used_cores: tuple[float, ...]
    """CPU time of each worker per second"""
    generator_cores: float
    """CPU time of the load generator per second"""
    cpu_us: float
    """of all workers per request"""


def measure(workers: int, share: float, rounds: int, seconds: int) -> list[tuple[Run, Run]]:
    """Return for each round the run with one worker and that with several.

    Args:
        workers: how many several are.
        share: of a core, for each worker.
        rounds: how often.
        seconds: of each load, after one second to warm up.

    Raises:
        DependencyError: h2load is not installed, or quotas cannot be set.
        ResourceError: a server did not start, or refused requests.
    """
    if shutil.which("h2load") is None:
        raise DependencyError("h2load is not installed", fix="apt install nghttp2-client")
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        _, bundle, body = write_perceptron(Path(scratch))
        for turn in range(rounds):
            order = (1, workers) if turn % 2 == 0 else (workers, 1)
            runs = {count: _run(count, share, bundle, body, seconds) for count in order}
            pairs.append((runs[1], runs[workers]))
    return pairs


def _run(workers: int, share: float, bundle: Path, body: Path, seconds: int) -> Run:
    with _serving(workers, share, bundle) as (address, processes):
        _load(address, body, 1)
        before_s, generator_before_s, began_s = [_cpu_s(pid) for pid in processes], _children_cpu_s(), time.monotonic()
        answered = _load(address, body, seconds)
        took_s = time.monotonic() - began_s
        used_s = [_cpu_s(pid) - before for pid, before in zip(processes, before_s, strict=True)]
        generator_s = _children_cpu_s() - generator_before_s
    return Run(
        workers,
        answered / took_s,
        tuple(round(one / took_s, 3) for one in used_s),
        round(generator_s / took_s, 3),
        sum(used_s) / answered * 1e6,
    )


@contextmanager
def _serving(workers: int, share: float, bundle: Path) -> Iterator[tuple[str, list[int]]]:
    """Run a server whose workers each have a share of a core; give its address and the workers' process ids."""
    command = [sys.executable, "-m", "tidegate.cli", "serve", str(bundle), "--listen", "127.0.0.1:0"]
    command += ["--workers", str(workers)]
    with ExitStack() as stack:
        # Groups are entered first and so removed last: only a group without processes can be.
        groups = [stack.enter_context(CpuShare(f"{workers}-{index}", share)) for index in range(workers)]
        cores = sorted(os.sched_getaffinity(0))
        # Several workers have a core each; one that may roam over all cores would be slower for that alone.
        os.sched_setaffinity(0, cores[:1] if workers == 1 else cores)
        stack.callback(os.sched_setaffinity, 0, cores)
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
        )
        stack.callback(_end, process)
        os.sched_setaffinity(0, cores)
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("listening on "):
            raise ResourceError(f"{' '.join(command)} did not start", fix="run it by hand")
        processes = [process.pid] if workers == 1 else _workers_of(process.pid)
        if len(processes) != workers:
            raise ResourceError(f"{len(processes)} workers are there; expected {workers}", fix="run it by hand")
        for group, pid in zip(groups, processes, strict=True):
            group.take_in(pid)
        yield line.removeprefix("listening on ").strip(), processes


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _load(address: str, body: Path, seconds: int) -> int:
    """Call in a closed loop, one request in flight per connection; return how many were answered."""
    done = subprocess.run(  # noqa: S603 - our own words
        [
            *("h2load", "-D", str(seconds), "-c", str(CONNECTIONS), "-m", "1", "-t", "1", "-d", str(body)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{address}/{messages.SERVICE_NAME}/ModelInfer",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"(\d+) succeeded, (\d+) failed", done.stdout)
    if found is None or int(found[2]) or not int(found[1]):
        raise ResourceError(f"h2load says: {done.stdout or done.stderr}", fix="look whether the server runs")
    return int(found[1])


def _workers_of(parent: int) -> list[int]:
    """Return the processes that serve, among the children of the server's parent process."""
    children: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children_cpu_s() -> float:
    """CPU time of children that have ended: during a load, the generator alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.serving_scaling", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.4, help="of a core, for each worker; default 0.4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="every run and the machine, for machines")
    options = parser.parse_args(arguments)
    load_before = os.getloadavg()[0]
    pairs = measure(options.workers, options.share, options.rounds, options.seconds)
    machine = Probe().machine()
    if options.json:
        print(
            json.dumps(
                {
                    "machine": msgspec.to_builtins(machine),
                    "load_before": load_before,
                    "share": options.share,
                    "rounds": [[asdict(run) for run in pair] for pair in pairs],
                }
            )
        )
        return 0
    print(f"{machine.cpu}, {os.cpu_count()} cores, load before {load_before:.1f}, share {options.share:g} of a core")
    print(f"{'workers':>7} {'rate/s':>8} {'cpu µs':>7} {'generator':>9}  used")
    for run in (run for pair in pairs for run in pair):
        used = " ".join(f"{one:.2f}" for one in run.used_cores)
        print(f"{run.workers:7} {run.rate_hz:8.0f} {run.cpu_us:7.0f} {run.generator_cores:9.2f}  {used}")
    ratios = sorted(several.rate_hz / one.rate_hz for one, several in pairs)
    middle, lowest, highest = statistics.median(ratios), ratios[0], ratios[-1]
    print(f"{options.workers} workers to 1: median {middle:.2f}, {lowest:.2f} to {highest:.2f}")
    if max(run.generator_cores for pair in pairs for run in pair) > BUSY_GENERATOR:
        print("the generator was busy for most of a core: the ratio may be too low", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
