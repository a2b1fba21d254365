"""The client for threads: health, metadata, inference and streams on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from tidegate.client import calls
from tidegate.client.calls import Question, Result
from tidegate.client.channel import LARGEST_MESSAGE_BYTES, ChannelSettings
from tidegate.client.connection import Connection
from tidegate.client.descriptions import (
    Answer,
    ListedModel,
    ModelDescription,
    Parameter,
    ServerDescription,
    read_answer,
    read_arrays,
)
from tidegate.client.infer_stream import InferStream
from tidegate.client.requests import InferCall, Inputs, KnownModels, check_request, says_otherwise
from tidegate.client.settings import RetrySettings, TlsSettings, Token
from tidegate.client.speech_client import SpeechClient
from tidegate.errors import DependencyError, TidegateError
from tidegate.wire.report import Headers


class Client(SpeechClient):
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
        tls: TlsSettings | None = None,
        token: Token | None = None,
        retries: RetrySettings | None = None,
        check_inputs: bool = True,
        maximum_message_bytes: int = LARGEST_MESSAGE_BYTES,
        report: Callable[[], Headers] | None = None,
    ) -> None:
        """Prepare a connection; the first call opens it.

        Args:
            target: HOST:PORT, or unix:PATH.
            timeout_s: deadline of each call that states none.
            tls: encryption; None for plaintext.
            token: bearer token, or what is asked for one before each call; refused without TLS beyond this machine.
            retries: which calls are made again; None for the defaults.
            check_inputs: hold the inputs against the model's metadata before they are sent. The metadata is asked for
                once and kept; when it refuses, it is asked for again first.
            maximum_message_bytes: largest message that is sent or accepted.
            report: asked before each inference and each stream for the headers that say what runs on this device;
                see tidegate.edge.update.report. The server's answer to it is `latest`.

        Raises:
            ConfigError: the address, the timeout, the token or a TLS file cannot be meant.
            NotFoundError: a TLS file is not there.
            DependencyError: grpcio is not installed.
        """
        settings = ChannelSettings(target, timeout_s, maximum_message_bytes, tls, token, retries or RetrySettings())
        super().__init__(Connection(settings), report)
        self._known = KnownModels() if check_inputs else None

    def live(self) -> bool:
        """Return whether the server process answers. Raises UnavailableError when it cannot be reached."""
        return self._ask(calls.live())

    def ready(self) -> bool:
        """Return whether the server takes requests; false while it drains. Raises as `live` does."""
        return self._ask(calls.ready())

    def model_ready(self, name: str, version: str = "") -> bool:
        """Return whether a model is ready; an unknown one is not, or a NotFoundError, as the server has it."""
        return self._ask(calls.model_ready(name, version))

    def server_metadata(self) -> ServerDescription:
        """Return what the server says about itself. Raises UnavailableError when it cannot be reached."""
        return self._ask(calls.server_metadata())

    def models(self) -> tuple[ListedModel, ...]:
        """Return every version of every model that the server has.

        Raises:
            DependencyError: the server does not offer the list, which is Triton's extension of the protocol.
            UnavailableError: it cannot be reached.
        """
        return self._ask(calls.models())

    def model_metadata(self, name: str, version: str = "") -> ModelDescription:
        """Ask for a model's signature, versions and properties; what is kept for checks is renewed.

        Raises:
            NotFoundError: the server has no such model or version.
            UnavailableError: the server cannot be reached.
        """
        return self._fetch(name, version, None)

    def infer(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run a model once.

        Args:
            name: model.
            inputs: array by input name; sent raw. Arrays of bytes or str objects are sent as BYTES.
            version: empty for the server's choice.
            outputs: names wanted; None for all.
            request_id: given back by the server, shown in its log.
            parameters: of the request, such as Triton's `priority`.
            timeout_s: deadline of this call, the check of the inputs included; None for the client's.

        Returns:
            Array by output name. The arrays share memory with the answer and are read-only.

        Raises:
            InputError: the inputs do not fit the model.
            NotFoundError: the server has no such model or version.
            ResourceError: a limit of the server, such as the message size.
            ModelError: the model failed on the server, or its answer breaks the protocol.
            UnavailableError: the server cannot be reached or went away; DeadlineError: no answer in time.
        """
        message = self._infer(InferCall(name, inputs, version, outputs, request_id, parameters), timeout_s)
        return read_arrays(message, self.target)

    def infer_answer(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Run a model once and return the outputs with the version that ran, the id and the answer's parameters.

        Arguments and errors are those of `infer`.
        """
        message = self._infer(InferCall(name, inputs, version, outputs, request_id, parameters), timeout_s)
        return read_answer(message, self.target)

    def infer_stream(self, *, timeout_s: float | None = None) -> InferStream:
        """Open a stream of inferences (ModelStreamInfer of Triton's extensions): cheaper for many small requests.

        Args:
            timeout_s: of the whole stream; None: it may stay open.
        """
        return InferStream(self._connection, headers=self._headers(), timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connection; calls under way end. Closing again does nothing."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, asked: InferCall, timeout_s: float | None) -> Any:
        """Check, send, and return the ModelInferResponse."""
        deadline_s = time.monotonic() + self._timeout_s(timeout_s)
        if self._known is None:
            return self._call_reported("ModelInfer", asked.message(), deadline_s)
        if not self._known.lets_pass(self.target, asked):
            self._check_anew(self._known, asked, deadline_s)
        try:
            return self._call_reported("ModelInfer", asked.message(), deadline_s)
        except TidegateError as error:
            if says_otherwise(error):
                self._known.forget(asked.name)
            raise

    def _check_anew(self, known: KnownModels, asked: InferCall, deadline_s: float) -> None:
        """Ask what the model takes, and hold the request against it."""
        try:
            model = self._fetch(asked.name, asked.version, deadline_s)
        except DependencyError:
            known.put(asked.name, asked.version, None)
            return
        check_request(self.target, model, asked)

    def _fetch(self, name: str, version: str, deadline_s: float | None) -> ModelDescription:
        model = self._ask(calls.model_metadata(name, version), deadline_s)
        if self._known is not None:
            self._known.put(name, version, model)
        return model

    def _ask(self, question: Question[Result], deadline_s: float | None = None) -> Result:
        from tidegate.wire.services import OPEN_INFERENCE

        left_s = self._timeout_s(None) if deadline_s is None else deadline_s - time.monotonic()
        return question.read(self._connection.call(OPEN_INFERENCE, question.method, question.request, left_s))

    def _call_reported(self, method: str, request: Any, deadline_s: float) -> Any:
        """Call with the device's report, if there is one, and keep the server's answer to it."""
        from tidegate.wire.services import OPEN_INFERENCE

        left_s = deadline_s - time.monotonic()
        if self._report is None:
            return self._connection.call(OPEN_INFERENCE, method, request, left_s)
        return self._connection.call(
            OPEN_INFERENCE, method, request, left_s, headers=self._report(), on_headers=self._note_latest
        )
