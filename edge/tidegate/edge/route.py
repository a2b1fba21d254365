"""Who decides what a segment says: the model on this device, or a server (tidegate.edge.cloud_route).

Both stand behind one Protocol that takes the gate's events and gives results back in the order of the segments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from tidegate.edge.device import DeviceModel, Utterance, extended
from tidegate.edge.endpoint import SegmentEnded, SegmentEvent
from tidegate.edge.results import SegmentResult


class Recogniser(Protocol):
    """Turns the gate's events into results."""

    def handle(self, event: SegmentEvent) -> None:
        """Take the next event; never waits for a server."""

    def ready(self) -> list[SegmentResult]:
        """Return the results that are there, in order of segments."""

    def finish(self) -> list[SegmentResult]:
        """Wait for the results of all segments that have ended and return them."""

    def change(self, device: DeviceModel | None) -> None:
        """Take another model for the segments that start from now on."""

    @property
    def is_idle(self) -> bool:
        """Whether no segment waits for its result, so that only the present model is in use."""

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the network."""

    def close(self) -> None:
        """Let go of the stream; the models belong to the caller."""


class EdgeRecogniser:
    """The model on this device, run as soon as a segment ends."""

    bytes_sent = 0

    def __init__(self, device: DeviceModel, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the model; `clock` is monotonic, in seconds."""
        self._device = device
        self._clock = clock
        self._utterance: Utterance | None = None
        self._results: list[SegmentResult] = []

    def handle(self, event: SegmentEvent) -> None:
        """Collect audio; at the end of a segment, run the model."""
        self._utterance = extended(self._utterance, event, self._clock())
        if isinstance(event, SegmentEnded):
            self._results.append(self._device.recognise(self._utterance))
            self._utterance = None

    def ready(self) -> list[SegmentResult]:
        """Return the results since the last call."""
        results, self._results = self._results, []
        return results

    def finish(self) -> list[SegmentResult]:
        """Return the results since the last call."""
        return self.ready()

    def change(self, device: DeviceModel | None) -> None:
        """Take another model; only between segments."""
        assert device is not None
        assert self._utterance is None
        self._device = device

    @property
    def is_idle(self) -> bool:
        """Whether no segment is open: an ended one is decided at once."""
        return self._utterance is None

    def close(self) -> None:
        """Nothing to let go of."""
