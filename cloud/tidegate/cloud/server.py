"""The server: load bundles, open the port, serve, drain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tidegate.cloud.core import Admission, Core, Observer
from tidegate.cloud.devices import Reception
from tidegate.cloud.fleet_statistics import FleetStatistics
from tidegate.cloud.grpc_server import new_grpc_server
from tidegate.cloud.guard import Guard
from tidegate.cloud.joined_sources import joined_sources
from tidegate.cloud.limits import check_encrypted, is_public
from tidegate.cloud.outside import Outside
from tidegate.cloud.port import checked_host, encryption, open_port, remove_socket
from tidegate.cloud.repository import ReloadReport, Repository, RepositorySettings
from tidegate.cloud.repository_control import ControlGuard, RepositoryControl
from tidegate.cloud.request_log_settings import RequestLogSettings
from tidegate.cloud.server_settings import ServerSettings as ServerSettings
from tidegate.cloud.sources import Source
from tidegate.cloud.stalled import ClientStreams, Streams, Watch
from tidegate.cloud.watching import FOLLOW_INTERVAL_S, Watcher
from tidegate.cloud.work import StreamSlots, Work, wait_until_told
from tidegate.errors import ConfigError, NotFoundError, ResourceError, StateError

if TYPE_CHECKING:
    from tidegate.cloud.health import Health
    from tidegate.cloud.request_log import RequestLog
    from tidegate.cloud.speech_observers import SegmentObserver

CLOSE_GRACE_S = 0.5
"""For health checks and idle streams, once no work is under way."""

EXIT_GRACE_S = 5.0


class Server:
    """Serves bundles over gRPC: Open Inference Protocol, Speech, health, reflection.

    For a process of its own use `tidegate serve`; this class is the same server inside another process:

        with Server(["voice-commands.tide"]) as server:
            client = Client(server.address)
    """

    def __init__(
        self,
        bundles: Sequence[str | Path],
        listen: str = "127.0.0.1:0",
        *,
        variant: str | None = None,
        threads: int | None = None,
        catalogue: bytes | None = None,
        settings: ServerSettings | None = None,
        reception: Reception | None = None,
        repository: RepositorySettings | None = None,
        source: Source | None = None,
        admissions: Sequence[Admission] = (),
        observers: Sequence[Observer] = (),
        segment_observers: Sequence[SegmentObserver] = (),
        guards: Sequence[ControlGuard] = (),
        on_reload: Callable[[ReloadReport], None] = lambda report: None,
    ) -> None:
        """Note what to serve; nothing is loaded or opened yet.

        Args:
            bundles: paths; several versions of one model are allowed.
            listen: HOST:PORT, port 0 takes a free one; or unix:PATH.
            variant: variant id for all bundles; None for the first of each whose runtime is installed.
            threads: of the runtime, per model; None for its default.
            catalogue: JSON lines that replace the catalogues of the bundles.
            settings: limits and switches.
            reception: takes what devices report and answers with the newest release; default: keeps reports only.
            repository: policies, batching and memory limit; `variant`, `threads` and `catalogue`, where given, replace
                those of its `loading`.
            source: where versions come from besides `bundles`, such as a channel.
            admissions: asked before every inference request.
            observers: told after every inference request.
            segment_observers: told after every speech segment, with its audio.
            guards: asked before every command to load or unload, and told what came of it.
            on_reload: told what the watcher changed or could not load, and at the start what could not be loaded.

        Raises:
            ConfigError: no bundle; `listen` is no address, or a public one that is not encrypted; a file of keys or
                certificates cannot be used.
            NotFoundError, ResourceError: such a file is not there, cannot be read or written.
        """
        if not bundles and source is None:
            raise ConfigError("no bundle to serve", fix="name at least one bundle")
        self._host = checked_host(listen)
        self._listen = listen
        self._settings = settings or ServerSettings()
        safety = self._settings.safety
        check_encrypted(listen, safety)
        self._settings.outside.check(safety)
        self._encryption = encryption(safety)
        self._guard = Guard.of(safety)
        kept = self._settings.request_log
        self.request_log = None if kept is None else _new_request_log(kept)
        """what is kept of requests; None: nothing"""
        if self.request_log is not None:
            observers = (self.request_log, *observers)
            segment_observers = (self.request_log, *segment_observers) if kept and kept.speech else segment_observers
        self._segment_observers = tuple(segment_observers)
        self._watch = Watch(safety)
        self._work = Work()
        self._slots = StreamSlots(self._settings.maximum_streams)
        held = repository or RepositorySettings()
        loading = replace(
            held.loading,
            variant=held.loading.variant if variant is None else variant,
            threads=held.loading.threads if threads is None else threads,
            catalogue=held.loading.catalogue if catalogue is None else catalogue,
        )
        self.repository = Repository(
            joined_sources(bundles, source, fleet=held.fleet_directory, follows=bool(self._settings.watch_interval_s)),
            replace(held, loading=loading),
            computing=self._work.compute,
            on_change=self._follow,
        )
        self._fleet = FleetStatistics(self.repository.counts, self._settings.outside.siblings)
        self.repository.elsewhere = self._fleet.elsewhere
        if not self._guard.idle:
            admissions = (self._guard, *admissions)
        self._outside = Outside(self._settings.outside)
        self.core = Core(
            self.repository, self._work, admissions=admissions, observers=(*self._outside.observers, *observers)
        )
        allowed = self._settings.model_control
        if allowed is None:
            allowed = not (is_public(listen) or self._settings.outside.is_public)
        self._control = RepositoryControl(
            self.core, enabled=allowed, guards=(self._guard, *guards), shared_port=self._settings.share_port
        )
        self._outside.join(
            self.core,
            control=self._control,
            door=self._guard,
            open_streams=lambda: self._slots.open,
            safety=safety,
            unread=self._watch.unread,
            share_port=self._settings.share_port,
        )
        self._bundles = tuple(map(str, bundles))
        self._may_begin_empty = source is not None
        self._on_reload = on_reload
        self._watchers = self._new_watchers(on_reload, follows=bool(held.label_file), at_once=source is not None)
        self.reception = reception or Reception()
        self._grpc_server: Any = None
        self._health: Health | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """HOST:PORT that clients call, with the real port; or unix:PATH."""
        return f"{self._host}:{self._port}" if self._host else self._listen

    @property
    def http_address(self) -> str:
        """HOST:PORT of HTTP, with the real port; empty without HTTP."""
        return self._outside.http_address

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of the port for metrics alone; empty without one."""
        return self._outside.metrics_address

    @property
    def open_streams(self) -> int:
        """Recognition and reflection streams open now."""
        return self._slots.open

    @property
    def work_under_way(self) -> int:
        """Inference requests and speech segments that a drain would wait for."""
        return self._work.under_way

    @property
    def computing(self) -> bool:
        """Whether a model runs now; after `stop`, whether one was left running."""
        return self._work.computing > 0

    def start(self) -> int:
        """Open the port, load and prove every model, then serve. Return the port.

        Raises:
            ResourceError: the port cannot be opened.
            DependencyError: grpcio or its companions are not installed.
            StateError: started before.
            TidegateError: a bundle cannot be loaded; see `tidegate.cloud.served.load_bundle`. With a watch: none can.
        """
        if self._grpc_server is not None:
            raise StateError("the server was started before", fix="make a new Server")
        self._grpc_server = new_grpc_server(self._listen, self._settings)
        try:
            # grpc listens as soon as it has the port. Where others serve on it, a connection that came to this process
            # now would wait until the models are loaded, or for ever, though somebody else could take it.
            if not self._settings.share_port:
                self._port = self._open_port()
            self._outside.open()
            self._load_models()
            self._fleet.start()
            self._add_services()
            if self._settings.share_port:
                self._port = self._open_port()
        except BaseException:
            self._close(free_models=True)
            raise
        if self.request_log is not None:
            self.request_log.start()
        self._grpc_server.start()
        self._outside.start()
        self._watch.start()
        for watcher in self._watchers:
            watcher.start()
        return self._port

    def reload(self) -> ReloadReport:
        """Look for new, changed and removed versions, and serve what is there now without dropping a request.

        Raises:
            TidegateError: the source cannot be asked; see `Repository.reload`.
        """
        return self.repository.reload()

    def stop(self, grace_s: float = EXIT_GRACE_S) -> bool:
        """Drain and stop: health says NOT_SERVING, new work is refused, work under way finishes, the port closes.

        Args:
            grace_s: work that takes longer is cut off: its caller gets UNAVAILABLE. A model that runs at that moment,
                or still runs for a caller that went away, cannot be interrupted: it is left to itself and not freed.

        Returns:
            Whether all work finished in time. Stopping again does nothing.
        """
        if self._grpc_server is None:
            return True
        deadline = time.monotonic() + grace_s
        for watcher in self._watchers:
            watcher.stop()
        self._work.drain()
        if self._health is not None:
            self._health.drain()
        finished = self._work.wait_until_idle(grace_s)
        self._grpc_server.stop(max(0.0, min(CLOSE_GRACE_S, deadline - time.monotonic()))).wait()
        # The request log, metrics and traces still hear of the last answers.
        wait_until_told(lambda: sum(served.usage.users for served in self.repository.all()), CLOSE_GRACE_S)
        self._watch.stop()
        self._outside.stop(max(CLOSE_GRACE_S, deadline - time.monotonic()) if finished else CLOSE_GRACE_S)
        self._close(free_models=self._work.wait_until_computed(CLOSE_GRACE_S))
        return finished

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _new_watchers(
        self, on_reload: Callable[[ReloadReport], None], *, follows: bool, at_once: bool
    ) -> tuple[Watcher, ...]:
        """Watch the source where that is asked for, and the label file where other workers may write into it."""
        repository, interval_s = self.repository, self._settings.watch_interval_s
        watchers = []
        if interval_s:
            watchers.append(Watcher(repository.reload, interval_s=interval_s, at_once=at_once, on_report=on_reload))
        if follows:
            watchers.append(Watcher(repository.follow, interval_s=FOLLOW_INTERVAL_S, on_report=on_reload))
        return tuple(watchers)

    def _open_port(self) -> int:
        try:
            return open_port(self._grpc_server, self._listen, self._encryption, self._settings.safety.socket_mode)
        except RuntimeError as error:
            raise ResourceError(
                f"cannot listen on {self._listen}: the port is in use, not allowed, or no address of this machine",
                fix="stop what listens there, or choose another port; port 0 takes a free one",
            ) from error

    def _load_models(self) -> None:
        """Load everything. Without a watch one failure is one too many.

        With a watch the start is a look like those that follow: a broken version that was put beside good ones must not
        keep a restarted server, or a worker that takes another's place, from serving the good ones.
        """
        report = self.repository.reload()
        ready = bool(self.repository.all())
        if report.failed and not (ready and self._settings.watch_interval_s):
            raise report.failed[0][1]
        if report.failed:
            self._on_reload(ReloadReport(failed=report.failed))
        if not ready and not self._may_begin_empty:
            nothing = NotFoundError(
                "no bundle is there, so no model is served", fix="put a .tide file into a directory"
            )
            self._on_reload(ReloadReport(notes=((", ".join(self._bundles), nothing),)))

    def _follow(self) -> None:
        if self._health is not None:
            self._health.follow()

    def _add_services(self) -> None:
        from tidegate.cloud.services import add_services
        from tidegate.cloud.speech import SpeechLimits

        reflection = self._settings.reflection
        self._health = add_services(
            self._grpc_server,
            self.core,
            self._streams(self._slots, may_idle=False),
            self._streams(StreamSlots(self._settings.maximum_streams), may_idle=True),
            self.reception,
            guard=self._guard,
            watch=self._watch,
            speech=SpeechLimits(self._settings.maximum_segment_s, self._settings.speech),
            segment_observers=self._segment_observers,
            reflection=not is_public(self._listen) if reflection is None else reflection,
            direct=self._settings.direct,
            control=self._control,
        )

    def _streams(self, slots: StreamSlots, *, may_idle: bool) -> Streams:
        each = self._settings.safety.streams_of_one(self._listen, self._settings.maximum_streams)
        return Streams(slots, self._guard, ClientStreams(each), self._watch, may_idle=may_idle)

    def _close(self, *, free_models: bool) -> None:
        self._grpc_server.stop(0).wait()
        if self._health is not None:
            self._health.close()
        self._outside.stop(0)
        self._fleet.stop()
        remove_socket(self._listen)
        if free_models:
            self.repository.close()
        if self.request_log is not None:
            self.request_log.close()
        self._grpc_server = None


def _new_request_log(settings: RequestLogSettings) -> RequestLog:
    from tidegate.cloud.request_log import RequestLog

    return RequestLog(settings)
