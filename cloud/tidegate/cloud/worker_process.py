"""One of several worker processes: what it serves, and its life from the start to the drain."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from tidegate.cloud.channel_source import ChannelSettings, ChannelSource
from tidegate.cloud.logs import event, say, set_up, tell_reload
from tidegate.cloud.repository import RepositorySettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.errors import TidegateError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSpec:
    """What each worker serves; it has to be picklable."""

    bundles: tuple[Path, ...]
    listen: str
    settings: ServerSettings = field(default_factory=ServerSettings)
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    channel: ChannelSettings | None = None
    """where versions come from besides `bundles`"""


def shared_out(spec: WorkerSpec, workers: int) -> WorkerSpec:
    """Return what one of several workers may take, so that the limits hold for all of them together.

    Divided and rounded up: streams, connections, calls under way, and memory for models, for requests that arrive and
    for answers that nobody takes. Left as they are: the limits of one call, stream or connection, and each model's
    queue, since every worker has the model once.
    """
    settings, safety, held = spec.settings, spec.settings.safety, spec.repository
    outside, http = settings.outside, settings.outside.http

    def part(whole: int) -> int:
        return -(-whole // workers)

    own = None if safety.streams_per_client is None else part(safety.streams_per_client)
    safety = replace(
        safety,
        streams_per_client=own,
        maximum_connections=part(safety.maximum_connections),
        # At least one answer has to fit, and below one request.
        maximum_unread_bytes=max(part(safety.maximum_unread_bytes), settings.maximum_message_bytes),
    )
    http = replace(
        http,
        maximum_connections=part(http.maximum_connections),
        maximum_requests=part(http.maximum_requests),
        maximum_arriving_bytes=max(part(http.maximum_arriving_bytes), http.maximum_body_bytes),
    )
    return replace(
        spec,
        settings=replace(
            settings,
            safety=safety,
            outside=replace(outside, http=http),
            maximum_streams=part(settings.maximum_streams),
            maximum_queued_calls=part(settings.maximum_queued_calls),
        ),
        repository=replace(held, maximum_memory_bytes=part(held.maximum_memory_bytes)),
    )


def serve_worker(spec: WorkerSpec, cores: Sequence[int], pipe: Connection) -> None:
    """Serve until the parent says how long to drain, or is gone. Runs in the worker's process.

    The parent is sent None when this serves, or the TidegateError that keeps it from serving.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    set_up(spec.settings.outside.log_format)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        server = Server(
            spec.bundles,
            spec.listen,
            settings=spec.settings,
            repository=spec.repository,
            source=ChannelSource(spec.channel, say) if spec.channel else None,
            on_reload=tell_reload,
        )
        server.start()
    except TidegateError as error:
        tell(pipe, type(error)(error.message, fix=error.fix))
        return
    tell_serving(server)
    settle()
    tell(pipe, None)
    try:
        grace_s = float(pipe.recv())
    except EOFError:  # the parent is gone
        grace_s = spec.settings.orphan_grace_s
    finished = server.stop(grace_s)
    if server.computing or not finished:
        sys.stderr.flush()
        os._exit(1)


def tell_serving(server: Server) -> None:
    """Log what a server has begun to serve, one line for each version."""
    for served in server.repository.all():
        model = served.model
        facts = {"model": served.name, "version": served.version, "variant": model.variant_id}
        text = f"{served.name} {served.version}: {model.variant_id} on {model.runtime}, {model.provider}"
        log.info(text, extra=event("serving", **facts))


def settle() -> None:
    """Tell the garbage collector that what was loaded stays, so that it never looks through it again."""
    gc.collect()
    gc.freeze()


def tell(pipe: Connection, what: object) -> None:
    """Send, unless the other side is gone: whoever waits for it learns that from its end."""
    try:
        pipe.send(what)
    except (BrokenPipeError, OSError):
        return
