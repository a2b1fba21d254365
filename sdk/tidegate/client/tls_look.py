"""One look at a port with `ssl`, after gRPC could not connect: gRPC hides why two ends did not agree on encryption.

A look makes up to three connections of its own, sends no call and no token, and shows a client's certificate only where
the client itself would.
"""

from __future__ import annotations

import enum
import importlib.resources
import os
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.client.settings import TlsSettings
from tidegate.errors import TidegateError

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (1.1.0 and later), which Python has no name for."""

EXPIRED, NOT_YET_VALID, WRONG_HOST, WRONG_ADDRESS = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, CERT_NOT_YET_VALID, HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH."""

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""With an empty SETTINGS frame (RFC 9113, section 3.4): what a server answers with its own."""


class Saw(enum.Enum):
    """What a look found."""

    NOTHING = "nothing that explains it"
    NO_TLS = "the port answers, and not in TLS"
    TLS = "the port speaks TLS"
    NOT_TRUSTED = "the server's certificate was refused here"
    NO_HTTP2 = "TLS without HTTP/2"
    ENDED = "the server ended the connection after the handshake"


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, as far as messages need it."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """hosts and addresses that it is for"""
    begins_s: float
    """seconds since 1970"""
    ends_s: float


@dataclass(frozen=True)
class Look:
    """What a look found, with the server's certificate where that was refused here."""

    saw: Saw
    verify_code: int = 0
    """OpenSSL's, where the certificate was refused"""
    certificate: Certificate | None = None
    """of the server; None where it could not be read"""


def look(target: str, tls: TlsSettings | None, timeout_s: float) -> Look:
    """Connect as a client with these settings would, and say how that ends.

    Args:
        target: HOST:PORT or unix:PATH.
        tls: of the client; None: it speaks plaintext.
        timeout_s: for the whole look.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        if tls is None:
            _handshake(target, _trusting_anybody(), deadline_s)
            return Look(Saw.TLS)
        return _as_the_client(target, tls, deadline_s)
    except ssl.SSLError as error:
        return Look(_meaning(error.reason or "", encrypts=tls is not None))
    except (OSError, ValueError, TidegateError):
        # Nobody listens, the time is over, or a file has gone since: gRPC's own words are as good.
        return Look(Saw.NOTHING)


def _meaning(reason: str, *, encrypts: bool) -> Saw:
    """Return what OpenSSL's name for a failed handshake says of the server."""
    if not encrypts:
        # Its alert is an answer in TLS, whatever it does not like.
        return Saw.TLS if "ALERT" in reason else Saw.NOTHING
    if reason == "WRONG_VERSION_NUMBER":  # no record of TLS at all
        return Saw.NO_TLS
    about_this_client = any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE"))
    return Saw.ENDED if "ALERT" in reason and about_this_client else Saw.NOTHING


def own_certificate(tls: TlsSettings) -> Certificate | None:
    """Return what this client's certificate says, by a handshake in memory; None where there is none to read."""
    if tls.cert is None or tls.key is None:
        return None
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tls.cert, tls.key, password="")
        client = _trusting_just(tls.cert.read_text(encoding="utf-8"))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = client.wrap_bio(to_client, to_server)
        pending = [asking, server.wrap_bio(to_server, to_client, server_side=True)]
        while pending:
            for end in tuple(pending):
                try:
                    end.do_handshake()
                    pending.remove(end)
                except ssl.SSLWantReadError:
                    continue
        return _read(asking.getpeercert())
    except (OSError, ValueError):
        return None


def _as_the_client(target: str, tls: TlsSettings, deadline_s: float) -> Look:
    name = tls.server_name or host_of(target)
    try:
        with _connected(target, _trusting(tls), deadline_s, name) as wrapped:
            if wrapped.selected_alpn_protocol() != "h2":
                return Look(Saw.NO_HTTP2)
            # In TLS 1.3 the server looks at the client's certificate after the client's side of the handshake.
            wrapped.sendall(HTTP2_PREFACE)
            return Look(Saw.NOTHING if wrapped.recv(1) else Saw.ENDED)
    except ssl.SSLCertVerificationError as error:
        return Look(Saw.NOT_TRUSTED, error.verify_code, _shown(target, deadline_s, name))
    except (ConnectionResetError, BrokenPipeError):
        return Look(Saw.ENDED)


def _shown(target: str, deadline_s: float, name: str) -> Certificate | None:
    """Return what the server's certificate says. `ssl` reads only one that is trusted, so it is: for this look."""
    try:
        raw = _handshake(target, _trusting_anybody(), deadline_s, name)
        with _connected(target, _trusting_just(ssl.DER_cert_to_PEM_cert(raw)), deadline_s, name) as wrapped:
            return _read(wrapped.getpeercert())
    except (OSError, ValueError):
        return None


def _handshake(target: str, context: ssl.SSLContext, deadline_s: float, name: str = "") -> bytes:
    """Return the server's certificate as DER."""
    with _connected(target, context, deadline_s, name or host_of(target)) as wrapped:
        return wrapped.getpeercert(binary_form=True) or b""


def _connected(target: str, context: ssl.SSLContext, deadline_s: float, name: str) -> ssl.SSLSocket:
    left_s = max(deadline_s - time.monotonic(), 0.001)
    if target.startswith("unix:"):
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(left_s)
        raw.connect(target.removeprefix("unix:").removeprefix("//"))
    else:
        raw = socket.create_connection((host_of(target), int(target.rpartition(":")[2])), timeout=left_s)
    try:
        raw.settimeout(max(deadline_s - time.monotonic(), 0.001))
        return context.wrap_socket(raw, server_hostname=name)
    except (OSError, ValueError):
        raw.close()
        raise


def host_of(target: str) -> str:
    """Return the host as gRPC compares it with the certificate."""
    return "localhost" if target.startswith("unix:") else target.rpartition(":")[0].strip("[]")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


def _trusting(tls: TlsSettings) -> ssl.SSLContext:
    context = _context()
    # As gRPC does: an authority in the middle may be trusted by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
    else:
        _load_public_authorities(context)
    if tls.cert is not None and tls.key is not None:
        context.load_cert_chain(tls.cert, tls.key, password="")
    return context


def _trusting_anybody() -> ssl.SSLContext:
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trusting_just(pem: str) -> ssl.SSLContext:
    """Trust one certificate, whatever its name and time, and so whoever shows it."""
    context = _context()
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
    context.load_verify_locations(cadata=pem)
    return context


def _load_public_authorities(context: ssl.SSLContext) -> None:
    """Trust whom gRPC trusts: its own list, unless its environment variable names another."""
    stated = os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
    brought = importlib.resources.files("grpc") / "_cython" / "_credentials" / "roots.pem"
    if stated and Path(stated).is_file():
        context.load_verify_locations(stated)
    elif brought.is_file():
        context.load_verify_locations(cadata=brought.read_bytes().decode("ascii", "ignore"))
    else:
        context.load_default_certs()


def _read(found: dict[str, Any] | None) -> Certificate | None:
    """Read what `ssl` makes of a certificate; None of one that it could not read."""
    if not found:
        return None
    return Certificate(
        subject=_common_name(found.get("subject", ())),
        issuer=_common_name(found.get("issuer", ())),
        names=tuple(str(value) for _, value in found.get("subjectAltName", ())),
        begins_s=ssl.cert_time_to_seconds(found["notBefore"]),
        ends_s=ssl.cert_time_to_seconds(found["notAfter"]),
    )


def _common_name(name: Any) -> str:
    fields = dict(field for part in name for field in part)
    return str(fields.get("commonName") or fields.get("organizationName") or "without a name")
