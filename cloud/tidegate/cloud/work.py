"""What a server has under way: counted, limited, and waited for when it drains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tidegate.errors import ResourceError, UnavailableError

LOOK_INTERVAL_S = 0.001


class Work:
    """Counts requests and speech segments under way; while draining it lets none begin."""

    def __init__(self) -> None:
        # To take a plain lock costs a fifth of what its condition's `with` does.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._under_way = 0
        self._computing = 0
        self._draining = False
        self._compute = Computing(self)

    @property
    def draining(self) -> bool:
        """Whether new work is refused."""
        return self._draining

    @property
    def under_way(self) -> int:
        """Pieces of work begun and not released."""
        return self._under_way

    @property
    def computing(self) -> int:
        """Threads inside a model now. A caller may be gone, which ends its work, while its model still runs."""
        return self._computing

    def compute(self) -> Computing:
        """Return a context that marks that this thread is inside a model."""
        return self._compute

    def begin(self) -> Token:
        """Begin one piece of work; release the token when its answer is out.

        Raises:
            UnavailableError: the server is draining.
        """
        self.enter()
        return Token(self.leave)

    def enter(self) -> None:
        """Begin one piece of work, for a caller that is certain to call `leave` exactly once.

        Raises:
            UnavailableError: the server is draining.
        """
        with self._lock:
            if self._draining:
                raise UnavailableError("the server is shutting down", fix="call another server, or this one later")
            self._under_way += 1

    def leave(self) -> None:
        """End one piece of work."""
        with self._lock:
            self._under_way -= 1
            # Nobody waits before the drain.
            if self._draining:
                self._changed.notify_all()

    def drain(self) -> None:
        """Refuse new work from now on."""
        with self._changed:
            self._draining = True

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; return whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, timeout_s)

    def wait_until_computed(self, timeout_s: float) -> bool:
        """Wait until no thread is inside a model; return whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._computing == 0, timeout_s)

    def _enter_model(self) -> None:
        with self._lock:
            self._computing += 1

    def _leave_model(self) -> None:
        with self._lock:
            self._computing -= 1
            if self._draining:
                self._changed.notify_all()


class Computing:
    """Counts the threads inside its block; one object serves all of them."""

    __slots__ = ("_enter", "_leave")

    def __init__(self, work: Work) -> None:
        self._enter = work._enter_model
        self._leave = work._leave_model

    def __enter__(self) -> None:
        self._enter()

    def __exit__(self, *error: object) -> None:
        self._leave()


def wait_until_told(users: Callable[[], int], timeout_s: float) -> bool:
    """Wait until no request uses a model; return whether that came about in time.

    Observers are told after the answer is out, when the work counts as ended; the version is used until they know.
    """
    end_s = time.monotonic() + timeout_s
    while users():
        if time.monotonic() > end_s:
            return False
        time.sleep(LOOK_INTERVAL_S)
    return True


class StreamSlots:
    """Limits how many streams are open, since each holds a thread for its whole life."""

    def __init__(self, maximum_streams: int) -> None:
        self._maximum = maximum_streams
        self._lock = threading.Lock()
        self._open = 0

    @property
    def open(self) -> int:
        """Streams open now."""
        return self._open

    def take(self) -> Token:
        """Take a slot; release the token when the stream is over.

        Raises:
            ResourceError: all are taken.
        """
        with self._lock:
            if self._open >= self._maximum:
                raise ResourceError(
                    f"all {self._maximum} streams of this server are open",
                    fix="close streams that are not needed, try later, or serve with more streams",
                )
            self._open += 1
        return Token(self._give_back)

    def _give_back(self) -> None:
        with self._lock:
            self._open -= 1


class Token:
    """A claim that is released once, however often and from whichever thread `release` is called."""

    def __init__(self, on_release: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._on_release: Callable[[], None] | None = on_release

    def release(self) -> None:
        """Give the claim back."""
        with self._lock:
            on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release()
