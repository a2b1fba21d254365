"""The caller's trace goes with each call, by a server that notes the headers of whatever it is asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tidegate.client import AsyncClient, Client, Recording
from tidegate.errors import DependencyError, TidegateError

SPAN = SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C,
    0x00F067AA0BA902B7,
    is_remote=False,
    trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "x1")]),
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
SILENCE = np.zeros(1600, np.int16)


class Notes(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Notes method and headers of each call, and has no method."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        headers = {str(key): str(value) for key, value in handler_call_details.invocation_metadata}
        self.calls.append((handler_call_details.method.rpartition("/")[2], headers))


@pytest.fixture
def noted() -> Iterator[tuple[str, Notes]]:
    notes = Notes()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((notes,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", notes
    finally:
        server.stop(0).wait()


@pytest.fixture
def current_span() -> Iterator[None]:
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(SPAN)))
    try:
        yield
    finally:
        context.detach(token)


METHODS = ["BatchRecognize", "ModelInfer", "ModelStreamInfer", "Recognize", "ServerLive", "StreamingRecognize"]


def ask_everything(target: str) -> None:
    with Client(target, token="secret", check_inputs=False, timeout_s=60) as client:
        for call in (
            client.live,
            lambda: client.infer("m", {"x": SILENCE}),
            lambda: client.recognize(sample_rate_hz=16_000),
            lambda: client.recognize_recording(SILENCE, sample_rate_hz=16_000),
            lambda: list(client.recognize_batch([Recording("r", SILENCE)], sample_rate_hz=16_000)),
        ):
            with pytest.raises(DependencyError):
                call()
        with client.infer_stream() as stream, pytest.raises(DependencyError):
            stream.receive(timeout_s=60)


async def ask_everything_in_asyncio(target: str) -> None:
    async def batch(client: AsyncClient) -> None:
        async for _ in client.recognize_batch([Recording("r", SILENCE)], sample_rate_hz=16_000):
            pass

    # Of a stream that is refused at once, grpc.aio now and then loses the status and says INTERNAL.
    async with AsyncClient(target, token="secret", check_inputs=False, timeout_s=60) as client:
        for call in (
            client.live(),
            client.infer("m", {"x": SILENCE}),
            client.recognize(sample_rate_hz=16_000),
            client.recognize_recording(SILENCE, sample_rate_hz=16_000),
            batch(client),
        ):
            with pytest.raises(TidegateError):
                await call
        async with client.infer_stream() as stream:
            with pytest.raises(TidegateError):
                await stream.receive(timeout_s=60)


@pytest.mark.usefixtures("current_span")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_current_span_goes_with_every_call(noted: tuple[str, Notes], asynchronous: bool) -> None:
    target, notes = noted
    if asynchronous:
        asyncio.run(ask_everything_in_asyncio(target))
    else:
        ask_everything(target)
    assert sorted(method for method, _ in notes.calls) == METHODS
    for _, headers in notes.calls:
        assert headers["traceparent"] == TRACEPARENT
        assert headers["tracestate"] == "vendor=x1"
        assert headers["authorization"] == "Bearer secret"


def test_without_a_span_nothing_is_sent(noted: tuple[str, Notes]) -> None:
    target, notes = noted
    ask_everything(target)
    assert sorted(method for method, _ in notes.calls) == METHODS
    assert not [headers for _, headers in notes.calls if "traceparent" in headers]


def test_a_process_without_traces_does_not_import_them() -> None:
    program = f"""
import sys
from tidegate.client import Client
from {TidegateError.__module__} import {TidegateError.__name__}
with Client("127.0.0.1:1") as client:
    try:
        client.live()
    except {TidegateError.__name__}:
        print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
