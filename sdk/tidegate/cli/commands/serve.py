"""`tidegate serve`: a server process that ends cleanly on SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from tidegate.cli.files import read_file
from tidegate.cli.outside_options import add_outside, outside
from tidegate.cli.ray_options import add_ray, refuse_ray_options, run_on_ray
from tidegate.cli.request_log_options import add_request_log, request_log
from tidegate.cli.safety_options import add_safety, safety
from tidegate.cli.serving import configure_models, models_of
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.cloud.announce import ChannelAnnouncer
    from tidegate.cloud.workers import WorkerPool

DESCRIPTION = """Serve bundles over gRPC: the Open Inference Protocol v2, streaming speech recognition, health and
reflection; with --http over HTTP as well. When all models are loaded and proven, one line `listening on HOST:PORT` is
printed, with the real port when 0 was asked for; a script can wait for it. SIGTERM or SIGINT drains: health turns
NOT_SERVING, what is under way finishes, exit code 0. A second signal ends it at once. An address that other machines
reach needs a certificate; what only this machine reaches, loopback or unix:PATH, does not."""

EXAMPLE = """tidegate serve voice-commands.tide --listen 127.0.0.1:8001
tidegate serve mlp-1.0.0.tide mlp-1.1.0.tide --variant onnx-fp32 --threads 1
tidegate serve models/ --versions latest:2 --watch-s 5 --workers 2
tidegate serve models/ --listen 0.0.0.0:8001 --tls-cert cert.pem --tls-key key.pem --access keys.json --rate 100
tidegate serve models/ --http 127.0.0.1:8000 --metrics 127.0.0.1:8002 --log-format json
tidegate serve --config serve.toml models/
tidegate serve --channel https://models.example.com/site --channel-root 1.root.json --channel-model mlp \\
    --channel-dir /var/lib/tidegate/channel
tidegate serve voice-commands-cloud.tide --announce https://models.example.com/site --announce-root 1.root.json"""

