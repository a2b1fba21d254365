"""Read a `.tide` archive without trusting it.

Only what `archive.pack` can write, and what plain `zip -0 -X -D` writes, is accepted: stored regular files that follow
each other without a gap and are followed by the directory and the end records, nothing before, between or after. So an
archive cannot expand, cannot hide bytes, and cannot mean one thing to this reader and another to the next.
"""

from __future__ import annotations

import stat
import struct
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from tidegate.bundle import archive as layout
from tidegate.bundle.paths import MANIFEST_FILE
from tidegate.bundle.tree import Limits, check_names
from tidegate.errors import BundleError, IntegrityError, NotFoundError, ResourceError, StateError

_MAXIMUM_NAME_AND_EXTRA_BYTES = 1024
_GET_AGAIN = "get the bundle again; if it stays so, ask its author to rebuild it with `tidegate build`"


@dataclass(frozen=True)
class _Entry:
    name: str
    raw_name: bytes
    size: int
    crc: int
    header_offset: int
    data_offset: int = 0


class ArchiveTree:
    """The files of a `.tide` archive; one open file, so a bundle replaced on disk stays what it was for its reader."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._origin = str(path)
        self._limits = limits
        self._lock = threading.Lock()
        self._file = _open(path)
        try:
            self._size = self._file.seek(0, 2)
            count, start, end = self._read_end()
            entries = self._read_directory(count, start, end)
            check_names(self._origin, [entry.name for entry in entries])
            self._entries = {entry.name: entry for entry in self._locate_data(entries, start)}
        except BaseException:
            self._file.close()
            raise
        self._sizes = {name: entry.size for name, entry in self._entries.items()}

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file, by path."""
        return self._sizes

    def read(self, path: str) -> bytes:
        """Return one stored file whole; the manifest, which no digest covers, is held against its CRC."""
        entry = self._entries[path]
        data = self._at(entry.data_offset, entry.size, f"file {path!r}")
        if path == MANIFEST_FILE and zlib.crc32(data) != entry.crc:
            raise IntegrityError(
                f"{self._origin}: file {path!r} has CRC {zlib.crc32(data):08x}; the archive states {entry.crc:08x}",
                fix=_GET_AGAIN,
            )
        return data

    def close(self) -> None:
        """Close the archive."""
        with self._lock:
            self._file.close()

    # -- the steps of opening -----------------------------------------------------------------------------------------

    def _read_end(self) -> tuple[int, int, int]:
        """Return number of entries, offset of the directory, and offset of its end."""
        if self._size == 0:
            raise IntegrityError(f"{self._origin} is empty; expected a .tide archive", fix=_GET_AGAIN)
        begins = self._at(0, min(4, self._size), "first bytes")
        end_offset = self._size - layout.END.size
        if begins not in (layout.LOCAL_SIGNATURE, layout.END_SIGNATURE, layout.END64_SIGNATURE):
            raise BundleError(
                f"{self._origin} is not a .tide archive: it begins with {begins!r}; "
                f"expected {layout.LOCAL_SIGNATURE!r}",
                fix="name a .tide file or a bundle directory; `tidegate build` makes one from a model file",
            )
        if end_offset < 0 or self._at(end_offset, 4, "end record") != layout.END_SIGNATURE:
            raise IntegrityError(
                f"{self._origin} has no end record in its last {layout.END.size} bytes ({self._size} bytes found): "
                "it is truncated, or something was added to it",
                fix=_GET_AGAIN,
            )
        end = layout.END.unpack(self._at(end_offset, layout.END.size, "end record"))
        _, disk, directory_disk, entries_here, entries, size, start, comment = end
        stop = end_offset
        locator_offset = end_offset - layout.LOCATOR.size
        if locator_offset >= 0 and self._at(locator_offset, 4, "locator") == layout.LOCATOR_SIGNATURE:
            locator = layout.LOCATOR.unpack(self._at(locator_offset, layout.LOCATOR.size, "locator"))
            stop = locator_offset - layout.END64.size
            if stop < 0 or locator[2] != stop or self._at(stop, 4, "ZIP64 end record") != layout.END64_SIGNATURE:
                self._broken("ZIP64 end record", f"offset {locator[2]}", f"one at offset {stop}")
            if (locator[1], locator[3]) != (0, 1):
                self._broken("locator", f"disk {locator[1]} of {locator[3]}", "disk 0 of 1")
            end64 = layout.END64.unpack(self._at(stop, layout.END64.size, "ZIP64 end record"))
            if end64[1] != layout.END64.size - 12:
                self._broken("ZIP64 end record", f"{end64[1]} bytes", f"{layout.END64.size - 12}")
            self._check_agreement(end[1:7], end64[4:])
            disk, directory_disk, entries_here, entries, size, start = end64[4:]
        if (disk, directory_disk) != (0, 0) or entries_here != entries or comment:
            self._broken("end record", "several disks or a comment", "one disk and no comment")
        if start + size != stop:
            self._broken("directory", f"{size} bytes at offset {start}", f"its end at offset {stop}")
        self._check_directory_size(entries, size)
        return entries, start, stop

    def _check_agreement(self, short: tuple[int, ...], long: tuple[int, ...]) -> None:
        """A tool that knows nothing of ZIP64 reads the short record: it must say the same, or that it cannot."""
        too_large = (layout.MAX16,) * 4 + (layout.MAX32,) * 2
        for found, expected, unsaid in zip(short, long, too_large, strict=True):
            if found not in (expected, unsaid):
                self._broken("end record", f"{found}", f"{expected} as in the ZIP64 end record")

    def _check_directory_size(self, entries: int, size: int) -> None:
        if entries > self._limits.files:
            raise BundleError(
                f"{self._origin} holds {entries} files; expected at most {self._limits.files}", fix=_GET_AGAIN
            )
        most = entries * (layout.CENTRAL.size + _MAXIMUM_NAME_AND_EXTRA_BYTES)
        if size > most:
            self._broken("directory", f"{size} bytes", f"at most {most} for {entries} entries")

    def _read_directory(self, count: int, start: int, end: int) -> list[_Entry]:
        raw = self._at(start, end - start, "directory")
        entries: list[_Entry] = []
        position = 0
        for _ in range(count):
            fixed = raw[position : position + layout.CENTRAL.size]
            if len(fixed) < layout.CENTRAL.size or fixed[:4] != layout.CENTRAL_SIGNATURE:
                self._broken("directory", f"no entry at offset {start + position}", f"{count} entries")
            name_length, extra_length, comment_length = layout.CENTRAL.unpack(fixed)[10:13]
            position += layout.CENTRAL.size
            raw_name = raw[position : position + name_length]
            extra = raw[position + name_length : position + name_length + extra_length]
            position += name_length + extra_length + comment_length
            entries.append(self._entry(fixed, raw_name, extra, comment_length))
        if position != len(raw):
            self._broken("directory", f"{len(raw)} bytes", f"{position} bytes for {count} entries")
        return entries

    def _entry(self, fixed: bytes, raw_name: bytes, extra: bytes, comment_length: int) -> _Entry:
        fields = layout.CENTRAL.unpack(fixed)
        made_by, _, flags, method, _, _, crc, compressed, size = fields[1:10]
        disk, _, attributes, offset = fields[13:]
        name = self._name(raw_name)
        size, compressed, offset = self._zip64_values(name, extra, (size, compressed, offset))
        if method != layout.STORED:
            self._refuse(name, f"is compressed (method {method})", "stored entries only (method 0)")
        if flags & ~layout.FLAG_UTF8:
            self._refuse(name, f"has flags {flags:#06x}", "none but UTF-8 names: no encryption, no streaming")
        if compressed != size:
            self._refuse(name, f"states {compressed} bytes stored for {size} bytes", "the same number twice")
        if disk or comment_length:
            self._refuse(name, "has a comment or lies on another disk", "neither")
        kind = stat.S_IFMT(attributes >> 16) if made_by >> 8 == 3 else 0
        if kind not in (0, stat.S_IFREG):
            what = "a link" if stat.S_ISLNK(kind) else "not a regular file"
            self._refuse(name, f"is {what} (mode {attributes >> 16:o})", "regular files only")
        if size > self._limits.file_bytes:
            self._refuse(name, f"is {size} bytes long", f"at most {self._limits.file_bytes}")
        return _Entry(name, raw_name, size, crc, offset)

    def _locate_data(self, entries: list[_Entry], directory_start: int) -> list[_Entry]:
        """Hold every local header against the directory; the entries must tile the file up to the directory."""
        located: list[_Entry] = []
        expected_offset = 0
        for entry in sorted(entries, key=lambda one: one.header_offset):
            if entry.header_offset != expected_offset:
                self._refuse(entry.name, f"lies at offset {entry.header_offset}", f"offset {expected_offset}")
            fixed = self._at(entry.header_offset, layout.LOCAL.size, f"header of {entry.name!r}")
            signature, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = layout.LOCAL.unpack(
                fixed
            )
            if signature != layout.LOCAL_SIGNATURE:
                self._refuse(entry.name, f"has a header that begins with {signature!r}", f"{layout.LOCAL_SIGNATURE!r}")
            after_fixed = entry.header_offset + layout.LOCAL.size
            raw_name = self._at(after_fixed, name_length, f"header of {entry.name!r}")
            extra = self._at(after_fixed + name_length, extra_length, f"header of {entry.name!r}")
            if raw_name != entry.raw_name:
                self._refuse(entry.name, f"is called {raw_name!r} in its own header", "the directory's name")
            size, compressed, _ = self._zip64_values(entry.name, extra, (size, compressed, entry.header_offset))
            found = (method, flags & ~layout.FLAG_UTF8, crc, size, compressed)
            stated = (layout.STORED, 0, entry.crc, entry.size, entry.size)
            if found != stated:
                self._refuse(
                    entry.name, f"has (method, flags, CRC, sizes) {found} in its own header", f"{stated} as listed"
                )
            data_offset = after_fixed + name_length + extra_length
            expected_offset = data_offset + entry.size
            if expected_offset > directory_start:
                self._refuse(entry.name, f"ends at offset {expected_offset}", f"at most {directory_start}")
            located.append(_Entry(entry.name, raw_name, entry.size, entry.crc, entry.header_offset, data_offset))
        if expected_offset != directory_start:
            self._broken("files", f"an end at offset {expected_offset}", f"{directory_start}, where the directory is")
        return located

    # -- small parts --------------------------------------------------------------------------------------------------

    def _name(self, raw_name: bytes) -> str:
        try:
            return raw_name.decode()
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{self._origin}: file name {raw_name!r} is not UTF-8; expected a UTF-8 name", fix=_GET_AGAIN
            ) from error

    def _zip64_values(self, name: str, extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return size, stored size and offset, taken from the ZIP64 field where the fixed field says so."""
        position = 0
        filled = list(values)
        while position < len(extra):
            if position + 4 > len(extra):
                self._refuse(name, "has a broken extra field", "whole fields")
            field, length = struct.unpack_from("<HH", extra, position)
            position += 4
            if position + length > len(extra):
                self._refuse(name, f"has an extra field of {length} bytes that does not fit", "whole fields")
            if field == layout.ZIP64_EXTRA_ID:
                wanted = [index for index, value in enumerate(filled) if value == layout.MAX32]
                if length != 8 * len(wanted):
                    self._refuse(name, f"has a ZIP64 field of {length} bytes", f"{8 * len(wanted)} bytes")
                for index, value in zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", extra, position), strict=True):
                    filled[index] = value
            position += length
        return filled[0], filled[1], filled[2]

    def _at(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self._size:
            raise IntegrityError(
                f"{self._origin}: {what} reaches to byte {offset + length}; the file has {self._size}: it is truncated",
                fix=_GET_AGAIN,
            )
        with self._lock:
            if self._file.closed:
                raise StateError(
                    f"bundle {self._origin} is closed", fix="read inside the `with` block, or open it again"
                )
            try:
                self._file.seek(offset)
                data = self._file.read(length)
            except OSError as error:
                raise ResourceError(
                    f"{self._origin}: {what} could not be read: {error.strerror}", fix="check the disk"
                ) from error
        if len(data) != length:
            raise IntegrityError(
                f"{self._origin}: {what} has {len(data)} bytes, expected {length}: the file was truncated while open",
                fix=_GET_AGAIN,
            )
        return data

    def _broken(self, what: str, found: str, expected: str) -> NoReturn:
        raise IntegrityError(f"{self._origin}: {what}: found {found}; expected {expected}", fix=_GET_AGAIN)

    def _refuse(self, name: str, found: str, expected: str) -> NoReturn:
        raise BundleError(f"{self._origin}: file {name!r} {found}; expected {expected}", fix=_GET_AGAIN)


def _open(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
        raise BundleError(
            f"{path} is not a regular file; expected a .tide archive", fix="name a .tide file or a bundle directory"
        )
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"no bundle at {path}", fix="check the path") from error
    except OSError as error:
        raise ResourceError(f"{path} could not be opened: {error.strerror}", fix="check its permissions") from error
