"""`tidegate serve` under more than it can do: open-loop load, idle connections, clients that do not read.

python -m tidegate.bench.serving_overload

Load is open-loop: requests leave when the clock says so, whether answers came or not, as from many independent callers;
a latency counts from the moment at which its request was due, so a late generator counts as latency, not as mercy.
Server and generator have a core each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
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
from tidegate.bench.serving_models import loop_bundle, zeros_bundle
from tidegate.client import Client
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

FACTORS = (0.5, 1.0, 2.0, 10.0)
"""Offered load, in capacities."""

QUEUE = 32
TIMEOUT_S = 30.0
PATH = f"/{messages.SERVICE_NAME}/ModelInfer"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _DATA, _END_STREAM, _END_HEADERS, _INITIAL_WINDOW_SIZE = 4, 1, 0, 1, 4, 4


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
class Held:
    """Many connections that do nothing good."""

    what: str
    connections: int
    """that the server holds"""
    rss_before_mb: float
    rss_mb: float
    rss_after_mb: float
    """once they are gone"""
    p50_before_ms: float
    """of a lone caller beside them"""
    p50_ms: float


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
        command = [*_serve(bundle), "--config", str(config)]
        message = _request("loop", {"turns": np.array([turns], np.int64)})
        with serving(command) as (process, address):
            capacity = capacity_hz(address, message, seconds)
            found = []
            for factor in factors:
                outcomes = offer(address, message, capacity * factor, seconds)
                found.append(_offered(factor, outcomes, seconds, process))
    return capacity, found


def idle(connections: int) -> Held:
    """Hold connections that say hello and nothing more."""
    with tempfile.TemporaryDirectory() as scratch, serving(_serve(loop_bundle(Path(scratch)))) as (process, address):
        hello = _PREFACE + _frame(_SETTINGS, 0, 0, b"")
        return _held("idle connections", process, address, [hello] * connections)


def slow_readers(connections: int, mb: int) -> Held:
    """Hold connections that ask for an answer of `mb` MB and allow no byte of it to be sent."""
    closed_window = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + (0).to_bytes(4, "big")
    message = _request("zeros", {"size": np.array([mb * 2**18], np.int64)})
    body = b"\0" + len(message).to_bytes(4, "big") + message
    asked = _PREFACE + _frame(_SETTINGS, 0, 0, closed_window) + _frame(_HEADERS, _END_HEADERS, 1, _header_block())
    asked += _frame(_DATA, _END_STREAM, 1, body)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        bundles = loop_bundle(directory), zeros_bundle(directory)
        with serving(_serve(*bundles)) as (process, address):
            return _held(f"slow readers of {mb} MB", process, address, [asked] * connections)


def _held(what: str, process: int, address: str, said: Sequence[bytes]) -> Held:
    before_mb, before_ms = _rss_mb(process), _lone_p50_ms(address)
    host, _, port = address.rpartition(":")
    sockets = _sockets(process)
    with contextlib.ExitStack() as opened:
        for words in said:
            one = opened.enter_context(socket.create_connection((host, int(port)), timeout=TIMEOUT_S))
            one.sendall(words)
        during_ms = _lone_p50_ms(address)
        during_mb, held = _rss_mb(process), _sockets(process) - sockets
    _lone_p50_ms(address)
    return Held(what, held, before_mb, during_mb, _rss_mb(process), before_ms, during_ms)


def _lone_p50_ms(address: str) -> float:
    with Client(address, timeout_s=TIMEOUT_S) as client:
        took_s = []
        for _ in range(200):
            began_s = time.monotonic()
            client.infer("loop", {"turns": np.array([1], np.int64)})
            took_s.append(time.monotonic() - began_s)
    return statistics.median(took_s) * 1e3


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
        rss_mb=_rss_mb(process),
    )


def _serve(*bundles: Path) -> list[str]:
    return [sys.executable, "-m", "tidegate.cli", "serve", *map(str, bundles), "--listen", "127.0.0.1:0"]


def _request(model: str, feeds: dict[str, Any]) -> bytes:
    request = messages.ModelInferRequest(model_name=model)
    write_inputs(request, feeds)
    raw: bytes = request.SerializeToString()
    return raw


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block() -> bytes:
    """Return the headers of a call, each a literal without indexing (RFC 7541, section 6.2.2), all shorter than 127."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": PATH,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )


def _sockets(process: int) -> int:
    """Return how many connections the server really holds; what waits in the system's backlog is not among them."""
    count = 0
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += str(entry.readlink()).startswith("socket:")
    return count


def _rss_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


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
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.serving_overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--turns", type=int, default=5000, help="of the model's loop, some 1 µs each")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--mb", type=int, default=4, help="size of an answer that nobody reads")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = []
    for text, result in _results(options):
        if not options.json:
            print(text, flush=True)
        elif result is not None:
            results.append(asdict(result))
    if options.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
