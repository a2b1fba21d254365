"""The client: health, metadata, inference and streaming recognition on one connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.client.answer import check_expected, latest_in
from tidegate.client.connection import Connection
from tidegate.client.streaming import RecognizeStream
from tidegate.errors import ConfigError, TidegateError
from tidegate.wire.pairing import SignalPath
from tidegate.wire.report import Headers, Latest

LARGEST_MESSAGE_BYTES = 64 * 2**20


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
    properties: dict[str, str]


class Client:
    """One connection to a server of the Open Inference Protocol. Safe to use from several threads.

    Every call has a deadline. A server that cannot be reached is an UnavailableError at once, not at the deadline.

        with Client("127.0.0.1:8001") as client:
            outputs = client.infer("mlp", {"x": np.zeros((1, 64), np.float32)})
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 5.0,
        maximum_message_bytes: int = LARGEST_MESSAGE_BYTES,
        report: Callable[[], Headers] | None = None,
    ) -> None:
        """Prepare a connection; the first call opens it.

        Args:
            target: HOST:PORT.
            timeout_s: deadline of each call that states none.
            maximum_message_bytes: largest message that is sent or accepted.
            report: asked before each inference and each stream for the headers that say what runs on this device;
                see tidegate.edge.update.report. The server's answer to it is `latest`.

        Raises:
            ConfigError: the address or the timeout cannot be meant.
            DependencyError: grpcio is not installed.
        """
        if not timeout_s > 0:
            raise ConfigError(f"timeout_s is {timeout_s}; expected more than 0", fix="give a time in seconds")
        self._connection = Connection(target, maximum_message_bytes=maximum_message_bytes)
        self._timeout_s = timeout_s
        self._report = report
        self._latest: Latest | None = None

    @property
    def latest(self) -> Latest | None:
        """The newest release for this device that the server named last; None before, and without a report.

        Nothing signed it: it says that a check of the channel is worthwhile, and no more.
        """
        return self._latest

    @property
    def target(self) -> str:
        """The server's address as it was given."""
        return self._connection.target

    def live(self) -> bool:
        """Return whether the server process answers.

        Raises:
            UnavailableError: it cannot be reached.
        """
        from tidegate.wire import messages

        return bool(self._call("ServerLive", messages.ServerLiveRequest()).live)

    def ready(self) -> bool:
        """Return whether all models are loaded and the server takes requests; false while it drains.

        Raises:
            UnavailableError: it cannot be reached.
        """
        from tidegate.wire import messages

        return bool(self._call("ServerReady", messages.ServerReadyRequest()).ready)

    def model_ready(self, name: str, version: str = "") -> bool:
        """Return whether a model is ready; an unknown model or version is not.

        Raises:
            UnavailableError: the server cannot be reached.
        """
        from tidegate.wire import messages

        return bool(self._call("ModelReady", messages.ModelReadyRequest(name=name, version=version)).ready)

    def server_metadata(self) -> ServerDescription:
        """Return what the server says about itself.

        Raises:
            UnavailableError: it cannot be reached.
        """
        from tidegate.wire import messages

        answer = self._call("ServerMetadata", messages.ServerMetadataRequest())
        return ServerDescription(answer.name, answer.version, tuple(answer.extensions))

    def models(self) -> tuple[ListedModel, ...]:
        """Return every version of every model that the server has.

        Raises:
            DependencyError: the server does not offer the list, which is Triton's extension of the protocol.
            UnavailableError: it cannot be reached.
        """
        from tidegate.wire import messages

        answer = self._call("RepositoryIndex", messages.RepositoryIndexRequest())
        return tuple(ListedModel(model.name, model.version, model.state == "READY") for model in answer.models)

    def model_metadata(self, name: str, version: str = "") -> ModelDescription:
        """Return a model's signature, versions and properties.

        Raises:
            NotFoundError: the server has no such model or version.
            UnavailableError: the server cannot be reached.
        """
        from tidegate.wire import messages

        answer = self._call("ModelMetadata", messages.ModelMetadataRequest(name=name, version=version))
        return ModelDescription(
            name=answer.name,
            versions=tuple(answer.versions),
            platform=answer.platform,
            signature=Signature(inputs=_specs(answer.inputs), outputs=_specs(answer.outputs)),
            properties=dict(answer.properties),
        )

    def infer(
        self,
        name: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run a model once.

        Args:
            name: model.
            inputs: array by input name; sent raw. Arrays of bytes or str objects are sent as BYTES.
            version: empty for the server's choice.
            outputs: names wanted; None for all.
            request_id: given back by the server, shown in its log.
            timeout_s: deadline of this call; None for the client's.

        Returns:
            Array by output name. The arrays share memory with the answer and are read-only.

        Raises:
            InputError: the inputs do not fit the model.
            NotFoundError: the server has no such model or version.
            ResourceError: a limit of the server, such as the message size.
            ModelError: the model failed on the server.
            UnavailableError: the server cannot be reached or went away; DeadlineError: no answer in time.
        """
        from tidegate.wire import messages
        from tidegate.wire.tensors import read_outputs, write_inputs

        request = messages.ModelInferRequest(model_name=name, model_version=version, id=request_id)
        write_inputs(request, {key: np.asarray(value) for key, value in inputs.items()})
        for output in outputs or ():
            request.outputs.add(name=output)
        return read_outputs(self._reported_call("ModelInfer", request, timeout_s))

    def recognize(
        self,
        *,
        sample_rate_hz: int,
        model: str = "",
        version: str = "",
        maximum_search_results: int = 3,
        device_bundle: str = "",
        signal_path: SignalPath | None = None,
    ) -> RecognizeStream:
        """Open a stream for speech segments and wait until the server has accepted it.

        Args:
            sample_rate_hz: rate of the audio that will be sent; the server resamples.
            model: empty for the server's speech model.
            version: empty for the server's choice.
            maximum_search_results: per segment; 0 for none.
            device_bundle: NAME VERSION of what runs on the device, for the server's records.
            signal_path: front end and prefilter of the device's bundle; a server's model that was made for others is
                refused. None: not checked here.

        Raises:
            NotFoundError: the server has no such speech model.
            InputError: the sample rate is refused.
            ResourceError: the server has all the streams that it takes.
            StateError: the device's front end or prefilter and the server's model do not belong together.
            UnavailableError: the server cannot be reached; DeadlineError: it did not answer in the client's time.
        """
        from tidegate.v1 import speech_pb2

        config = speech_pb2.StreamingConfig(
            model=model,
            model_version=version,
            encoding=speech_pb2.LINEAR16,
            sample_rate_hz=sample_rate_hz,
            maximum_search_results=maximum_search_results,
            device_bundle=device_bundle,
        )
        headers = self._report() if self._report else ()
        stream = RecognizeStream(self._connection, config, timeout_s=self._timeout_s, headers=headers)
        answered = stream.answer_headers
        self._note_latest(answered)
        try:
            check_expected(signal_path, answered, device_bundle=device_bundle, target=self.target)
        except TidegateError:
            stream.close()
            raise
        return stream

    def close(self) -> None:
        """Close the connection; calls under way end. Closing again does nothing."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, request: Any, timeout_s: float | None = None) -> Any:
        from tidegate.wire.services import OPEN_INFERENCE

        return self._connection.call(
            OPEN_INFERENCE, method, request, self._timeout_s if timeout_s is None else timeout_s
        )

    def _reported_call(self, method: str, request: Any, timeout_s: float | None) -> Any:
        """Call with the device's report, if there is one, and keep the server's answer to it."""
        from tidegate.wire.services import OPEN_INFERENCE

        if self._report is None:
            return self._call(method, request, timeout_s)
        return self._connection.call(
            OPEN_INFERENCE,
            method,
            request,
            self._timeout_s if timeout_s is None else timeout_s,
            headers=self._report(),
            on_headers=self._note_latest,
        )

    def _note_latest(self, headers: Headers) -> None:
        self._latest = latest_in(headers) or self._latest


def _specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=tensor.name, dtype=tensor.datatype, shape=tuple(tensor.shape)) for tensor in tensors)
