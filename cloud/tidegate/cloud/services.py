"""Every service of a server, registered with grpc: inference, speech, health, reflection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.cloud.core import Core
from tidegate.cloud.devices import Reception
from tidegate.cloud.direct import DirectPool, MessagePool, supported
from tidegate.cloud.guard import Guard
from tidegate.cloud.handlers import (
    Behaviours,
    Streaming,
    counted_handler,
    streaming_handler,
    unary_handlers,
    watching_handler,
)
from tidegate.cloud.health import Health
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.label_control import LabelControl
from tidegate.cloud.repository_control import RepositoryControl
from tidegate.cloud.speech import SpeechLimits, SpeechServicer
from tidegate.cloud.speech_observers import SegmentObserver
from tidegate.cloud.stalled import Streams, Watch
from tidegate.cloud.streaming_inference import StreamingInference
from tidegate.cloud.trace_log import SHARED_MEMORY_METHODS, LogSettings, no_shared_memory, no_trace_settings
from tidegate.errors import DependencyError
from tidegate.v1 import admin_pb2, speech_pb2
from tidegate.wire.messages import descriptor_files
from tidegate.wire.services import ADMIN, OPEN_INFERENCE, SPEECH, Method, Service

REFLECTION_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The two versions have the same messages on the wire; new clients ask for the first one first."""


HEALTH_SERVICE = "grpc.health.v1.Health"

HEALTH_THREADS = 2
"""That wait for the request of a subscription; the subscription itself holds none."""


def add_services(
    server: Any,
    core: Core,
    streams: Streams,
    subscriptions: Streams,
    reception: Reception,
    *,
    guard: Guard,
    watch: Watch,
    speech: SpeechLimits,
    segment_observers: Sequence[SegmentObserver],
    reflection: bool,
    direct: bool,
    control: RepositoryControl,
) -> Health:
    """Register all services on a grpc server and return what sets their health.

    Args:
        server: grpc's, not started.
        core: the models.
        streams: opens streams, each of which holds a thread.
        subscriptions: opens those that hold none, of health.
        reception: takes the reports of devices.
        guard: who may call.
        watch: ends calls that do not go on.
        speech: limits of speech.
        segment_observers: told after every speech segment.
        reflection: whether to serve descriptors.
        direct: whether unary calls may go without a thread of their own (see `tidegate.cloud.direct`).
        control: takes commands to load and unload.

    Raises:
        DependencyError: the health or reflection package is not installed.
    """
    try:
        import grpc_health.v1.health_pb2  # noqa: F401
    except ImportError as error:
        raise _missing(error) from error
    pool = DirectPool(watch) if direct and supported() else None
    _add(server, *_inference(core, streams, reception, control, guard, pool))
    _add(server, *_speech(core, streams, reception, speech, segment_observers))
    labels = Behaviours(quick={}, begun={}, blocking=LabelControl(core.repository, control).methods)
    _add(server, *unary_handlers(ADMIN, labels, work=core.work, reception=reception, guard=guard, direct=pool))
    health = Health(core, watch)
    watching = MessagePool(watch, HEALTH_THREADS) if pool is not None else None
    _add(server, *_health(health, core, subscriptions, reception, guard, pool, watching))
    if reflection:
        _add_reflection(server, streams)
    return health


def _inference(
    core: Core,
    streams: Streams,
    reception: Reception,
    control: RepositoryControl,
    guard: Guard,
    pool: DirectPool | None,
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
            "TraceSetting": no_trace_settings,
            **dict.fromkeys(SHARED_MEMORY_METHODS, no_shared_memory),
        },
        begun={"ModelInfer": servicer.model_infer},
        blocking={
            # It may ask other processes.
            "ModelStatistics": lambda request, caller: servicer.model_statistics(request),
            "RepositoryModelLoad": control.load,
            "RepositoryModelUnload": control.unload,
            "LogSettings": LogSettings(control.permit_settings),
        },
        turned_away=servicer.turned_away,
    )
    name, handlers = unary_handlers(
        OPEN_INFERENCE, behaviours, work=core.work, reception=reception, guard=guard, direct=pool
    )
    streaming = StreamingInference(servicer, core.work).model_stream_infer
    method = OPEN_INFERENCE.method("ModelStreamInfer")
    return name, handlers | {method.name: streaming_handler(method, streaming, streams, parsed=False)}


def _speech(
    core: Core, streams: Streams, reception: Reception, limits: SpeechLimits, observers: Sequence[SegmentObserver]
) -> tuple[str, dict[str, Any]]:
    servicer = SpeechServicer(core, reception, limits, observers)
    streaming: dict[str, Streaming] = {
        "StreamingRecognize": servicer.streaming_recognize,
        "BatchRecognize": servicer.batch_recognize,
    }
    handlers = {
        name: streaming_handler(SPEECH.method(name), behaviour, servicer.telling(streams, name))
        for name, behaviour in streaming.items()
    }
    once = SPEECH.method("Recognize")
    return SPEECH.name, handlers | {
        once.name: counted_handler(once, servicer.recognize, servicer.telling(streams, once.name))
    }


def _health(
    health: Health,
    core: Core,
    subscriptions: Streams,
    reception: Reception,
    guard: Guard,
    pool: DirectPool | None,
    watching: MessagePool | None,
) -> tuple[str, dict[str, Any]]:
    """Return the handlers of health, which take the same way as all others, so that the same limits hold."""
    from grpc_health.v1 import health_pb2

    asked = Method("Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)
    watched = Method("Watch", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, streaming=True)
    name, handlers = unary_handlers(
        Service(HEALTH_SERVICE, (asked,)),
        Behaviours(quick={asked.name: health.check}, begun={}, blocking={}),
        work=core.work,
        reception=reception,
        guard=guard,
        direct=pool,
    )
    return name, handlers | {watched.name: watching_handler(watched, health.watch, subscriptions, watching)}


def _add_reflection(server: Any, streams: Streams) -> None:
    """Serve descriptors from a pool of their own, which holds the private Open Inference file as well.

    A reflection stream holds a thread like any other, so it is one of `streams`.
    """
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError as error:
        raise _missing(error) from error
    from google.protobuf import descriptor_pool
    from grpc_health.v1 import health_pb2

    pool = descriptor_pool.DescriptorPool()
    for module in (speech_pb2, admin_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in descriptor_files():
        pool.AddSerializedFile(file)
    offered = (OPEN_INFERENCE.name, SPEECH.name, ADMIN.name, HEALTH_SERVICE, reflection.SERVICE_NAME)
    servicer = reflection.ReflectionServicer(offered, pool)
    method = Method(
        "ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest,
        reflection_pb2.ServerReflectionResponse,
        streaming=True,
    )
    for name in REFLECTION_NAMES:
        service = Service(name, (method,))
        _add(server, service.name, {method.name: streaming_handler(method, servicer.ServerReflectionInfo, streams)})


def _add(server: Any, name: str, handlers: dict[str, Any]) -> None:
    import grpc

    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    # As generated code does: grpc then tells a method by its registration instead of by its name. Not before 1.65.
    register = getattr(server, "add_registered_method_handlers", None)
    if register is not None:
        register(name, handlers)


def _missing(error: ImportError) -> DependencyError:
    return DependencyError(
        f"serving needs health checking and reflection: {error}", fix="pip install 'tidegate[cloud]'"
    )
