"""Unary calls without a thread of their own: handled where grpc reads the network, answered from wherever they end.

grpc's server gives each call to a pool thread, which asks the reading thread for the message and sleeps until it is
there: three hand-overs of the interpreter's lock for a call that computes for 20 µs. grpc lets a handler name a pool of
its own (`experimental_thread_pool`). Ours asks for the message at once, on the reading thread, and begins the call
there when it arrives. The answer goes out through grpc's own code, from that thread or from any other.

One object is all that a call costs here: `DirectCall` is what grpc counts work under way with, the caller, and where
his answer goes.

This leans on names inside `grpc._server`, none of which is changed. `supported` looks whether they are there as
expected; where they are not, calls take grpc's ordinary way through its pool.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from tidegate.cloud.grpc_caller import ContextCaller
from tidegate.errors import InputError, ModelError, ResourceError, TidegateError
from tidegate.wire.status import code_of, text_of

Reply = Callable[[bytes | None, TidegateError | None], None]
"""Told exactly once, from any thread: the serialised answer, or the error."""

_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "_unary_response_in_pool": (
        "rpc_event",
        "state",
        "behavior",
        "argument_thunk",
        "request_deserializer",
        "response_serializer",
    ),
    "_possibly_finish_call": ("state", "token"),
    "_is_rpc_state_active": ("state",),
    "_status": ("rpc_event", "state", "serialized_response"),
    "_abort": ("state", "call", "code", "details"),
    "_select_thread_pool_for_behavior": ("behavior", "default_thread_pool"),
    "_Context": ("rpc_event", "state", "request_deserializer"),
}
"""Of grpc's functions that are called here, or whose place is taken."""

_STATE = frozenset({"callbacks", "client", "code", "condition", "details", "due"})
"""Of grpc's state of one call."""


class AwaitedCall(Protocol):
    """A call that waits for its caller: for his message, or until he has taken his answer."""

    since_s: float
    """when it began to wait, on the clock of whoever watches"""
    answered: bool
    """whether it is the answer that is waited for"""

    def cancel(self) -> object:
        """End it, from any thread."""


class Awaiting(Protocol):
    """Ends calls whose message does not come, or whose answer is not taken."""

    def expect_message(self, call: AwaitedCall) -> None:
        """A call has begun."""

    def message_came(self, call: AwaitedCall) -> None:
        """Its message is here, or never will be."""

    def answer_leaves(self, call: AwaitedCall, size_bytes: int) -> None:
        """Its answer is being sent; raises ResourceError where there is no room for it."""

    def over(self, call: AwaitedCall) -> None:
        """It has ended."""


Begin = Callable[[bytes, ContextCaller, Reply], None]
"""Begins a call: the message as it came, who asks, where the answer goes. Must not block."""


def supported() -> bool:
    """Say whether this version of grpcio has what the direct way needs."""
    from grpc import _server as internals
    from grpc._cython import cygrpc

    return (
        all(
            hasattr(internals, name) and tuple(inspect.signature(getattr(internals, name)).parameters) == parameters
            for name, parameters in _PARAMETERS.items()
        )
        and all(
            isinstance(getattr(internals, name, None), str)
            for name in ("_RECEIVE_MESSAGE_TOKEN", "_OPEN", "_CLOSED", "_CANCELLED")
        )
        and hasattr(cygrpc, "ReceiveMessageOperation")
        and vars(internals._RPCState()).keys() >= _STATE
    )


class DirectPool(ThreadPoolExecutor):
    """A pool without threads: what grpc submits is begun by the thread that reads the network."""

    def __init__(self, awaiting: Awaiting) -> None:
        super().__init__(1)
        from grpc import _server as internals
        from grpc._cython import cygrpc

        self.awaiting = awaiting
        self.internals = internals
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
        _, rpc_event, state, behaviour, *_ = args
        call = DirectCall(self, rpc_event, state, behaviour.begin)
        self.awaiting.expect_message(call)
        state.callbacks.append(call.over)
        rpc_event.call.start_server_batch((self._receive_message(0),), call.received)
        state.due.add(self.internals._RECEIVE_MESSAGE_TOKEN)
        return call


