"""The HTTP ports of a server: one thread with an event loop, on which uvicorn reads and our application answers."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

from tidegate.cloud.core import Core
from tidegate.cloud.http.app import App, Door
from tidegate.cloud.http.protocol import ConnectionLimits, limited_protocol
from tidegate.cloud.http.routes import HEALTH_ROUTES, INFERENCE_ROUTES, METRICS_ROUTES, Route, Routes
from tidegate.cloud.http.settings import HttpSettings, Siblings
from tidegate.cloud.http.siblings import MetricsOfAll
from tidegate.cloud.in_flight import BytesInFlight
from tidegate.cloud.metrics import Metrics
from tidegate.cloud.repository_control import RepositoryControl
from tidegate.errors import ConfigError, DependencyError, ResourceError

if TYPE_CHECKING:
    from tidegate.cloud.tls import TlsFiles

BACKLOG = 2048
"""Connections that the system holds until we take them."""


class HttpFront:
    """Serves HTTP until it is stopped."""

    def __init__(
        self,
        core: Core,
        settings: HttpSettings,
        metrics: Metrics,
        *,
        control: RepositoryControl,
        siblings: Siblings | None = None,
        share_port: bool = False,
        unread: BytesInFlight,
        door: Door | None = None,
        tls: TlsFiles | None = None,
        handshake_timeout_s: float = 10.0,
    ) -> None:
        """Note what to serve.

        Args:
            core: the models.
            settings: ports and limits.
            metrics: of this process.
            control: takes commands to load and unload.
            siblings: the other workers of the port.
            share_port: whether other processes may listen on the same ports.
            unread: counts answers that are not taken, of every transport.
            door: asked before every request.
            tls: certificate of the port; None: plaintext.
            handshake_timeout_s: how long a connection may take to become an encrypted one.
        """
        self._unread = unread
        self._arriving = BytesInFlight(settings.maximum_arriving_bytes)
        self._handshake_timeout_s = handshake_timeout_s
        self._settings = settings
        self._share_port = share_port
        self._tls = tls
        self._of_all = MetricsOfAll(metrics.families, siblings or Siblings())
        self._parts = (core, control, door)
        self._sockets: dict[str, socket.socket] = {}
        self._servers: list[Any] = []
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        self._failure: OSError | None = None
        self.address = ""
        """HOST:PORT of the inference API, with the real port; empty when there is none"""
        self.metrics_address = ""
        """HOST:PORT of the port for metrics alone; empty when there is none"""

    def open(self) -> None:
        """Take the ports; nothing is answered yet.

        Raises:
            ResourceError: a port cannot be had.
            ConfigError: an address is not HOST:PORT.
            DependencyError: uvicorn is not installed.
        """
        _check_installed()
        try:
            if self._settings.listen:
                self._sockets["api"] = bound_socket(self._settings.listen, share=self._share_port)
                self.address = _real_address(self._settings.listen, self._sockets["api"])
            if self._settings.metrics_listen:
                self._sockets["metrics"] = bound_socket(self._settings.metrics_listen, share=self._share_port)
                self.metrics_address = _real_address(self._settings.metrics_listen, self._sockets["metrics"])
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Serve from now on; returns when connections are taken.

        Raises:
            ResourceError: the system does not let us listen.
            TidegateError: the certificate cannot be used.
        """
        from tidegate.cloud.tls import Certificates

        # Read here, so that a certificate that is wrong is an error of the caller's thread.
        context = Certificates(self._tls).context() if self._tls is not None else None
        settings = self._settings
        limits = ConnectionLimits(
            settings.maximum_connections,
            settings.request_timeout_s,
            settings.keep_alive_s,
            self._arriving,
            self._unread,
        )
        offered: dict[str, tuple[Route, ...]] = {
            "api": (*INFERENCE_ROUTES, *HEALTH_ROUTES, *(METRICS_ROUTES if settings.metrics else ())),
            "metrics": (*HEALTH_ROUTES, *METRICS_ROUTES),
        }
        core, control, door = self._parts
        for name in self._sockets:
            app = App(
                core,
                Routes(offered[name]),
                control=control,
                metrics=self._of_all.text,
                settings=settings,
                unread=self._unread,
                door=door,
            )
            self._servers.append(_uvicorn_server(app, settings, limits, context, self._handshake_timeout_s))
        self._thread = threading.Thread(target=self._run, name="tidegate-http", daemon=True)
        self._thread.start()
        self._serving.wait()
        if self._failure is not None:
            self.stop(0)
            raise ResourceError(
                f"HTTP cannot be served: {self._failure}",
                fix="choose another port, or look at the limits of the system",
            ) from self._failure

    def stop(self, grace_s: float) -> None:
        """Take no more connections, let answers under way go out, close the rest. Stopping again does nothing.

        Args:
            grace_s: answers that take longer are cut off.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            self.close()
            return
        for server in self._servers:
            server.config.timeout_graceful_shutdown = max(0.0, grace_s)
            server.should_exit = True
        thread.join()
        self.close()

    def close(self) -> None:
        """Give the ports back."""
        for opened in self._sockets.values():
            opened.close()
        self._sockets.clear()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._serving.set()

    async def _serve(self) -> None:
        try:
            await self._of_all.start()
            runs = [
                asyncio.create_task(server.serve(sockets=[opened]))
                for server, opened in zip(self._servers, self._sockets.values(), strict=True)
            ]
            listening = asyncio.gather(*(server.listening.wait() for server in self._servers))
            await asyncio.wait([listening, *runs], return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                self._serving.set()
            await asyncio.gather(*runs)
        finally:
            for server in self._servers:
                for connection in tuple(server.server_state.connections):
                    connection.transport.abort()
            await self._of_all.stop()


def bound_socket(listen: str, *, share: bool) -> socket.socket:
    """Return a socket that is bound and does not listen yet.

    Args:
        listen: HOST:PORT.
        share: whether other processes may bind the same port.

    Raises:
        ConfigError: not HOST:PORT.
        ResourceError: the port cannot be had.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"HTTP address {listen!r}; expected HOST:PORT", fix="give an address such as 127.0.0.1:8000")
    name = host.strip("[]")
    opened = None
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(place)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise ResourceError(
            f"cannot listen on {listen}: {error.strerror}",
            fix="stop what listens there, or choose another port; port 0 takes a free one",
        ) from error
    return opened


