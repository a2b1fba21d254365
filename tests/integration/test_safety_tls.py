"""Encrypted ports on real connections: TLS, mutual TLS, certificates that are renewed, expired or broken."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.certificates import Authority, Pair
from tests.served import PROCESS_TIMEOUT_S, linear_bundle
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.client.settings import TlsSettings
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud import tls as tls_module
from tidegate.cloud.limits import Safety
from tidegate.cloud.tls import Certificates, TlsFiles, read_certificate
from tidegate.errors import ConfigError, NotFoundError, ResourceError, TidegateError, UnavailableError

ONES = np.ones((1, 4), np.float32)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def encrypted(pair: Pair, client_ca: Path | None = None) -> ServerSettings:
    return ServerSettings(safety=Safety(tls=TlsFiles(pair.cert, pair.key, client_ca)))


def shown_certificate(address: str) -> bytes:
    """Return the certificate that a new connection is shown, as PEM."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=120).encode()


def test_calls_are_encrypted_and_plaintext_is_not_answered(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("server")
    with Server([linear_bundle(tmp_path)], settings=encrypted(pair)) as server:
        with Client(server.address, tls=TlsSettings(ca=authority.path)) as client:
            assert client.infer("linear", {"x": ONES})["y"].tolist() == [[1, 1, 1, 1]]
        with Client(server.address) as plain, pytest.raises(UnavailableError):
            plain.infer("linear", {"x": ONES})
        stranger = Authority(tmp_path, "stranger")
        with Client(server.address, tls=TlsSettings(ca=stranger.path)) as client, pytest.raises(UnavailableError):
            client.infer("linear", {"x": ONES})


def test_with_an_authority_for_clients_only_its_certificates_get_in(tmp_path: Path, authority: Authority) -> None:
    settings = encrypted(authority.pair("server"), authority.path)
    known, expired = authority.pair("client"), authority.pair("old", begins_days=-9, ends_days=-1)
    foreign = Authority(tmp_path, "stranger").pair("foreign")
    with Server([linear_bundle(tmp_path)], settings=settings) as server:
        with Client(server.address, tls=TlsSettings(authority.path, known.cert, known.key)) as client:
            client.infer("linear", {"x": ONES})
        for refused in (expired, foreign, None):
            shown = TlsSettings(authority.path, refused.cert, refused.key) if refused else TlsSettings(authority.path)
            with Client(server.address, tls=shown) as client, pytest.raises(UnavailableError):
                client.infer("linear", {"x": ONES})
        with Client(server.address, tls=TlsSettings(authority.path, known.cert, known.key)) as client:
            client.infer("linear", {"x": ONES})


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_1_2_are_refused(tmp_path: Path, authority: Authority, version: ssl.TLSVersion) -> None:
    with Server([linear_bundle(tmp_path)], settings=encrypted(authority.pair("server"))) as server:
        host, _, port = server.address.rpartition(":")
        for highest, works in ((ssl.TLSVersion.TLSv1_2, True), (version, False)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(authority.path)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = version
            context.maximum_version = highest
            context.set_alpn_protocols(["h2"])
            with socket.create_connection((host, int(port)), timeout=120) as raw:
                if works:
                    with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                        assert wrapped.version() == "TLSv1.2"
                else:
                    with pytest.raises(ssl.SSLError, match=r"EOF|ALERT"):
                        context.wrap_socket(raw, server_hostname="localhost")


def test_a_renewed_certificate_counts_for_new_connections_and_no_call_fails(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_module, "RECHECK_S", 0.0)
    pair = authority.pair("server")
    stopping = threading.Event()
    failures: list[TidegateError] = []
    calls: list[int] = []

    def load(address: str) -> None:
        while not stopping.is_set():
            try:
                # A connection of its own for every few calls: handshakes happen all the time.
                with Client(address, tls=TlsSettings(ca=authority.path), timeout_s=30) as client:
                    for _ in range(5):
                        client.infer("linear", {"x": ONES})
                        calls.append(1)
            except TidegateError as error:
                failures.append(error)
                return

    with (
        Server([linear_bundle(tmp_path)], settings=encrypted(pair)) as server,
        Client(server.address, tls=TlsSettings(ca=authority.path)) as kept,
        ExitStack() as at_the_end,
    ):
        at_the_end.callback(stopping.set)
        kept.infer("linear", {"x": ONES})
        threads = [threading.Thread(target=load, args=(server.address,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        seen = [shown_certificate(server.address)]
        for number in range(5):
            enough = len(calls) + 30
            pair.replace_with(authority.pair(f"renewed-{number}"))
            seen.append(shown_certificate(server.address))
            assert seen[-1].split() == pair.cert.read_bytes().split()
            wait_until(lambda: len(calls) >= enough or failures)  # noqa: B023 - called at once
        kept.infer("linear", {"x": ONES})
        stopping.set()
        for thread in threads:
            thread.join(PROCESS_TIMEOUT_S)
    assert failures == []
    assert len(set(seen)) == 6


def test_when_it_expires_under_load_open_connections_go_on_and_a_new_one_mends_the_rest(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_module, "RECHECK_S", 0.0)
    trusting = TlsSettings(ca=authority.path)
    # Long enough for the server and its callers to be there before, on a busy machine too.
    pair = authority.pair("server", ends_days=8 / 86400)
    stopping = threading.Event()
    failures: list[TidegateError] = []

    with Server([linear_bundle(tmp_path)], settings=encrypted(pair)) as server, ExitStack() as at_the_end:
        at_the_end.callback(stopping.set)

        def load() -> None:
            with Client(server.address, tls=trusting, timeout_s=120) as client:
                while not stopping.is_set():
                    try:
                        client.infer("linear", {"x": ONES})
                    except TidegateError as error:
                        failures.append(error)
                        return

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: not gets_in(server.address, trusting))
        assert failures == []
        pair.replace_with(authority.pair("renewed"))
        assert gets_in(server.address, trusting)
        stopping.set()
        for thread in threads:
            thread.join(PROCESS_TIMEOUT_S)
    assert failures == []


@pytest.mark.parametrize("broken", ["garbage", "empty", "gone", "other key", "expired", "not yet", "half"])
def test_broken_new_files_leave_the_certificate_of_before_and_are_told_of(
    tmp_path: Path,
    authority: Authority,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tls_module, "RECHECK_S", 0.0)
    pair = authority.pair("server")
    good = pair.cert.read_bytes()
    with Server([linear_bundle(tmp_path)], settings=encrypted(pair)) as server:
        damage(authority, pair, broken)
        for _ in range(2):
            assert shown_certificate(server.address).split() == good.split()
        with Client(server.address, tls=TlsSettings(ca=authority.path)) as client:
            client.infer("linear", {"x": ONES})
        assert len([record for record in caplog.records if "of before stays" in record.message]) == 1
        repaired = authority.pair("repaired")
        pair.replace_with(repaired)
        assert shown_certificate(server.address).split() == repaired.cert.read_bytes().split()


@pytest.mark.parametrize("broken", ["garbage", "empty", "other key", "expired", "not yet", "half"])
def test_a_server_does_not_start_with_a_broken_certificate(tmp_path: Path, authority: Authority, broken: str) -> None:
    pair = authority.pair("server")
    damage(authority, pair, broken)
    with pytest.raises(ConfigError, match="cannot be used"):
        Server([linear_bundle(tmp_path)], settings=encrypted(pair))


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path, authority: Authority) -> None:
    pair = authority.pair("server")
    pair.key.unlink()
    with pytest.raises(NotFoundError, match=r"server\.key"):
        Server([linear_bundle(tmp_path)], settings=encrypted(pair))


def test_a_broken_authority_for_clients_is_refused(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError):
        Server([linear_bundle(tmp_path)], settings=encrypted(authority.pair("server"), tmp_path / "ca.pem"))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path, authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = authority.pair("server")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="cannot be used"):
        read_certificate(TlsFiles(pair.cert, pair.key))


def test_one_that_ends_soon_is_told_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    pair = authority.pair("server", ends_days=3)
    read_certificate(TlsFiles(pair.cert, pair.key))
    assert "expires in 3.0 days" in caplog.text


def test_files_are_looked_at_once_a_second_at_most(authority: Authority) -> None:
    now_s = [0.0]
    pair = authority.pair("server")
    certificates = Certificates(TlsFiles(pair.cert, pair.key), clock=lambda: now_s[0])
    pair.replace_with(authority.pair("next"))
    assert certificates.renewed() is None
    now_s[0] += tls_module.RECHECK_S
    found = certificates.renewed()
    assert found is not None
    assert found.cert == pair.cert.read_bytes()
    assert certificates.renewed() is None


def test_a_port_in_use_is_said_with_encryption_as_well(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        server = Server([linear_bundle(tmp_path)], listen, settings=encrypted(authority.pair("server")))
        with pytest.raises(ResourceError, match="cannot listen"):
            server.start()


def test_health_is_asked_over_the_encrypted_port(tmp_path: Path, authority: Authority) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with (
        Server([linear_bundle(tmp_path)], settings=encrypted(authority.pair("server"))) as server,
        grpc.secure_channel(server.address, grpc.ssl_channel_credentials(authority.path.read_bytes())) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="linear"), timeout=120)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=120)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def gets_in(address: str, tls: TlsSettings) -> bool:
    """Whether a new connection is made and answers."""
    with Client(address, tls=tls, timeout_s=120) as client:
        try:
            client.infer("linear", {"x": ONES})
        except UnavailableError:
            return False
    return True


def damage(authority: Authority, pair: Pair, how: str) -> None:
    if how == "garbage":
        pair.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\n\xff\xfe\x00\n-----END CERTIFICATE-----\n")
    elif how == "empty":
        pair.cert.write_bytes(b"")
    elif how == "gone":
        pair.cert.unlink()
    elif how == "other key":
        pair.key.write_bytes(authority.pair("other").key.read_bytes())
    elif how == "half":
        whole = pair.cert.read_bytes()
        pair.cert.write_bytes(whole[: len(whole) // 2])
    else:
        begins, ends = (-9, -1) if how == "expired" else (1, 9)
        pair.replace_with(authority.pair("untimely", begins_days=begins, ends_days=ends))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_names_a_broken_certificate_with_any_number_of_workers(
    tmp_path: Path, authority: Authority, workers: str
) -> None:
    pair = authority.pair("server")
    damage(authority, pair, "expired")
    command = [sys.executable, "-m", "tidegate.cli", "serve", str(linear_bundle(tmp_path)), "--listen", "127.0.0.1:0"]
    command += ["--workers", workers, "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "certificate has expired" in done.stderr
    assert "Traceback" not in done.stderr
