"""The transport against real servers on loopback: resume, cuts, slowness, lies, redirects, TLS, proxies."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import ipaddress
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fault_server import FaultServer, Request, serve_with_faults

from tidegate.errors import (
    ConfigError,
    DeadlineError,
    IntegrityError,
    NotFoundError,
    ResourceError,
    UnavailableError,
)
from tidegate.fetch.settings import FetchSettings
from tidegate.fetch.transport import Transport

CHUNK = 1 << 16
DATA = os.urandom(3 * CHUNK + 1000)
QUICK = FetchSettings(attempts=1, backoff_s=0.0, connect_timeout_s=30.0, read_timeout_s=30.0, proxy="")
PERSISTENT = FetchSettings(attempts=3, backoff_s=0.0, connect_timeout_s=30.0, read_timeout_s=30.0, proxy="")
# A cut counts as a try even after most of the file has come.
FRAIL = FetchSettings(attempts=1, backoff_s=0.0, read_timeout_s=5.0, minimum_bytes_per_s=100_000.0, proxy="")
# A window of a fifth of a second that must bring a thousand bytes.
IMPATIENT = FetchSettings(attempts=1, read_timeout_s=0.2, minimum_bytes_per_s=5000.0, proxy="")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FaultServer]:
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "file").write_bytes(DATA)
    (directory / "empty").write_bytes(b"")
    with serve_with_faults(directory) as served:
        yield served


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "partial"


def resume(site: FaultServer, partial: Path, how: FetchSettings = QUICK, size: int = len(DATA)) -> Transport:
    transport = Transport(how)
    try:
        transport.resume(f"{site.url}/file", partial, size)
    finally:
        transport.close()
    return transport


@pytest.mark.parametrize("has_ranges", [True, False], ids=["range", "no range"])
@pytest.mark.parametrize(
    "after", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 777, 3 * CHUNK, len(DATA) - 1]
)
def test_a_cut_anywhere_is_resumed_by_the_next_run(
    after: int, has_ranges: bool, site: FaultServer, partial: Path
) -> None:
    site.has_ranges = has_ranges
    site.cut_once("file", after)
    with pytest.raises(UnavailableError):
        resume(site, partial, FRAIL)
    assert (partial.read_bytes() if partial.exists() else b"") == DATA[:after]

    second = resume(site, partial)
    assert partial.read_bytes() == DATA
    assert site.ranges == ["", f"bytes={after}-" if after else ""]
    assert second.received_bytes == (len(DATA) - after if has_ranges else len(DATA))


def test_a_line_that_breaks_again_and_again_is_outlasted_while_it_brings_something(
    site: FaultServer, partial: Path
) -> None:
    def forty_thousand_each(request: Request) -> bool:
        request.send_file(stop_after=40_000)
        return True

    site.rules["file"] = forty_thousand_each
    resume(site, partial, PERSISTENT)
    assert partial.read_bytes() == DATA
    assert len(site.requests) > PERSISTENT.attempts


def test_a_line_that_brings_nothing_is_given_up_after_the_attempts(site: FaultServer, partial: Path) -> None:
    def one_byte_each(request: Request) -> bool:
        request.send_file(stop_after=1)
        return True

    site.rules["file"] = one_byte_each
    with pytest.raises(UnavailableError):
        resume(site, partial, PERSISTENT)
    assert len(site.requests) == PERSISTENT.attempts
    assert partial.read_bytes() == DATA[: PERSISTENT.attempts]


def test_what_is_complete_needs_no_request(site: FaultServer, partial: Path, tmp_path: Path) -> None:
    partial.write_bytes(DATA)
    assert resume(site, partial).requests == 0
    empty = tmp_path / "nothing"
    Transport(QUICK).resume(f"{site.url}/empty", empty, 0)
    assert empty.read_bytes() == b""


def test_a_partial_file_that_is_too_long_is_begun_anew(site: FaultServer, partial: Path) -> None:
    partial.write_bytes(DATA + b"more")
    resume(site, partial)
    assert partial.read_bytes() == DATA
    assert site.ranges == [""]


@pytest.mark.parametrize(
    "content_range", ["bytes 0-9/10", "bytes 5-99/*", "bytes 100-196706/1", "items 100-", ""], ids=repr
)
def test_another_range_than_the_one_asked_for_is_not_appended(
    content_range: str, site: FaultServer, partial: Path
) -> None:
    def confused(request: Request) -> bool:
        if not request.headers.get("Range"):
            return False
        request.send_status(206, DATA[100:], Content_Range=content_range)
        return True

    site.rules["file"] = confused
    partial.write_bytes(DATA[:100])
    with pytest.raises(UnavailableError, match="another part"):
        resume(site, partial)
    partial.write_bytes(DATA[:100])
    resume(site, partial, PERSISTENT)
    assert partial.read_bytes() == DATA


def test_a_range_that_the_server_does_not_have_leads_to_a_new_beginning(site: FaultServer, partial: Path) -> None:
    (site.directory / "file").write_bytes(b"short")
    partial.write_bytes(DATA[:100])
    with pytest.raises(IntegrityError, match="has 5 bytes"):
        resume(site, partial, PERSISTENT)
    assert site.ranges == ["bytes=100-", ""]


def endless(request: Request) -> bool:
    request.begin_body(length=None)
    while not request.site.over.is_set():
        request.wfile.write(bytes(CHUNK))
    return True


def endless_in_chunks(request: Request) -> bool:
    request.close_connection = True
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    while not request.site.over.is_set():
        request.wfile.write(b"10000\r\n" + bytes(CHUNK) + b"\r\n")
    return True


def longer_by_one(request: Request) -> bool:
    request.send_status(200, DATA + b"x")
    return True


@pytest.mark.parametrize("rule", [endless, endless_in_chunks, longer_by_one])
def test_more_than_is_signed_is_refused_at_the_signed_length(
    rule: Callable[[Request], bool], site: FaultServer, partial: Path
) -> None:
    site.rules["file"] = rule
    transport = Transport(PERSISTENT)
    with pytest.raises(IntegrityError, match="signed"):
        transport.resume(f"{site.url}/file", partial, len(DATA))
    assert not partial.exists()
    assert len(site.requests) == 1, "a lie is not tried again"
    assert transport.received_bytes <= len(DATA) + CHUNK
    with pytest.raises(IntegrityError, match="longer than 1000 bytes"):
        transport.get(f"{site.url}/file", 1000)


def drip_body(request: Request) -> bool:
    request.begin_body(length=len(DATA))
    while not request.site.over.wait(0.02):
        request.wfile.write(b"x")
    return True


def drip_headers(request: Request) -> bool:
    request.close_connection = True
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not request.site.over.wait(0.02):
        request.wfile.write(b"x")
    return True


def drip_chunk_header(request: Request) -> bool:
    request.close_connection = True
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    while not request.site.over.wait(0.02):
        request.wfile.write(b"x")
    return True


def drip_to_the_close(request: Request) -> bool:
    request.begin_body(length=None)
    while not request.site.over.wait(0.02):
        request.wfile.write(b"x")
    return True


def silence(request: Request) -> bool:
    request.close_connection = True
    request.site.over.wait()
    return True


def fast_and_then_silent(request: Request) -> bool:
    request.begin_body(length=len(DATA))
    request.wfile.write(DATA[:100_000])
    request.site.over.wait()
    return True


SLOW = [drip_body, drip_headers, drip_chunk_header, drip_to_the_close, silence, fast_and_then_silent]


@pytest.mark.parametrize("rule", SLOW)
def test_a_slow_server_ends_in_a_deadline(rule: Callable[[Request], bool], site: FaultServer, partial: Path) -> None:
    site.rules["file"] = rule
    with pytest.raises(DeadlineError):
        resume(site, partial, IMPATIENT)
    with pytest.raises(DeadlineError):
        Transport(IMPATIENT).get(f"{site.url}/file", len(DATA))


def test_a_server_that_does_not_accept_ends_in_a_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        # One connection fills the queue; the system drops what comes after it.
        with socket.create_connection(("127.0.0.1", port)):
            transport = Transport(FetchSettings(attempts=1, connect_timeout_s=0.2, proxy=""))
            with pytest.raises(DeadlineError):
                transport.get(f"http://127.0.0.1:{port}/file", 10)


def test_no_server_and_no_name() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(UnavailableError):
            Transport(QUICK).get(f"http://127.0.0.1:{closed.getsockname()[1]}/file", 10)
    with pytest.raises(UnavailableError):
        Transport(QUICK).get("http://no-such-host.invalid/file", 10)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_trouble_of_the_server_is_tried_again(status: int, site: FaultServer, partial: Path) -> None:
    def once(request: Request) -> bool:
        if len(site.requests) > 1:
            return False
        request.send_status(status, b"busy")
        return True

    site.rules["file"] = once
    resume(site, partial, PERSISTENT)
    assert partial.read_bytes() == DATA
    assert len(site.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 501])
def test_a_lasting_refusal_is_not_tried_again(status: int, site: FaultServer, partial: Path) -> None:
    def refuse(request: Request) -> bool:
        request.send_status(status, b"no " * 100_000)
        return True

    site.rules["file"] = refuse
    partial.write_bytes(DATA[:100])
    with pytest.raises(UnavailableError, match=str(status)):
        resume(site, partial, PERSISTENT)
    assert len(site.requests) == 1
    assert partial.read_bytes() == DATA[:100], "what was kept is still good"
    transport = Transport(QUICK)
    assert transport.get(f"{site.url}/file", 10).status == status
    assert transport.received_bytes < 100_000, "an error page is not read to its end"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://a b:99999/\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_what_is_no_proper_answer_is_the_servers_fault(raw: bytes, site: FaultServer, partial: Path) -> None:
    def answer(request: Request) -> bool:
        request.wfile.write(raw)
        request.cut()
        return True

    site.rules["file"] = answer
    with pytest.raises(UnavailableError) as raised:
        resume(site, partial)
    assert site.url in raised.value.message or str(partial) in raised.value.message
    with pytest.raises(UnavailableError):
        Transport(QUICK).get(f"{site.url}/file", len(DATA))


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(max_size=200), after_status=st.booleans())
def test_whatever_a_server_says_ends_in_our_own_errors(raw: bytes, after_status: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(60)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(CHUNK)
                connection.sendall((b"HTTP/1.1 200 OK\r\n" if after_status else b"") + raw)

        thread = threading.Thread(target=answer)
        thread.start()
        transport = Transport(QUICK)
        try:
            transport.get(f"http://127.0.0.1:{listener.getsockname()[1]}/file", 1000)
        except (UnavailableError, IntegrityError):
            pass
        finally:
            thread.join(60)
            transport.close()


def test_redirects_are_followed_and_counted_but_not_in_circles(site: FaultServer, partial: Path) -> None:
    def elsewhere(request: Request) -> bool:
        request.send_status(302, Location="/file?again")
        return True

    def circle(request: Request) -> bool:
        request.send_status(307, Location="/circle")
        return True

    site.rules = {"moved": elsewhere, "circle": circle}
    transport = Transport(QUICK)
    partial.write_bytes(DATA[:100])
    transport.resume(f"{site.url}/moved", partial, len(DATA))
    assert partial.read_bytes() == DATA
    assert transport.requests == 2
    assert site.ranges == ["bytes=100-"] * 2
    with pytest.raises(UnavailableError, match="more than 5 redirects"):
        transport.get(f"{site.url}/circle", 10)


def test_connections_are_kept_open_between_requests(site: FaultServer) -> None:
    ports: list[int] = []

    def note(request: Request) -> bool:
        ports.append(request.client_address[1])
        return False

    site.rules["/"] = note
    transport = Transport(QUICK)
    for name in ("file", "missing", "file"):
        transport.get(f"{site.url}/{name}", len(DATA))
    transport.close()
    assert len(set(ports)) == 1


def test_progress_adds_up_through_a_new_beginning(site: FaultServer, partial: Path) -> None:
    site.has_ranges = False
    partial.write_bytes(DATA[:5000])
    heard: list[int] = []
    Transport(QUICK).resume(f"{site.url}/file", partial, len(DATA), on_bytes=heard.append)
    assert heard[0] == -5000
    assert sum(heard) == len(DATA) - 5000


def test_another_thread_can_end_it(site: FaultServer, partial: Path) -> None:
    stop = threading.Event()
    with pytest.raises(UnavailableError, match="stopped"):
        Transport(PERSISTENT).resume(
            f"{site.url}/file", partial, len(DATA), on_bytes=lambda count: stop.set(), stop=stop
        )
    assert len(site.requests) == 1
    assert 0 < len(partial.read_bytes()) < len(DATA)


def test_a_disk_that_refuses_is_not_the_servers_fault(site: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"missing.partial"):
        resume(site, tmp_path / "missing" / "partial")
    full = Path("/dev/full")
    with pytest.raises(ResourceError, match="No space left"):
        resume(site, full)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a certificate for 127.0.0.1, which vouches for itself, and of its key."""
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "channel")])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "cert.pem", directory / "key.pem"


