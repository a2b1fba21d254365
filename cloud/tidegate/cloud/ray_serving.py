"""`tidegate serve --engine ray`: start or join a Ray cluster, run the application there, stop it again."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tidegate.cloud.ray import SERVICER_FUNCTIONS, application, import_serve
from tidegate.cloud.ray_settings import RaySettings
from tidegate.errors import ConfigError, ModelError, ResourceError

PROXY_TIMEOUT_S = 60.0
"""For a proxy to learn of the application; it takes less than a second on a quiet machine."""

ANSWER_TIMEOUT_S = 5.0
POLL_S = 0.1

EVERY_INTERFACE = ("0.0.0.0", "[::]", "::")  # noqa: S104


@dataclass(frozen=True)
class RayPlace:
    """Where the application runs."""

    port: int
    """of the gRPC proxies; Ray binds it on every interface"""
    address: str | None = None
    """of a running cluster, `auto` for the one on this machine; None starts one here that ends with this process"""
    every_node: bool = True
    """a proxy on every node that has a replica; otherwise on the head node only"""
    start_options: dict[str, Any] = field(default_factory=dict)
    """passed on to `ray.init`, such as `num_cpus`"""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}; expected 1 to 65535", fix="Ray needs a port that is known before")


def place_of(listen: str, address: str | None) -> RayPlace:
    """Read `--listen` for Ray.

    Raises:
        ConfigError: not every interface, which is all that Ray can do; or no port.
    """
    host, _, port = listen.rpartition(":")
    if host not in EVERY_INTERFACE or not port.isdigit():
        raise ConfigError(
            f"listen address {listen!r}; Ray Serve opens its port on every interface and without TLS",
            fix="ask for it with --listen 0.0.0.0:PORT behind a firewall or a TLS proxy, or leave --engine ray out",
        )
    return RayPlace(int(port), address)


@contextlib.contextmanager
def running(settings: RaySettings, place: RayPlace) -> Iterator[None]:
    """Run the application for the block; it begins when replicas are ready.

    Raises:
        DependencyError: Ray Serve is not installed.
        ModelError: a replica does not start; the message is its own.
        ResourceError: the cluster cannot be reached or started, the port is taken, or Serve runs there without it.
    """
    serve = import_serve()
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address=place.address, **_quiet(place))
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ResourceError(f"no Ray cluster: {error}", fix="check --ray-address, or leave it out") from error
    with contextlib.ExitStack() as ending:
        if place.address is None:
            ending.callback(ray.shutdown)
            ending.callback(serve.shutdown)
        _start(serve, place)
        # From here on what has the name is ours: an application that had it before is replaced.
        if place.address is not None:
            ending.callback(serve.delete, settings.name)
        try:
            serve.run(application(settings), name=settings.name, route_prefix=f"/{settings.name}")
        except RuntimeError as error:
            raise ModelError(
                f"the application did not start: {error}", fix="look into the log of the replica"
            ) from error
        _await_answer(settings.name, place.port)
        yield


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _start(serve: Any, place: RayPlace) -> None:
    if place.address is None and _is_open("127.0.0.1", place.port):
        raise ResourceError(f"port {place.port} is in use", fix="stop what listens there, or choose another port")
    # Serve that runs keeps the port and the methods that it was started with, and says nothing about it.
    if serve.status().proxies and not any(_is_open(node, place.port) for node in _nodes()):
        raise ResourceError(
            f"Ray Serve runs on this cluster already, and without gRPC on port {place.port}",
            fix="give the port that it has, or end it with `serve shutdown`",
        )
    serve.start(
        proxy_location="EveryNode" if place.every_node else "HeadOnly",
        # Ray's proxies speak HTTP as well; nothing of ours is there, so it stays on loopback.
        http_options={"host": "127.0.0.1", "port": free_port()},
        grpc_options={
            "port": place.port,
            "grpc_servicer_functions": SERVICER_FUNCTIONS,
            # Our descriptors are in a pool of their own, which Ray's reflection does not know.
            "enable_reflection": False,
        },
    )


def _await_answer(application: str, port: int) -> None:
    """Return when a proxy hands calls on to the application."""
    until_s = time.monotonic() + PROXY_TIMEOUT_S
    while not any(_is_routed(node, port, application) for node in _nodes()):
        if time.monotonic() > until_s:
            raise ResourceError(
                f"no proxy of Ray Serve hands on calls to {application!r} on port {port}",
                fix=f"start Serve with the servicer functions {', '.join(SERVICER_FUNCTIONS)}",
            )
        time.sleep(POLL_S)


def _is_routed(node: str, port: int, application: str) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"{node}:{port}") as channel:
        try:
            request = health_pb2.HealthCheckRequest()
            metadata = [("application", application)]
            health_pb2_grpc.HealthStub(channel).Check(request, timeout=ANSWER_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            # Where no replica is kept running, the first one takes its time.
            return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED)
    return True


def _nodes() -> set[str]:
    import ray

    return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _is_open(node: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(ANSWER_TIMEOUT_S)
        return probe.connect_ex((node, port)) == 0


def _quiet(place: RayPlace) -> dict[str, Any]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if place.address is None:
        options |= {"include_dashboard": False}
    return options | place.start_options
