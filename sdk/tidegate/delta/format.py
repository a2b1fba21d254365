"""The bytes of a delta file: header and sections. docs/delta-format.md writes them out."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Literal

from tidegate.delta.source import Part, Source
from tidegate.errors import IntegrityError

Method = Literal["zstd-patch", "typed"]

METHODS: tuple[Method, ...] = ("zstd-patch", "typed")

MAGIC = b"\x89TGD\r\n\x1a\n"
"""Not text, and damaged by any transfer that changes line ends or strips the eighth bit, as in PNG."""

FORMAT_VERSION = 1
HEADER = struct.Struct("<8sBB6sQ32sQ32s")
LENGTH = struct.Struct("<Q")

_NUMBER_OF_METHOD: dict[Method, int] = {"zstd-patch": 1, "typed": 2}
_METHOD_OF_NUMBER = {number: method for method, number in _NUMBER_OF_METHOD.items()}
_RESERVED = bytes(6)

FETCH_FULL = "fetch the full file instead"


@dataclass(frozen=True)
class Identity:
    """Which file is meant."""

    sha256: str
    """lower-case hexadecimal"""
    size_bytes: int

    @classmethod
    def of(cls, data: bytes) -> Identity:
        """Return the identity of these bytes."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class Header:
    """The first 96 bytes: from which file to which file, and how."""

    method: Method
    base: Identity
    """what the device has"""
    full: Identity
    """what it gets"""

    def encode(self) -> bytes:
        """Return the 96 bytes."""
        return HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            _NUMBER_OF_METHOD[self.method],
            _RESERVED,
            self.base.size_bytes,
            bytes.fromhex(self.base.sha256),
            self.full.size_bytes,
            bytes.fromhex(self.full.sha256),
        )


def read_header(raw: bytes) -> Header:
    """Read the first 96 bytes of a delta file.

    Raises:
        IntegrityError: too short, not a delta, another format version, an unknown method.
    """
    if raw[: len(MAGIC)] != MAGIC:
        raise malformed(f"it begins with {raw[: len(MAGIC)]!r}; expected {MAGIC!r}")
    if len(raw) < HEADER.size:
        raise malformed(f"it ends after {len(raw)} bytes; the header alone has {HEADER.size}")
    _, version, number, reserved, base_size, base_sha256, full_size, full_sha256 = HEADER.unpack_from(raw)
    if version != FORMAT_VERSION:
        raise IntegrityError(
            f"the delta has format version {version}; this Tidegate reads {FORMAT_VERSION}", fix=FETCH_FULL
        )
    method = _METHOD_OF_NUMBER.get(number)
    if method is None:
        raise malformed(f"its method is {number}; expected one of {sorted(_METHOD_OF_NUMBER)}")
    if reserved != _RESERVED:
        raise malformed("its reserved bytes are not zero")
    return Header(method, Identity(base_sha256.hex(), base_size), Identity(full_sha256.hex(), full_size))


def encode_section(frame: bytes) -> bytes:
    """Return a zstd frame with its length in front."""
    return LENGTH.pack(len(frame)) + frame


class Sections:
    """Walks over the sections of a delta file, which follow each other from the header's end to the file's end."""

    def __init__(self, delta: Source) -> None:
        self._delta = delta
        self._position = HEADER.size

    def next(self, name: str) -> Part:
        """Return where the next section lies; nothing of it is read.

        Raises:
            IntegrityError: the file ends inside it.
        """
        start = self._position + LENGTH.size
        left = self._delta.size_bytes - start
        if left < 0:
            raise malformed(f"it ends before its section {name!r}")
        (size,) = LENGTH.unpack(self._delta.read_at(self._position, LENGTH.size))
        if size > left:
            raise malformed(f"its section {name!r} claims {size} bytes; {left} are left")
        self._position = start + size
        return Part(self._delta, start, size)

    def end(self) -> None:
        """Check that nothing follows.

        Raises:
            IntegrityError: something does.
        """
        left = self._delta.size_bytes - self._position
        if left:
            raise malformed(f"{left} bytes follow its last section")


def malformed(what: str) -> IntegrityError:
    """Return the error for a delta file that breaks the format."""
    return IntegrityError(f"the delta cannot be used: {what}", fix=FETCH_FULL)
