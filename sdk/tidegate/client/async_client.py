"""The client for asyncio: health, metadata, inference and streams on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from tidegate.client import calls
from tidegate.client.async_connection import AsyncConnection
from tidegate.client.async_infer_stream import AsyncInferStream
from tidegate.client.async_speech_client import AsyncSpeechClient
from tidegate.client.calls import Question, Result
from tidegate.client.channel import LARGEST_MESSAGE_BYTES, ChannelSettings
from tidegate.client.descriptions import (
    Answer,
    ListedModel,
    ModelDescription,
    Parameter,
    ServerDescription,
    read_answer,
    read_arrays,
)
from tidegate.client.requests import InferCall, Inputs, KnownModels, check_request, says_otherwise
from tidegate.client.settings import RetrySettings, TlsSettings, Token
from tidegate.errors import DependencyError, TidegateError
from tidegate.wire.report import Headers


class AsyncClient(AsyncSpeechClient):
    """`Client` for asyncio, with the same arguments, answers and errors, for one event loop.

        async with AsyncClient("127.0.0.1:8001") as client:
            outputs = await client.infer("mlp", {"x": np.zeros((1, 64), np.float32)})

    A task that is cancelled cancels its call; the server sees that nobody waits any more.
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
        """Prepare a connection; the first call opens it. Arguments and errors are those of `Client`."""
        settings = ChannelSettings(target, timeout_s, maximum_message_bytes, tls, token, retries or RetrySettings())
        super().__init__(AsyncConnection(settings), report)
        self._known = KnownModels() if check_inputs else None

    async def live(self) -> bool:
        """Return whether the server process answers."""
        return await self._ask(calls.live())

    async def ready(self) -> bool:
        """Return whether the server takes requests."""
        return await self._ask(calls.ready())

    async def model_ready(self, name: str, version: str = "") -> bool:
        """Return whether a model is ready; see `Client.model_ready`."""
        return await self._ask(calls.model_ready(name, version))

    async def server_metadata(self) -> ServerDescription:
        """Return what the server says about itself."""
        return await self._ask(calls.server_metadata())

    async def models(self) -> tuple[ListedModel, ...]:
        """Return every version of every model; see `Client.models`."""
        return await self._ask(calls.models())

    async def model_metadata(self, name: str, version: str = "") -> ModelDescription:
        """Ask for a signature, versions and properties; see `Client.model_metadata`."""
        return await self._fetch(name, version, None)

    async def infer(
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
        """Run a model once; see `Client.infer`."""
        message = await self._infer(InferCall(name, inputs, version, outputs, request_id, parameters), timeout_s)
        return read_arrays(message, self.target)

    async def infer_answer(
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
        """Run a model once; see `Client.infer_answer`."""
        message = await self._infer(InferCall(name, inputs, version, outputs, request_id, parameters), timeout_s)
        return read_answer(message, self.target)

    def infer_stream(self, *, timeout_s: float | None = None) -> AsyncInferStream:
        """Open a stream of inferences (ModelStreamInfer of Triton's extensions): cheaper for many small requests.

        Args:
            timeout_s: of the whole stream; None: it may stay open.
        """
        return AsyncInferStream(self._connection, headers=self._headers(), timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection; calls under way end. Closing again does nothing."""
        await self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _infer(self, asked: InferCall, timeout_s: float | None) -> Any:
        """Check, send, and return the ModelInferResponse."""
        deadline_s = time.monotonic() + self._timeout_s(timeout_s)
        if self._known is None:
            return await self._call_reported("ModelInfer", asked.message(), deadline_s)
        if not self._known.lets_pass(self.target, asked):
            await self._check_anew(self._known, asked, deadline_s)
        try:
            return await self._call_reported("ModelInfer", asked.message(), deadline_s)
        except TidegateError as error:
            if says_otherwise(error):
                self._known.forget(asked.name)
            raise

    async def _check_anew(self, known: KnownModels, asked: InferCall, deadline_s: float) -> None:
        """Ask what the model takes, and hold the request against it."""
        try:
            model = await self._fetch(asked.name, asked.version, deadline_s)
        except DependencyError:
            known.put(asked.name, asked.version, None)
            return
        check_request(self.target, model, asked)

    async def _fetch(self, name: str, version: str, deadline_s: float | None) -> ModelDescription:
        model = await self._ask(calls.model_metadata(name, version), deadline_s)
        if self._known is not None:
            self._known.put(name, version, model)
        return model

    async def _ask(self, question: Question[Result], deadline_s: float | None = None) -> Result:
        from tidegate.wire.services import OPEN_INFERENCE

        left_s = self._timeout_s(None) if deadline_s is None else deadline_s - time.monotonic()
        return question.read(await self._connection.call(OPEN_INFERENCE, question.method, question.request, left_s))

    async def _call_reported(self, method: str, request: Any, deadline_s: float) -> Any:
        """Call with the device's report, if there is one, and keep the server's answer to it."""
        from tidegate.wire.services import OPEN_INFERENCE

        left_s = deadline_s - time.monotonic()
        if self._report is None:
            return await self._connection.call(OPEN_INFERENCE, method, request, left_s)
        return await self._connection.call(
            OPEN_INFERENCE, method, request, left_s, headers=self._report(), on_headers=self._note_latest
        )
