"""Servers that are wrong in one way each: a real server behind a proxy that spoils what goes through it.

A fault sees each call as raw bytes, may change the request, the answer or the status, and leaves the rest alone. So
every check of the suite can be shown to fail, and to fail for its own reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc

from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE

TIMEOUT_S = 30


class Outcome(NamedTuple):
    """How a call ended."""

    code: str
    details: str = ""
    raw: bytes = b""


Forward = Callable[[bytes], Outcome]
"""Sends a request on to the real server."""

Fault = Callable[[str, bytes, Forward], Outcome]
"""Handles one call: the method's name without its service, the request, the way to the real server."""

StreamFault = Callable[[str, list[bytes]], list[bytes]]
"""Changes the answers of a stream, by the method's name."""


@contextmanager
def wrong_server(target: str, fault: Fault, stream_fault: StreamFault = lambda name, raws: raws) -> Iterator[str]:
    """Run a proxy in front of `target` that handles every unary call by `fault`; yield its address."""
    with grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)]) as channel:

        def unary(path: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
            def forward(raw: bytes) -> Outcome:
                try:
                    return Outcome("OK", raw=channel.unary_unary(path)(raw, timeout=TIMEOUT_S))
                except grpc.RpcError as error:
                    return Outcome(error.code().name, error.details() or "")

            def handle(raw: bytes, context: grpc.ServicerContext) -> bytes:
                outcome = fault(path.rpartition("/")[2], raw, forward)
                if outcome.code != "OK":
                    context.abort(grpc.StatusCode[outcome.code], outcome.details)
                return outcome.raw

            return handle

        def stream(path: str) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
            def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
                answers = channel.stream_stream(path)(requests, timeout=TIMEOUT_S)
                try:
                    yield from stream_fault(path.rpartition("/")[2], list(answers))
                except grpc.RpcError as error:
                    context.abort(error.code(), error.details())

            return handle

        class Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: Any) -> Any:
                name = details.method.rpartition("/")[2]
                if name in ("ModelStreamInfer", "ServerReflectionInfo"):
                    return grpc.stream_stream_rpc_method_handler(stream(details.method))
                return grpc.unary_unary_rpc_method_handler(unary(details.method))

        server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((Everything(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


def changing(method: str, change: Callable[[Any], object]) -> Fault:
    """Return a fault that changes the good answers of one method."""

    def fault(name: str, raw: bytes, forward: Forward) -> Outcome:
        outcome = forward(raw)
        if name != method or outcome.code != "OK":
            return outcome
        response = OPEN_INFERENCE.method(name).response.FromString(outcome.raw)
        change(response)
        return Outcome("OK", raw=response.SerializeToString())

    return fault


def answering(method: str, outcome: Outcome) -> Fault:
    """Return a fault that answers one method always the same."""
    return lambda name, raw, forward: outcome if name == method else forward(raw)


def forgetting(method: str, field: str) -> Fault:
    """Return a fault that loses a field of every request of one method, as a server does that does not read it."""

    def fault(name: str, raw: bytes, forward: Forward) -> Outcome:
        if name == method:
            request = OPEN_INFERENCE.method(name).request.FromString(raw)
            request.ClearField(field)
            raw = request.SerializeToString()
        return forward(raw)

    return fault


def refusing(when: Callable[[Any], bool], outcome: Outcome) -> Fault:
    """Return a fault that refuses good inference requests."""

    def fault(name: str, raw: bytes, forward: Forward) -> Outcome:
        if name != "ModelInfer":
            return forward(raw)
        found = forward(raw)
        return outcome if found.code == "OK" and when(messages.ModelInferRequest.FromString(raw)) else found

    return fault
