"""One replica of the Ray Serve application: a process with the models and a `Core`, as under `tidegate serve`.

Ray's proxy hands on requests as the bytes that they were and takes answers as bytes; a message is parsed once, here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tidegate.cloud.core import Core
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.ray_settings import RaySettings
from tidegate.cloud.repository import Repository, RepositorySettings
from tidegate.cloud.served import LoadSettings
from tidegate.cloud.sources import BundleFiles
from tidegate.cloud.versions import parse_policy
from tidegate.cloud.work import Work
from tidegate.errors import InputError, NotFoundError, TidegateError
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.status import code_of, text_of

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

INDEX = "repository_index"
"""Extension of ours: RepositoryIndex alone, so that `tidegate call` lists the models."""


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
            self._servicer.model_infer(request, caller, reply)
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
            message = respond(OPEN_INFERENCE.method(method).parsed(request))
            if method == "ServerMetadata":
                message.extensions[:] = [*(name for name in message.extensions if name in HERE), INDEX]
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


def refused(grpc_context: Any, error: TidegateError) -> Encoded:
    """Set the status of a call. Raising would do as well, but Ray logs a traceback for every caller's mistake."""
    import grpc

    grpc_context.set_code(grpc.StatusCode[code_of(error)])
    grpc_context.set_details(text_of(error))
    return Encoded(b"")
