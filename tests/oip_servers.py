"""A small gRPC server of the Open Inference Protocol that does what a test tells it, for tests of the client.

It is a real server on a real port, and none of Tidegate's: what foreign servers send, and failures at a stated moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tidegate.wire import messages

SERVICE = messages.SERVICE_NAME

Unary = Callable[[Any, grpc.ServicerContext], Any]
Streaming = Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]]


@contextmanager
def oip_server(
    unary: Mapping[str, Unary],
    streams: Mapping[str, Streaming] | None = None,
    *,
    credentials: Any = None,
    address: str = "127.0.0.1:0",
) -> Iterator[str]:
    """Run a server with these methods of the inference service until the block ends; gives its address."""
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=getattr(messages, f"{name}Request").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name, behaviour in unary.items()
    }
    for name, behaviour in (streams or {}).items():
        handlers[name] = grpc.stream_stream_rpc_method_handler(
            behaviour,
            request_deserializer=messages.ModelInferRequest.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    server.start()
    try:
        yield address if address.startswith("unix:") else f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def echo(request: Any, context: Any = None) -> Any:
    """Answer with the inputs as outputs, raw, and the version `3`."""
    response = messages.ModelInferResponse(model_name=request.model_name, model_version="3", id=request.id)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    response.raw_output_contents.extend(request.raw_input_contents)
    return response


def described(*inputs: tuple[str, str, list[int]]) -> Unary:
    """Return a ModelMetadata that states these inputs, and an output `y`."""

    def answer(request: Any, context: Any) -> Any:
        response = messages.ModelMetadataResponse(name=request.name, versions=["3"])
        for name, datatype, shape in inputs:
            response.inputs.add(name=name, datatype=datatype, shape=shape)
        return response

    return answer
