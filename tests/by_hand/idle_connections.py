"""10,000 connections on which nothing happens, against a real server. By hand: CI allows fewer open files.

    python tests/by_hand/idle_connections.py [COUNT] [--http]

Prints the memory, threads and CPU time that they cost the server, and the latency of a client beside them. With --http
they are connections of HTTP that have asked once for the health; the client beside them calls by gRPC.
"""

from __future__ import annotations

import resource
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from tests.raw_http2 import PREFACE, SETTINGS, frame
from tests.served import ServerProcess, linear_bundle, server_process

from tidegate.client import Client

ONES = np.ones((1, 4), np.float32)


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--http"]
    count, over_http = int(words[0]) if words else 10_000, "--http" in sys.argv
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * count + 1000), most))
    options = ("--http", "127.0.0.1:0") if over_http else ()
    with (
        tempfile.TemporaryDirectory() as directory,
        server_process([linear_bundle(Path(directory))], *options) as server,
    ):
        http = _http_address(server) if over_http else ""
        print("connections  resident MB  threads  p50 ms  p99 ms  calls")
        report(server, 0)
        opened = [asked_once(http) if over_http else introduced(server.address) for _ in range(count)]
        report(server, count)
        before_s = server.cpu_s()
        time.sleep(10)
        print(f"CPU in 10 s of silence: {server.cpu_s() - before_s:.2f} s")
        report(server, count)
        for raw in opened:
            raw.close()
        report(server, 0)


def introduced(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    raw = socket.create_connection((host, int(port)), timeout=60)
    raw.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return raw


def asked_once(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    raw = socket.create_connection((host, int(port)), timeout=60)
    raw.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in raw.recv(4096)
    return raw


def _http_address(server: ServerProcess) -> str:
    assert server.process.stdout is not None
    return server.process.stdout.readline().removeprefix("http on ").strip()


def report(server: ServerProcess, connections: int) -> None:
    took_ms = []
    with Client(server.address, timeout_s=60) as client:
        for _ in range(500):
            began_s = time.perf_counter()
            client.infer("linear", {"x": ONES})
            took_ms.append((time.perf_counter() - began_s) * 1000)
    cuts = statistics.quantiles(took_ms, n=100)
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines())
    resident = int(facts["VmRSS"].split()[0]) / 1024
    print(
        f"{connections:11d}  {resident:11.0f}  {int(facts['Threads']):7d}  {cuts[49]:6.2f}  {cuts[98]:6.2f}"
        f"  {len(took_ms)} ok"
    )


if __name__ == "__main__":
    main()
