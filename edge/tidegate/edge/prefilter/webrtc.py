"""The WebRTC voice activity detector (Gaussian mixtures over six bands), through the package webrtcvad-wheels.

Taken as it is, it depends on the level: see `LevelNormaliser`, which stands in front of it unless `normalise` is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.prefilter.level import LevelNormaliser
from tidegate.edge.prefilter.protocol import SAMPLE_RATE_HZ, check_frame, frame_length
from tidegate.errors import ConfigError, DependencyError


@dataclass(frozen=True)
class WebrtcOptions:
    """Settings of the WebRTC detector."""

    frame_ms: int = 20
    """length of a frame: 10, 20 or 30"""
    mode: int = 1
    """0 lets the most through, 3 the least"""
    normalise: int = 1
    """1: the background is moved to `floor_dbfs` first; 0: the samples go in as they are"""
    floor_dbfs: float = -40.0
    """level to which the background is moved"""

    def __post_init__(self) -> None:
        if self.frame_ms not in (10, 20, 30):
            raise ConfigError(f"frame_ms is {self.frame_ms}; expected 10, 20 or 30", fix="use 20")
        if self.mode not in (0, 1, 2, 3):
            raise ConfigError(f"mode is {self.mode}; expected 0, 1, 2 or 3", fix="use 1; higher lets less through")
        if self.normalise not in (0, 1):
            raise ConfigError(f"normalise is {self.normalise}; expected 0 or 1", fix="use 1")
        if not -70 <= self.floor_dbfs <= -20:
            raise ConfigError(f"floor_dbfs is {self.floor_dbfs:g}; expected -70 to -20", fix="use -40")


class WebrtcDetector:
    """webrtcvad behind the Detector protocol.

    Raises:
        DependencyError: webrtcvad-wheels is not installed.
    """

    Options: ClassVar[type[WebrtcOptions]] = WebrtcOptions
    name = "webrtc"
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, options: WebrtcOptions | None = None) -> None:
        self.options = options or WebrtcOptions()
        self.frame_samples = frame_length(self.options.frame_ms)
        self._level = LevelNormaliser(self.options.floor_dbfs, self.options.frame_ms)
        self.reset()

    def is_speech(self, frame: NDArray[np.int16]) -> bool:
        """Decide on int16 [frame_samples]."""
        # The library answers a wrong length with one opaque error and misreads float buffers in silence.
        check_frame(frame, self.frame_samples)
        heard = self._level.scaled(frame) if self.options.normalise else frame
        return bool(self._vad.is_speech(heard.tobytes(), SAMPLE_RATE_HZ))

    def reset(self) -> None:
        """Forget the past; the library has no such call, so its object is made anew."""
        self._vad = _new_vad(self.options.mode)
        self._level.reset()


def _new_vad(mode: int) -> Any:
    try:
        import webrtcvad
    except ImportError as error:
        raise DependencyError(
            "the prefilter `webrtc` needs the package webrtcvad-wheels, which is not installed",
            fix="pip install 'tidegate[audio]' (the package named webrtcvad does not import beside today's setuptools)",
        ) from error
    return webrtcvad.Vad(mode)
