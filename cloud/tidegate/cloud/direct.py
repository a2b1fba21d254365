"""Unary calls without a thread of their own: handled where grpc reads the network, answered from wherever they end.

grpc's server gives each call to a pool thread, which asks the reading thread for the message and sleeps until it is
there: three hand-overs of the interpreter's lock for a call that computes for 20 µs. grpc lets a handler name a pool of
its own (`experimental_thread_pool`). Ours asks for the message at once, on the reading thread, and begins the call
there when it arrives. The answer goes out through grpc's own code, from that thread or from any other.

This leans on names inside `grpc._server`, none of which is changed. `supported` looks whether they are there as
expected; where they are not, calls take grpc's ordinary way through its pool.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from tidegate.errors import InputError, ModelError, ResourceError, TidegateError
from tidegate.wire.status import code_of, text_of

Reply = Callable[[bytes | None, TidegateError | None], None]
"""Told exactly once, from any thread: the serialised answer, or the error."""

NO_DEADLINE_S = 1e9
"""grpc says that a call without a deadline has some 300 years left."""

_IN_POOL = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer")
_RECEIVE = ("state", "call", "request_deserializer")


class ContextCaller:
    """The caller, from grpc's servicer context."""

    __slots__ = ("_metadata", "context", "deadline_s")

    def __init__(self, context: Any) -> None:
        self.context = context
        """grpc's; only for what is not in `Caller`"""
        self._metadata: Mapping[str, str] | None = None
        left_s = context.time_remaining()
        self.deadline_s: float | None = None if left_s is None or left_s > NO_DEADLINE_S else time.monotonic() + left_s

    @property
    def peer(self) -> str:
        """Address as grpc writes it: `ipv4:127.0.0.1:40000`, `unix:`."""
        peer: str = self.context.peer()
        return peer

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text headers; of one that came twice, the last."""
        if self._metadata is None:
            self._metadata = {
                key: value for key, value in self.context.invocation_metadata() or () if isinstance(value, str)
            }
        return self._metadata

    def gone(self) -> bool:
        """Whether the call was cancelled or its connection lost."""
        return not self.context.is_active()

    def when_over(self, release: Callable[[], None]) -> None:
        """Have `release` called when the answer is out or the caller gone: when a handler returns, it is not."""
        if not self.context.add_callback(release):
            release()


class Awaiting(Protocol):
    """Ends calls whose message does not come, or whose answer is not taken."""

    def expect_message(self, call: object, cancel: Callable[[], object]) -> None:
        """A call has begun."""

    def message_came(self, call: object) -> None:
        """Its message is here, or never will be."""

    def answer_leaves(self, call: object, cancel: Callable[[], object], size_bytes: int) -> None:
        """Its answer is being sent; raises ResourceError where there is no room for it."""

    def over(self, call: object) -> None:
        """It has ended."""


Begin = Callable[[bytes, ContextCaller, Reply], None]
"""Begins a call: the message as it came, who asks, where the answer goes. Must not block."""


def supported() -> bool:
    """Say whether this version of grpcio has what the direct way needs."""
    from grpc import _server as internals
    from grpc._cython import cygrpc

    if not all(
        hasattr(internals, name)
        for name in ("_receive_message", "_unary_response_in_pool", "_select_thread_pool_for_behavior", "_Context")
    ):
        return False
    return (
        isinstance(getattr(internals, "_RECEIVE_MESSAGE_TOKEN", None), str)
        and hasattr(cygrpc, "ReceiveMessageOperation")
        and tuple(inspect.signature(internals._unary_response_in_pool).parameters) == _IN_POOL
        and tuple(inspect.signature(internals._receive_message).parameters) == _RECEIVE
    )


class DirectPool(ThreadPoolExecutor):
    """A pool without threads: what grpc submits is begun by the thread that reads the network."""

    def __init__(self, awaiting: Awaiting) -> None:
        super().__init__(1)
        from grpc import _server as internals
        from grpc._cython import cygrpc

        self._awaiting = awaiting
        self._internals = internals
        self._receive_message = cygrpc.ReceiveMessageOperation

    def handler(self, begin: Begin) -> Any:
        """Return the grpc handler of one unary method."""
        import grpc

        def behaviour(raw: bytes, context: Any) -> Any:
            raise AssertionError("a direct call never runs in a pool")

        behaviour.experimental_thread_pool = self  # type: ignore[attr-defined]
        behaviour.begin = begin  # type: ignore[attr-defined]
        return grpc.unary_unary_rpc_method_handler(behaviour)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Ask for the message of a call and return at once. grpc's lock on the call is held.

        Args:
            fn: runs a function in the call's context variables.
            args: grpc's function for pool threads, and its arguments, as `supported` has checked.
            kwargs: none.
        """
        in_pool, rpc_event, state, behaviour, *_ = args
        call = _Call()
        tag = self._internals._receive_message(state, rpc_event.call, None)

        def received(event: Any) -> Any:
            self._awaiting.message_came(rpc_event.call)
            result = tag(event)
            raw, state.request = state.request, None
            reply = partial(_reply, self._awaiting, fn, in_pool, rpc_event, state, call)
            if raw is None:
                reply(None, InputError("the call ended without a message", fix="send one request message"))
                return result
            with Survives(reply):
                behaviour.begin(raw, ContextCaller(self._internals._Context(rpc_event, state, None)), reply)
            return result

        self._awaiting.expect_message(rpc_event.call, rpc_event.call.cancel)
        state.callbacks.append(partial(self._awaiting.over, rpc_event.call))
        rpc_event.call.start_server_batch((self._receive_message(0),), received)
        state.due.add(self._internals._RECEIVE_MESSAGE_TOKEN)
        return call


