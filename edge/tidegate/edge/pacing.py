"""A recording played at its own speed, so that streaming can be seen and measured as with a microphone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.sources.protocol import AudioSource

CHUNK_MS = 32


class PacedSource:
    """Wraps a source; each chunk comes when its last sample would have been recorded, in pieces of `CHUNK_MS`."""

    def __init__(
        self,
        source: AudioSource,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the source to pace.

        Args:
            source: read and closed by this one.
            clock: monotonic, in seconds.
            sleep: waits that many seconds.
        """
        self._source = source
        self._clock = clock
        self._sleep = sleep

    @property
    def sample_rate_hz(self) -> int:
        """That of the source."""
        return self._source.sample_rate_hz

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the source's audio at its own speed; a late reader gets what is due at once."""
        return self._paced(self._source.chunks())

    def _paced(self, chunks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        size = max(1, CHUNK_MS * self.sample_rate_hz // 1000)
        started_s = self._clock()
        played = 0
        for chunk in chunks:
            for first in range(0, len(chunk), size):
                piece = chunk[first : first + size]
                played += len(piece)
                early_s = started_s + played / self.sample_rate_hz - self._clock()
                if early_s > 0:
                    self._sleep(early_s)
                yield piece

    def close(self) -> None:
        """Close the source."""
        self._source.close()
