"""What decides, frame by frame, whether somebody speaks."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputError

SAMPLE_RATE_HZ = 16_000
"""Every detector hears 16 kHz; the gate resamples once in front of it."""


@runtime_checkable
class Detector(Protocol):
    """A voice activity detector. tidegate.testing.detector_contract holds every detector to this."""

    @property
    def name(self) -> str:
        """The name in the registry, such as `webrtc`."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the frames."""

    @property
    def frame_samples(self) -> int:
        """Length of every frame."""

    def is_speech(self, frame: NDArray[np.int16]) -> bool:
        """Decide on the next frame, int16 [frame_samples]; the past may be remembered, the future is not known.

        Raises:
            InputError: another dtype or length.
        """

    def reset(self) -> None:
        """Forget the past: the same frames get the same decisions again."""


def check_frame(frame: NDArray[Any], frame_samples: int) -> None:
    """Refuse what is not int16 [frame_samples].

    Raises:
        InputError: another dtype or shape, or no array.
    """
    if isinstance(frame, np.ndarray) and frame.dtype == np.int16 and frame.shape == (frame_samples,):
        return
    found = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
    raise InputError(
        f"the frame is {found}; expected int16 [{frame_samples}]",
        fix="hand audio to tidegate.edge.gate.Gate, which cuts it into frames",
    )


def frame_length(frame_ms: int) -> int:
    """Return the samples of a frame at `SAMPLE_RATE_HZ`."""
    return frame_ms * SAMPLE_RATE_HZ // 1000
