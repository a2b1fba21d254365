"""The `.tide` archive: a restricted ZIP64 file, and how it is written.

Restrictions, so that there is one way to write it and one way to read it (docs/bundle-format.md has every byte):
entries are stored, never compressed; each entry's data starts at a multiple of 64 bytes, so that a model can be mapped
into memory in place; entries follow each other without gaps; times and attributes are constants. The same entries give
the same bytes on any machine. ZIP64 records are always written, so that there is one layout and not one more for big
files.

Source of the record layouts: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3. The padding lives in the extra field
0xD935 that Android's apksig defined for the same purpose: two bytes with the alignment, then zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

ALIGNMENT: Final = 64

LOCAL_SIGNATURE: Final = b"PK\x03\x04"
CENTRAL_SIGNATURE: Final = b"PK\x01\x02"
END64_SIGNATURE: Final = b"PK\x06\x06"
LOCATOR_SIGNATURE: Final = b"PK\x06\x07"
END_SIGNATURE: Final = b"PK\x05\x06"

# version needed, flags, method, time, date, crc, compressed size, size, name length, extra length
LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
# version made by, then as LOCAL, then comment length, disk, internal and external attributes, offset of local header
CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
# size of the rest, made by, needed, disk, disk of directory, entries here, entries, directory size, directory offset
END64: Final = struct.Struct("<4sQHHIIQQQQ")
# disk of END64, its offset, number of disks
LOCATOR: Final = struct.Struct("<4sIQI")
# disk, disk of directory, entries here, entries, directory size, directory offset, comment length
END: Final = struct.Struct("<4sHHHHIIH")

STORED: Final = 0
FLAG_UTF8: Final = 0x0800
ZIP64_EXTRA_ID: Final = 0x0001
PADDING_EXTRA_ID: Final = 0xD935
MAX16: Final = 0xFFFF
MAX32: Final = 0xFFFFFFFF

_VERSION_ZIP64 = 45
_MADE_BY_UNIX = 3 << 8 | _VERSION_ZIP64
_REGULAR_FILE_0644 = 0o100644 << 16
_TIME_MIDNIGHT = 0
_DATE_1980_01_01 = 1 << 5 | 1
_COPY_BYTES = 1 << 20


def pack(entries: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Yield the bytes of an archive with these entries in this order, in chunks of bounded size.

    Names are taken as they are: whether a name belongs in a bundle is for the caller to check.
    """
    offset = 0
    directory: list[bytes] = []
    for name, data in entries:
        encoded, crc = name.encode(), zlib.crc32(data)
        header = _local_header(encoded, crc, len(data), offset)
        directory.append(_central_header(encoded, crc, len(data), offset))
        yield header
        for start in range(0, len(data), _COPY_BYTES):
            yield data[start : start + _COPY_BYTES]
        offset += len(header) + len(data)
    central = b"".join(directory)
    yield central
    yield _end_records(len(directory), len(central), offset)


def _local_header(name: bytes, crc: int, size: int, offset: int) -> bytes:
    zip64 = struct.pack("<HHQQ", ZIP64_EXTRA_ID, 16, size, size)
    unpadded = offset + LOCAL.size + len(name) + len(zip64) + 6
    zeros = bytes(-unpadded % ALIGNMENT)
    extra = zip64 + struct.pack("<HHH", PADDING_EXTRA_ID, 2 + len(zeros), ALIGNMENT) + zeros
    fixed = LOCAL.pack(
        LOCAL_SIGNATURE,
        _VERSION_ZIP64,
        FLAG_UTF8,
        STORED,
        _TIME_MIDNIGHT,
        _DATE_1980_01_01,
        crc,
        MAX32,
        MAX32,
        len(name),
        len(extra),
    )
    return fixed + name + extra


def _central_header(name: bytes, crc: int, size: int, offset: int) -> bytes:
    zip64 = struct.pack("<HHQQQ", ZIP64_EXTRA_ID, 24, size, size, offset)
    fixed = CENTRAL.pack(
        CENTRAL_SIGNATURE,
        _MADE_BY_UNIX,
        _VERSION_ZIP64,
        FLAG_UTF8,
        STORED,
        _TIME_MIDNIGHT,
        _DATE_1980_01_01,
        crc,
        MAX32,
        MAX32,
        len(name),
        len(zip64),
        0,
        0,
        0,
        _REGULAR_FILE_0644,
        MAX32,
    )
    return fixed + name + zip64


def _end_records(entries: int, directory_size: int, directory_offset: int) -> bytes:
    end64 = END64.pack(
        END64_SIGNATURE,
        END64.size - 12,
        _MADE_BY_UNIX,
        _VERSION_ZIP64,
        0,
        0,
        entries,
        entries,
        directory_size,
        directory_offset,
    )
    locator = LOCATOR.pack(LOCATOR_SIGNATURE, 0, directory_offset + directory_size, 1)
    end = END.pack(END_SIGNATURE, 0, 0, MAX16, MAX16, MAX32, MAX32, 0)
    return end64 + locator + end
