"""A segment recognised while it is still being spoken.

Each window of the decoder is given to the model once, as soon as all of its audio is there. So a result on the way
costs no further call of the model, and at the end only the windows that reach over the segment's last sample are left.
The transcript at the end is that of `Transcriber.transcribe` for the whole segment.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputError, StateError
from tidegate.speech.transcriber import Transcriber
from tidegate.speech.transcript import Transcript


class IncrementalTranscription:
    """One segment. Used by one thread."""

    def __init__(self, transcriber: Transcriber) -> None:
        """Begin a segment without audio.

        Args:
            transcriber: runs the model and decodes.
        """
        self._transcriber = transcriber
        rate_hz = transcriber.sample_rate_hz
        self._window = transcriber.settings.window_ms * rate_hz // 1000
        self._hop = transcriber.settings.hop_ms * rate_hz // 1000
        self._samples = 0
        # The first window is centred on the first sample: half of it lies before the segment.
        self._ahead = np.zeros(self._window // 2, np.float32)
        self._rows: list[NDArray[np.float32]] = []
        self._done = 0
        self._finished = False

    @property
    def duration_s(self) -> float:
        """Length of the audio so far."""
        return self._samples / self._transcriber.sample_rate_hz

    def push(self, samples: NDArray[np.float32]) -> int:
        """Take audio, and run the model over the windows that it completes.

        Args:
            samples: float32 [n], any n, mono in [-1, 1] at the transcriber's rate.

        Returns:
            How many windows that were.

        Raises:
            InputError: not float32 with one axis, NaN or infinite.
            ModelError: the model failed.
            StateError: after `finish`.
        """
        self._check_open()
        if samples.dtype != np.float32 or samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(
                f"audio is {samples.dtype} {list(samples.shape)}; expected finite float32 [n]",
                fix="mix to one channel and scale to [-1, 1], as tidegate.speech.pcm does",
            )
        if not len(samples):
            return 0
        self._samples += len(samples)
        self._ahead = np.concatenate([self._ahead, samples])
        complete = max(0, (len(self._ahead) - self._window) // self._hop + 1)
        # Only whole calls: a model with a fixed batch would have to be called for the rest again.
        complete -= complete % self._transcriber.windows_per_call
        self._run(complete)
        return complete

    def so_far(self) -> Transcript | None:
        """Return what the windows so far say; None before the first one. Times count from the segment's beginning."""
        if not self._rows:
            return None
        return self._transcriber.decode(np.concatenate(self._rows), duration_s=self.duration_s)

    def finish(self) -> Transcript:
        """Run the windows that are left and return the segment's transcript.

        Raises:
            InputError: there was no audio.
            ModelError: the model failed.
            StateError: called twice.
        """
        self._check_open()
        if not self._samples:
            raise InputError("the segment is empty, expected one sample or more", fix="pass the audio of a segment")
        self._finished = True
        left = math.ceil(self._samples / self._hop) + 1 - self._done
        missing = (left - 1) * self._hop + self._window - len(self._ahead)
        self._ahead = np.concatenate([self._ahead, np.zeros(max(0, missing), np.float32)])
        self._run(left)
        return self._transcriber.decode(np.concatenate(self._rows), duration_s=self.duration_s)

    def _run(self, count: int) -> None:
        """Run the next `count` windows, whose audio is there, and let go of what no later window needs."""
        if not count:
            return
        slid = np.lib.stride_tricks.sliding_window_view(self._ahead, self._window)[:: self._hop][:count]
        step = self._transcriber.windows_per_call
        for first in range(0, count, step):
            self._rows.append(self._transcriber.call(slid[first : first + step]))
        self._done += count
        self._ahead = self._ahead[count * self._hop :].copy()

    def _check_open(self) -> None:
        if self._finished:
            raise StateError("the segment was finished", fix="make a new IncrementalTranscription for a new segment")
