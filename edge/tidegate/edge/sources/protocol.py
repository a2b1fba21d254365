"""What gives audio: a file, a microphone, a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class AudioSource(Protocol):
    """A stream of mono audio at one rate. tests/contract/test_sources.py holds every source to this."""

    @property
    def sample_rate_hz(self) -> int:
        """The rate of the chunks, known from construction on."""

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n] in [-1, 1], n >= 1 and free to vary, until the stream ends or `close` is called.

        Raises:
            InputError: the data is not what the format promises.
            StateError: called a second time, or after `close`.
            ResourceError: the device went away.
        """

    def close(self) -> None:
        """Release the file or device; a second call does nothing."""
