"""Call a Tidegate server, or any server of the Open Inference Protocol, from threads or from asyncio."""

from __future__ import annotations

from tidegate.client.async_client import AsyncClient
from tidegate.client.async_infer_stream import AsyncInferStream
from tidegate.client.async_recognition import AsyncRecognizeStream
from tidegate.client.client import Client
from tidegate.client.descriptions import Answer, ListedModel, ModelDescription, ServerDescription
from tidegate.client.infer_stream import InferStream
from tidegate.client.recognition import RecognizeStream
from tidegate.client.recognized import RecognizedSegment
from tidegate.client.recordings import RecognizedRecording, Recording
from tidegate.client.settings import RetrySettings, TlsSettings

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncInferStream",
    "AsyncRecognizeStream",
    "Client",
    "InferStream",
    "ListedModel",
    "ModelDescription",
    "RecognizeStream",
    "RecognizedRecording",
    "RecognizedSegment",
    "Recording",
    "RetrySettings",
    "ServerDescription",
    "TlsSettings",
]
