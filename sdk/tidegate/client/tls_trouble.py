"""What stands in the way of an encrypted connection, in words that name the cause and the option to give."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from tidegate.client.settings import TlsSettings
from tidegate.client.tls_look import (
    EXPIRED,
    NOT_YET_VALID,
    WRONG_ADDRESS,
    WRONG_HOST,
    Look,
    Saw,
    host_of,
    look,
    own_certificate,
)

LOOK_TIMEOUT_S = 2.0
"""For one look; a call whose deadline is nearer gets no more than what is left of it."""

KEPT_S = 1.0
"""A look counts for this long: a client that calls a dead port in a loop does not look at it each time."""

NOT_CONNECTED = "failed to connect to all addresses"
"""How grpc (1.60 to 1.85) says that no connection was made. Only then is there anything to look at."""

NOBODY_THERE = ("connection refused", "no such file", "unreachable", "no route")
"""Failures that encryption has no part in."""

_TLS_ON = "encrypt: `--tls` or `--tls-ca FILE`; in Python tls=TlsSettings(ca=FILE)"
_TLS_OFF = "leave the TLS options out (in Python tls=None), or give the address of the encrypted port"
_AUTHORITY = "trust its authority: `--tls-ca FILE`; in Python TlsSettings(ca=FILE)"
_NAME = "call it by that name, or state the name: `--tls-server-name NAME`; in Python TlsSettings(server_name=NAME)"
_RENEW = "renew the certificate on the server; this client then gets in by itself"
_CLOCK = "compare the clocks of this machine and the server's, or install a certificate that is valid now"
_CLIENT_CERTIFICATE = (
    "show one: `--tls-cert FILE --tls-key FILE`; in Python TlsSettings(ca, cert=FILE, key=FILE); or look into the "
    "server's log"
)
_OTHER_CERTIFICATE = "show one that is valid and of an authority in the server's `--client-ca`"


@dataclass(frozen=True)
class Trouble:
    """Why there is no connection."""

    found: str
    """what was found and expected"""
    fix: str


class Troubleshooter:
    """Looks at a server that could not be connected to. Safe to use from several threads."""

    def __init__(self, target: str, tls: TlsSettings | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Note whom to look at.

        Args:
            target: HOST:PORT or unix:PATH.
            tls: of the client; None for plaintext.
            clock: monotonic, in seconds.
        """
        self._target = target
        self._tls = tls
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Trouble | None = None
        self._looked_at_s = -math.inf

    def forget(self) -> None:
        """Look anew the next time: something has changed."""
        self._looked_at_s = -math.inf

    def trouble(self, code: str, details: str, timeout_s: float = math.inf) -> Trouble | None:
        """Return why a call could not connect; None where that is no matter of encryption, or cannot be found out.

        Args:
            code: name of the call's status.
            details: its message.
            timeout_s: what is left of the call's time; no more than `LOOK_TIMEOUT_S` of it is taken.
        """
        limit_s = min(timeout_s, LOOK_TIMEOUT_S)
        if not is_worth_a_look(code, details) or limit_s <= 0 or not self._lock.acquire(timeout=limit_s):
            return None
        try:
            if self._clock() - self._looked_at_s >= KEPT_S:
                self._found = explained(look(self._target, self._tls, limit_s), self._target, self._tls)
                self._looked_at_s = self._clock()
            return self._found
        finally:
            self._lock.release()


def is_worth_a_look(code: str, details: str) -> bool:
    """Say whether a status means that somebody listens and no connection came about."""
    words = details.lower()
    return code == "UNAVAILABLE" and NOT_CONNECTED in words and not any(word in words for word in NOBODY_THERE)


def explained(seen: Look, target: str, tls: TlsSettings | None, now_s: float | None = None) -> Trouble | None:
    """Put a look into words.

    Args:
        seen: what was found.
        target: the server.
        tls: of the client.
        now_s: seconds since 1970; default: now.
    """
    at_s = time.time() if now_s is None else now_s
    if tls is None:
        found = "the server encrypts (TLS), and this client speaks plaintext"
        return Trouble(found, _TLS_ON) if seen.saw is Saw.TLS else None
    if seen.saw is Saw.NO_TLS:
        return Trouble("the port does not answer in TLS, and this client encrypts", _TLS_OFF)
    if seen.saw is Saw.NO_HTTP2:
        return Trouble("the port encrypts and does not speak HTTP/2, which gRPC needs", "give the address of gRPC")
    if seen.saw is Saw.NOT_TRUSTED:
        return _refused_here(seen, tls, tls.server_name or host_of(target), at_s)
    if seen.saw is Saw.ENDED:
        return _refused_there(tls, at_s)
    return None


def _refused_here(seen: Look, tls: TlsSettings, expected: str, now_s: float) -> Trouble:
    certificate, code = seen.certificate, seen.verify_code
    if certificate is None:
        return Trouble("the server's certificate is not trusted (TLS)", _AUTHORITY)
    if code in (WRONG_HOST, WRONG_ADDRESS):
        names = ", ".join(certificate.names) or certificate.subject
        return Trouble(f"the server's certificate is for {names}; expected {expected}", _NAME)
    if code == EXPIRED and certificate.ends_s > now_s:
        return Trouble(f"a certificate above the server's own, of {certificate.issuer!r}, has expired", _RENEW)
    if code == EXPIRED:
        return Trouble(f"the server's certificate expired on {moment(certificate.ends_s)}", _RENEW)
    if code == NOT_YET_VALID:
        return Trouble(f"the server's certificate begins to be valid on {moment(certificate.begins_s)}", _CLOCK)
    trusted = f"no authority in {tls.ca}" if tls.ca is not None else "none of the public authorities"
    return Trouble(
        f"the server's certificate {certificate.subject!r} of {certificate.issuer!r} comes from {trusted}", _AUTHORITY
    )


def _refused_there(tls: TlsSettings, now_s: float) -> Trouble:
    """Explain a connection that the server ended right after the handshake, which is how gRPC refuses a client."""
    ended = "the server ended the encrypted connection after the handshake"
    if tls.cert is None:
        return Trouble(
            f"{ended}, as one does that expects a client's certificate (mutual TLS); none was shown",
            _CLIENT_CERTIFICATE,
        )
    own = own_certificate(tls)
    if own is None:
        return Trouble(f"{ended}; certificate {tls.cert} was shown", _OTHER_CERTIFICATE)
    if own.ends_s <= now_s:
        return Trouble(f"this client's certificate {tls.cert} expired on {moment(own.ends_s)}", _OTHER_CERTIFICATE)
    return Trouble(
        f"{ended}; certificate {tls.cert} was shown, {own.subject!r} of {own.issuer!r}, valid until "
        f"{moment(own.ends_s)}",
        _OTHER_CERTIFICATE,
    )


def moment(at_s: float) -> str:
    """Return a time of day in UTC."""
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
