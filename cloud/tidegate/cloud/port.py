"""Opening the port: plaintext or TLS, TCP or a Unix socket."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

from tidegate.cloud.limits import Safety
from tidegate.cloud.tls import Certificates
from tidegate.errors import ConfigError, ResourceError

UNIX = "unix:"

LONGEST_SOCKET_PATH = 107
"""Bytes; what the system has room for, see unix(7)."""


def checked_host(listen: str) -> str:
    """Return the host of HOST:PORT, and nothing for unix:PATH.

    Raises:
        ConfigError: neither of the two.
    """
    if listen.startswith(UNIX):
        path = listen.removeprefix(UNIX)
        if not 0 < len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"the path of {listen!r} has {len(os.fsencode(path))} bytes; expected 1 to {LONGEST_SOCKET_PATH}",
                fix="give a shorter path such as unix:/run/tidegate.sock",
            )
        return ""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"listen address {listen!r}; expected HOST:PORT",
            fix="give an address such as 127.0.0.1:8001 or unix:/run/tidegate.sock",
        )
    return host


def encryption(safety: Safety) -> Certificates | None:
    """Return the certificates of the port, proved; None for plaintext; raises as `tidegate.cloud.tls` does."""
    return None if safety.tls is None else Certificates(safety.tls)


def open_port(server: Any, listen: str, certificates: Certificates | None, socket_mode: int) -> int:
    """Have grpc's server listen and return the port, 1 for a Unix socket.

    Args:
        server: grpc's, not started.
        listen: as `checked_host` has seen it.
        certificates: of the port; None: plaintext.
        socket_mode: permissions of a Unix socket.

    Raises:
        RuntimeError: grpc cannot have it.
        ResourceError: a Unix socket on which somebody listens, or what is there is no socket.
    """
    if not listen.startswith(UNIX):
        return _added(server, listen, certificates)
    path = Path(listen.removeprefix(UNIX))
    _check_free(path)
    # The socket has these permissions from its first moment on; made by the system, it would have those of the umask.
    before = os.umask(0o777 & ~socket_mode)
    try:
        return _added(server, listen, certificates)
    finally:
        os.umask(before)


def held_port(listen: str) -> socket.socket:
    """Return a socket that is bound and does not listen: the number stays ours, and no connection comes to it.

    Processes that are to serve the port bind it with SO_REUSEPORT.

    Args:
        listen: HOST:PORT.

    Raises:
        ResourceError: somebody listens there, or the address is none of this machine.
    """
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A socket without SO_REUSEPORT first: a port on which somebody else listens is refused here.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host.strip("[]"), int(port)))
    except OSError as error:
        holder.close()
        raise ResourceError(
            f"cannot listen on {listen}: {error.strerror}",
            fix="stop what listens there, or choose another port; port 0 takes a free one",
        ) from error
    return holder


def remove_socket(listen: str) -> None:
    """Take a Unix socket's file away, unless somebody listens on it by now."""
    if not listen.startswith(UNIX):
        return
    path = Path(listen.removeprefix(UNIX))
    if path.is_socket() and not _answers(path):
        path.unlink(missing_ok=True)


def _added(server: Any, listen: str, certificates: Certificates | None) -> int:
    port: int = (
        server.add_insecure_port(listen)
        if certificates is None
        else server.add_secure_port(listen, certificates.credentials())
    )
    return port


def _check_free(path: Path) -> None:
    """Refuse what grpc would remove without a word: it takes any socket's file away, one in use as well."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ResourceError(f"{path} is there and is no socket", fix="name another path")
    if _answers(path):
        raise ResourceError(f"somebody listens on {path}", fix="stop what listens there, or name another path")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
