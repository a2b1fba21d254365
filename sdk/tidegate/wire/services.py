"""The services as tables of methods: a server makes its handlers from them, a client its stubs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from tidegate.errors import InputError
from tidegate.v1 import admin_pb2, speech_pb2
from tidegate.wire import messages

ACCEPTED_HEADER = "tidegate-accepted"
"""Response header of a recognition stream, sent once its config is accepted; its value is MODEL VERSION."""


@dataclass(frozen=True)
class Method:
    """One method of a service."""

    name: str
    request: Any
    """message class"""
    response: Any
    """message class"""
    streaming: bool = False
    """a stream in both directions; otherwise one request, one answer"""

    def parsed(self, raw: bytes) -> Any:
        """Return a request as its message.

        Raises:
            InputError: the bytes are none.
        """
        try:
            return self.request.FromString(raw)
        except DecodeError as error:
            raise InputError(
                f"{len(raw)} bytes are not a valid {self.request.DESCRIPTOR.full_name}: {error}",
                fix="encode the request with the published .proto file",
            ) from error


@dataclass(frozen=True)
class Service:
    """A service by its full name."""

    name: str
    methods: tuple[Method, ...]

    def path(self, method: Method) -> str:
        """Return the method's path on the wire."""
        return f"/{self.name}/{method.name}"

    def method(self, name: str) -> Method:
        """Return the method called `name`, which must be one of the table's."""
        return next(method for method in self.methods if method.name == name)


OPEN_INFERENCE = Service(
    messages.SERVICE_NAME,
    (
        Method("ServerLive", messages.ServerLiveRequest, messages.ServerLiveResponse),
        Method("ServerReady", messages.ServerReadyRequest, messages.ServerReadyResponse),
        Method("ModelReady", messages.ModelReadyRequest, messages.ModelReadyResponse),
        Method("ServerMetadata", messages.ServerMetadataRequest, messages.ServerMetadataResponse),
        Method("ModelMetadata", messages.ModelMetadataRequest, messages.ModelMetadataResponse),
        Method("ModelInfer", messages.ModelInferRequest, messages.ModelInferResponse),
        Method("ModelStreamInfer", messages.ModelInferRequest, messages.ModelStreamInferResponse, streaming=True),
        Method("ModelConfig", messages.ModelConfigRequest, messages.ModelConfigResponse),
        Method("ModelStatistics", messages.ModelStatisticsRequest, messages.ModelStatisticsResponse),
        Method("RepositoryIndex", messages.RepositoryIndexRequest, messages.RepositoryIndexResponse),
        Method("RepositoryModelLoad", messages.RepositoryModelLoadRequest, messages.RepositoryModelLoadResponse),
        Method("RepositoryModelUnload", messages.RepositoryModelUnloadRequest, messages.RepositoryModelUnloadResponse),
        Method(
            "SystemSharedMemoryStatus",
            messages.SystemSharedMemoryStatusRequest,
            messages.SystemSharedMemoryStatusResponse,
        ),
        Method(
            "SystemSharedMemoryRegister",
            messages.SystemSharedMemoryRegisterRequest,
            messages.SystemSharedMemoryRegisterResponse,
        ),
        Method(
            "SystemSharedMemoryUnregister",
            messages.SystemSharedMemoryUnregisterRequest,
            messages.SystemSharedMemoryUnregisterResponse,
        ),
        Method(
            "CudaSharedMemoryStatus", messages.CudaSharedMemoryStatusRequest, messages.CudaSharedMemoryStatusResponse
        ),
        Method(
            "CudaSharedMemoryRegister",
            messages.CudaSharedMemoryRegisterRequest,
            messages.CudaSharedMemoryRegisterResponse,
        ),
        Method(
            "CudaSharedMemoryUnregister",
            messages.CudaSharedMemoryUnregisterRequest,
            messages.CudaSharedMemoryUnregisterResponse,
        ),
        Method("TraceSetting", messages.TraceSettingRequest, messages.TraceSettingResponse),
        Method("LogSettings", messages.LogSettingsRequest, messages.LogSettingsResponse),
    ),
)

SPEECH = Service(
    "tidegate.v1.Speech",
    (
        Method(
            "StreamingRecognize",
            speech_pb2.StreamingRecognizeRequest,
            speech_pb2.StreamingRecognizeResponse,
            streaming=True,
        ),
        Method("Recognize", speech_pb2.RecognizeRequest, speech_pb2.RecognizeResponse),
        Method("BatchRecognize", speech_pb2.BatchRecognizeRequest, speech_pb2.BatchRecognizeResponse, streaming=True),
    ),
)

ADMIN = Service(
    "tidegate.v1.Admin",
    (
        Method("ListLabels", admin_pb2.ListLabelsRequest, admin_pb2.ListLabelsResponse),
        Method("SetLabel", admin_pb2.SetLabelRequest, admin_pb2.LabelMove),
        Method("RollBackLabel", admin_pb2.LabelRequest, admin_pb2.LabelMove),
        Method("RemoveLabel", admin_pb2.LabelRequest, admin_pb2.LabelMove),
    ),
)
