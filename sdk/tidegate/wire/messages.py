"""The Open Inference Protocol's message classes, in a descriptor pool of our own.

Every client and server of the protocol registers `inference.*` in protobuf's default pool, which holds each name once:
tritonclient, kserve and mlserver cannot be imported together. A private pool lets any of them live beside us. The
classes are made at run time, so they are `Any` to a type checker.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE_NAME = "inference.GRPCInferenceService"


def descriptor_files() -> list[bytes]:
    """Return the serialised file descriptors of the protocol, for a pool or for server reflection."""
    raw = files("tidegate.wire").joinpath("open_inference.binpb").read_bytes()
    return [file.SerializeToString() for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file]


def _private_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_files():
        pool.AddSerializedFile(file)
    return pool


_POOL = _private_pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


ServerLiveRequest = _message("ServerLiveRequest")
ServerLiveResponse = _message("ServerLiveResponse")
ServerReadyRequest = _message("ServerReadyRequest")
ServerReadyResponse = _message("ServerReadyResponse")
ModelReadyRequest = _message("ModelReadyRequest")
ModelReadyResponse = _message("ModelReadyResponse")
ServerMetadataRequest = _message("ServerMetadataRequest")
ServerMetadataResponse = _message("ServerMetadataResponse")
ModelMetadataRequest = _message("ModelMetadataRequest")
ModelMetadataResponse = _message("ModelMetadataResponse")
ModelInferRequest = _message("ModelInferRequest")
ModelInferResponse = _message("ModelInferResponse")
InferParameter = _message("InferParameter")
InferTensorContents = _message("InferTensorContents")

# Triton's extensions.
ModelStreamInferResponse = _message("ModelStreamInferResponse")
ModelConfigRequest = _message("ModelConfigRequest")
ModelConfigResponse = _message("ModelConfigResponse")
ModelStatisticsRequest = _message("ModelStatisticsRequest")
ModelStatisticsResponse = _message("ModelStatisticsResponse")
RepositoryIndexRequest = _message("RepositoryIndexRequest")
RepositoryIndexResponse = _message("RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = _message("RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = _message("RepositoryModelUnloadResponse")
SystemSharedMemoryStatusRequest = _message("SystemSharedMemoryStatusRequest")
SystemSharedMemoryStatusResponse = _message("SystemSharedMemoryStatusResponse")
SystemSharedMemoryRegisterRequest = _message("SystemSharedMemoryRegisterRequest")
SystemSharedMemoryRegisterResponse = _message("SystemSharedMemoryRegisterResponse")
SystemSharedMemoryUnregisterRequest = _message("SystemSharedMemoryUnregisterRequest")
SystemSharedMemoryUnregisterResponse = _message("SystemSharedMemoryUnregisterResponse")
CudaSharedMemoryStatusRequest = _message("CudaSharedMemoryStatusRequest")
CudaSharedMemoryStatusResponse = _message("CudaSharedMemoryStatusResponse")
CudaSharedMemoryRegisterRequest = _message("CudaSharedMemoryRegisterRequest")
CudaSharedMemoryRegisterResponse = _message("CudaSharedMemoryRegisterResponse")
CudaSharedMemoryUnregisterRequest = _message("CudaSharedMemoryUnregisterRequest")
CudaSharedMemoryUnregisterResponse = _message("CudaSharedMemoryUnregisterResponse")
TraceSettingRequest = _message("TraceSettingRequest")
TraceSettingResponse = _message("TraceSettingResponse")
LogSettingsRequest = _message("LogSettingsRequest")
LogSettingsResponse = _message("LogSettingsResponse")
ModelConfig = _message("ModelConfig")
ModelStatistics = _message("ModelStatistics")
