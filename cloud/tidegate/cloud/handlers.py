"""From a service's table of methods to grpc handlers: parse, call, answer, and translate errors, in one place.

Requests reach us as bytes and are parsed here, so that a malformed one is the caller's INVALID_ARGUMENT and not grpc's
INTERNAL.

A unary method is one of three kinds. *Quick* ones answer at once and run on the thread that reads the network.
*Begun* ones (ModelInfer) are only begun there and answered later from another thread. *Blocking* ones, such as loading
a model, take a thread of the pool. Where the direct way is not there (see `tidegate.cloud.direct`), all take one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate.cloud.access import Action
from tidegate.cloud.core import Caller
from tidegate.cloud.devices import Reception
from tidegate.cloud.direct import Begin, DirectPool, Reply, Survives
from tidegate.cloud.grpc_caller import ContextCaller
from tidegate.cloud.guard import Guard, action_of
from tidegate.cloud.stalled import StreamCaller, Streams, WatchedStream
from tidegate.cloud.work import Work
from tidegate.errors import InputError, TidegateError
from tidegate.wire.services import Method, Service
from tidegate.wire.status import code_of, text_of

COMMAND_THREADS = 4
"""Commands such as loading a model that run at the same time; more wait."""

Unary = Callable[[Any], Any]
Streaming = Callable[[Iterator[Any], Any], Iterator[Any]]

Commanded = Callable[[Any, Caller], Any]

BeginUnary = Callable[[bytes, Caller, Reply], None]
"""Begins a request, which it parses itself; must not block, and tells the outcome to the reply exactly once."""


class OpensStreams(Protocol):
    """As `Streams` does."""

    def open(self, caller: StreamCaller, action: Action) -> WatchedStream:
        """Count and watch one stream until it is over, or refuse it."""


@dataclass(frozen=True)
class Behaviours:
    """What the methods of a service do, by method name."""

    quick: Mapping[str, Unary]
    """request message to response message, at once"""
    begun: Mapping[str, BeginUnary]
    """counted as work until the answer is out; a draining server begins none"""
    blocking: Mapping[str, Commanded]
    """request message and caller to response message, in its own time"""
    turned_away: Callable[[Caller, TidegateError], None] = lambda caller, error: None
    """told of a call that would have been begun and cannot be"""


def unary_handlers(
    service: Service,
    behaviours: Behaviours,
    *,
    work: Work,
    reception: Reception,
    guard: Guard,
    direct: DirectPool | None,
) -> tuple[str, dict[str, Any]]:
    """Return a service's name and its unary handlers.

    Args:
        service: the table; each of its methods is in one of `behaviours`.
        behaviours: what the methods do.
        work: counts what was begun.
        reception: takes the reports of devices that call what is begun.
        guard: asked before anything is done.
        direct: begins calls on the reading thread; None: everything takes a thread of the pool.
    """
    handlers: dict[str, Any] = {}
    pool = ThreadPoolExecutor(COMMAND_THREADS, thread_name_prefix="tidegate-command")
    for method in service.methods:
        if method.streaming:
            continue
        if method.name in behaviours.begun:
            begin = _begun(method, behaviours, work, reception, guard)
            handlers[method.name] = _waiting(begin) if direct is None else direct.handler(begin)
        elif method.name in behaviours.quick and direct is not None:
            handlers[method.name] = direct.handler(_quick(method, behaviours.quick[method.name], guard))
        elif direct is not None:
            handlers[method.name] = direct.handler(_command(method, behaviours.blocking[method.name], guard, pool))
        else:
            handlers[method.name] = _in_pool(method, behaviours, guard)
    return service.name, handlers


def streaming_handler(method: Method, behaviour: Streaming, streams: OpensStreams, *, parsed: bool = True) -> Any:
    """Return the handler of one streaming method; each stream passes the guard, is counted and watched.

    Args:
        method: from the service's table.
        behaviour: gets parsed requests and grpc's context, yields response messages.
        streams: the server's.
        parsed: False hands requests on as bytes, to a behaviour that outlives one that is malformed.
    """
    import grpc

    def handle(raw_requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        try:
            watched = streams.open(ContextCaller(context), action_of(method.name))
            came = watched.requests(raw_requests)
            requests = (method.parsed(raw) for raw in came) if parsed else came
            yield from watched.answers(behaviour(requests, context), method.response.ByteSize)
        except TidegateError as error:
            abort(context, error)

    return grpc.stream_stream_rpc_method_handler(handle, response_serializer=method.response.SerializeToString)


def counted_handler(
    method: Method, behaviour: Callable[[Callable[[], Any], ContextCaller], Any], streams: OpensStreams
) -> Any:
    """Return the handler of a unary method that takes long: it holds a thread, and counts as a stream does.

    Its message is not taken in before there is a place for it, so what waits costs no memory here.

    Args:
        method: from the service's table.
        behaviour: gets what reads the request, to be called once, and the caller; returns the response message.
        streams: the server's.
    """
    import grpc

    def handle(raw_requests: Iterator[bytes], context: Any) -> Any:
        try:
            caller = ContextCaller(context)
            watched = streams.open(caller, action_of(method.name))
            return behaviour(lambda: only(watched.requests(raw_requests)), caller)
        except TidegateError as error:
            abort(context, error)

    def only(requests: Iterator[bytes]) -> Any:
        raw = next(requests, None)
        if raw is None:
            raise InputError("the call ended without a message", fix="send one request message")
        return method.parsed(raw)

    # On the wire a stream of one request is a unary call.
    return grpc.stream_unary_rpc_method_handler(handle, response_serializer=method.response.SerializeToString)


def watching_handler(method: Method, behaviour: Callable[[Any, Any, Any], None], streams: Streams, pool: Any) -> Any:
    """Return the handler of a method that is told of changes for as long as its caller likes. It holds no thread.

    Args:
        method: one request, many answers.
        behaviour: gets the request, grpc's context, and what sends an answer.
        streams: counts and guards them.
        pool: where the request is waited for; None: among the server's other calls.
    """
    import grpc

    def handle(raw: bytes, context: Any, send_response_callback: Any) -> None:
        try:
            streams.open(ContextCaller(context), action_of(method.name))
            behaviour(method.parsed(raw), context, send_response_callback)
        except TidegateError as error:
            abort(context, error)

    handle.experimental_non_blocking = True  # type: ignore[attr-defined]
    handle.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return grpc.unary_stream_rpc_method_handler(handle, response_serializer=method.response.SerializeToString)


def abort(context: Any, error: TidegateError) -> None:
    """End the call with the status for `error`; grpc raises to leave the handler."""
    import grpc

    context.abort(grpc.StatusCode[code_of(error)], text_of(error))


def _quick(method: Method, behaviour: Unary, guard: Guard) -> Begin:
    def begin(raw: bytes, caller: ContextCaller, reply: Reply) -> None:
        try:
            answer = behaviour(_guarded(method, raw, caller, guard)).SerializeToString()
        except TidegateError as error:
            reply(None, error)
            return
        reply(answer, None)

    return begin


def _command(method: Method, behaviour: Commanded, guard: Guard, pool: ThreadPoolExecutor) -> Begin:
    def obey(request: Any, caller: ContextCaller, reply: Reply) -> None:
        with Survives(reply):
            try:
                answer = behaviour(request, caller).SerializeToString()
            except TidegateError as error:
                reply(None, error)
                return
            reply(answer, None)

    def begin(raw: bytes, caller: ContextCaller, reply: Reply) -> None:
        try:
            request = _guarded(method, raw, caller, guard)
        except TidegateError as error:
            reply(None, error)
            return
        pool.submit(obey, request, caller, reply)

    return begin


def _begun(method: Method, behaviours: Behaviours, work: Work, reception: Reception, guard: Guard) -> Begin:
    behaviour = behaviours.begun[method.name]

    def begin(raw: bytes, caller: ContextCaller, reply: Reply) -> None:
        try:
            guard.at_the_door(caller, method.name)
            work.enter()
            caller.when_over(work.leave)
            reception.greet(caller.headers, caller.context)
        except TidegateError as error:
            behaviours.turned_away(caller, error)
            reply(None, error)
            return
        behaviour(raw, caller, reply)

    return begin


def _waiting(begin: Begin) -> Any:
    """Return a handler for a pool thread, which waits for the reply."""
    import grpc

    def handle(raw: bytes, context: Any) -> bytes:
        outcome: Future[bytes] = Future()

        def reply(answer: bytes | None, error: TidegateError | None) -> None:
            if error is None:
                outcome.set_result(answer or b"")
            else:
                outcome.set_exception(error)

        try:
            begin(raw, ContextCaller(context), reply)
            return outcome.result()
        except TidegateError as error:
            abort(context, error)
            raise

    return grpc.unary_unary_rpc_method_handler(handle)


def _in_pool(method: Method, behaviours: Behaviours, guard: Guard) -> Any:
    import grpc

    quick = behaviours.quick.get(method.name)

    def handle(raw: bytes, context: Any) -> Any:
        try:
            caller = ContextCaller(context)
            request = _guarded(method, raw, caller, guard)
            return behaviours.blocking[method.name](request, caller) if quick is None else quick(request)
        except TidegateError as error:
            abort(context, error)

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=method.response.SerializeToString)


def _guarded(method: Method, raw: bytes, caller: ContextCaller, guard: Guard) -> Any:
    """Return the parsed request of a caller who may make it; that of a stranger is not even parsed."""
    guard.at_the_door(caller, method.name)
    request = method.parsed(raw)
    guard.check_call(caller, method.name, getattr(request, "name", "") or getattr(request, "model_name", ""))
    return request
