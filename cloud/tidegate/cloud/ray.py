"""The server's core as a Ray Serve application: replicas on many machines behind Ray's own gRPC proxy.

    serve run tidegate.cloud.ray:app bundles=/models/mlp.tide max_replicas=4

A replica is a process with the models and a `Core`, the same as under `tidegate serve`. Ray's proxy takes the calls. It
is told the methods by `add_open_inference`, without message classes: requests and answers pass through it as the bytes
that they are, so nothing of ours meets the proxy's descriptor pool, and each message is parsed once, in the replica.

What Ray gives: replicas spread over nodes, autoscaling, a replica that died started again. What it costs: a request
goes through a proxy actor, Ray's scheduler and a replica actor (docs/scaling.md has the figures). What it does not
have: streaming recognition, ModelStreamInfer, repository control (a command would reach one replica of many), TLS, and
a choice of address: Ray binds the port on every interface.
"""

from __future__ import annotations

from typing import Any

from tidegate.cloud.ray_replica import QUICK, Replica
from tidegate.cloud.ray_settings import RaySettings
from tidegate.errors import DependencyError
from tidegate.wire.services import OPEN_INFERENCE

SERVICER_FUNCTIONS = ["tidegate.cloud.ray.add_open_inference", "tidegate.cloud.ray.add_health"]
"""What Ray's proxies import to learn the methods: `grpc_servicer_functions` of its gRPC options."""

HEALTH_SERVICE = "grpc.health.v1.Health"


def app(arguments: dict[str, Any]) -> Any:
    """Return the application for `serve run tidegate.cloud.ray:app` and Serve's YAML (`import_path`, `args`).

    Args:
        arguments: the fields of `RaySettings`; `bundles` as a list, or as text with commas.

    Raises:
        ConfigError: a setting that there is not, or that cannot be meant.
        DependencyError: Ray Serve is not installed.
    """
    return application(RaySettings.of(arguments))


def application(settings: RaySettings) -> Any:
    """Return the application of these settings; raises as `app`."""
    serve = import_serve()
    scaling: dict[str, Any] = {"num_replicas": settings.min_replicas}
    if settings.max_replicas > settings.min_replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": settings.min_replicas,
                "max_replicas": settings.max_replicas,
                "target_ongoing_requests": settings.target_ongoing_requests,
                "upscale_delay_s": settings.upscale_delay_s,
                "downscale_delay_s": settings.downscale_delay_s,
                "look_back_period_s": settings.look_back_s,
            }
        }
    deployment = serve.deployment(
        Replica,
        name="OpenInference",
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        graceful_shutdown_timeout_s=settings.drain_s,
        ray_actor_options={"num_cpus": settings.threads},
        **scaling,
    )
    return deployment.bind(settings)


def add_open_inference(servicer: Any, server: Any) -> None:
    """Tell Ray's proxy the methods of the Open Inference Protocol; it replaces the handlers by its own."""
    _add(server, OPEN_INFERENCE.name, ("ModelInfer", *QUICK))


def add_health(servicer: Any, server: Any) -> None:
    """Tell Ray's proxy grpc's health check, so that Kubernetes and load balancers can ask for models."""
    _add(server, HEALTH_SERVICE, ("Check",))


def import_serve() -> Any:
    """Return `ray.serve`.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise DependencyError(f"Ray Serve is not installed: {error}", fix="pip install 'tidegate[ray]'") from error
    return serve


def _add(server: Any, service: str, methods: tuple[str, ...]) -> None:
    import grpc

    def unreachable(request: bytes, context: Any) -> bytes:
        raise AssertionError("Ray's proxy answers in place of this")

    # Without a deserialiser the proxy hands on the bytes as they came.
    handlers = {name: grpc.unary_unary_rpc_method_handler(unreachable) for name in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
