"""Streams and calls that do not go on: counted per client, watched, and ended.

A stream holds a thread for its whole life, and a call whose message never comes holds a place among those that the
server admits. Neither costs its client anything, so both have an end.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from tidegate.cloud.access import Action
from tidegate.cloud.allocator import FreeMemory
from tidegate.cloud.core import Caller
from tidegate.cloud.direct import AwaitedCall
from tidegate.cloud.guard import Guard
from tidegate.cloud.in_flight import COUNTED_BYTES, BytesInFlight
from tidegate.cloud.limits import Safety
from tidegate.cloud.work import StreamSlots, Token
from tidegate.errors import ResourceError

log = logging.getLogger(__name__)

Message = TypeVar("Message")

WATCH_INTERVAL_S = 0.5


class StreamCaller(Caller, Protocol):
    """The caller of a stream, whose transport can tell when it is over and can end it."""

    @property
    def context(self) -> Any:
        """With a method `cancel`, from any thread."""

    def when_over(self, release: Callable[[], None]) -> None:
        """Have `release` called when the stream is over."""


class ClientStreams:
    """Limits how many streams each client has open. Bounded: who has none open is not remembered."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, client: str) -> Token:
        """Count one stream; release the token when it is over.

        Raises:
            ResourceError: the client has as many as it may.
        """
        with self._lock:
            if self._open[client] >= self._maximum:
                raise ResourceError(
                    f"{client} has {self._maximum} streams open, which is as many as one client may",
                    fix="close streams that are not needed",
                )
            self._open[client] += 1
        return Token(lambda: self._give_back(client))

    def _give_back(self, client: str) -> None:
        with self._lock:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]


class WatchedStream:
    """What is known of one stream's progress; told by its handler's threads, read by the watch."""

    def __init__(
        self,
        client: str,
        cancel: Callable[[], object],
        still_allowed: Callable[[], bool],
        *,
        idle_s: float,
        slow_s: float,
        clock: Callable[[], float],
        unread: BytesInFlight,
    ) -> None:
        self._client = client
        self._unread = unread
        self._cancel = cancel
        self._still_allowed = still_allowed
        self._idle_s = idle_s
        self._slow_s = slow_s
        self._clock = clock
        self._moved_at_s = clock()
        self._answering_since_s: float | None = None

    def requests(self, messages: Iterator[Message]) -> Iterator[Message]:
        """Pass the client's messages on and note that they came."""
        for message in messages:
            self._moved_at_s = self._clock()
            yield message

    def answers(
        self, messages: Iterator[Message], size_bytes: Callable[[Message], int] | None = None
    ) -> Iterator[Message]:
        """Pass answers on; grpc asks for the next one when the client's window has taken this one.

        Args:
            messages: the answers.
            size_bytes: of one on the wire; None: they are small.

        Raises:
            ResourceError: one is larger than all answers together may be.
        """
        for message in messages:
            self._answering_since_s = self._clock()
            if size_bytes is not None:
                size = size_bytes(message)
                self._unread.check(size)
                self._unread.hold(self, size, self._cancel)
            yield message
            self.nothing_leaves()
            self._answering_since_s = None
            self._moved_at_s = self._clock()

    def nothing_leaves(self) -> None:
        """Count no answer of this stream any more."""
        self._unread.release(self)

    def judge(self, now_s: float) -> bool:
        """End the stream if it has to be; return whether it was ended."""
        reason = self._reason(now_s)
        if reason:
            log.info("a stream of %s was ended: %s", self._client, reason)
            self._cancel()
        return bool(reason)

    def _reason(self, now_s: float) -> str:
        answering_since_s = self._answering_since_s
        if answering_since_s is not None:
            waits = now_s - answering_since_s > self._slow_s
            return f"its answer was not read for {self._slow_s:g} s" if waits else ""
        if now_s - self._moved_at_s > self._idle_s:
            return f"nothing was sent for {self._idle_s:g} s"
        return "" if self._still_allowed() else "its key does not count any more"


