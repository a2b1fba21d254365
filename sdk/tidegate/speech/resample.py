"""Change the sample rate of a stream, chunk by chunk.

The filter is libsoxr's (quality "HQ"): linear phase, its delay already taken out, so sample n of the output lies at
time n / rate_out, as sample n of the input lies at n / rate_in. How the stream is cut into chunks changes nothing, to
the last bit; tests/unit/test_resample.py holds the library to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError, DependencyError, StateError
from tidegate.speech.pcm import check_audio

MINIMUM_RATE_HZ = 1_000
MAXIMUM_RATE_HZ = 768_000


def check_rate(sample_rate_hz: int, what: str = "sample rate") -> int:
    """Return a sample rate that can be meant.

    Raises:
        ConfigError: not a whole number of hertz between 1 000 and 768 000.
    """
    whole = isinstance(sample_rate_hz, int | np.integer) and not isinstance(sample_rate_hz, bool)
    if not whole or not MINIMUM_RATE_HZ <= sample_rate_hz <= MAXIMUM_RATE_HZ:
        raise ConfigError(
            f"{what} is {sample_rate_hz!r} Hz; expected a whole number from {MINIMUM_RATE_HZ} to {MAXIMUM_RATE_HZ}",
            fix="give the rate the audio was recorded at, such as 16000 or 44100",
        )
    return int(sample_rate_hz)


class StreamResampler:
    """One stream of mono float32 from `rate_in_hz` to `rate_out_hz`; passes it through when the rates are equal.

    Over the whole stream n samples in give round(n * rate_out / rate_in) samples out; while it runs the output lags
    by the filter's length.

    Raises:
        ConfigError: a rate that cannot be meant.
        DependencyError: the rates differ and soxr is not installed.
    """

    def __init__(self, rate_in_hz: int, rate_out_hz: int) -> None:
        self.rate_in_hz = check_rate(rate_in_hz)
        self.rate_out_hz = check_rate(rate_out_hz)
        self._stream = None if self.rate_in_hz == self.rate_out_hz else _soxr_stream(self.rate_in_hz, self.rate_out_hz)
        self._finished = False

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take float32 [n], any n; return what is ready, float32 [m], m may be 0.

        Raises:
            InputError: not float32 with one axis.
            StateError: after `finish`.
        """
        check_audio(samples)
        self._check_open()
        return samples if self._stream is None else self._resampled(samples, last=False)

    def finish(self) -> NDArray[np.float32]:
        """Return the rest of the stream, float32 [m]. Nothing can be pushed after it.

        Raises:
            StateError: called twice.
        """
        self._check_open()
        self._finished = True
        rest = np.zeros(0, np.float32)
        return rest if self._stream is None else self._resampled(rest, last=True)

    def _resampled(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        assert self._stream is not None
        return np.asarray(self._stream.resample_chunk(samples, last=last), dtype=np.float32)

    def _check_open(self) -> None:
        if self._finished:
            raise StateError("the resampler has been finished", fix="make a new StreamResampler for a new stream")


def _soxr_stream(rate_in_hz: int, rate_out_hz: int) -> Any:
    try:
        import soxr
    except ImportError as error:
        raise DependencyError(
            f"{rate_in_hz} Hz audio must be resampled to {rate_out_hz} Hz and soxr is not installed",
            fix="pip install 'tidegate[audio]', or give audio at the model's rate",
        ) from error
    return soxr.ResampleStream(rate_in_hz, rate_out_hz, num_channels=1, dtype="float32", quality="HQ")
