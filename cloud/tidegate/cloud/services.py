"""Every service of a server, registered with grpc: inference, speech, health, reflection."""

from __future__ import annotations

from typing import Any

from tidegate.cloud.core import Core
from tidegate.cloud.devices import Reception
from tidegate.cloud.handlers import streaming_handler, unary_handlers
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.speech import SpeechServicer
from tidegate.cloud.work import StreamSlots
from tidegate.errors import DependencyError
from tidegate.v1 import speech_pb2
from tidegate.wire.messages import descriptor_files
from tidegate.wire.services import OPEN_INFERENCE, SPEECH, Method, Service

REFLECTION_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The two versions have the same messages on the wire; new clients ask for the first one first."""


def add_services(
    server: Any, core: Core, slots: StreamSlots, reception: Reception, *, maximum_segment_s: float, reflection: bool
) -> Any:
    """Register all services on a grpc server and return the health servicer.

    Raises:
        DependencyError: the health or reflection package is not installed.
    """
    try:
        from grpc_health.v1 import health
    except ImportError as error:
        raise _missing(error) from error
    _add(server, *_inference(core, reception))
    _add(server, *_speech(core, slots, reception, maximum_segment_s))
    health_servicer = health.HealthServicer()
    _add_health(server, health_servicer, core)
    if reflection:
        _add_reflection(server, slots)
    return health_servicer


def _inference(core: Core, reception: Reception) -> tuple[str, dict[str, Any]]:
    servicer = InferenceServicer(core)
    return unary_handlers(
        OPEN_INFERENCE,
        {
            "ServerLive": servicer.server_live,
            "ServerReady": servicer.server_ready,
            "ModelReady": servicer.model_ready,
            "ServerMetadata": servicer.server_metadata,
            "ModelMetadata": servicer.model_metadata,
            "ModelInfer": servicer.model_infer,
            "RepositoryIndex": servicer.repository_index,
        },
        work=core.work,
        counted=frozenset({"ModelInfer"}),
        reception=reception,
    )


def _speech(
    core: Core, slots: StreamSlots, reception: Reception, maximum_segment_s: float
) -> tuple[str, dict[str, Any]]:
    servicer = SpeechServicer(core, reception, maximum_segment_s=maximum_segment_s)
    method = SPEECH.method("StreamingRecognize")
    return SPEECH.name, {method.name: streaming_handler(method, servicer.streaming_recognize, slots)}


def _add_health(server: Any, servicer: Any, core: Core) -> None:
    """Serve health for the whole, each service, each model (`NAME`) and each version (`NAME/VERSION`)."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    models = [name for served in core.repository.all() for name in (served.name, f"{served.name}/{served.version}")]
    for name in ("", OPEN_INFERENCE.name, SPEECH.name, *models):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)


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
