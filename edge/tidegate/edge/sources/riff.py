"""The WAVE file format, read from front to back without seeking, so that a pipe will do.

Written from "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft, 1991; RIFF and WAVE),
Microsoft's description of WAVEFORMATEXTENSIBLE (mmreg.h) and EBU Tech 3306 (RF64, sizes over 4 GiB). The standard
library's `wave` refuses float samples in every Python and the extensible header before 3.12, and libsndfile would
weigh more than the rest of a device's install.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import InputError
from tidegate.speech.resample import MAXIMUM_RATE_HZ, MINIMUM_RATE_HZ

PCM = 0x0001
IEEE_FLOAT = 0x0003
EXTENSIBLE = 0xFFFE

CODEC_NAMES = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0045: "G.726 ADPCM",
    0x0050: "MPEG layer 1 or 2",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "Windows Media Audio",
    0x0674: "Ogg Vorbis",
    0x2000: "AC-3",
    0xF1AC: "FLAC",
}
"""Registered format tags (RFC 2361) that people meet; for messages only."""

PLACEHOLDER_SIZE = 0x7FFF_0000
"""A writer into a pipe cannot go back to fill in the size. ffmpeg leaves 0xFFFFFFFF, others 0, 0x7FFFF000 or
0x80000000: from here on a size that the file does not have means "until the end"."""

LARGEST_HEADER_CHUNK = 4096
"""A longer 'fmt ' or 'ds64' chunk is nonsense and is not held in memory."""

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format tag in the subformat GUID of every WAVEFORMATEXTENSIBLE with a registered codec."""

MAGIC = {
    b"ID3": "an MP3 file",
    b"\xff\xfb": "an MP3 file",
    b"\xff\xf3": "an MP3 file",
    b"\xff\xf1": "an AAC file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"FORM": "an AIFF file",
    b".snd": "a Sun audio file",
    b"caff": "a Core Audio file",
    b"RIFX": "a big-endian WAV file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
    b"PK\x03\x04": "a ZIP archive (a .tide bundle is one)",
    b"\x1f\x8b": "a gzip file",
    b"{": "JSON text",
    b"<": "an HTML or XML page",
}
"""First bytes of what is handed in by mistake."""


class ByteReader(Protocol):
    """The part of a binary file that reading from front to back needs."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; fewer only at the end or from a pipe."""


@dataclass(frozen=True)
class WaveFormat:
    """How the samples of a WAV are stored."""

    is_float: bool
    container_bytes: int
    """bytes per sample of one channel"""
    channels: int
    sample_rate_hz: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.container_bytes * self.channels


@dataclass(frozen=True)
class WaveHeader:
    """What stands in front of the samples."""

    format: WaveFormat
    data_bytes: int | None
    """promised by the data chunk; None where the writer did not know"""
    data_offset: int
    """bytes read so far"""


def read_header(stream: ByteReader, origin: str, total_bytes: int | None = None) -> WaveHeader:
    """Read up to the first sample.

    Args:
        stream: positioned at the first byte.
        origin: file or stream, for messages.
        total_bytes: length of the whole file where it is known.

    Raises:
        InputError: not a WAV, cut off in the header, a codec that is not PCM or IEEE float, or nonsense in the header.
    """
    reader = _Counting(stream, origin)
    start = reader.up_to(12)
    if start[:4] not in (b"RIFF", b"RF64") or start[8:12] != b"WAVE":
        raise _not_a_wav(start, origin)
    riff_bytes = int.from_bytes(start[4:8], "little")
    wave_format: WaveFormat | None = None
    long_data_bytes: int | None = None
    while True:
        name, size = struct.unpack("<4sI", reader.exactly(8, "a chunk header"))
        if name == b"data":
            break
        keep = name in (b"fmt ", b"ds64") and size <= LARGEST_HEADER_CHUNK
        body = reader.exactly(size + size % 2, f"chunk {_printable(name)}", keep=keep)
        if name == b"fmt ":
            wave_format = _parse_format(body, origin)
        elif name == b"ds64" and size >= 16:
            long_data_bytes = struct.unpack_from("<QQ", body)[1]
    if wave_format is None:
        raise InputError(f"{origin}: the samples come before a 'fmt ' chunk", fix=_EXPORT_AGAIN)
    return WaveHeader(
        wave_format, _promised(size, long_data_bytes, riff_bytes, reader.count, total_bytes), reader.count
    )


_EXPORT_AGAIN = "export the audio again as WAV with 16-bit PCM"


