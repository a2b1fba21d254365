"""zstd frames: made at level 19, read back without ever holding more than was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from tidegate.delta.format import malformed
from tidegate.delta.source import CHUNK_BYTES, Part
from tidegate.errors import DependencyError, InputError

LEVEL = 19
SMALLEST_WINDOW_LOG, LARGEST_WINDOW_LOG = 10, 31
"""What zstd allows; the larger on 64-bit systems."""

FRAME_HEADER_BYTES = 18
"""The longest that RFC 8878, section 3.1.1.1, allows, with the magic number."""


def zstandard() -> ModuleType:
    """Return the `zstandard` package.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise DependencyError("deltas need the package zstandard", fix='pip install "tidegate[delta]"') from error
    return zstandard


def window_log(size_bytes: int) -> int:
    """Return the exponent of the smallest window that covers `size_bytes`."""
    return min(max((size_bytes - 1).bit_length(), SMALLEST_WINDOW_LOG), LARGEST_WINDOW_LOG)


def compress(data: bytes, window: int) -> bytes:
    """Return `data` as one frame.

    Args:
        data: what to compress.
        window: exponent of the largest distance that a match may span, so of the memory that reading needs.
    """
    zstd = zstandard()
    parameters = zstd.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(data), window_log=min(window, window_log(len(data))), write_dict_id=False
    )
    return _compressed(zstd, data, compression_params=parameters)


def compress_patch(base: bytes, data: bytes) -> bytes:
    """Return `data` as one frame that may copy from anywhere in `base`, as `zstd --patch-from` makes it.

    Raises:
        InputError: both together are larger than the largest window.
    """
    if not base:
        return compress(data, LARGEST_WINDOW_LOG)
    together = len(base) + len(data)
    if together > 1 << LARGEST_WINDOW_LOG:
        raise InputError(
            f"old and new together have {together} bytes; zstd patches reach {1 << LARGEST_WINDOW_LOG} at most",
            fix="publish without a delta",
        )
    zstd = zstandard()
    parameters = zstd.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(data),
        dict_size=len(base),
        window_log=window_log(together),
        enable_ldm=True,
        write_dict_id=False,
    )
    dictionary = zstd.ZstdCompressionDict(base, dict_type=zstd.DICT_TYPE_RAWCONTENT)
    return _compressed(zstd, data, compression_params=parameters, dict_data=dictionary)


def _compressed(zstd: ModuleType, data: bytes, **options: Any) -> bytes:
    frame: bytes = zstd.ZstdCompressor(**options).compress(data)
    return frame


class FrameReader:
    """Reads one frame in pieces; memory is the frame's window, whatever the frame would expand to."""

    def __init__(
        self, part: Part, size_bytes: int | None, *, name: str, maximum_window_bytes: int, base: bytes = b""
    ) -> None:
        """Read the frame's header, and refuse what it should not say.

        Args:
            part: where the frame lies.
            size_bytes: how many bytes it must give; None for what it states itself, within the window.
            name: of the section, for messages.
            maximum_window_bytes: the most memory that the frame may demand.
            base: what it may copy from.

        Raises:
            IntegrityError: not a frame, or one of another size or with a larger window.
        """
        self._name = name
        self._zstd = zstandard()
        head = part.read(FRAME_HEADER_BYTES)
        self.left = self._checked_size(head, size_bytes, maximum_window_bytes)
        """bytes not read yet"""
        options: dict[str, Any] = {"max_window_size": max(maximum_window_bytes, 1 << SMALLEST_WINDOW_LOG)}
        if base:
            options["dict_data"] = self._zstd.ZstdCompressionDict(base, dict_type=self._zstd.DICT_TYPE_RAWCONTENT)
        self._reader = self._zstd.ZstdDecompressor(**options).stream_reader(_Rejoined(head, part))

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes; the caller asks for no more than the frame has left.

        Raises:
            IntegrityError: the frame is damaged or ends early.
        """
        pieces = []
        missing = size
        while missing:
            piece = self._take(missing)
            if not piece:
                raise malformed(f"its section {self._name!r} ends {self.left} bytes early")
            pieces.append(piece)
            missing -= len(piece)
            self.left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield `size` bytes in pieces."""
        for offset in range(0, size, CHUNK_BYTES):
            yield self.read(min(CHUNK_BYTES, size - offset))

    def end(self) -> None:
        """Check that the frame is used up.

        Raises:
            IntegrityError: it goes on.
        """
        if self.left or self._take(1):
            raise malformed(f"its section {self._name!r} goes on after its end")

    def _take(self, size: int) -> bytes:
        try:
            piece: bytes = self._reader.read(size)
        except self._zstd.ZstdError as error:
            raise malformed(f"its section {self._name!r} is damaged: {error}") from error
        return piece

    def _checked_size(self, head: bytes, size_bytes: int | None, maximum_window_bytes: int) -> int:
        try:
            found = self._zstd.get_frame_parameters(head)
        except self._zstd.ZstdError as error:
            raise malformed(f"its section {self._name!r} is not a zstd frame: {error}") from error
        if size_bytes is not None and found.content_size != size_bytes:
            raise malformed(f"its section {self._name!r} holds {found.content_size} bytes; expected {size_bytes}")
        wanted = max(found.window_size, found.content_size if size_bytes is None else 0)
        if wanted > max(maximum_window_bytes, 1 << SMALLEST_WINDOW_LOG):
            raise malformed(
                f"its section {self._name!r} wants {wanted} bytes of memory; at most {maximum_window_bytes} are allowed"
            )
        return int(found.content_size)


class _Rejoined:
    """A part whose first bytes were looked at already."""

    def __init__(self, head: bytes, part: Part) -> None:
        self._head = head
        self._part = part

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        return head or self._part.read(size)
