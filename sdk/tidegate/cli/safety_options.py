"""The options of `tidegate serve` that make a port safe, and the settings that they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.cloud.limits import Safety
    from tidegate.cloud.rate import Rate


def add_safety(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("safety", "docs/security.md says what each protects from")
    group.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="PEM certificate with its chain; read again when new"
    )
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM private key, not encrypted")
    group.add_argument("--client-ca", type=Path, metavar="FILE", help="clients need a certificate of these authorities")
    group.add_argument("--insecure", action="store_true", help="plaintext where other machines reach the port")
    group.add_argument("--socket-mode", default="600", metavar="OCTAL", help="of unix:PATH; default 600")
    group.add_argument("--access", type=Path, metavar="FILE", help="keys, made by `tidegate access create`")
    group.add_argument("--audit", type=Path, metavar="FILE", help="record loading and other commands, as JSON lines")
    group.add_argument("--rate", metavar="N[:BURST]", help="requests per second of each client; default: no limit")
    group.add_argument(
        "--max-client-streams", type=int, metavar="N", help="of one client; default: all, a quarter on public addresses"
    )
    group.add_argument("--max-connections", type=int, metavar="N", help="open at once; default 20000")
    group.add_argument("--idle-stream-s", type=float, metavar="S", help="silence that ends a stream; default 1800")
    group.add_argument("--slow-reader-s", type=float, metavar="S", help="an answer not read ends a call; default 60")
    group.add_argument(
        "--max-unread-mb", type=float, metavar="MB", help="of all answers not read yet; the oldest end; default 256"
    )
    group.add_argument("--message-timeout-s", type=float, metavar="S", help="for a call's message to come; default 30")
    group.add_argument("--connection-age-s", type=float, metavar="S", help="then clients connect anew; default: no end")


def safety(arguments: argparse.Namespace) -> Safety:
    """Return the settings for the options given.

    Raises:
        ConfigError: half of a pair, or a value out of its range.
    """
    from tidegate.cloud.limits import Safety
    from tidegate.cloud.tls import TlsFiles

    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together; one of them is missing", fix="give both")
    if arguments.client_ca is not None and arguments.tls_cert is None:
        raise ConfigError("--client-ca needs --tls-cert and --tls-key", fix="give all three")
    tls = None if arguments.tls_cert is None else TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.client_ca)
    given = {
        "streams_per_client": arguments.max_client_streams,
        "maximum_connections": arguments.max_connections,
        "idle_stream_s": arguments.idle_stream_s,
        "slow_reader_s": arguments.slow_reader_s,
        "maximum_unread_bytes": None if arguments.max_unread_mb is None else round(arguments.max_unread_mb * 2**20),
        "message_timeout_s": arguments.message_timeout_s,
        "connection_age_s": arguments.connection_age_s,
    }
    return Safety(
        tls=tls,
        insecure=arguments.insecure,
        access_file=arguments.access,
        audit_file=arguments.audit,
        rate=None if arguments.rate is None else _rate(arguments.rate),
        socket_mode=_mode(arguments.socket_mode),
        **{name: value for name, value in given.items() if value is not None},
    )


def _rate(text: str) -> Rate:
    from tidegate.cloud.rate import Rate

    per_second, _, burst = text.partition(":")
    try:
        return Rate(float(per_second), int(burst or 0))
    except ValueError as error:
        raise ConfigError(
            f"--rate {text!r} is not N or N:BURST", fix="give such as --rate 100 or --rate 100:500"
        ) from error


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError as error:
        raise ConfigError(f"--socket-mode {text!r} is not octal", fix="give such as --socket-mode 660") from error
