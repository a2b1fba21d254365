"""Every service of a server, registered with grpc: inference, speech, health, reflection."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from tidegate.cloud.core import Core
from tidegate.cloud.devices import Reception
from tidegate.cloud.direct import DirectPool, supported
from tidegate.cloud.handlers import Behaviours, streaming_handler, unary_handlers
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.repository import served_names
from tidegate.cloud.repository_control import RepositoryControl
from tidegate.cloud.speech import SpeechServicer
from tidegate.cloud.streaming_inference import StreamingInference
from tidegate.cloud.trace_log import SHARED_MEMORY_METHODS, LogSettings, no_shared_memory, no_trace_settings
from tidegate.cloud.work import StreamSlots
from tidegate.errors import DependencyError
from tidegate.v1 import speech_pb2
from tidegate.wire.messages import descriptor_files
from tidegate.wire.services import OPEN_INFERENCE, SPEECH, Method, Service

REFLECTION_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The two versions have the same messages on the wire; new clients ask for the first one first."""


class Health:
    """Health of the whole, each service, each model (`NAME`) and each version (`NAME/VERSION`)."""

    def __init__(self, servicer: Any, core: Core) -> None:
        self._servicer = servicer
        self._core = core
        self._lock = threading.Lock()
        self._models: set[str] = set()
        self._set(("", OPEN_INFERENCE.name, SPEECH.name), serving=True)
        self.follow()

    def follow(self) -> None:
        """State which models can be called now; called after every change of the repository."""
        with self._lock:
            models = set(served_names(self._core.repository.all()))
            gone, self._models = self._models - models, models
            self._set(models, serving=True)
            self._set(gone, serving=False)

    def drain(self) -> None:
        """Say NOT_SERVING for everything from now on."""
        self._servicer.enter_graceful_shutdown()

    def _set(self, names: Iterable[str], *, serving: bool) -> None:
        from grpc_health.v1 import health_pb2

        status = health_pb2.HealthCheckResponse
        for name in names:
            self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)


def add_services(
    server: Any,
    core: Core,
    slots: StreamSlots,
    reception: Reception,
    *,
    maximum_segment_s: float,
    reflection: bool,
    direct: bool,
    control: RepositoryControl,
) -> Health:
    """Register all services on a grpc server and return what sets their health.

    Args:
        server: grpc's, not started.
        core: the models.
        slots: the server's streams.
        reception: takes the reports of devices.
        maximum_segment_s: longest speech segment.
        reflection: whether to serve descriptors.
        direct: whether unary calls may go without a thread of their own (see `tidegate.cloud.direct`).
        control: takes commands to load and unload.

    Raises:
        DependencyError: the health or reflection package is not installed.
    """
    try:
        from grpc_health.v1 import health
    except ImportError as error:
        raise _missing(error) from error
    _add(server, *_inference(core, slots, reception, control, direct))
    _add(server, *_speech(core, slots, reception, maximum_segment_s))
    servicer = health.HealthServicer()
    _add_health(server, servicer)
    if reflection:
        _add_reflection(server, slots)
    return Health(servicer, core)


def _inference(
    core: Core, slots: StreamSlots, reception: Reception, control: RepositoryControl, direct: bool
) -> tuple[str, dict[str, Any]]:
    servicer = InferenceServicer(core)
    behaviours = Behaviours(
        quick={
            "ServerLive": servicer.server_live,
            "ServerReady": servicer.server_ready,
            "ModelReady": servicer.model_ready,
            "ServerMetadata": servicer.server_metadata,
            "ModelMetadata": servicer.model_metadata,
            "RepositoryIndex": servicer.repository_index,
            "ModelConfig": servicer.model_config,
            "ModelStatistics": servicer.model_statistics,
            "TraceSetting": no_trace_settings,
            **dict.fromkeys(SHARED_MEMORY_METHODS, no_shared_memory),
        },
        begun={"ModelInfer": servicer.model_infer},
        blocking={
            "RepositoryModelLoad": control.load,
            "RepositoryModelUnload": control.unload,
            "LogSettings": LogSettings(control.permit_settings),
        },
    )
    pool = DirectPool() if direct and supported() else None
    name, handlers = unary_handlers(OPEN_INFERENCE, behaviours, work=core.work, reception=reception, direct=pool)
    streaming = StreamingInference(servicer, core.work).model_stream_infer
    method = OPEN_INFERENCE.method("ModelStreamInfer")
    return name, handlers | {method.name: streaming_handler(method, streaming, slots, parsed=False)}


def _speech(
    core: Core, slots: StreamSlots, reception: Reception, maximum_segment_s: float
) -> tuple[str, dict[str, Any]]:
    servicer = SpeechServicer(core, reception, maximum_segment_s=maximum_segment_s)
    method = SPEECH.method("StreamingRecognize")
    return SPEECH.name, {method.name: streaming_handler(method, servicer.streaming_recognize, slots)}


def _add_health(server: Any, servicer: Any) -> None:
    from grpc_health.v1 import health_pb2_grpc

    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _add_reflection(server: Any, slots: StreamSlots) -> None:
    """Serve descriptors from a pool of their own, which holds the private Open Inference file as well.

    A reflection stream holds a thread like any other, so it takes one of `slots`.
    """
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError as error:
        raise _missing(error) from error
    from google.protobuf import descriptor_pool
    from grpc_health.v1 import health, health_pb2

    pool = descriptor_pool.DescriptorPool()
    for module in (speech_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in descriptor_files():
        pool.AddSerializedFile(file)
    offered = (OPEN_INFERENCE.name, SPEECH.name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.ReflectionServicer(offered, pool)
    method = Method(
        "ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest,
        reflection_pb2.ServerReflectionResponse,
        streaming=True,
    )
    for name in REFLECTION_NAMES:
        service = Service(name, (method,))
        _add(server, service.name, {method.name: streaming_handler(method, servicer.ServerReflectionInfo, slots)})


def _add(server: Any, name: str, handlers: dict[str, Any]) -> None:
    import grpc

    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _missing(error: ImportError) -> DependencyError:
    return DependencyError(
        f"serving needs health checking and reflection: {error}", fix="pip install 'tidegate[cloud]'"
    )