DEFAULT_LISTEN = "127.0.0.1:8001"
DEFAULT_GRACE_S = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    configure_models(parser)
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="ADDRESS", help=f"HOST:PORT or unix:PATH; default {DEFAULT_LISTEN}"
    )
    parser.add_argument("--variant", metavar="ID", help="default: each bundle's first that can run here")
    parser.add_argument("--threads", type=int, metavar="N", help="of the runtime, per model; default 1")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that share the port; default 1")
    parser.add_argument(
        "--versions", default="all", metavar="POLICY", help="all, latest:N or specific:V,V of each model; default all"
    )
    parser.add_argument(
        "--watch-s", type=float, default=0.0, metavar="S", help="look for changes every S s; default: never, channel 60"
    )
    parser.add_argument("--catalogue", type=Path, metavar="FILE", help="JSON lines to search instead of the bundle's")
    parser.add_argument("--max-message-mb", type=int, default=64, metavar="N", help="largest message; default 64")
    parser.add_argument("--max-streams", type=int, default=1000, metavar="N", help="open at once; default 1000")
    parser.add_argument("--grace-s", type=float, default=DEFAULT_GRACE_S, metavar="S", help="for draining; default 30")
    parser.add_argument("--announce", metavar="URL", help="channel whose newest release is told to devices that report")
    parser.add_argument("--announce-root", type=Path, metavar="ROOT.json", help="trusted root of that channel")
    parser.add_argument(
        "--announce-track", action="append", metavar="TRACK", help="track to announce; may be repeated; default stable"
    )
    parser.add_argument(
        "--device-keys", type=Path, metavar="PATH", help="public keys of devices: a file or a directory"
    )
    parser.add_argument(
        "--model-control",
        choices=("on", "off"),
        help="load and unload by clients; default: on, off on public addresses",
    )
    parser.add_argument(
        "--reflection",
        action=argparse.BooleanOptionalAction,
        help="describe the services to clients; default: yes, no on public addresses",
    )
    add_safety(parser)
    add_ray(parser)
    add_outside(parser)
    add_request_log(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start, say where, wait for a signal, drain."""
    from tidegate.cloud import Server, ServerSettings
    from tidegate.cloud.budget import plan, usable_cores
    from tidegate.cloud.channel_source import ChannelSource
    from tidegate.cloud.device_keys import DeviceKeys
    from tidegate.cloud.devices import Reception
    from tidegate.cloud.logs import event, log, say, set_up, tell_reload
    from tidegate.cloud.repository import LoadSettings, RepositorySettings
    from tidegate.cloud.versions import parse_policy
    from tidegate.cloud.worker_process import WorkerSpec, settle, tell_serving
    from tidegate.cloud.workers import WorkerPool

    if not arguments.grace_s >= 0:
        raise ConfigError(f"--grace-s is {arguments.grace_s}; expected 0 or more", fix="give a time in seconds")
    if arguments.engine == "ray":
        return run_on_ray(arguments, _defaults(), _signalled)
    refuse_ray_options(arguments)
    set_up(arguments.log_format)
    catalogue = read_file(arguments.catalogue, "--catalogue") if arguments.catalogue else None
    loading = LoadSettings(arguments.variant, arguments.threads, catalogue)
    models = models_of(arguments, RepositorySettings(policy=parse_policy(arguments.versions), loading=loading))
    settings = ServerSettings(
        maximum_message_bytes=arguments.max_message_mb * 2**20,
        maximum_streams=arguments.max_streams,
        reflection=arguments.reflection,
        safety=safety(arguments),
        outside=outside(arguments),
        request_log=request_log(arguments),
        watch_interval_s=models.watch_interval_s,
        model_control=None if arguments.model_control is None else arguments.model_control == "on",
    )
    budget = plan(usable_cores(), arguments.workers, arguments.threads)
    if budget.workers > 1:
        spec = WorkerSpec(models.bundles, arguments.listen, settings, models.repository, models.channel)
        return _run_workers(arguments, WorkerPool(spec, budget))
    announcer = _announcer(arguments)
    keys = DeviceKeys(arguments.device_keys, on_warning=_warn) if arguments.device_keys else None
    server = Server(
        models.bundles,
        arguments.listen,
        settings=settings,
        reception=Reception(announcer, keys),
        repository=models.repository,
        source=ChannelSource(models.channel, say) if models.channel else None,
        on_reload=tell_reload,
    )
    # What fails is said in our own messages; grpc's core would add lines of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    stopping = _signalled()
    server.start()
    if announcer is not None:
        announcer.start()
    tell_serving(server)
    settle()
    _say_where(server.address, server.http_address, server.metrics_address)
    stopping.wait()
    log.info("draining", extra=event("draining", under_way=server.work_under_way))
    finished = server.stop(arguments.grace_s)
    if announcer is not None:
        announcer.close()
    if not finished:
        _tell_cut_off(arguments.grace_s)
    code = 0 if finished else 1
    if server.computing:
        _leave(code)
    return code


def _defaults() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args([])


def _run_workers(arguments: argparse.Namespace, pool: WorkerPool) -> int:
    """Run several processes on one port until a signal comes."""
    if arguments.announce or arguments.device_keys:
        raise ConfigError("--announce and --device-keys work with one worker only", fix="leave --workers out")
    from tidegate.cloud.logs import event, log

    stopping = _signalled()
    pool.start()
    _say_where(pool.address, pool.http_address, pool.metrics_address)
    stopping.wait()
    log.info("draining", extra=event("draining"))
    finished = pool.stop(arguments.grace_s)
    if not finished:
        _tell_cut_off(arguments.grace_s)
    return 0 if finished else 1


def _announcer(arguments: argparse.Namespace) -> ChannelAnnouncer | None:
    from tidegate.cloud.announce import ChannelAnnouncer

    if arguments.announce is None and arguments.announce_root is None and arguments.announce_track is None:
        return None
    if arguments.announce is None or arguments.announce_root is None:
        raise ConfigError(
            "--announce and --announce-root go together; one of them is missing",
            fix="give the channel's address and the root.json that devices are shipped with",
        )
    return ChannelAnnouncer(
        arguments.announce,
        read_file(arguments.announce_root, "--announce-root"),
        arguments.announce_track or ("stable",),
        on_warning=_warn,
    )


def _say_where(address: str, http_address: str, metrics_address: str) -> None:
    """Print the addresses; scripts wait for the first line, and by then all of them are served."""
    lines = [f"listening on {address}"]
    lines += [f"http on {http_address}"] if http_address else []
    lines += [f"metrics on {metrics_address}"] if metrics_address else []
    print("\n".join(lines), flush=True)


def _tell_cut_off(grace_s: float) -> None:
    from tidegate.cloud.logs import event, log

    log.warning("work was cut off after %g s", grace_s, extra=event("cut_off", fix="raise --grace-s"))


def _warn(message: str) -> None:
    from tidegate.cloud.logs import log

    log.warning(message)


def _signalled() -> threading.Event:
    """Return an event that SIGTERM or SIGINT sets; a second one ends the process."""
    stopping = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stopping


def _leave(code: int) -> NoReturn:
    """End the process although a model runs: it cannot be interrupted, and a normal exit would wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
