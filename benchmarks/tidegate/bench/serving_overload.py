"""`tidegate serve` under more than it can do: open-loop load, idle connections, clients that do not read.

python -m tidegate.bench.serving_overload

Load is open-loop: requests leave when the clock says so, whether answers came or not, as from many independent callers;
a latency counts from the moment at which its request was due, so a late generator counts as latency, not as mercy.
Server and generator have a core each.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bench.serving import serving
from tidegate.bench.serving_held import PATH, TIMEOUT_S, idle, request, resident_mb, serve_command, slow_readers
from tidegate.bench.serving_models import loop_bundle
from tidegate.errors import TidegateError
from tidegate.wire.status import text_of

FACTORS = (0.5, 1.0, 2.0, 10.0)
"""Offered load, in capacities."""

QUEUE = 32


@dataclass
class Offered:
    """One load for some seconds."""

    factor: float
    rate_hz: float
    """requests that left per second"""
    answered_hz: float
    p50_ms: float
    """of accepted requests, from when they were due"""
    p99_ms: float
    refused_p99_ms: float
    """how long a refusal took"""
    statuses: dict[str, int]
    rss_mb: float
    """of the server, at the end"""


@dataclass
class _Outcomes:
    """What came of requests; grpc's threads write."""

    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, call: Any, due_s: float) -> None:
        took_s = time.monotonic() - due_s
        name = call.code().name
        with self.lock:
            self.statuses[name] += 1
            (self.accepted_s if name == "OK" else self.refused_s).append(took_s)


def offer(address: str, message: bytes, rate_hz: float, seconds: float) -> _Outcomes:
    """Send requests at a rate, over several connections, and wait for all outcomes."""
    import grpc

    outcomes, done = _Outcomes(), threading.Semaphore(0)
    # Each channel with an option of its own: alike, they would share one connection.
    channels = [grpc.insecure_channel(address, options=[("tidegate.channel", index)]) for index in range(8)]
    calls = [channel.unary_unary(PATH) for channel in channels]
    total, began_s = int(rate_hz * seconds), time.monotonic()
    for number in range(total):
        due_s = began_s + number / rate_hz
        wait_s = due_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        call = calls[number % len(calls)].future(message, timeout=TIMEOUT_S)

        def ended(call: Any, due_s: float = due_s) -> None:
            outcomes.note(call, due_s)
            done.release()

        call.add_done_callback(ended)
    for _ in range(total):
        done.acquire()
    for channel in channels:
        channel.close()
    return outcomes


def capacity_hz(address: str, message: bytes, seconds: float) -> float:
    """Return answers per second to 16 callers, each of whom waits for his answer."""
    import grpc

    def call(index: int) -> None:
        with grpc.insecure_channel(address, options=[("tidegate.channel", index)]) as channel:
            infer, count = channel.unary_unary(PATH), 0
            while time.monotonic() < until_s:
                infer(message, timeout=TIMEOUT_S)
                count += 1
        counts.append(count)

    counts: list[int] = []
    until_s = time.monotonic() + seconds
    threads = [threading.Thread(target=call, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def overload(seconds: float, turns: int, factors: Sequence[float] = FACTORS) -> tuple[float, list[Offered]]:
    """Return the capacity, and what came of each load."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        bundle, config = loop_bundle(directory), directory / "serve.toml"
        config.write_text(f"[models.loop]\nmaximum_queue = {QUEUE}\n")
        command = [*serve_command(bundle), "--config", str(config)]
        message = request("loop", {"turns": np.array([turns], np.int64)})
        with serving(command) as (process, address):
            capacity = capacity_hz(address, message, seconds)
            found = []
            for factor in factors:
                outcomes = offer(address, message, capacity * factor, seconds)
                found.append(_offered(factor, outcomes, seconds, process))
    return capacity, found


def _offered(factor: float, outcomes: _Outcomes, seconds: float, process: int) -> Offered:
    accepted, refused = sorted(outcomes.accepted_s) or [0.0], sorted(outcomes.refused_s) or [0.0]
    return Offered(
        factor=factor,
        rate_hz=sum(outcomes.statuses.values()) / seconds,
        answered_hz=outcomes.statuses["OK"] / seconds,
        p50_ms=statistics.median(accepted) * 1e3,
        p99_ms=accepted[int(len(accepted) * 0.99)] * 1e3,
        refused_p99_ms=refused[int(len(refused) * 0.99)] * 1e3,
        statuses=dict(outcomes.statuses),
        rss_mb=resident_mb(process),
    )


def _results(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    capacity, loads = overload(options.seconds, options.turns)
    yield f"capacity {capacity:.0f} answers/s; queue {QUEUE}", None
    for load in loads:
        statuses = ", ".join(f"{name} {count}" for name, count in sorted(load.statuses.items()))
        yield (
            f"{load.factor:4g} x: {load.rate_hz:6.0f}/s offered, {load.answered_hz:6.0f}/s answered, p50 "
            f"{load.p50_ms:.0f} ms, p99 {load.p99_ms:.0f} ms, refusals p99 {load.refused_p99_ms:.0f} ms; {statuses}; "
            f"RSS {load.rss_mb:.0f} MB",
            load,
        )
    for held in (idle(options.connections), slow_readers(options.readers, options.mb)):
        yield (
            f"{held.connections} {held.what}: RSS {held.rss_before_mb:.0f} -> {held.rss_mb:.0f} -> "
            f"{held.rss_after_mb:.0f} MB, lone p50 {held.p50_before_ms:.2f} -> {held.p50_ms:.2f} ms",
            held,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tidegate.bench.serving_overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--turns", type=int, default=5000, help="of the model's loop, some 1 µs each")
    parser.add_argument("--connections", type=int, default=10_000, help="that are idle")
    parser.add_argument("--readers", type=int, default=50, help="that ask and do not read")
    parser.add_argument("--mb", type=int, default=4, help="size of an answer that nobody reads")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = []
    try:
        for text, result in _results(options):
            if not options.json:
                print(text, flush=True)
            elif result is not None:
                results.append(asdict(result))
    except TidegateError as error:
        print(text_of(error), file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