@pytest.fixture
def secure(site: FaultServer, certificate: tuple[Path, Path]) -> Iterator[FaultServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve_with_faults(site.directory, tls=context) as served:
        yield served


def with_ca(certificate: tuple[Path, Path], how: FetchSettings) -> FetchSettings:
    return dataclasses.replace(how, ca_file=str(certificate[0]))


def test_https_with_a_custom_authority(secure: FaultServer, certificate: tuple[Path, Path], partial: Path) -> None:
    partial.write_bytes(DATA[:100])
    resume(secure, partial, with_ca(certificate, QUICK))
    assert partial.read_bytes() == DATA


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: FaultServer, partial: Path) -> None:
    with pytest.raises(UnavailableError, match=r"(?i)certificate") as raised:
        resume(secure, partial)
    assert raised.value.fix is not None
    assert "clock" in raised.value.fix
    assert secure.requests == []


@pytest.mark.parametrize("rule", SLOW)
def test_slowness_ends_over_tls_too(
    rule: Callable[[Request], bool], secure: FaultServer, certificate: tuple[Path, Path], partial: Path
) -> None:
    secure.rules["file"] = rule
    with pytest.raises(DeadlineError):
        resume(secure, partial, with_ca(certificate, IMPATIENT))


def test_no_redirect_from_https_to_http(
    site: FaultServer, secure: FaultServer, certificate: tuple[Path, Path], partial: Path
) -> None:
    def downgrade(request: Request) -> bool:
        request.send_status(301, Location=f"{site.url}/file")
        return True

    secure.rules["file"] = downgrade
    with pytest.raises(UnavailableError, match="not followed"):
        resume(secure, partial, with_ca(certificate, QUICK))
    assert site.requests == []


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        Transport(FetchSettings(ca_file=str(tmp_path / "missing.pem")))
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"empty\.pem cannot be used"):
        Transport(FetchSettings(ca_file=str(tmp_path / "empty.pem")))


