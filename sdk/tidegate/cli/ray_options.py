"""`tidegate serve --engine ray`: its options, and the run until a signal comes."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tidegate.errors import ConfigError

ON_RAY = (
    "bundles", "listen", "variant", "threads", "versions", "grace_s", "insecure", "engine", "replicas", "ray_address",
)  # fmt: skip
"""Options that the Ray engine keeps. Any other one is refused instead of forgotten."""

AS_ON_RAY = {"reflection": False, "model_control": "off"}
"""Options that may be given because Ray does what they ask for anyway."""

ONLY_ON_RAY = ("replicas", "ray_address")


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("ray", "docs/scaling.md says what it costs and what is not there")
    group.add_argument("--engine", choices=("own", "ray"), default="own", help="ray: replicas on a Ray cluster")
    group.add_argument("--replicas", metavar="N[:M]", help="of the ray engine: N, or from N to M by load; default 1")
    group.add_argument("--ray-address", metavar="HOST:PORT", help="of a running cluster, or auto; default: one here")


def refuse_ray_options(arguments: argparse.Namespace) -> None:
    """Refuse what only Ray could keep, for our own engine; raises ConfigError."""
    given = [name for name in ONLY_ON_RAY if getattr(arguments, name) is not None]
    if given:
        raise ConfigError(f"{_option(given[0])} needs --engine ray", fix="add --engine ray, or use --workers")


def run_on_ray(
    arguments: argparse.Namespace, defaults: argparse.Namespace, signalled: Callable[[], threading.Event]
) -> int:
    """Serve on Ray until a signal comes.

    Args:
        arguments: of `tidegate serve`.
        defaults: what they are when nothing is given.
        signalled: begins to watch for signals; called once Ray has started, which puts handlers of its own in place.

    Raises:
        ConfigError: an option that the engine does not have, or an address that Ray cannot keep to itself.
        TidegateError: as `tidegate.cloud.ray_serving.running`.
    """
    from tidegate.cloud.ray_serving import place_of, running
    from tidegate.cloud.ray_settings import RaySettings

    given = [name for name, default in vars(defaults).items() if not _kept(name, getattr(arguments, name), default)]
    if given:
        raise ConfigError(f"{_option(given[0])} does not work with --engine ray", fix="leave one of the two out")
    place = place_of(arguments.listen, arguments.ray_address)
    if not arguments.insecure:
        raise ConfigError(
            f"{arguments.listen} is open to other machines and Ray Serve has no TLS",
            fix="add --insecure behind a firewall or a TLS proxy, or leave --engine ray out",
        )
    least, most = _replicas(arguments.replicas or "1")
    settings = RaySettings(
        bundles=tuple(str(Path(bundle).resolve()) for bundle in arguments.bundles),
        variant=arguments.variant,
        threads=1 if arguments.threads is None else arguments.threads,
        versions=arguments.versions,
        min_replicas=least,
        max_replicas=most,
        drain_s=arguments.grace_s,
    )
    with running(settings, place):
        stopping = signalled()
        print(f"listening on {arguments.listen}", flush=True)
        stopping.wait()
        sys.stderr.write("draining\n")
    return 0


def _kept(name: str, value: object, default: object) -> bool:
    return name in ON_RAY or value == default or (name in AS_ON_RAY and value == AS_ON_RAY[name])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _replicas(text: str) -> tuple[int, int]:
    least, separator, most = text.partition(":")
    if not least.isdecimal() or (separator and not most.isdecimal()):
        raise ConfigError(f"--replicas is {text!r}; expected N or N:M", fix="write --replicas 2 or --replicas 1:4")
    return int(least), int(most or least)
