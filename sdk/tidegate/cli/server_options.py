"""The options of commands that call a server: encryption and token."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidegate.cli.files import read_file
from tidegate.client import TlsSettings


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--tls", action="store_true", help="encrypt, and trust the public authorities")
    parser.add_argument("--tls-ca", type=Path, metavar="PEM", help="encrypt, and trust these authorities alone")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate of this caller, for mutual TLS")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="bearer token, on one line")


def tls_of(arguments: argparse.Namespace) -> TlsSettings | None:
    """Return the encryption asked for; None for plaintext. Raises ConfigError: half of a pair."""
    if not (arguments.tls or arguments.tls_ca or arguments.tls_cert or arguments.tls_key):
        return None
    return TlsSettings(ca=arguments.tls_ca, cert=arguments.tls_cert, key=arguments.tls_key)


def token_of(arguments: argparse.Namespace) -> str | None:
    """Return the token; on the command line itself every user of the machine could read it.

    Raises:
        NotFoundError, ResourceError: the file cannot be read.
    """
    path: Path | None = arguments.token_file
    return None if path is None else read_file(path, "--token-file").decode("utf-8", "replace").strip()
