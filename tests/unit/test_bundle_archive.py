"""The archive writer: the same bytes everywhere, aligned data, readable by any ZIP tool."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Bundle, Manifest, write_bundle
from tidegate.bundle.archive import ALIGNMENT, _central_header, _end_records, _local_header, pack
from tidegate.bundle.archive_reader import ArchiveTree
from tidegate.bundle.tree import Limits

ENTRIES = [("manifest.json", b"{}"), ("a/b.bin", bytes(range(200))), ("empty", b"")]

NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=20)


def test_bytes_are_the_same_on_every_machine_and_python_version() -> None:
    raw = b"".join(pack(ENTRIES))
    assert hashlib.sha256(raw).hexdigest() == "01f5b14ee4ef223bc964e0c301372c15e37aec7bf228c9722604b7cfd203dc23"


def test_data_starts_at_a_multiple_of_64_bytes() -> None:
    raw = b"".join(pack(ENTRIES))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for info in archive.infolist():
            name_length, extra_length = struct.unpack_from("<HH", raw, info.header_offset + 26)
            start = info.header_offset + 30 + name_length + extra_length
            assert start % ALIGNMENT == 0
            assert raw[start : start + info.file_size] == dict(ENTRIES)[info.filename]


def test_python_zipfile_reads_it_and_finds_no_fault() -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(pack(ENTRIES)))) as archive:
        assert archive.testzip() is None
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == ENTRIES
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == 0o100644
            assert info.compress_type == zipfile.ZIP_STORED


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=8))
def test_what_was_packed_is_read_back(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "packed.tide"
    path.write_bytes(b"".join(pack(entries.items())))
    tree = ArchiveTree(path, Limits())
    assert {name: tree.read(name) for name in tree.sizes} == entries
    tree.close()


def test_manifest_comes_first_and_the_rest_is_sorted_whatever_the_order_given(
    release: tuple[Manifest, dict[str, bytes]], tide_bytes: bytes, tmp_path: Path
) -> None:
    manifest, files = release
    write_bundle(manifest, dict(reversed(files.items())), tmp_path / "again.tide")
    assert (tmp_path / "again.tide").read_bytes() == tide_bytes
    with zipfile.ZipFile(io.BytesIO(tide_bytes)) as archive:
        assert archive.namelist() == ["manifest.json", "assets/list.txt", "golden.npz", "variants/a.onnx"]
        assert json.loads(archive.read("manifest.json"))["schema"] == "tidegate.bundle/1"


def test_an_archive_made_by_a_plain_zip_tool_opens(
    release: tuple[Manifest, dict[str, bytes]], tide_bytes: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "plain.tide"
    with zipfile.ZipFile(io.BytesIO(tide_bytes)) as ours, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as theirs:
        for name in ours.namelist():
            theirs.writestr(name, ours.read(name))
    with Bundle.open(path) as bundle:
        bundle.verify_files()
        assert bundle.manifest == release[0]


def test_files_beyond_four_gigabytes(tmp_path: Path) -> None:
    """A hole of 5 GiB in the middle; the file behind it lies where 32 bits do not reach."""
    hole = 5 << 30
    path = tmp_path / "large.tide"
    first, second = (b"weights", zlib.crc32(b"")), (b"tail", zlib.crc32(b"end"))
    with path.open("wb") as file:
        file.write(_local_header(*first, hole, 0))
        start = file.tell()
        second_at = start + hole
        file.seek(second_at)
        file.write(_local_header(*second, 3, second_at) + b"end")
        directory_at = file.tell()
        central = _central_header(*first, hole, 0) + _central_header(*second, 3, second_at)
        file.write(central + _end_records(2, len(central), directory_at))
    tree = ArchiveTree(path, Limits())
    assert tree.sizes == {"weights": hole, "tail": 3}
    assert tree.read("tail") == b"end"
    tree.close()
    with zipfile.ZipFile(path) as archive:
        assert archive.read("tail") == b"end"
        assert archive.getinfo("weights").file_size == hole


WRITE_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ResourceError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomically(Path(sys.argv[1]), [bytes(60_000)] * 3)
except ResourceError as error:
    print(error.message)
"""


def test_when_the_disk_takes_no_more_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "release.tide"
    path.write_bytes(b"the old release")
    command = [sys.executable, "-c", WRITE_WITH_LITTLE_ROOM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S)
    assert "could not be written" in done.stdout
    assert path.read_bytes() == b"the old release"
    assert list(tmp_path.iterdir()) == [path]
