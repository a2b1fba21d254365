"""A web server on loopback for one directory, with resume as real servers have it, and faults on demand."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Request(BaseHTTPRequestHandler):
    """One request, and the means to answer it well or badly."""

    protocol_version = "HTTP/1.1"
    site: FaultServer

    def do_GET(self) -> None:
        site = self.site
        with site.lock:
            site.requests.append(self.path)
            site.ranges.append(self.headers.get("Range", ""))
            rules = [rule for part, rule in site.rules.items() if part in self.path]
        try:
            if not any(rule(self) for rule in rules):
                self.send_file()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def do_CONNECT(self) -> None:
        """Be a proxy for what it cannot read: carry bytes both ways until one side ends."""
        self.site.tunnels.append(self.path)
        host, _, port = self.path.rpartition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_carry, args=(server, self.connection), daemon=True)
            back.start()
            _carry(self.connection, server)
            back.join(60)

    def content(self) -> bytes | None:
        path = self.site.directory / unquote(urlsplit(self.path).path).lstrip("/")
        return path.read_bytes() if path.is_file() else None

    def send_file(self, stop_after: int | None = None) -> None:
        """Answer as a server should; with `stop_after` break the line after so many bytes of the body."""
        data = self.content()
        if data is None:
            self.send_status(404)
            return
        begin = self.wanted_from(len(data))
        if begin is None:
            self.send_status(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        body = data[begin:]
        self.wfile.write(body if stop_after is None else body[:stop_after])
        if stop_after is not None:
            self.cut()

    def wanted_from(self, size: int) -> int | None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found is None or not self.site.has_ranges:
            return 0
        return int(found[1]) if int(found[1]) < size else None

    def send_status(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_body(self, length: int | None) -> None:
        """Send the headers of a body without end, or of the length that is claimed."""
        self.close_connection = True
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def cut(self) -> None:
        """Break the line as a lost network does for whoever waits: nothing more comes."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on standard error."""


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


Rule = Callable[[Request], bool]
"""Answers a request and returns True, or leaves it to the next rule."""


@dataclass
class FaultServer:
    """What the server shows, and what it was asked."""

    directory: Path
    url: str = ""
    """without a slash at the end"""
    has_ranges: bool = True
    rules: dict[str, Rule] = field(default_factory=dict)
    """by part of the path"""
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    """the Range header of each request, empty when it had none"""
    tunnels: list[str] = field(default_factory=list)
    """where it was asked to lead to, as a proxy for https"""
    over: threading.Event = field(default_factory=threading.Event)
    """set when the server ends: what a slow answer waits on"""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cut_once(self, part: str, after: int) -> None:
        """Break the next answer for a path after so many bytes of its body."""

        def rule(request: Request) -> bool:
            with self.lock:
                if self.rules.get(part) is not rule:
                    return False
                del self.rules[part]
            request.send_file(stop_after=after)
            return True

        self.rules[part] = rule


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


@contextmanager
def serve_with_faults(directory: Path, *, tls: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
    """Serve a directory until the block ends."""
    site = FaultServer(directory)
    server = _Server(("127.0.0.1", 0), type("Bound", (Request,), {"site": site}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scheme = "http" if tls is None else "https"
    site.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        thread.join(60)
        server.server_close()
