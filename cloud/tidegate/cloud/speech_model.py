"""A speech model as streams call it: one window at a time, through the queue that calls for tensors go through as well.

Each window is one request of the model's scheduler. So a long segment never holds the model for longer than a window,
windows of several streams may share a run where the model bears it, and ModelStatistics counts them. Streams take turns
in front of that queue (`Turns`): however many of them talk, only a few windows are ever ahead of a call for tensors.

A version that was replaced in the middle of a stream has no scheduler any more. What still holds it runs it directly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from numpy.typing import NDArray

from tidegate.bundle import Manifest
from tidegate.cloud.batching import Batcher
from tidegate.cloud.core import LOCAL, Caller
from tidegate.cloud.queueing import Arrays, Job
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_stages import Stages
from tidegate.errors import TidegateError
from tidegate.speech import Transcriber


class Turns:
    """How many streams may have a window in each model's queue at once; the others wait before it, as they came."""

    def __init__(self, places: int) -> None:
        """Allow `places` at a time for each model."""
        self._places = places
        self._lock = threading.Lock()
        self._by_batcher: WeakKeyDictionary[Batcher, threading.BoundedSemaphore] = WeakKeyDictionary()

    def of(self, batcher: Batcher) -> AbstractContextManager[Any]:
        """Return what to enter around one request of a model."""
        with self._lock:
            found = self._by_batcher.get(batcher)
            if found is None:
                found = self._by_batcher[batcher] = threading.BoundedSemaphore(self._places)
            return found


class SegmentModel:
    """One version, held for one segment. Used by one thread.

    with SegmentModel(served, turns, computing) as model: Transcriber(model)
    """

    def __init__(
        self,
        served: ServedModel,
        turns: Turns,
        computing: Callable[[], AbstractContextManager[None]],
        caller: Caller = LOCAL,
    ) -> None:
        """Hold the version, so that it is not unloaded before `release`.

        Args:
            served: a speech model.
            turns: of the server.
            computing: entered around a run that does not go through the scheduler, which enters it itself.
            caller: whose deadline counts, and who may go away.
        """
        self.served = served
        self._turns = turns.of(served.batcher)
        self._computing = computing
        self._caller = caller
        self._held = served.usage.begin()
        self._inputs = [spec.name for spec in served.signature.inputs]
        self.stages = Stages()
        """where the segment's time goes; the front end, decoding and search are noted by whoever does them"""

    @property
    def manifest(self) -> Manifest | None:
        """The bundle's."""
        return self.served.manifest

    @property
    def variant_id(self) -> str:
        """What runs."""
        return self.served.model.variant_id

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model once, after whoever came before.

        Raises:
            ModelError: the runtime failed.
            ResourceError: the queue is full.
            DeadlineError, UnavailableError: the caller's time ran out, or he is gone.
        """
        if not self._held:
            began_ns = time.monotonic_ns()
            with self._computing():
                outputs = self.served.model.run(feeds)
            self.stages.ran(began_ns, began_ns)
            return outputs
        arrays = tuple([feeds[name] for name in self._inputs])
        outcome: list[tuple[Arrays | None, TidegateError | None]] = []
        batcher = self.served.batcher
        job = Job(
            arrays,
            # Equal to the key of a call for tensors of the same shape, so that the two may share a run.
            key=tuple([array.shape[1:] if batcher.batched else array.shape for array in arrays]),
            rows=arrays[0].shape[0] if batcher.batched else 1,
            finish=lambda found, error: outcome.append((found, error)),
            began_ns=time.monotonic_ns(),
            deadline_s=self._caller.deadline_s,
            gone=self._caller.gone,
        )
        with self._turns:
            batcher.run(job)
        ((found, error),) = outcome
        if error is not None:
            raise error
        assert found is not None
        self.stages.ran(job.began_ns, job.started_ns)
        return dict(zip(self.served.output_names, found, strict=True))

    def transcriber(self) -> Transcriber:
        """Return the decoder in front of this model."""
        return Transcriber(self)

    def release(self) -> None:
        """Let the version go. Doing so again does nothing."""
        if self._held:
            self._held = False
            self.served.usage.end()

    def __enter__(self) -> SegmentModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
