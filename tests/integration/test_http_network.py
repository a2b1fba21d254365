"""What a network does to the HTTP port: connections that stop, callers who read nothing, odd framing, other methods."""

from __future__ import annotations

import json
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.certificates import Authority
from tests.http_server import call, infer_body
from tests.served import linear_bundle, zeros_bundle
from tests.waiting import wait_until

from tidegate.cloud.http import HttpSettings
from tidegate.cloud.limits import Safety
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.cloud.tls import TlsFiles
from tidegate.errors import ResourceError

TIMEOUT_S = 60
BODY_LIMIT_BYTES = 2 * 2**20
ANSWER_BYTES = 8 * 2**20
"""More than the system buffers for a reader who does not read."""

LINEAR = "/v2/models/linear/infer"
ONES = infer_body("x", "FP32", [1, 4], [1, 1, 1, 1])


def settings(safety: Safety | None = None, **http: object) -> ServerSettings:
    given = HttpSettings(**({"listen": "127.0.0.1:0"} | http))  # type: ignore[arg-type]
    return ServerSettings(outside=OutsideSettings(http=given), safety=safety or Safety())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("network")
    limits = settings(
        Safety(maximum_unread_bytes=3 * ANSWER_BYTES),
        maximum_body_bytes=BODY_LIMIT_BYTES,
        maximum_arriving_bytes=2**20,
        maximum_connections=40,
    )
    with Server([linear_bundle(directory), zeros_bundle(directory)], settings=limits) as running:
        yield running


def answers(server: Server) -> bool:
    return call(server.http_address, "POST", LINEAR, ONES).status == 200


def connect(server: Server, *, receive_bytes: int = 0) -> socket.socket:
    """Open a connection; with `receive_bytes` the system buffers no more than some such for us."""
    host, _, port = server.http_address.rpartition(":")
    raw = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if receive_bytes:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.settimeout(TIMEOUT_S)
    raw.connect((host.strip("[]"), int(port)))
    return raw


