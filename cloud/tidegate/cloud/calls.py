"""What a request is, who makes it, who may refuse it and who learns of it; the nouns of `tidegate.cloud.core`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

from tidegate.cloud.repository import ServedModel
from tidegate.errors import TidegateError


class Caller(Protocol):
    """Whoever a request comes from, as its transport knows him."""

    @property
    def deadline_s(self) -> float | None:
        """Until when he waits, on `time.monotonic()`; None for ever."""

    @property
    def peer(self) -> str:
        """His address, as the transport writes it."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Headers, with names in lower case."""

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""


@dataclass(frozen=True)
class LocalCaller:
    """A call from inside the process, which is waited for."""

    deadline_s: float | None = None
    peer: str = "local"
    metadata: Mapping[str, str] = field(default_factory=dict)

    def gone(self) -> bool:
        """Never."""
        return False


LOCAL = LocalCaller()


class Request(NamedTuple):
    """One inference that is asked for."""

    model: str
    feeds: Mapping[str, NDArray[Any]]
    """array by input name"""
    version: str = ""
    """version or label; empty for the server's choice"""
    wanted: Sequence[str] = ()
    """outputs to return, in this order; empty for all"""
    id: str = ""
    priority: int = 0
    """1 comes first; 0 for the model's default"""
    timeout_s: float = 0.0
    """longest wait in the queue; 0: the queue's own"""


class Inference(NamedTuple):
    """The answer to one request."""

    served: ServedModel
    outputs: dict[str, NDArray[Any]]
    queue_ns: int = 0
    """from the request's arrival in the core to the start of its run"""
    compute_ns: int = 0
    """from there to the end of the run, with joining and splitting"""


Finish = Callable[[Inference | None, TidegateError | None], None]
"""Told exactly once, from any thread: the answer, or the error."""


class Admission(Protocol):
    """Decides whether a request may be made at all."""

    def admit(self, caller: Caller, model: str) -> None:
        """Return to let it pass. Called on the transport's thread, so it must not wait.

        Raises:
            TidegateError: what the caller is told.
        """


class Observer(Protocol):
    """Learns of every request that ended."""

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """Take note; must not raise and must not wait. `took_ns` counts from the request's arrival in the core."""


@runtime_checkable
class DoorObserver(Protocol):
    """An Observer that also learns of requests which were answered without having been begun."""

    def turned_away(self, caller: Caller, transport: str, error: TidegateError) -> None:
        """Take note of a request that cannot be read or was not let in; must not raise and must not wait."""
