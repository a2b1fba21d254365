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

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tidegate.cloud.core import Core
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.repository import Repository, RepositorySettings
from tidegate.cloud.served import LoadSettings
from tidegate.cloud.sources import BundleFiles
from tidegate.cloud.versions import parse_policy
from tidegate.cloud.work import Work
from tidegate.errors import ConfigError, DependencyError, InputError, NotFoundError, TidegateError
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.status import code_of, text_of

APPLICATION = "tidegate"

SERVICER_FUNCTIONS = ["tidegate.cloud.ray.add_open_inference", "tidegate.cloud.ray.add_health"]
"""What Ray's proxies import to learn the methods: `grpc_servicer_functions` of its gRPC options."""

QUICK = {
    "ServerLive": "server_live",
    "ServerReady": "server_ready",
    "ModelReady": "model_ready",
    "ServerMetadata": "server_metadata",
    "ModelMetadata": "model_metadata",
    "RepositoryIndex": "repository_index",
    "ModelConfig": "model_config",
    "ModelStatistics": "model_statistics",
}
"""Methods that answer at once, and the servicer's name for each. Statistics are those of the replica that is asked."""

HERE = ("classification", "schedule_policy", "model_configuration", "binary_tensor_data", "parameters", "statistics")
"""Extensions that a replica has; commands to repositories and logs would reach one replica of many."""

HEALTH_SERVICE = "grpc.health.v1.Health"


@dataclass(frozen=True)
class RaySettings:
    """What the replicas hold and how many there are."""

    bundles: tuple[str, ...]
    """paths that exist on every node, or directories of bundles"""
    variant: str | None = None
    """id; None for the first of each bundle whose runtime is installed"""
    threads: int = 1
    """of the runtime, per model; also the cores that Ray reserves for a replica"""
    versions: str = "all"
    """all, latest:N or specific:V,V"""
    min_replicas: int = 1
    """0: none while nobody calls; the first call then waits for a start"""
    max_replicas: int = 1
    """more than `min_replicas`: Ray adds and removes them"""
    target_ongoing_requests: int = 8
    """requests under way per replica that autoscaling aims at"""
    max_ongoing_requests: int = 64
    """requests that a replica takes at once; more wait in the proxy"""
    max_queued_requests: int = 1024
    """that wait in one proxy; more are refused with RESOURCE_EXHAUSTED"""
    drain_s: float = 30.0
    """for requests under way when a replica is stopped"""
    name: str = field(default=APPLICATION)
    """of the application; a caller names it in the header `application` where there are several"""

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ConfigError("no bundle to serve", fix="name at least one: bundles=PATH,PATH")
        for name in ("threads", "max_replicas", "target_ongoing_requests", "max_ongoing_requests"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        if not 0 <= self.min_replicas <= self.max_replicas:
            raise ConfigError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}", fix="use 0 <= min <= max"
            )
        if not self.drain_s >= 0:
            raise ConfigError(f"drain_s is {self.drain_s}; expected 0 or more", fix="give seconds")
        parse_policy(self.versions)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> RaySettings:
        """Read settings as `serve run` gives them: text, or values of a YAML file.

        Raises:
            ConfigError: a name that there is not, or a value that does not fit.
        """
        known = {item.name: str(item.type) for item in fields(cls)}
        unknown = [name for name in arguments if name not in known]
        if unknown:
            raise ConfigError(f"there is no setting {unknown[0]!r}; known: {', '.join(known)}", fix="correct the name")
        values = {name: _value(name, known[name], value) for name, value in arguments.items()}
        return cls(**{"bundles": (), **values})


@dataclass
class RayCaller:
    """The caller, as Ray's proxy describes him. Ray does not hand the deadline on; it cancels when it is over."""

    context: Any
    deadline_s: float | None = None
    left: bool = False
    """set when Ray cancels the request: the client has gone, or its deadline has passed"""

    @property
    def peer(self) -> str:
        """Address as grpc writes it, of the client of the proxy."""
        return str(self.context.peer())

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text headers."""
        return {key: value for key, value in self.context.invocation_metadata() if isinstance(value, str)}

    def gone(self) -> bool:
        """Whether nobody waits any more."""
        return self.left


@dataclass(frozen=True)
class Encoded:
    """An answer that is serialised already, for Ray, which wants to do it itself."""

    raw: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Return the bytes."""
        return self.raw