class MessagePool(ThreadPoolExecutor):
    """A few threads of their own for calls with one message and many answers, none of which is waited for for ever."""

    def __init__(self, awaiting: Awaiting, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="tidegate-watch")
        self._awaiting = awaiting

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run grpc's function for pool threads; `args` as `DirectPool.submit` has them, where `supported`."""
        in_pool, rpc_event, state, behaviour, receive, *rest = args
        self._awaiting.expect_message(rpc_event.call, rpc_event.call.cancel)

        def received() -> Any:
            raw = receive()
            self._awaiting.message_came(rpc_event.call)
            return raw

        return super().submit(fn, in_pool, rpc_event, state, behaviour, received, *rest)


class Survives:
    """Keeps a defect in a handler from ending the thread that reads the network, and with it every other call."""

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None:
            return False
        threading.excepthook(threading.ExceptHookArgs((kind, error, trace, threading.current_thread())))
        self._reply(None, ModelError(f"the server failed with {kind.__name__}", fix="look into the server's log"))
        return True


class _Call(Future[Any]):
    """What grpc counts calls under way with: it asks for nothing but a word at the end, before the message can come."""

    def __init__(self) -> None:
        self._then: Callable[[Any], object] | None = None

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        self._then = fn

    def finish(self) -> None:
        """Tell grpc that the call is over."""
        if self._then is not None:
            self._then(self)


def _reply(
    awaiting: Awaiting,
    run: Callable[..., Any],
    in_pool: Callable[..., Any],
    rpc_event: Any,
    state: Any,
    call: _Call,
    answer: bytes | None,
    error: TidegateError | None,
) -> None:
    """Send the answer through grpc's own code for the end of a call."""

    def ready(raw: bytes, context: Any) -> bytes | None:
        if error is not None:
            import grpc

            context.abort(grpc.StatusCode[code_of(error)], text_of(error))
        return answer

    try:
        awaiting.answer_leaves(rpc_event.call, rpc_event.call.cancel, 0 if answer is None else len(answer))
    except ResourceError as no_room:
        error = no_room.with_traceback(None)
    run(in_pool, rpc_event, state, ready, _nothing, None, None)
    call.finish()
    if state.callbacks is None:
        # The caller had gone, and grpc's word of it came before anything was sent.
        awaiting.over(rpc_event.call)


def _nothing() -> bytes:
    return b""
