"""Encryption of the port: certificates from files, renewed without a restart, and proved before they are used.

grpc asks for the certificate before every handshake. New files are tried out first in a handshake inside this process:
it shows that the key belongs to the certificate and that today lies in its time. Files that fail are told of once and
the certificate of before stays. Connections that are open keep the certificate that they began with.

The oldest version that gRPC's server speaks is TLS 1.2, with forward secrecy and authenticated ciphers only.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, NotFoundError, ResourceError, TidegateError

log = logging.getLogger(__name__)

RECHECK_S = 1.0
"""Between two looks at the files' times."""

WARNING_DAYS = 14
"""A certificate that ends sooner is told of when it is read."""

_FIX = "give PEM files: a certificate with its chain and its own unencrypted key"


@dataclass(frozen=True)
class TlsFiles:
    """Where the certificate lies, and whom to believe."""

    cert: Path
    """PEM file of the server's certificate, its chain after it"""
    key: Path
    """PEM file of the private key, not encrypted"""
    client_ca: Path | None = None
    """PEM file of authorities; with it every client has to show a certificate of theirs (mutual TLS)"""


@dataclass(frozen=True)
class Certificate:
    """Contents of the files, proved to fit together."""

    cert: bytes
    key: bytes
    client_ca: bytes | None
    ends_s: float
    """when it expires, seconds since 1970"""
    context: ssl.SSLContext = field(compare=False, repr=False)
    """the one that was proved, for servers of this process that do not use grpc"""


def read_certificate(files: TlsFiles, *, now_s: float | None = None) -> Certificate:
    """Read the files and prove them in a handshake.

    Args:
        files: where they lie.
        now_s: seconds since 1970, for the warning; default: now.

    Raises:
        NotFoundError: a file is not there.
        ConfigError: not PEM, a key of another certificate, expired, or not yet valid.
        ResourceError: a file cannot be read, or changed while it was read.
    """
    before = _stamp(files)
    cert, key = _read(files.cert), _read(files.key)
    client_ca = None if files.client_ca is None else _read(files.client_ca)
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password of ours, OpenSSL would ask for that of an encrypted key on the terminal.
        server.load_cert_chain(files.cert, files.key, password="")
        if client_ca is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=client_ca.decode("ascii"))
        shown = _handshake(server, cert.decode("ascii"))
        if client_ca is not None:
            _ask_clients(server, client_ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "verify_message", "") or str(error)
        raise ConfigError(
            f"certificate {files.cert} with key {files.key} cannot be used: {reason}", fix=_FIX
        ) from error
    if _stamp(files) != before:
        raise ResourceError(f"{files.cert} changed while it was read", fix="it is read again soon")
    ends_s = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    days = (ends_s - (time.time() if now_s is None else now_s)) / 86400
    if days < WARNING_DAYS:
        log.warning("certificate %s expires in %.1f days; renew it", files.cert, days)
    return Certificate(cert, key, client_ca, ends_s, server)


class Certificates:
    """Gives grpc the certificate that counts now."""

    def __init__(self, files: TlsFiles, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files; raises as `read_certificate`.

        Args:
            files: where they lie.
            clock: monotonic, in seconds.
        """
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        self.current = read_certificate(files)
        self._recheck_at_s = clock() + RECHECK_S

    def renewed(self) -> Certificate | None:
        """Return the certificate when the files have a new, good one since the last call; else None. Never raises."""
        with self._lock:
            if self._clock() < self._recheck_at_s:
                return None
            self._recheck_at_s = self._clock() + RECHECK_S
            stamp = _stamp(self._files)
            if stamp == self._stamp:
                return None
            # Two files are never replaced at the same instant: what does not fit now is tried again when it changes.
            self._stamp = stamp
            try:
                found = read_certificate(self._files)
            except TidegateError as error:
                log.warning("%s; the certificate of before stays", error.message)
                return None
            if (found.cert, found.key, found.client_ca) == (
                self.current.cert,
                self.current.key,
                self.current.client_ca,
            ):
                return None
            self.current = found
            log.info("certificate %s was renewed", self._files.cert)
            return found

    def context(self) -> ssl.SSLContext:
        """Return a context for servers that do not use grpc; it asks here before every handshake, as grpc does."""

        def newest(handshake: Any, name: str | None, context: ssl.SSLContext) -> None:
            self.renewed()
            handshake.context = self.current.context

        first = self.current.context
        first.sni_callback = newest
        return first

    def credentials(self) -> Any:
        """Return grpc's server credentials, which ask here before every handshake."""
        import grpc

        def configuration(certificate: Certificate) -> Any:
            return grpc.ssl_server_certificate_configuration(
                [(certificate.key, certificate.cert)], certificate.client_ca
            )

        def renewed() -> Any:
            found = self.renewed()
            return None if found is None else configuration(found)

        return grpc.dynamic_ssl_server_credentials(
            configuration(self.current), renewed, require_client_authentication=self._files.client_ca is not None
        )


def _ask_clients(server: ssl.SSLContext, client_ca: str) -> None:
    """Have every client show a certificate, in each handshake anew: a resumed session would not ask again."""
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=client_ca)
    server.num_tickets = 0
    server.options |= ssl.OP_NO_TICKET


def _handshake(server: ssl.SSLContext, cert: str) -> dict[str, Any]:
    """Do a handshake in memory with a client that trusts just this certificate; return it as the client saw it.

    Raises:
        ssl.SSLError: the client refused it.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    pending = [asking, answering]
    while pending:
        for side in tuple(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
    return asking.getpeercert() or {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", fix=_FIX) from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}", fix="let the server's user read it") from error


def _stamp(files: TlsFiles) -> tuple[tuple[int, ...], ...]:
    return tuple(_stamp_of(path) for path in (files.cert, files.key, files.client_ca) if path is not None)


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
