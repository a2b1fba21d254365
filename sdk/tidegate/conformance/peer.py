"""The server under test, by raw bytes: what is sent need not be a message, and what comes back need not be one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from tidegate.client.channel import ChannelSettings, credentials, import_grpc
from tidegate.client.settings import RetrySettings, TlsSettings, Token, authorization
from tidegate.client.tls_trouble import Troubleshooter
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE

UNREADABLE = "UNREADABLE"
"""In place of a status code: the call succeeded, and its answer is not the message that belongs there."""

MESSAGE_LIMIT_BYTES = 64 * 2**20

CONNECT_TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """What came back."""

    code: str
    """name of the gRPC status code, or UNREADABLE"""
    details: str = ""
    response: Any = None
    """parsed; None unless the code is OK"""

    @property
    def ok(self) -> bool:
        """Whether there is a response."""
        return self.code == "OK"

    def __str__(self) -> str:
        details = " ".join(self.details.split())
        return f"{self.code}: {details[:90]}" if details else self.code


class Peer:
    """A connection to the server. A context manager."""

    def __init__(
        self, target: str, *, timeout_s: float = 30.0, tls: TlsSettings | None = None, token: Token | None = None
    ) -> None:
        """Open the connection lazily.

        Args:
            target: HOST:PORT, or unix:PATH.
            timeout_s: for each call.
            tls: encryption; None for plaintext.
            token: bearer token, sent with each call.

        Raises:
            ConfigError: the address, the timeout, the token or a TLS file cannot be meant.
            NotFoundError: a TLS file is not there.
            DependencyError: grpcio is not installed.
        """
        self._settings = ChannelSettings(target, timeout_s, MESSAGE_LIMIT_BYTES, tls, token, RetrySettings())
        self._troubleshooter = Troubleshooter(target, tls)
        self._grpc = import_grpc()
        self.target = target
        self.timeout_s = timeout_s
        self.metadata = authorization(token)
        """sent with each call"""
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
            ("grpc.max_send_message_length", -1),
        ]
        if tls is None:
            self._channel = self._grpc.insecure_channel(target, options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self._channel = self._grpc.secure_channel(target, credentials(self._grpc, tls), options)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def connect(self) -> None:
        """See whether the server is there, and lets the token in.

        Raises:
            UnavailableError: nobody answers, or the two ends do not agree on encryption.
            AccessError: the server asks for a key, and this is none.
        """
        grpc = self._grpc
        call = self._channel.unary_unary(f"/{OPEN_INFERENCE.name}/ServerMetadata")
        try:
            call(b"", timeout=min(self.timeout_s, CONNECT_TIMEOUT_S), metadata=self.metadata, wait_for_ready=False)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                trouble = self._troubleshooter.trouble(code.name, error.details() or "")
                raise self._settings.error(code, error.details(), trouble) from error
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                raise self._settings.error(code, error.details()) from error

    def call(self, method: str, request: Any = b"", *, timeout_s: float | None = None, gzip: bool = False) -> Answer:
        """Call one method of the protocol's service; a request of bytes is sent as it is."""
        response = OPEN_INFERENCE.method(method).response
        raw = self.call_raw(f"/{OPEN_INFERENCE.name}/{method}", _bytes(request), timeout_s=timeout_s, gzip=gzip)
        return _parsed(raw, response)

    def call_raw(self, path: str, raw: bytes, *, timeout_s: float | None = None, gzip: bool = False) -> Answer:
        """Call any unary method; the response stays bytes."""
        compression = self._grpc.Compression.Gzip if gzip else None
        try:
            answer = self._channel.unary_unary(path)(
                raw, timeout=timeout_s or self.timeout_s, compression=compression, metadata=self.metadata
            )
        except self._grpc.RpcError as error:
            return Answer(error.code().name, error.details() or "")
        return Answer("OK", response=answer)

    def begin(self, request: Any, *, timeout_s: float | None = None) -> Any:
        """Begin a ModelInfer and return grpc's future of it."""
        return self._channel.unary_unary(f"/{OPEN_INFERENCE.name}/ModelInfer").future(
            _bytes(request), timeout=timeout_s or self.timeout_s, metadata=self.metadata
        )

    def finished(self, future: Any) -> Answer:
        """Wait for what `begin` began."""
        try:
            raw = future.result()
        except self._grpc.RpcError as error:
            return Answer(error.code().name, error.details() or "")
        except self._grpc.FutureCancelledError:
            return Answer("CANCELLED")
        return _parsed(Answer("OK", response=raw), messages.ModelInferResponse)

    def stream(self, requests: Sequence[Any]) -> list[Answer]:
        """Send requests on one ModelStreamInfer and return what came back, at most one answer each.

        A stream that ended with an error gives it as the last answer.
        """
        path = f"/{OPEN_INFERENCE.name}/ModelStreamInfer"
        return self.stream_raw(path, [_bytes(request) for request in requests], messages.ModelStreamInferResponse)

    def stream_raw(self, path: str, raws: Sequence[bytes], response: Any) -> list[Answer]:
        """Send messages on any stream of both directions; a `response` of None leaves answers as bytes."""
        answers: list[Answer] = []
        call = self._channel.stream_stream(path)(iter(raws), timeout=self.timeout_s, metadata=self.metadata)
        try:
            for raw in _first(call, len(raws)):
                answer = Answer("OK", response=raw)
                answers.append(answer if response is None else _parsed(answer, response))
        except self._grpc.RpcError as error:
            answers.append(Answer(error.code().name, error.details() or ""))
        finally:
            call.cancel()
        return answers


def _first(answers: Any, count: int) -> Iterator[bytes]:
    for _, raw in zip(range(count), answers, strict=False):
        yield raw


def _bytes(request: Any) -> bytes:
    raw: bytes = request if isinstance(request, bytes) else request.SerializeToString()
    return raw


def _parsed(answer: Answer, response: Any) -> Answer:
    if not answer.ok:
        return answer
    try:
        return Answer("OK", response=response.FromString(answer.response))
    except DecodeError as error:
        return Answer(UNREADABLE, f"not a {response.DESCRIPTOR.name}: {error}")