# Proxies


@pytest.fixture
def proxy(site: FaultServer, tmp_path: Path) -> Iterator[FaultServer]:
    """Run a forward proxy that demands a name and a password."""

    def forward(request: Request) -> bool:
        expected = "Basic " + base64.b64encode(b"kiosk:p@ss").decode()
        if request.headers.get("Proxy-Authorization") != expected:
            request.send_status(407, Proxy_Authenticate="Basic")
            return True
        request.path = re.sub(r"^http://[^/]*", "", request.path)
        return False

    with serve_with_faults(site.directory) as served:
        served.rules["http://"] = forward
        yield served


def test_a_proxy_from_the_settings(site: FaultServer, proxy: FaultServer) -> None:
    address = proxy.url.replace("http://", "http://kiosk:p%40ss@")
    answer = Transport(FetchSettings(attempts=1, proxy=address)).get(f"{site.url}/file", len(DATA))
    assert answer.body == DATA
    assert site.requests == []
    assert proxy.requests == [f"{site.url}/file"]
    assert Transport(FetchSettings(attempts=1, proxy=proxy.url)).get(f"{site.url}/file", 10).status == 407


def test_https_goes_through_a_proxy_unread(
    secure: FaultServer, certificate: tuple[Path, Path], proxy: FaultServer, partial: Path
) -> None:
    how = dataclasses.replace(with_ca(certificate, QUICK), proxy=proxy.url)
    resume(secure, partial, how)
    assert partial.read_bytes() == DATA
    assert proxy.tunnels == [secure.url.removeprefix("https://")]
    assert secure.requests == ["/file"]


