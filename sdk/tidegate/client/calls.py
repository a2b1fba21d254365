"""The unary calls that ask and change nothing: method, request, and how the answer is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tidegate.client.descriptions import (
    ListedModel,
    ModelDescription,
    ServerDescription,
    read_live,
    read_model,
    read_models,
    read_ready,
    read_server,
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Question(Generic[Result]):
    """One call of the Open Inference Protocol."""

    method: str
    request: Any
    read: Callable[[Any], Result]


def live() -> Question[bool]:
    """Ask whether the process answers."""
    from tidegate.wire import messages

    return Question("ServerLive", messages.ServerLiveRequest(), read_live)


def ready() -> Question[bool]:
    """Ask whether the server takes requests."""
    from tidegate.wire import messages

    return Question("ServerReady", messages.ServerReadyRequest(), read_ready)


def model_ready(name: str, version: str) -> Question[bool]:
    """Ask whether a model takes requests."""
    from tidegate.wire import messages

    return Question("ModelReady", messages.ModelReadyRequest(name=name, version=version), read_ready)


def server_metadata() -> Question[ServerDescription]:
    """Ask what the server is."""
    from tidegate.wire import messages

    return Question("ServerMetadata", messages.ServerMetadataRequest(), read_server)


def models() -> Question[tuple[ListedModel, ...]]:
    """Ask for every version of every model."""
    from tidegate.wire import messages

    return Question("RepositoryIndex", messages.RepositoryIndexRequest(), read_models)


def model_metadata(name: str, version: str) -> Question[ModelDescription]:
    """Ask for a model's signature, versions and properties."""
    from tidegate.wire import messages

    return Question("ModelMetadata", messages.ModelMetadataRequest(name=name, version=version), read_model)
