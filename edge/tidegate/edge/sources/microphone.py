"""A microphone, through PortAudio."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError, DependencyError, ResourceError, StateError
from tidegate.speech.pcm import mono
from tidegate.speech.resample import check_rate

POLL_S = 0.5
"""how long `chunks` waits before it looks whether the device still runs"""


@dataclass(frozen=True)
class MicrophoneAccount:
    """What was lost; all zero when the program kept up."""

    overflows: int = 0
    """times that PortAudio reported lost input"""
    dropped_samples: int = 0
    """samples that found the queue full, so the program was slower than the microphone"""


class MicrophoneSource:
    """The machine's microphone at its own rate, mixed to one channel.

    Recording runs from construction; audio waits in a queue that holds `buffer_s` seconds. When it is full, new audio
    is dropped and counted in `account`; times after a drop are early by what was dropped.

    Args:
        device: name or number as PortAudio lists it; None for the default.
        sample_rate_hz: None for the device's own rate (the gate resamples).
        block_ms: length of a chunk.
        buffer_s: what the queue holds.

    Raises:
        ConfigError: a length or rate that cannot be meant.
        DependencyError: sounddevice or the PortAudio library is not installed.
        ResourceError: no such device, or it cannot be opened. From `chunks`: it went away.
    """

    def __init__(
        self,
        device: str | int | None = None,
        *,
        sample_rate_hz: int | None = None,
        block_ms: int = 30,
        buffer_s: float = 10.0,
    ) -> None:
        if not 5 <= block_ms <= 1000 or not block_ms / 1000 <= buffer_s <= 600:
            raise ConfigError(
                f"block_ms is {block_ms} and buffer_s is {buffer_s:g}; expected 5 to 1000 ms and one block to 600 s",
                fix="use block_ms 30 and buffer_s 10",
            )
        if sample_rate_hz is not None:
            check_rate(sample_rate_hz)
        self._portaudio = _portaudio()
        self._blocks: queue.Queue[NDArray[np.float32]] = queue.Queue(maxsize=max(1, int(buffer_s * 1000 / block_ms)))
        self._overflows = 0
        self._dropped_samples = 0
        self._started = False
        self._closed = False
        self._stream = self._open(device, sample_rate_hz, block_ms)

    @property
    def sample_rate_hz(self) -> int:
        """The rate at which the device really runs."""
        return int(round(self._stream.samplerate))  # noqa: RUF046 - the device says a float

    @property
    def account(self) -> MicrophoneAccount:
        """What has been lost up to now."""
        return MicrophoneAccount(self._overflows, self._dropped_samples)

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n] in [-1, 1] until `close`."""
        if self._started or self._closed:
            raise StateError("the microphone has been read or closed already", fix="make a new MicrophoneSource")
        self._started = True
        return self._until_closed()

    def close(self) -> None:
        """Stop recording; what was recorded before is still yielded."""
        if not self._closed:
            self._closed = True
            self._stream.close()

    def _until_closed(self) -> Iterator[NDArray[np.float32]]:
        while True:
            try:
                yield self._blocks.get(timeout=0 if self._closed else POLL_S)
            except queue.Empty:
                if self._closed:
                    return
                if not self._stream.active:
                    raise ResourceError("the microphone stopped", fix="check that it is still plugged in") from None

    def _open(self, device: str | int | None, sample_rate_hz: int | None, block_ms: int) -> Any:
        try:
            own = self._portaudio.query_devices(device, "input")
            rate_hz = sample_rate_hz or round(own["default_samplerate"])
            stream = self._portaudio.InputStream(
                samplerate=rate_hz,
                blocksize=rate_hz * block_ms // 1000,
                device=device,
                # One channel where the device has one; some have only stereo inputs.
                channels=min(2, int(own["max_input_channels"])),
                dtype="float32",
                callback=self._take,
            )
            stream.start()
        except (self._portaudio.PortAudioError, ValueError) as error:
            named = "the default microphone" if device is None else f"microphone {device!r}"
            raise ResourceError(
                f"{named} cannot be opened: {error}",
                fix="plug one in, or name another: `python -m sounddevice` lists them",
            ) from error
        return stream

    def _take(self, block: NDArray[np.float32], frames: int, _time: object, status: Any) -> None:
        """Runs in PortAudio's thread: copy and return, nothing that may wait."""
        if status.input_overflow:
            self._overflows += 1
        try:
            self._blocks.put_nowait(np.clip(mono(block), -1.0, 1.0))
        except queue.Full:
            self._dropped_samples += frames


def _portaudio() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise DependencyError(
            "the microphone needs the package sounddevice, which is not installed", fix="pip install 'tidegate[mic]'"
        ) from error
    except OSError as error:
        raise DependencyError(
            f"the PortAudio library cannot be loaded: {error}",
            fix="install it (Debian: `apt install libportaudio2`); `tidegate[mic]` brings only its Python side",
        ) from error
    return sounddevice