class MessagePool(ThreadPoolExecutor):
    """A few threads of their own for calls with one message and many answers, none of which is waited for for ever."""

    def __init__(self, awaiting: Awaiting, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="tidegate-watch")
        self._awaiting = awaiting

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run grpc's function for pool threads; `args` as `DirectPool.submit` has them, where `supported`."""
        in_pool, rpc_event, state, behaviour, receive, *rest = args
        awaited = _Awaited(rpc_event.call.cancel)
        self._awaiting.expect_message(awaited)

        def received() -> Any:
            raw = receive()
            self._awaiting.message_came(awaited)
            return raw

        return super().submit(fn, in_pool, rpc_event, state, behaviour, received, *rest)


class _Awaited:
    """A call of which only the message is waited for."""

    __slots__ = ("answered", "cancel", "since_s")

    def __init__(self, cancel: Callable[[], object]) -> None:
        self.cancel = cancel
        self.answered = False
        self.since_s = 0.0


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


class DirectCall(ContextCaller, Future[Any]):
    """One unary call, on its way through.

    To grpc it is a Future, which it asks for nothing but a word at the end, before the message can come.
    """

    def __init__(self, pool: DirectPool, rpc_event: Any, state: Any, begin: Begin) -> None:
        """Take what grpc knows of the call; no message is there yet."""
        ContextCaller.__init__(self, pool.internals._Context(rpc_event, state, None))
        self.since_s = 0.0
        self.answered = False
        self._pool = pool
        self._rpc_event = rpc_event
        self._grpc_state = state
        self._begin = begin
        self._then: Callable[[Any], object] | None = None

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Keep the one function that grpc counts calls with."""
        self._then = fn

    @property
    def headers(self) -> Sequence[tuple[str, str | bytes]]:
        """As they came."""
        return self._rpc_event.invocation_metadata or ()

    def gone(self) -> bool:
        """Whether the call was cancelled, its connection lost, or the answer sent."""
        return not self._pool.internals._is_rpc_state_active(self._grpc_state)

    def when_over(self, release: Callable[[], None]) -> None:
        """Have `release` called when the answer is out or the caller gone."""
        state = self._grpc_state
        state.condition.acquire()
        try:
            over = state.callbacks is None
            if not over:
                state.callbacks.append(release)
        finally:
            state.condition.release()
        if over:
            release()

    def cancel(self) -> bool:
        """End the call, from any thread."""
        self._rpc_event.call.cancel()
        return True

    def received(self, event: Any) -> Any:
        """Begin the call with its message: what grpc calls when that is here, or when none will come."""
        pool, internals, state = self._pool, self._pool.internals, self._grpc_state
        raw = event.batch_operations[0].message()
        pool.awaiting.message_came(self)
        # `with` on a condition costs more than both of these do.
        state.condition.acquire()
        try:
            if raw is None and state.client is internals._OPEN:
                state.client = internals._CLOSED
            result = internals._possibly_finish_call(state, internals._RECEIVE_MESSAGE_TOKEN)
        finally:
            state.condition.release()
        if raw is None:
            self(None, InputError("the call ended without a message", fix="send one request message"))
            return result
        with Survives(self):
            self._begin(raw, self, self)
        return result

    def __call__(self, answer: bytes | None, error: TidegateError | None) -> None:
        """Send the answer or the error through grpc's own code for the end of a call."""
        if self.answered:
            return
        self.answered = True
        internals, state, rpc_event = self._pool.internals, self._grpc_state, self._rpc_event
        try:
            self._pool.awaiting.answer_leaves(self, 0 if answer is None else len(answer))
        except ResourceError as no_room:
            error = no_room.with_traceback(None)
        if error is None:
            internals._status(rpc_event, state, answer)
        else:
            self._abort(error)
        if self._then is not None:
            self._then(self)
        if state.callbacks is None:
            # The caller had gone, and grpc's word of it came before anything was sent.
            self.over()

    def over(self) -> None:
        """Wait for nothing any more."""
        self._pool.awaiting.over(self)

    def _abort(self, error: TidegateError) -> None:
        import grpc

        state = self._grpc_state
        with state.condition:
            state.code, state.details = grpc.StatusCode[code_of(error)], text_of(error).encode()
            self._pool.internals._abort(state, self._rpc_event.call, state.code, state.details)