def _real_address(listen: str, opened: socket.socket) -> str:
    return f"{listen.rpartition(':')[0]}:{opened.getsockname()[1]}"


def _check_installed() -> None:
    try:
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"HTTP needs uvicorn and httptools: {error}", fix="pip install 'tidegate[http]'"
        ) from error


def _uvicorn_server(
    app: App,
    settings: HttpSettings,
    limits: ConnectionLimits,
    context: ssl.SSLContext | None,
    handshake_timeout_s: float,
) -> Any:
    import uvicorn

    class ListeningServer(uvicorn.Server):
        """Tells when connections are taken, and gives handshakes a time."""

        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            self.listening = asyncio.Event()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            def connection() -> asyncio.Protocol:
                made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                    config=self.config, server_state=self.server_state, app_state={}
                )
                return made

            loop = asyncio.get_running_loop()
            self.servers = [
                await loop.create_server(
                    connection,
                    sock=opened,
                    ssl=context,
                    ssl_handshake_timeout=None if context is None else handshake_timeout_s,
                    backlog=BACKLOG,
                )
                for opened in sockets or ()
            ]
            self.started = True
            self.listening.set()

    config = uvicorn.Config(
        app,
        http=limited_protocol(limits),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        # Logs are set up by the process, and a caller's mistakes are no lines in them.
        log_config=None,
        log_level=logging.ERROR,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]
    )
    config.load()
    return ListeningServer(config)
