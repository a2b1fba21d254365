"""The options of commands that call a server: encryption and token. One definition, so that all have the same."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tidegate.cli.files import read_file
from tidegate.client import TlsSettings

OPTIONS = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name", "token_file")
"""Their names among the arguments."""


def add_server(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add the options.

    Args:
        parser: of the command.
        prefix: before each option, such as `cloud-` for `--cloud-tls`.
    """
    tls = f"--{prefix}tls"
    parser.add_argument(tls, action="store_true", help="encrypt, and trust the public authorities")
    parser.add_argument(f"{tls}-ca", type=Path, metavar="PEM", help="encrypt, and trust these authorities alone")
    parser.add_argument(f"{tls}-cert", type=Path, metavar="PEM", help="certificate of this caller, for mutual TLS")
    parser.add_argument(f"{tls}-key", type=Path, metavar="PEM", help="its key")
    parser.add_argument(
        f"{tls}-server-name", default="", metavar="NAME", help="name in the server's certificate, if not the address's"
    )
    parser.add_argument(
        f"--{prefix}token-file", type=Path, metavar="FILE", help="bearer token or key of `tidegate access`, on one line"
    )


def tls_of(arguments: argparse.Namespace, prefix: str = "") -> TlsSettings | None:
    """Return the encryption asked for; None for plaintext. Raises ConfigError: half of a pair."""
    asked, *given = (_given(arguments, prefix, name) for name in OPTIONS[:-1])
    return TlsSettings(*given) if asked or any(given) else None


def token_of(arguments: argparse.Namespace, prefix: str = "") -> str | None:
    """Return the token; on the command line itself every user of the machine could read it.

    Raises:
        NotFoundError, ResourceError: the file cannot be read.
    """
    path: Path | None = _given(arguments, prefix, "token_file")
    if path is None:
        return None
    return read_file(path, f"--{prefix}token-file").decode("utf-8", "replace").strip()


def _given(arguments: argparse.Namespace, prefix: str, name: str) -> Any:
    return getattr(arguments, prefix.replace("-", "_") + name)