class Replica:
    """One process with the models. Ray makes it; each method of the protocol is a method of this class."""

    def __init__(self, settings: RaySettings) -> None:
        """Load and prove every model.

        Raises:
            TidegateError: a bundle cannot be loaded.
        """
        self._work = Work()
        loading = LoadSettings(settings.variant, settings.threads)
        self._repository = Repository(
            BundleFiles([Path(bundle) for bundle in settings.bundles]),
            RepositorySettings(policy=parse_policy(settings.versions), loading=loading),
            computing=self._work.compute,
        )
        report = self._repository.reload()
        if report.failed:
            raise report.failed[0][1]
        self._core = Core(self._repository, self._work)
        self._servicer = InferenceServicer(self._core)

    async def ModelInfer(self, request: bytes, grpc_context: Any) -> Encoded:  # noqa: N802
        """Run a model; the loop goes on while it runs."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        caller = RayCaller(grpc_context)

        def settle(answer: bytes | None, error: TidegateError | None) -> None:
            if not answered.done():
                if error is None:
                    answered.set_result(answer or b"")
                else:
                    answered.set_exception(error)

        def reply(answer: bytes | None, error: TidegateError | None) -> None:
            loop.call_soon_threadsafe(settle, answer, error)

        try:
            message = parsed("ModelInfer", request)
            self._servicer.model_infer(message, caller, reply)
            return Encoded(await answered)
        except TidegateError as error:
            return refused(grpc_context, error)
        except asyncio.CancelledError:
            caller.left = True
            raise

    async def Check(self, request: bytes, grpc_context: Any) -> Encoded:  # noqa: N802
        """Answer grpc's health check: the whole, `inference.GRPCInferenceService`, NAME or NAME/VERSION."""
        from grpc_health.v1 import health_pb2

        try:
            service = health_pb2.HealthCheckRequest.FromString(request).service
        except DecodeError as error:
            return refused(grpc_context, InputError(f"not a HealthCheckRequest: {error}", fix="send one"))
        if service in ("", OPEN_INFERENCE.name):
            serving = self._core.ready
        else:
            name, _, version = service.partition("/")
            serving = self._core.model_ready(name, version)
            if not serving and not self._repository.versions(name):
                return refused(grpc_context, NotFoundError(f"there is no model {name!r}", fix="ask for another"))
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if serving else states.NOT_SERVING
        return Encoded(states(status=status).SerializeToString())

    def reconfigure(self, changed: dict[str, Any]) -> None:
        """Look for new, changed and removed versions. Ray calls it on every replica when `user_config` changes.

        What fails to load changes nothing and is in the repository index with its reason.
        """
        self._repository.reload()

    def answer(self, method: str, request: bytes, grpc_context: Any) -> Encoded:
        """Answer one of the quick methods."""
        try:
            respond: Callable[[Any], Any] = getattr(self._servicer, QUICK[method])
            message = respond(parsed(method, request))
            if method == "ServerMetadata":
                message.extensions[:] = [name for name in message.extensions if name in HERE]
            return Encoded(message.SerializeToString())
        except TidegateError as error:
            return refused(grpc_context, error)


def _quick(method: str) -> Callable[[Replica, bytes, Any], Awaitable[Encoded]]:
    async def answer(self: Replica, request: bytes, grpc_context: Any) -> Encoded:
        return self.answer(method, request, grpc_context)

    answer.__name__ = answer.__qualname__ = method
    return answer


for _method in QUICK:
    setattr(Replica, _method, _quick(_method))


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


def parsed(method: str, request: bytes) -> Any:
    """Return a request as its message; raises InputError for bytes that are none."""
    kind = OPEN_INFERENCE.method(method).request
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise InputError(
            f"{len(request)} bytes are not a valid {kind.DESCRIPTOR.full_name}: {error}",
            fix="encode the request with the published .proto file",
        ) from error


def refused(grpc_context: Any, error: TidegateError) -> Encoded:
    """Set the status of a call. Raising would do as well, but Ray logs a traceback for every caller's mistake."""
    import grpc

    grpc_context.set_code(grpc.StatusCode[code_of(error)])
    grpc_context.set_details(text_of(error))
    return Encoded(b"")


def _add(server: Any, service: str, methods: tuple[str, ...]) -> None:
    import grpc

    def unreachable(request: bytes, context: Any) -> bytes:
        raise AssertionError("Ray's proxy answers in place of this")

    # Without a deserialiser the proxy hands on the bytes as they came.
    handlers = {name: grpc.unary_unary_rpc_method_handler(unreachable) for name in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _value(name: str, kind: str, value: Any) -> Any:
    """Return one setting in its type; text is what the command line gives."""
    try:
        if kind.startswith("tuple"):
            listed = value.split(",") if isinstance(value, str) else value
            return tuple(str(item) for item in listed if str(item))
        if kind in ("int", "float"):
            return int(value) if kind == "int" else float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is {value!r}; expected {kind}", fix="correct the value") from error
    return value
