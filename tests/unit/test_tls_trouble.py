"""What the client makes of a look at a port: pure rules, without a network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tidegate.client import TlsSettings
from tidegate.client.tls_look import EXPIRED, NOT_YET_VALID, WRONG_ADDRESS, WRONG_HOST, Certificate, Look, Saw
from tidegate.client.tls_trouble import KEPT_S, Troubleshooter, explained, is_worth_a_look

NOW_S = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
SHOWN = Certificate("models", "our authority", ("models.example", "10.0.0.1"), NOW_S - 100, NOW_S + 100)
PAST = Certificate("models", "our authority", (), NOW_S - 200, NOW_S - 86_400)
OURS = TlsSettings(ca=Path("ca.pem"))
PUBLIC = TlsSettings()
MUTUAL = TlsSettings(Path("ca.pem"), Path("me.pem"), Path("me.key"))
UNKNOWN_ISSUER = 20
NO_CONNECTION = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:8443: Socket closed"


@pytest.mark.parametrize(
    ("seen", "tls", "found", "option"),
    [
        (Look(Saw.TLS), None, "the server encrypts", "--tls-ca"),
        (Look(Saw.NO_TLS), OURS, "does not answer in TLS", "leave the TLS options out"),
        (Look(Saw.NO_HTTP2), OURS, "does not speak HTTP/2", "gRPC"),
        (Look(Saw.NOT_TRUSTED, UNKNOWN_ISSUER, SHOWN), OURS, "comes from no authority in ca.pem", "--tls-ca"),
        (Look(Saw.NOT_TRUSTED, UNKNOWN_ISSUER, SHOWN), PUBLIC, "none of the public authorities", "--tls-ca"),
        (Look(Saw.NOT_TRUSTED, UNKNOWN_ISSUER), OURS, "is not trusted", "--tls-ca"),
        (Look(Saw.NOT_TRUSTED, WRONG_HOST, SHOWN), OURS, "expected there.example", "--tls-server-name"),
        (Look(Saw.NOT_TRUSTED, WRONG_ADDRESS, SHOWN), OURS, "is for models.example, 10.0.0.1", "--tls-server-name"),
        (Look(Saw.NOT_TRUSTED, EXPIRED, PAST), OURS, "expired on 2027-01-14 08:00:00 UTC", "renew"),
        (Look(Saw.NOT_TRUSTED, EXPIRED, SHOWN), OURS, "a certificate above the server's own", "renew"),
        (Look(Saw.NOT_TRUSTED, NOT_YET_VALID, SHOWN), OURS, "begins to be valid on 2027-01-15", "clocks"),
        (Look(Saw.ENDED), OURS, "expects a client's certificate", "--tls-cert"),
        (Look(Saw.ENDED), MUTUAL, "certificate me.pem was shown", "--client-ca"),
    ],
)
def test_a_look_in_words(seen: Look, tls: TlsSettings | None, found: str, option: str) -> None:
    trouble = explained(seen, "there.example:8443", tls, NOW_S)
    assert trouble is not None
    assert found in trouble.found
    assert option in trouble.fix


@pytest.mark.parametrize(("saw", "tls"), [(Saw.NOTHING, OURS), (Saw.NOTHING, None), (Saw.NO_TLS, None)])
def test_what_explains_nothing_is_left_to_grpc(saw: Saw, tls: TlsSettings | None) -> None:
    assert explained(Look(saw), "there.example:8443", tls, NOW_S) is None


@pytest.mark.parametrize(
    ("code", "details", "worth"),
    [
        ("UNAVAILABLE", NO_CONNECTION, True),
        ("UNAVAILABLE", "Socket closed", False),
        ("UNAVAILABLE", "the server drains", False),
        ("DEADLINE_EXCEEDED", NO_CONNECTION, False),
        ("UNAVAILABLE", NO_CONNECTION.replace("Socket closed", "Connection refused"), False),
        ("UNAVAILABLE", NO_CONNECTION.replace("Socket closed", "No such file or directory"), False),
    ],
)
def test_only_a_connection_that_was_not_made_is_looked_at(code: str, details: str, worth: bool) -> None:
    assert is_worth_a_look(code, details) is worth


def test_a_port_is_looked_at_once_in_a_while_and_only_while_the_call_has_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        now_s = [0.0]
        shooter = Troubleshooter(f"127.0.0.1:{silent.getsockname()[1]}", None, clock=lambda: now_s[0])
        for later_s, left_s, looks in ((0.0, 0.05, 1), (0.0, 0.05, 0), (KEPT_S, -1.0, 0), (0.0, 0.05, 1)):
            now_s[0] += later_s
            assert shooter.trouble("UNAVAILABLE", NO_CONNECTION, left_s) is None, "it never answers"
            assert connections(silent) == looks


def connections(listener: socket.socket) -> int:
    """Return how many connections wait to be accepted, and take them."""
    found = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return found
        found += 1