def _promised(
    size: int, long_data_bytes: int | None, riff_bytes: int, data_offset: int, total_bytes: int | None
) -> int | None:
    """Return the size of the data chunk, or None where the writer left a placeholder."""
    if size == 0xFFFF_FFFF and long_data_bytes is not None:
        return long_data_bytes
    if size == 0:
        # Empty on purpose when the outer size was filled in too; a header never completed otherwise.
        return 0 if total_bytes is not None and riff_bytes + 8 == total_bytes else None
    if size >= PLACEHOLDER_SIZE and (total_bytes is None or data_offset + size > total_bytes):
        return None
    return size


def _parse_format(body: bytes, origin: str) -> WaveFormat:
    if len(body) < 16:
        raise InputError(
            f"{origin}: the 'fmt ' chunk has {len(body)} usable bytes; expected at least 16", fix=_EXPORT_AGAIN
        )
    tag, channels, rate_hz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", body)
    if tag == EXTENSIBLE:
        tag = _extensible_tag(body, origin)
    if tag not in (PCM, IEEE_FLOAT):
        name = CODEC_NAMES.get(tag, "an unknown codec")
        raise InputError(f"{origin}: the codec is {name} (0x{tag:04X}); expected PCM or IEEE float", fix=_EXPORT_AGAIN)
    if channels == 0:
        raise InputError(f"{origin}: the header says 0 channels", fix=_EXPORT_AGAIN)
    if not MINIMUM_RATE_HZ <= rate_hz <= MAXIMUM_RATE_HZ:
        raise InputError(
            f"{origin}: the header says {rate_hz} Hz; expected {MINIMUM_RATE_HZ} to {MAXIMUM_RATE_HZ}",
            fix=_EXPORT_AGAIN,
        )
    container_bytes, rest = divmod(frame_bytes, channels)
    allowed = (4, 8) if tag == IEEE_FLOAT else (1, 2, 3, 4)
    if rest or container_bytes not in allowed or not 0 < bits <= 8 * container_bytes:
        kind = "float" if tag == IEEE_FLOAT else "PCM"
        raise InputError(
            f"{origin}: {bits}-bit {kind} samples, {frame_bytes} bytes for {channels} channel(s); "
            "expected PCM of 8, 16, 24 or 32 bits or float of 32 or 64 bits",
            fix=_EXPORT_AGAIN,
        )
    return WaveFormat(tag == IEEE_FLOAT, container_bytes, channels, rate_hz)


def _extensible_tag(body: bytes, origin: str) -> int:
    if len(body) < 40:
        raise InputError(f"{origin}: the extensible 'fmt ' chunk has {len(body)} bytes; expected 40", fix=_EXPORT_AGAIN)
    if body[26:40] != GUID_TAIL:
        raise InputError(
            f"{origin}: the codec is a private one ({body[24:40].hex()}); expected PCM or IEEE float",
            fix=_EXPORT_AGAIN,
        )
    return int.from_bytes(body[24:26], "little")


def _not_a_wav(start: bytes, origin: str) -> InputError:
    if not start:
        return InputError(f"{origin} is empty (0 bytes); expected a WAV file", fix="check where the file came from")
    looks = next((what for magic, what in MAGIC.items() if start.lstrip().startswith(magic)), None)
    seen = f"it looks like {looks}" if looks else f"it begins with {start[:8]!r}"
    return InputError(
        f"{origin} is not a WAV file: {seen}; expected 'RIFF' and 'WAVE'",
        fix="convert it, for example with `ffmpeg -i INPUT -ac 1 -ar 16000 OUTPUT.wav`",
    )


def _printable(name: bytes) -> str:
    return repr(name.decode("ascii", "backslashreplace"))


class _Counting:
    """Reads exact amounts and knows how far it is."""

    def __init__(self, stream: ByteReader, origin: str) -> None:
        self._stream = stream
        self._origin = origin
        self.count = 0

    def up_to(self, size: int) -> bytes:
        """Return `size` bytes, or what there is."""
        parts = bytearray()
        while len(parts) < size and (part := self._stream.read(size - len(parts))):
            parts += part
        self.count += len(parts)
        return bytes(parts)

    def exactly(self, size: int, what: str, *, keep: bool = True) -> bytes:
        """Return `size` bytes; with `keep` false read past them in bounded memory and return nothing."""
        left = size
        while not keep and left > 0 and (part := self.up_to(min(left, 65_536))):
            left -= len(part)
        body = self.up_to(left) if keep else b""
        if len(body) < (left if keep else 0) or (not keep and left > 0):
            raise InputError(
                f"{self._origin} ends inside {what}: {size} bytes promised, {size - left + len(body)} found",
                fix="the file is cut off or damaged; copy or export it again",
            )
        return body
