"""TLS, mutual TLS and tokens against a plain grpc server, with certificates made here."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.oip_servers import oip_server

from tidegate.cli.main import main
from tidegate.client import AsyncClient, Client, TlsSettings, tls_trouble
from tidegate.errors import ConfigError, NotFoundError, UnavailableError
from tidegate.wire import messages


@dataclass
class Identity:
    """A certificate and its key, as files."""

    cert: Path
    key: Path
    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey


def make(
    directory: Path, name: str, issuer: Identity | None = None, *, san: str = "", days: int = 1, begins_days: int = -1
) -> Identity:
    """Write a certificate: an authority without an issuer, otherwise one for the DNS name or address `san`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    begins = now + datetime.timedelta(days=begins_days)
    until = max(begins, now) + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(begins, until - datetime.timedelta(days=1)))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if san:
        general: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(san)) if san[0].isdigit() else x509.DNSName(san)
        builder = builder.add_extension(x509.SubjectAlternativeName([general]), critical=False)
    certificate = builder.sign(issuer.private if issuer else key, hashes.SHA256())
    identity = Identity(directory / f"{name}.pem", directory / f"{name}.key", certificate, key)
    identity.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    identity.key.write_bytes(private_bytes(key, serialization.NoEncryption()))
    return identity


def private_bytes(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a port may take its time on a busy machine."""
    monkeypatch.setattr(tls_trouble, "LOOK_TIMEOUT_S", 60.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def ca(directory: Path) -> Identity:
    return make(directory, "ca")


@contextmanager
def tls_server(identity: Identity, *, clients: Identity | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run a server that notes each call's headers, and the caller's common name as `peer`."""
    calls: list[dict[str, str]] = []

    def live(request: Any, context: grpc.ServicerContext) -> Any:
        peer = context.auth_context().get("x509_common_name", [b""])[0].decode()
        calls.append({**dict(context.invocation_metadata()), "peer": peer})
        return messages.ServerLiveResponse(live=True)

    def described(request: Any, context: grpc.ServicerContext) -> Any:
        live(request, context)
        return messages.ServerMetadataResponse(name="guarded", version="1")

    credentials = grpc.ssl_server_credentials(
        [(identity.key.read_bytes(), identity.cert.read_bytes())],
        root_certificates=clients.cert.read_bytes() if clients else None,
        require_client_auth=clients is not None,
    )
    unary = {
        "ServerLive": live,
        "ServerMetadata": described,
        "ServerReady": lambda request, context: messages.ServerReadyResponse(ready=True),
    }
    with oip_server(unary, credentials=credentials) as target:
        yield target, calls


def test_tls_with_a_private_authority_and_a_token(directory: Path, ca: Identity) -> None:
    server = make(directory, "server", ca, san="127.0.0.1")
    tls = TlsSettings(ca=ca.cert)
    tokens = iter(["one", "two"])
    with tls_server(server) as (target, calls):
        with Client(target, tls=tls, token="abc.DEF-123") as client:
            assert client.live()
        with Client(target, tls=tls, token=lambda: next(tokens)) as client:
            assert client.live()
            assert client.live()

        async def asyncio_too() -> None:
            async with AsyncClient(target, tls=tls, token="later") as client:
                assert await client.live()

        asyncio.run(asyncio_too())
    sent = [call["authorization"] for call in calls]
    assert sent == ["Bearer abc.DEF-123", "Bearer one", "Bearer two", "Bearer later"]


def test_mutual_tls(directory: Path, ca: Identity) -> None:
    server, device = make(directory, "server", ca, san="127.0.0.1"), make(directory, "device-7", ca)
    with tls_server(server, clients=ca) as (target, calls):
        with Client(target, tls=TlsSettings(ca.cert, device.cert, device.key)) as client:
            assert client.live()
        with Client(target, tls=TlsSettings(ca.cert), timeout_s=60) as client:
            assert_refused(client, "expects a client's certificate", "--tls-cert")
        stranger = make(directory, "stranger-7", make(directory, "strange-ca"))
        with Client(target, tls=TlsSettings(ca.cert, stranger.cert, stranger.key), timeout_s=60) as client:
            assert_refused(client, r"stranger-7\.pem was shown, 'stranger-7' of 'strange-ca'", "--client-ca")
        expired = make(directory, "expired-7", ca, days=-1)
        with Client(target, tls=TlsSettings(ca.cert, expired.cert, expired.key), timeout_s=60) as client:
            assert_refused(client, rf"expired-7\.pem expired on {day_of_end(expired)}", "valid")
    assert [call["peer"] for call in calls] == ["device-7"]


def test_the_name_in_the_certificate_must_be_that_of_the_address_or_the_one_stated(
    directory: Path, ca: Identity
) -> None:
    named = make(directory, "named", ca, san="models.example")
    with tls_server(named) as (target, _):
        with Client(target, tls=TlsSettings(ca.cert, server_name="models.example")) as client:
            assert client.live()
        with Client(target, tls=TlsSettings(ca.cert), timeout_s=60) as client:
            assert_refused(client, r"is for models\.example; expected 127\.0\.0\.1", "--tls-server-name")


def test_what_ends_that_do_not_agree_on_encryption_say(directory: Path, ca: Identity) -> None:
    good = make(directory, "good", ca, san="127.0.0.1")
    stranger = make(directory, "stranger", make(directory, "other-ca"), san="127.0.0.1")
    expired = make(directory, "expired", ca, san="127.0.0.1", days=-1)
    later = make(directory, "later", ca, san="127.0.0.1", begins_days=1)
    trusting = TlsSettings(ca.cert)
    for identity, tls, message, fix in (
        (good, None, "the server encrypts", "--tls-ca"),
        (good, TlsSettings(), "'good' of 'ca' comes from none of the public authorities", "--tls-ca"),
        (stranger, trusting, r"'stranger' of 'other-ca' comes from no authority in .*ca\.pem", "--tls-ca"),
        (expired, trusting, f"certificate expired on {day_of_end(expired)}", "renew"),
        (later, trusting, "begins to be valid on", "clocks"),
    ):
        with tls_server(identity) as (target, calls), Client(target, tls=tls, timeout_s=60) as client:
            assert_refused(client, message, fix)
        assert not calls
    with oip_server({}) as target, Client(target, tls=trusting, timeout_s=60) as client:
        assert_refused(client, "does not answer in TLS", "leave the TLS options out")


def test_a_stream_and_asyncio_say_it_too(directory: Path, ca: Identity) -> None:
    async def asyncio_too(target: str) -> None:
        async with AsyncClient(target, timeout_s=60) as client:
            with pytest.raises(UnavailableError, match="the server encrypts"):
                await client.live()
            async with client.infer_stream() as stream:
                with pytest.raises(UnavailableError, match="the server encrypts"):
                    await stream.receive(timeout_s=60)

    with tls_server(make(directory, "good", ca, san="127.0.0.1")) as (target, _):
        with (
            Client(target) as client,
            client.infer_stream() as stream,
            pytest.raises(UnavailableError, match="the server encrypts"),
        ):
            stream.receive(timeout_s=60)
        asyncio.run(asyncio_too(target))


@contextmanager
def https_server(identity: Identity) -> Iterator[str]:
    """Run an HTTPS server that knows HTTP/1.1 alone."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_port_of_https_is_none_of_grpc(directory: Path, ca: Identity) -> None:
    with (
        https_server(make(directory, "web", ca, san="127.0.0.1")) as target,
        Client(target, tls=TlsSettings(ca.cert), timeout_s=60) as client,
    ):
        assert_refused(client, "does not speak HTTP/2", "gRPC")


def assert_refused(client: Client, message: str, fix: str) -> None:
    """Expect that no connection is made, and that the error names the cause and the way out."""
    with pytest.raises(UnavailableError, match=message) as caught:
        client.live()
    assert caught.value.message.startswith(client.target)
    assert fix in (caught.value.fix or "")


def day_of_end(identity: Identity) -> str:
    """Return the day on which a certificate ends."""
    return identity.certificate.not_valid_after_utc.strftime("%Y-%m-%d")


@pytest.mark.parametrize("target", ["models.example:8001", "10.0.0.1:8001", "[2001:db8::1]:8001"])
def test_a_token_never_travels_in_clear(target: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="without TLS") as caught:
            kind(target, token="secret")
        assert "secret" not in str(caught.value)


def test_a_token_travels_on_this_machine(tmp_path: Path) -> None:
    calls = []

    def live(request: Any, context: grpc.ServicerContext) -> Any:
        calls.append(dict(context.invocation_metadata()).get("authorization"))
        return messages.ServerLiveResponse(live=True)

    for address in ("127.0.0.1:0", f"unix:{tmp_path / 'socket'}"):
        with oip_server({"ServerLive": live}, address=address) as target, Client(target, token="t") as client:
            assert client.live()
    assert calls == ["Bearer t", "Bearer t"]
    for target in ("localhost:1", "[::1]:1"):
        Client(target, token="t").close()


@pytest.mark.parametrize("token", ["", "secret two", "secret\n", "secré"])
def test_a_token_that_cannot_travel_is_not_shown(token: str) -> None:
    with Client("127.0.0.1:1", token=token) as client, pytest.raises(ConfigError, match="printable ASCII") as caught:
        client.live()
    assert "secr" not in caught.value.message


def test_files_that_cannot_be_used(directory: Path, ca: Identity) -> None:
    device, other = make(directory, "device", ca), make(directory, "other", ca)
    nothing = directory / "nothing.pem"
    garbage = directory / "garbage.pem"
    garbage.write_text("no certificate")
    locked = directory / "locked.key"
    locked.write_bytes(private_bytes(device.private, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match="a certificate or a key"):
        TlsSettings(cert=device.cert)
    with pytest.raises(NotFoundError, match=r"nothing\.pem"):
        Client("127.0.0.1:1", tls=TlsSettings(ca=nothing))
    for tls in (
        TlsSettings(ca=garbage),
        TlsSettings(ca.cert, device.cert, other.key),
        TlsSettings(ca.cert, garbage, device.key),
        TlsSettings(ca.cert, device.cert, locked),
    ):
        with pytest.raises(ConfigError, match="cannot be used"):
            Client("127.0.0.1:1", tls=tls)


def test_the_call_command_takes_certificates_and_a_token_from_a_file(
    directory: Path, ca: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    server, device = make(directory, "server", ca, san="127.0.0.1"), make(directory, "device-7", ca)
    token = directory / "token"
    token.write_text("from-a-file\n")
    mutual = ["--tls-ca", str(ca.cert), "--tls-cert", str(device.cert), "--tls-key", str(device.key)]
    with tls_server(server, clients=ca) as (target, calls):
        assert main(["call", target, *mutual, "--token-file", str(token), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["server"]["name"] == "guarded"
        assert main(["call", target, "--tls-ca", str(ca.cert), "--tls-cert", str(device.cert)]) == 2
        named = make(directory, "named", ca, san="models.example")
        with tls_server(named) as (other, _):
            assert main(["call", other, "--tls-ca", str(ca.cert), "--tls-server-name", "models.example"]) == 0
            assert main(["call", other, "--tls-ca", str(ca.cert), "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("guarded 1 at")
    assert "a certificate or a key" in printed.err
    assert "--tls-server-name" in printed.err
    assert [(call["peer"], call["authorization"]) for call in calls] == [("device-7", "Bearer from-a-file")]
