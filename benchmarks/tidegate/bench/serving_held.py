"""Connections that do nothing good: that are idle, and that do not read what they asked for."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bench.serving import serving
from tidegate.bench.serving_models import loop_bundle, zeros_bundle
from tidegate.client import Client
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

TIMEOUT_S = 30.0
PATH = f"/{messages.SERVICE_NAME}/ModelInfer"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _DATA, _END_STREAM, _END_HEADERS, _INITIAL_WINDOW_SIZE = 4, 1, 0, 1, 4, 4


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


def idle(connections: int) -> Held:
    """Hold connections that say hello and nothing more."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(serve_command(loop_bundle(Path(scratch)))) as (process, address),
    ):
        hello = _PREFACE + _frame(_SETTINGS, 0, 0, b"")
        return _held("idle connections", process, address, [hello] * connections)


def slow_readers(connections: int, mb: int) -> Held:
    """Hold connections that ask for an answer of `mb` MB and allow no byte of it to be sent."""
    closed_window = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + (0).to_bytes(4, "big")
    message = request("zeros", {"size": np.array([mb * 2**18], np.int64)})
    body = b"\0" + len(message).to_bytes(4, "big") + message
    asked = _PREFACE + _frame(_SETTINGS, 0, 0, closed_window) + _frame(_HEADERS, _END_HEADERS, 1, _header_block())
    asked += _frame(_DATA, _END_STREAM, 1, body)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        bundles = loop_bundle(directory), zeros_bundle(directory)
        with serving(serve_command(*bundles)) as (process, address):
            return _held(f"slow readers of {mb} MB", process, address, [asked] * connections)


def _held(what: str, process: int, address: str, said: Sequence[bytes]) -> Held:
    before_mb, before_ms = resident_mb(process), _lone_p50_ms(address)
    host, _, port = address.rpartition(":")
    sockets = _sockets(process)
    with contextlib.ExitStack() as opened:
        for words in said:
            one = opened.enter_context(socket.create_connection((host, int(port)), timeout=TIMEOUT_S))
            one.sendall(words)
        during_ms = _lone_p50_ms(address)
        during_mb, held = resident_mb(process), _sockets(process) - sockets
    _lone_p50_ms(address)
    return Held(what, held, before_mb, during_mb, resident_mb(process), before_ms, during_ms)


def _lone_p50_ms(address: str) -> float:
    with Client(address, timeout_s=TIMEOUT_S) as client:
        took_s = []
        for _ in range(200):
            began_s = time.monotonic()
            client.infer("loop", {"turns": np.array([1], np.int64)})
            took_s.append(time.monotonic() - began_s)
    return statistics.median(took_s) * 1e3


def serve_command(*bundles: Path) -> list[str]:
    """Return the command of a server on a free port."""
    return [sys.executable, "-m", "tidegate.cli", "serve", *map(str, bundles), "--listen", "127.0.0.1:0"]


def request(model: str, feeds: dict[str, Any]) -> bytes:
    """Return a serialised ModelInferRequest."""
    asked = messages.ModelInferRequest(model_name=model)
    write_inputs(asked, feeds)
    raw: bytes = asked.SerializeToString()
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


def resident_mb(process: int) -> float:
    """Return what a process has in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