class Watch:
    """A thread that ends streams and calls which do not go on."""

    def __init__(self, safety: Safety, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare; `start` begins."""
        self.unread = BytesInFlight(safety.maximum_unread_bytes)
        """answers on their way, of every transport"""
        self._safety = safety
        self._clock = clock
        self._streams: dict[int, WatchedStream] = {}
        self._calls: set[AwaitedCall] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidegate-limits", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Calls that wait for their caller."""
        return len(self._calls)

    def stream(
        self, client: str, cancel: Callable[[], object], still_allowed: Callable[[], bool], *, may_idle: bool
    ) -> tuple[WatchedStream, Token]:
        """Watch a stream until the token is released."""
        watched = WatchedStream(
            client,
            cancel,
            still_allowed,
            idle_s=math.inf if may_idle else self._safety.idle_stream_s,
            slow_s=self._safety.slow_reader_s,
            clock=self._clock,
            unread=self.unread,
        )
        place = id(watched)
        self._streams[place] = watched

        def forget() -> None:
            self._streams.pop(place, None)
            watched.nothing_leaves()

        return watched, Token(forget)

    def expect_message(self, call: AwaitedCall) -> None:
        """Give a call `message_timeout_s` for its message; `message_came` ends the wait. Costs well below 1 µs."""
        call.since_s = self._clock()
        self._calls.add(call)

    def message_came(self, call: AwaitedCall) -> None:
        """Wait no more for a call's message."""
        self._calls.discard(call)

    def answer_leaves(self, call: AwaitedCall, size_bytes: int = 0) -> None:
        """Give a caller `slow_reader_s` to take his answer; `over` ends the wait.

        Raises:
            ResourceError: it is larger than all answers together may be.
        """
        call.answered = True
        call.since_s = self._clock()
        self._calls.add(call)
        if size_bytes >= COUNTED_BYTES:
            self.unread.check(size_bytes)
            self.unread.hold(call, size_bytes, call.cancel)

    def over(self, call: AwaitedCall) -> None:
        """Wait for nothing of this call any more."""
        self._calls.discard(call)
        self.unread.release(call)

    def look(self) -> None:
        """End what has to be ended now."""
        now_s = self._clock()
        for place, watched in list(self._streams.items()):
            if watched.judge(now_s):
                self._streams.pop(place, None)
        for call in list(self._calls):
            limit_s = self._safety.slow_reader_s if call.answered else self._safety.message_timeout_s
            if now_s - call.since_s > limit_s:
                self._calls.discard(call)
                call.cancel()

    def _run(self) -> None:
        memory = FreeMemory()
        while not self._stopping.wait(WATCH_INTERVAL_S):
            self.look()
            memory.look(self._clock(), quiet=not self.unread.bytes)


class Streams:
    """Opens streams: asks the guard, counts them, and has them watched."""

    def __init__(
        self, slots: StreamSlots, guard: Guard, by_client: ClientStreams, watch: Watch, *, may_idle: bool = False
    ) -> None:
        """Join the parts.

        Args:
            slots: of the whole server.
            guard: who may open one.
            by_client: of each client.
            watch: ends those that do not go on.
            may_idle: whether they may be silent for ever, as subscriptions are.
        """
        self._slots = slots
        self._guard = guard
        self._by_client = by_client
        self._watch = watch
        self._may_idle = may_idle

    def open(self, caller: StreamCaller, action: Action) -> WatchedStream:
        """Count and watch one stream until it is over.

        Raises:
            AccessError: the caller may not.
            ResourceError: too many are open, or he comes too often.
        """
        client, still_allowed = self._guard.open_stream(caller, action)
        caller.when_over(self._slots.take().release)
        caller.when_over(self._by_client.take(client).release)
        watched, token = self._watch.stream(client, caller.context.cancel, still_allowed, may_idle=self._may_idle)
        caller.when_over(token.release)
        return watched
