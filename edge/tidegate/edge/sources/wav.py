"""WAV files: PCM of 8, 16, 24 and 32 bits and IEEE float, any rate, any number of channels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.sources.riff import ByteReader, WaveFormat, WaveHeader, read_header
from tidegate.errors import InputError, NotFoundError, ResourceError, StateError
from tidegate.speech.pcm import check_finite, mono

CHUNK_FRAMES = 4096
"""samples of each channel read at a time"""

LARGEST_FLOAT = 4.0
"""Float files may overshoot full scale a little (12 dB allowed here) and are clipped, as a recorder would. Beyond it
the file is scaled to something else, such as -32768 … 32767."""


class WavSource:
    """A WAV file, read in chunks and mixed to one channel by the mean.

    The header and the promised length are checked at construction, before any audio is processed.

    Raises:
        NotFoundError: no such file.
        InputError: a directory, not a WAV, cut off, no audio, or a codec that is not PCM or IEEE float. From
            `chunks` also: NaN, infinity or float samples far beyond full scale.
        ResourceError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._origin = str(path)
        self._file, self._header = _open(self.path, self._origin)
        self._started = False

    @property
    def sample_rate_hz(self) -> int:
        """The file's own rate."""
        return self._header.format.sample_rate_hz

    @property
    def channels(self) -> int:
        """Channels in the file, before the mix."""
        return self._header.format.channels

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the file once as float32 [n] in [-1, 1]."""
        if self._started or self._file.closed:
            raise StateError(f"{self._origin} has been read or closed already", fix="open a new WavSource")
        self._started = True
        return self._read()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> WavSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Iterator[NDArray[np.float32]]:
        try:
            yield from wave_chunks(self._file, self._header, self._origin)
        except OSError as error:
            raise ResourceError(f"{self._origin} cannot be read: {error}", fix="check the disk") from error
        finally:
            self._file.close()


def wave_chunks(stream: ByteReader, header: WaveHeader, origin: str) -> Iterator[NDArray[np.float32]]:
    """Yield the samples that follow a header as mono float32 [n] in [-1, 1], n at most `CHUNK_FRAMES`.

    Raises:
        InputError: fewer bytes than promised, an end inside a sample, no audio at all, or samples that are no audio.
    """
    wave_format = header.format
    left = header.data_bytes
    position = 0
    carry = b""
    while left is None or left > 0:
        wanted = CHUNK_FRAMES * wave_format.frame_bytes - len(carry)
        data = stream.read(wanted if left is None else min(wanted, left))
        if not data:
            break
        left = None if left is None else left - len(data)
        whole = carry + data
        frames = len(whole) // wave_format.frame_bytes
        carry = whole[frames * wave_format.frame_bytes :]
        if frames:
            yield _samples(whole[: frames * wave_format.frame_bytes], wave_format, position, origin)
            position += frames
    if left:
        assert header.data_bytes is not None
        raise _cut_off(origin, header.data_bytes, header.data_bytes - left)
    if carry:
        raise InputError(
            f"{origin} ends inside a sample: {len(carry)} of {wave_format.frame_bytes} bytes",
            fix="the file is cut off; copy or export it again",
        )
    if position == 0:
        raise InputError(f"{origin} holds no audio: its header is followed by 0 samples", fix="record it again")


def _open(path: Path, origin: str) -> tuple[BinaryIO, WaveHeader]:
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        # ValueError: a path with a NUL character.
        raise NotFoundError(f"{origin}: no such file", fix="check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{origin} is a directory; expected a WAV file", fix="name one file in it") from error
    except OSError as error:
        raise ResourceError(f"{origin} cannot be opened: {error.strerror}", fix="check its permissions") from error
    try:
        status = os.fstat(file.fileno())
        total_bytes = status.st_size if _is_regular(status) else None
        header = read_header(file, origin, total_bytes)
        _check_length(header, total_bytes, origin)
    except BaseException:
        file.close()
        raise
    return file, header


def _is_regular(status: os.stat_result) -> bool:
    import stat

    return stat.S_ISREG(status.st_mode)


def _check_length(header: WaveHeader, total_bytes: int | None, origin: str) -> None:
    if total_bytes is None:
        return
    found = total_bytes - header.data_offset
    if header.data_bytes is not None and found < header.data_bytes:
        raise _cut_off(origin, header.data_bytes, found)
    if 0 in (header.data_bytes, found):
        raise InputError(f"{origin} holds no audio: its header is followed by 0 samples", fix="record it again")


def _cut_off(origin: str, promised: int, found: int) -> InputError:
    return InputError(
        f"{origin} is cut off: its header promises {promised} bytes of audio, {found} are there",
        fix="copy or export it again; to use what is there, rewrite it with `ffmpeg -i INPUT OUTPUT.wav`",
    )


def _samples(data: bytes, wave_format: WaveFormat, first_sample: int, origin: str) -> NDArray[np.float32]:
    decode = _floats if wave_format.is_float else _integers
    samples = decode(data, wave_format.container_bytes).reshape(-1, wave_format.channels)
    if wave_format.is_float:
        rate_hz = wave_format.sample_rate_hz
        check_finite(samples, first_sample=first_sample, sample_rate_hz=rate_hz, origin=origin)
        largest = float(np.abs(samples).max())
        if largest > LARGEST_FLOAT:
            raise InputError(
                f"{origin}: a float sample of {largest:g} near {first_sample / rate_hz:.3f} s; full scale is 1.0",
                fix="divide the samples by their full scale (32768 for 16-bit values) before writing them as float",
            )
    return np.clip(mono(samples.astype(np.float32, copy=False)), -1.0, 1.0)


def _floats(data: bytes, container_bytes: int) -> NDArray[np.floating[Any]]:
    return np.frombuffer(data, dtype=f"<f{container_bytes}")


def _integers(data: bytes, container_bytes: int) -> NDArray[np.floating[Any]]:
    """Return PCM as float32; 8 bits are unsigned around 128, wider ones signed (WAVE specification, 1991)."""
    if container_bytes == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
    if container_bytes == 3:
        # Each 24-bit value becomes the upper three bytes of a 32-bit one.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view("<i4").ravel() / 2.0**31).astype(np.float32)
    values = np.frombuffer(data, dtype=f"<i{container_bytes}")
    return (values / 2.0 ** (8 * container_bytes - 1)).astype(np.float32)
