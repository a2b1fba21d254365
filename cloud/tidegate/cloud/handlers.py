"""From a service's table of methods to grpc handlers: parse, call, answer, and translate errors, in one place.

Requests reach us as bytes and are parsed here, so that a malformed one is the caller's INVALID_ARGUMENT and not grpc's
INTERNAL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from tidegate.cloud.devices import Reception
from tidegate.cloud.work import StreamSlots, Work
from tidegate.errors import InputError, TidegateError
from tidegate.wire.services import Method, Service
from tidegate.wire.status import code_of, text_of

Unary = Callable[[Any], Any]
Streaming = Callable[[Iterator[Any], Any], Iterator[Any]]


def unary_handlers(
    service: Service, behaviours: Mapping[str, Unary], *, work: Work, counted: frozenset[str], reception: Reception
) -> tuple[str, dict[str, Any]]:
    """Return a service's name and its unary handlers.

    Args:
        service: the table.
        behaviours: request message to response message, by method name.
        work: counts the methods in `counted`, until their answer is out.
        counted: methods that a draining server finishes, and does not begin; their callers' reports are heard.
        reception: takes the reports of devices.
    """
    import grpc

    return service.name, {
        method.name: grpc.unary_unary_rpc_method_handler(
            _unary(method, behaviours[method.name], work if method.name in counted else None, reception),
            response_serializer=method.response.SerializeToString,
        )
        for method in service.methods
    }


def streaming_handler(method: Method, behaviour: Streaming, slots: StreamSlots) -> Any:
    """Return the handler of one streaming method; each stream takes one of `slots`.

    Args:
        method: from the service's table.
        behaviour: gets parsed requests and grpc's context, yields response messages.
        slots: the server's streams.
    """
    import grpc

    def handle(raw_requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        try:
            slot = slots.take()
            _release_at_end(context, slot.release)
            yield from behaviour((_parsed(method, raw) for raw in raw_requests), context)
        except TidegateError as error:
            abort(context, error)

    return grpc.stream_stream_rpc_method_handler(handle, response_serializer=method.response.SerializeToString)


def abort(context: Any, error: TidegateError) -> None:
    """End the call with the status for `error`; grpc raises to leave the handler."""
    import grpc

    context.abort(grpc.StatusCode[code_of(error)], text_of(error))


def _unary(method: Method, behaviour: Unary, work: Work | None, reception: Reception) -> Callable[[bytes, Any], Any]:
    def handle(raw: bytes, context: Any) -> Any:
        try:
            if work is not None:
                # Released by grpc when the answer is out: at the return of this function it is not.
                _release_at_end(context, work.begin().release)
                reception.greet(context)
            return behaviour(_parsed(method, raw))
        except TidegateError as error:
            abort(context, error)

    return handle


def _release_at_end(context: Any, release: Callable[[], None]) -> None:
    if not context.add_callback(release):
        release()


def _parsed(method: Method, raw: bytes) -> Any:
    try:
        return method.request.FromString(raw)
    except DecodeError as error:
        raise InputError(
            f"{len(raw)} bytes are not a valid {method.request.DESCRIPTOR.full_name}: {error}",
            fix="encode the request with the published .proto file",
        ) from error