def test_a_proxy_from_the_environment(site: FaultServer, proxy: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "kiosk:p%40ss@"))
    by_environment = FetchSettings(attempts=1)
    assert Transport(by_environment).get(f"{site.url}/file", len(DATA)).body == DATA
    assert (len(site.requests), len(proxy.requests)) == (0, 1)

    assert Transport(QUICK).get(f"{site.url}/file", len(DATA)).body == DATA
    assert (len(site.requests), len(proxy.requests)) == (1, 1), 'proxy="" goes directly'

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Transport(by_environment).get(f"{site.url}/file", len(DATA)).body == DATA
    assert (len(site.requests), len(proxy.requests)) == (2, 1)

    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match="the proxy is"):
        Transport(by_environment).get(f"{site.url}/file", 10)


def test_the_server_learns_who_asks(site: FaultServer) -> None:
    heard: list[str] = []

    def note(request: Request) -> bool:
        heard.extend([request.headers["User-Agent"], request.headers["Accept-Encoding"]])
        return False

    site.rules["file"] = note
    Transport(FetchSettings(user_agent="kiosk/1.0", proxy="")).get(f"{site.url}/file", len(DATA))
    assert heard == ["kiosk/1.0", "identity"]


def test_where_nobody_listens_the_message_names_host_and_port(partial: Path) -> None:
    transport = Transport(QUICK)
    with socket.socket() as closed, contextlib.closing(transport):
        closed.bind(("127.0.0.1", 0))  # and does not listen
        port = closed.getsockname()[1]
        with pytest.raises(UnavailableError, match=rf": 127\.0\.0\.1:{port}: .*refused") as raised:
            transport.resume(f"http://127.0.0.1:{port}/file", partial, len(DATA))
    assert "_Watched" not in raised.value.message
