"""Connections to web servers: pools by proxy, trust in certificates, and a watch over the speed. Loads urllib3."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from contextvars import ContextVar
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers

from tidegate.errors import ConfigError, NotFoundError
from tidegate.fetch.settings import FetchSettings, check_url

_WATCH: ContextVar[SpeedWatch | None] = ContextVar("tidegate_fetch_watch", default=None)


class SpeedWatch:
    """Ends a response that comes slower than the floor. A context manager around one request.

    Socket time-outs begin anew with each byte, so one byte at a time, in the body or in the headers, holds a client
    for as long as the server likes (TUF calls it slow retrieval). Here a thread looks once a window at what came, and
    shuts the connection down when that is too little; the reader then fails and finds `too_slow` set.
    """

    def __init__(self, window_s: float, window_bytes: float) -> None:
        self._window_s = window_s
        self._window_bytes = window_bytes
        self._socket: socket.socket | None = None
        self._until = time.monotonic() + window_s
        self._mark = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tidegate-fetch-watch", daemon=True)
        self.received_bytes = 0
        self.too_slow = False

    def guard(self, connection: HTTPConnection) -> None:
        """Remember which socket to shut down."""
        if connection.sock is not None:
            self._socket = connection.sock

    def begin_body(self) -> None:
        """Begin a window: the headers have come, however long the server thought about them."""
        self._until = time.monotonic() + self._window_s

    def __enter__(self) -> SpeedWatch:
        self._token = _WATCH.set(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _WATCH.reset(self._token)
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(max(0.0, self._until - time.monotonic())):
            if time.monotonic() < self._until:
                continue
            if self.received_bytes - self._mark < self._window_bytes or not self.received_bytes:
                self.too_slow = True
                self._shut_down()
                return
            self._mark = self.received_bytes
            self._until = time.monotonic() + self._window_s

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the other end may have gone in the meantime
                self._socket.shutdown(socket.SHUT_RDWR)


class _Watched(HTTPConnection):
    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # how urllib3's messages begin

    def connect(self) -> None:
        super().connect()
        _guard(self)

    def getresponse(self) -> Any:
        _guard(self)
        return super().getresponse()


class _WatchedTls(HTTPSConnection):
    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # how urllib3's messages begin

    def connect(self) -> None:
        super().connect()
        _guard(self)

    def getresponse(self) -> Any:
        _guard(self)
        return super().getresponse()


def _guard(connection: HTTPConnection) -> None:
    watch = _WATCH.get()
    if watch is not None:
        watch.guard(connection)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


class Pools:
    """Keeps connections open between requests, apart for each proxy. Safe to use from several threads.

    Raises:
        NotFoundError: `ca_file` is not there.
        ConfigError: `ca_file` holds no certificate.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._context = _tls_context(settings.ca_file)
        self._managers: dict[str, PoolManager] = {}
        self._lock = threading.Lock()

    def manager(self, url: str) -> PoolManager:
        """Return the connections that lead to `url`, directly or by the proxy that is meant for it.

        Raises:
            ConfigError: the environment names a proxy that is no http:// or https:// address.
        """
        proxy = self._proxy(url)
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = self._make(proxy)
            return self._managers[proxy]

    def close(self) -> None:
        """Close every idle connection."""
        for manager in self._managers.values():
            manager.clear()

    def _proxy(self, url: str) -> str:
        if self._settings.proxy is not None:
            return self._settings.proxy
        parts = urlsplit(url)
        if proxy_bypass(parts.netloc.rpartition("@")[2]):
            return ""
        known = getproxies()
        return known.get(parts.scheme) or known.get("all") or ""

    def _make(self, proxy: str) -> PoolManager:
        options: dict[str, Any] = {"maxsize": self._settings.parallel_files, "ssl_context": self._context}
        manager = PoolManager(**options) if not proxy else _proxy_manager(proxy, self._context, options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


def _proxy_manager(proxy: str, context: ssl.SSLContext, options: dict[str, Any]) -> ProxyManager:
    address = proxy if "://" in proxy else f"http://{proxy}"
    check_url(address, "the proxy")
    parts = urlsplit(address)
    headers = None
    if parts.username:
        name, password = unquote(parts.username), unquote(parts.password or "")
        headers = make_headers(proxy_basic_auth=f"{name}:{password}")
    host = parts.netloc.rpartition("@")[2]
    return ProxyManager(f"{parts.scheme}://{host}", proxy_headers=headers, proxy_ssl_context=context, **options)


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except FileNotFoundError as error:
        raise NotFoundError(f"ca_file {ca_file} does not exist", fix="name a PEM file of certificates") from error
    except OSError as error:  # ssl.SSLError is one: no certificate in the file
        raise ConfigError(
            f"ca_file {ca_file} cannot be used: {error.strerror or error}", fix="name a PEM file of certificates"
        ) from error