def request(path: str, body: bytes, *headers: str, method: str = "POST", length: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if length is not None or not any(line.lower().startswith("transfer-encoding") for line in headers):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def zeros(count: int, *headers: str) -> bytes:
    """A request for 4 bytes times `count`, as binary data."""
    asked = {"inputs": [{"name": "count", "datatype": "INT64", "shape": [1], "data": [count]}]}
    body = json.dumps(asked | {"parameters": {"binary_data_output": True}}).encode()
    return request("/v2/models/zeros/infer", body, *headers)


def was_cut(raw: socket.socket) -> bool:
    """Wait until the other side reset or closed the connection, and read nothing."""
    poll = select.poll()
    poll.register(raw, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
    return bool(poll.poll(TIMEOUT_S * 1000))


def read_all(raw: socket.socket) -> bytes:
    found = b""
    try:
        while more := raw.recv(65536):
            found += more
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(
    "asked",
    [zeros(ANSWER_BYTES // 4), zeros(ANSWER_BYTES // 4) * 3, zeros(ANSWER_BYTES // 4, "Connection: close")],
    ids=["one", "pipelined", "close"],
)
def test_who_reads_nothing_of_his_answer_is_cut_off(tmp_path: Path, asked: bytes) -> None:
    with (
        Server([zeros_bundle(tmp_path)], settings=settings(keep_alive_s=0.5)) as server,
        connect(server, receive_bytes=4096) as raw,
    ):
        raw.sendall(asked)
        assert was_cut(raw)


def test_answers_that_are_not_read_are_bounded_and_others_are_served(server: Server) -> None:
    """Eight callers read nothing of 8 MB each; 24 MB are held. Who came first is cut, and nobody else notices."""
    with ExitStack() as stack:
        unread = [stack.enter_context(connect(server, receive_bytes=4096)) for _ in range(8)]
        for raw in unread:
            raw.sendall(zeros(ANSWER_BYTES // 4))
            # The next one asks when this one is being answered, so that the order is known.
            assert raw.recv(1)
        assert was_cut(unread[0])
        assert answers(server)


def test_an_answer_larger_than_all_that_may_be_unread_is_refused(server: Server) -> None:
    with connect(server) as raw:
        raw.sendall(zeros(ANSWER_BYTES, "Connection: close"))
        head, _, body = read_all(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert str(3 * ANSWER_BYTES) in json.loads(body)["error"]


def test_bodies_that_do_not_go_on_are_bounded(server: Server) -> None:
    """Five callers send 400 KB of a body and stop; 1 MB is held, so three of them are cut."""
    part = request(LINEAR, bytes(400_000), length=BODY_LIMIT_BYTES)
    with ExitStack() as stack:
        poll = select.poll()
        for _ in range(5):
            raw = stack.enter_context(connect(server))
            poll.register(raw, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
            raw.sendall(part)
        wait_until(lambda: len(poll.poll(0)) >= 3)
        assert answers(server)


def test_a_body_may_be_asked_for_first(server: Server) -> None:
    with connect(server) as raw:
        whole = request(LINEAR, ONES, "Expect: 100-continue", "Connection: close")
        raw.sendall(whole[: -len(ONES)])
        assert raw.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(ONES)
        assert read_all(raw).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "length", "status"), [(LINEAR, BODY_LIMIT_BYTES + 1, b"413"), ("/v2/nothing", 9, b"404")]
)
def test_a_body_that_is_not_wanted_is_not_asked_for_and_ends_the_connection(
    server: Server, path: str, length: int, status: bytes
) -> None:
    with connect(server) as raw:
        raw.sendall(request(path, b"", "Expect: 100-continue", length=length))
        answer = read_all(raw)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


CHUNKED = "Transfer-Encoding: chunked"

FRAMINGS: dict[str, tuple[bytes, bytes]] = {
    "chunks": (request(LINEAR, chunks(ONES[:10], ONES[10:]), CHUNKED), b"200"),
    "chunks with trailers": (request(LINEAR, chunks(ONES, end=b"0\r\nX-A: b\r\n\r\n"), CHUNKED), b"200"),
    "chunk with extension": (request(LINEAR, b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(ONES), ONES), CHUNKED), b"200"),
    "too many chunks": (request(LINEAR, chunks(*[bytes(2**18)] * 9), CHUNKED), b"413"),
    "no chunk": (request(LINEAR, b"zz\r\n", CHUNKED), b"400"),
    "chunks and length": (request(LINEAR, chunks(ONES), CHUNKED, length=5), b"400"),
    "two lengths": (request(LINEAR, ONES, "Content-Length: 5"), b"400"),
    "length is no number": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n", b"400"),
    "no path": (request("*", b"", method="OPTIONS"), b"404"),
    "no text": (b"GET /v2/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    "length of 5000 digits": (request(LINEAR, ONES, f"Inference-Header-Content-Length: {'9' * 5000}"), b"400"),
    "gzip in capitals": (request(LINEAR, b"{}", "Content-Encoding: GZIP"), b"400"),
}


@pytest.mark.parametrize("case", FRAMINGS)
def test_every_framing_is_answered_with_its_status(server: Server, case: str) -> None:
    sent, status = FRAMINGS[case]
    with connect(server) as raw:
        raw.sendall(sent)
        assert raw.recv(65536).startswith(b"HTTP/1.1 " + status)
    assert answers(server)


@pytest.mark.parametrize("stop", [0, 30, 200, 250])
def test_a_caller_that_vanishes_in_the_middle_harms_nobody(server: Server, stop: int) -> None:
    for _ in range(10):
        raw = connect(server)
        raw.sendall(request(LINEAR, ONES + b" " * 200)[:stop])
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        raw.close()
    assert answers(server)


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("HEAD", "/v2/models/linear", 200, None),
        ("HEAD", LINEAR, 405, "POST"),
        ("OPTIONS", LINEAR, 405, "POST"),
        ("GET", LINEAR, 405, "POST"),
        ("PUT", "/v2/models/linear", 405, "GET, HEAD"),
        ("DELETE", "/v2/logging", 405, "GET, POST, HEAD"),
        ("TRACE", "/v2", 405, "GET, HEAD"),
    ],
)
def test_other_methods(server: Server, method: str, path: str, status: int, allowed: str | None) -> None:
    reply = call(server.http_address, method, path)
    assert (reply.status, reply.headers.get("allow")) == (status, allowed)
    assert int(reply.headers["content-length"]) > 0
    assert bool(reply.body) == (method != "HEAD")


def test_a_number_that_nothing_can_hold_is_refused(server: Server) -> None:
    body = ONES.replace(b'{"inputs"', b'{"parameters": {"timeout": 1%s}, "inputs"' % (b"0" * 400))
    reply = call(server.http_address, "POST", LINEAR, body)
    assert (reply.status, "timeout" in reply.json["error"]) == (400, True)


def test_connections_beyond_the_limit_are_closed_and_those_there_go_on(server: Server) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(server)) for _ in range(60)]
        assert was_cut(opened[-1])
        opened[0].sendall(request(LINEAR, ONES, "Connection: close"))
        assert read_all(opened[0]).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: _reaches(server))


def _reaches(server: Server) -> bool:
    try:
        return answers(server)
    except ConnectionError:
        return False


def test_requests_beyond_the_limit_are_refused_while_others_are_under_way(tmp_path: Path) -> None:
    with (
        Server([linear_bundle(tmp_path)], settings=settings(maximum_requests=1)) as server,
        connect(server) as raw,
    ):
        raw.sendall(request(LINEAR, b"", "Expect: 100-continue", "Connection: close", length=len(ONES)))
        assert raw.recv(65536).startswith(b"HTTP/1.1 100 ")
        refused = call(server.http_address, "GET", "/v2/models/linear")
        assert (refused.status, "under way" in refused.json["error"]) == (503, True)
        raw.sendall(ONES)
        assert read_all(raw).startswith(b"HTTP/1.1 200 ")
        assert answers(server)


def has_version_6() -> bool:
    """Say whether this machine has an address of version 6 to itself; in some containers it has none."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_version_6_of_ip(tmp_path: Path) -> None:
    from tidegate.client import Client

    if not has_version_6():
        with pytest.raises(ResourceError, match="cannot listen"):
            Server([linear_bundle(tmp_path)], listen="[::1]:0").start()
        return
    with Server([linear_bundle(tmp_path)], listen="[::1]:0", settings=settings(listen="[::1]:0")) as server:
        assert server.address.startswith("[::1]:")
        assert server.http_address.startswith("[::1]:")
        with connect(server) as raw:
            raw.sendall(request(LINEAR, ONES, "Connection: close"))
            assert read_all(raw).startswith(b"HTTP/1.1 200 ")
        with Client(server.address, timeout_s=TIMEOUT_S) as client:
            assert client.model_ready("linear")


def test_clients_show_certificates_of_the_authority_that_counts_now(tmp_path: Path) -> None:
    ours, first, second = (Authority(tmp_path, name) for name in ("ours", "first", "second"))
    shown, client_ca = ours.pair("server"), tmp_path / "clients.pem"
    client_ca.write_bytes(first.path.read_bytes())
    safety = Safety(tls=TlsFiles(shown.cert, shown.key, client_ca), handshake_timeout_s=1)
    with Server([linear_bundle(tmp_path)], settings=settings(safety)) as server:

        def let_in(by: Authority | None) -> bool:
            context = ssl.create_default_context(cafile=str(ours.path))
            if by is not None:
                pair = by.pair("client")
                context.load_cert_chain(pair.cert, pair.key)
            with connect(server) as plain:
                try:
                    with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                        wrapped.sendall(request(LINEAR, ONES, "Connection: close"))
                        return b" 200 OK" in wrapped.recv(65536)
                except (ssl.SSLError, ConnectionError):
                    return False

        assert [let_in(by) for by in (first, second, None)] == [True, False, False]
        (part := tmp_path / "part").write_bytes(second.path.read_bytes())
        part.replace(client_ca)
        wait_until(lambda: let_in(second))
        assert [let_in(by) for by in (first, second, None)] == [False, True, False]
        with connect(server) as silent:
            assert was_cut(silent)
