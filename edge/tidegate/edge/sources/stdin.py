"""Audio from a pipe: a WAV, or bare 16-bit samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.sources.riff import read_header
from tidegate.edge.sources.wav import wave_chunks
from tidegate.errors import ConfigError, InputError, StateError
from tidegate.speech.pcm import float32_from_int16
from tidegate.speech.resample import check_rate

ORIGIN = "standard input"


class StdinSource:
    """A byte stream that is read as it comes: a WAV when it begins with RIFF, else signed 16-bit little-endian mono.

    The first four bytes are read at construction, and the header of a WAV.

    Args:
        stream: binary, such as `sys.stdin.buffer`. `close` does not close it: it is the caller's.
        sample_rate_hz: rate of bare samples; a WAV says its own, and must agree with this if given.

    Raises:
        ConfigError: bare samples without a rate, or a rate other than the WAV's.
        InputError: what `WavSource` refuses, an odd number of bytes, or nothing at all.
    """

    def __init__(self, stream: BinaryIO, sample_rate_hz: int | None = None) -> None:
        self._stream = _Peeked(stream)
        self._closed = False
        self._started = False
        is_wav = self._stream.first(4) in (b"RIFF", b"RF64")
        self._header = read_header(self._stream, ORIGIN) if is_wav else None
        self._sample_rate_hz = self._rate(sample_rate_hz)

    @property
    def sample_rate_hz(self) -> int:
        """The WAV's rate, or the one given."""
        return self._sample_rate_hz

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n] in [-1, 1] as soon as bytes arrive."""
        if self._started or self._closed:
            raise StateError(f"{ORIGIN} has been read or closed already", fix="make a new source")
        self._started = True
        return self._until_closed()

    def close(self) -> None:
        """End `chunks` after the chunk at hand."""
        self._closed = True

    def _rate(self, given_hz: int | None) -> int:
        if self._header is None:
            if given_hz is None:
                raise ConfigError(
                    f"{ORIGIN} is no WAV (it begins with {self._stream.first(4)!r}), so its sample rate is not known",
                    fix="give --rate, such as --rate 16000; samples are signed 16-bit little-endian, one channel",
                )
            return check_rate(given_hz)
        own_hz = self._header.format.sample_rate_hz
        if given_hz not in (None, own_hz):
            raise ConfigError(
                f"{ORIGIN} is a WAV of {own_hz} Hz; the rate given is {given_hz} Hz", fix="leave out --rate"
            )
        return own_hz

    def _until_closed(self) -> Iterator[NDArray[np.float32]]:
        samples = (
            _bare_chunks(self._stream) if self._header is None else wave_chunks(self._stream, self._header, ORIGIN)
        )
        for chunk in samples:
            if self._closed:
                return
            yield chunk


def _bare_chunks(stream: _Peeked) -> Iterator[NDArray[np.float32]]:
    carry = b""
    empty = True
    while data := stream.read(8192):
        whole = carry + data
        even = len(whole) // 2 * 2
        carry = whole[even:]
        if even:
            empty = False
            yield float32_from_int16(np.frombuffer(whole[:even], dtype="<i2"))
    if carry:
        raise InputError(
            f"{ORIGIN} ends inside a sample: an odd number of bytes", fix="send signed 16-bit little-endian samples"
        )
    if empty:
        raise InputError(f"{ORIGIN} is empty; expected audio", fix="check the command in front of the pipe")


class _Peeked:
    """A stream whose first bytes can be looked at; reads return what has arrived, without waiting for more."""

    def __init__(self, stream: BinaryIO) -> None:
        # `read1` returns what a pipe holds; `read` would wait until the whole amount has come.
        self._read = getattr(stream, "read1", stream.read)
        self._ahead = b""

    def first(self, size: int) -> bytes:
        """Return the next `size` bytes without taking them, fewer at the end."""
        while len(self._ahead) < size and (part := self._read(size - len(self._ahead))):
            self._ahead += part
        return self._ahead[:size]

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes; none at the end."""
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken
        return bytes(self._read(size))
