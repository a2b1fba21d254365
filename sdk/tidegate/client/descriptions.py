"""What a server says about itself, its models and an answer, and how that is read from its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import InputError, ModelError, TidegateError

Parameter = bool | int | float | str


@dataclass(frozen=True)
class ServerDescription:
    """What a server says about itself."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class ListedModel:
    """One version of a model on a server."""

    name: str
    version: str
    ready: bool


@dataclass(frozen=True)
class ModelDescription:
    """What a server says about one model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    signature: Signature
    """names, datatypes and shapes; `finite` is not told over the wire and stays at its default"""
    properties: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """One answer of a model, with what came beside the arrays."""

    model: str
    version: str
    """that ran; empty when the server does not say"""
    request_id: str
    outputs: dict[str, NDArray[Any]]
    """by name; they share memory with the message and are read-only"""
    parameters: dict[str, Parameter]
    error: TidegateError | None = None
    """only in a stream: this request failed, and the stream goes on"""

    @property
    def is_final(self) -> bool:
        """Whether no more answers to the same request follow; a model that gives one answer each says nothing."""
        return bool(self.parameters.get("triton_final_response", True))


def read_live(answer: Any) -> bool:
    """Read a ServerLiveResponse."""
    return bool(answer.live)


def read_ready(answer: Any) -> bool:
    """Read a ServerReadyResponse or ModelReadyResponse."""
    return bool(answer.ready)


def read_server(answer: Any) -> ServerDescription:
    """Read a ServerMetadataResponse."""
    return ServerDescription(answer.name, answer.version, tuple(answer.extensions))


def read_models(answer: Any) -> tuple[ListedModel, ...]:
    """Read a RepositoryIndexResponse."""
    return tuple(ListedModel(model.name, model.version, model.state == "READY") for model in answer.models)


def read_model(answer: Any) -> ModelDescription:
    """Read a ModelMetadataResponse."""
    return ModelDescription(
        name=answer.name,
        versions=tuple(answer.versions),
        platform=answer.platform,
        signature=Signature(inputs=_specs(answer.inputs), outputs=_specs(answer.outputs)),
        properties=dict(answer.properties),
    )


def read_answer(message: Any, target: str) -> Answer:
    """Read a ModelInferResponse, raw or typed as the server chose.

    Raises:
        ModelError: its tensors are not what it says they are.
    """
    parameters = {name: _value(parameter) for name, parameter in message.parameters.items()}
    return Answer(message.model_name, message.model_version, message.id, read_arrays(message, target), parameters)


def read_arrays(message: Any, target: str) -> dict[str, NDArray[Any]]:
    """Return the outputs of a ModelInferResponse by name.

    Raises:
        ModelError: they are not what the message says they are.
        DependencyError: there is BF16 among them, and ml_dtypes is not installed.
    """
    from tidegate.wire.tensors import read_outputs

    try:
        return read_outputs(message)
    except InputError as error:
        # The few answers that need it are put right only here, so that the others pay nothing for it.
        if not _put_right(message):
            raise _broken(message, target, error) from error
    try:
        return read_outputs(message)
    except InputError as error:
        raise _broken(message, target, error) from error


def _put_right(message: Any) -> bool:
    """Drop empty typed contents beside raw ones, which MLServer sends; return whether there were any."""
    changed = False
    for output in message.outputs:
        if message.raw_output_contents and output.HasField("contents") and not output.contents.ByteSize():
            output.ClearField("contents")
            changed = True
    return changed


def _broken(message: Any, target: str, error: InputError) -> ModelError:
    return ModelError(
        f"{target}: the answer of model {message.model_name!r} breaks the protocol: {error.message}",
        fix="correct the server",
    )


def _value(parameter: Any) -> Parameter:
    kind = parameter.WhichOneof("parameter_choice")
    value: Parameter = getattr(parameter, kind) if kind else ""
    return value


def _specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=tensor.name, dtype=tensor.datatype, shape=tuple(tensor.shape)) for tensor in tensors)
