"""Attacks on the reader: each is a real file, each is refused, each refusal names file, found and expected."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.bundle import Bundle, Limits, Manifest, digest
from tidegate.bundle.archive import pack
from tidegate.bundle.manifest import encode
from tidegate.errors import BundleError, IntegrityError, NotFoundError

Release = tuple[Manifest, dict[str, bytes]]
Entries = list[tuple[str, bytes]]


def entries_of(release: Release) -> Entries:
    manifest, files = release
    return [("manifest.json", encode(manifest)), *sorted(files.items())]


def archived(entries: Entries) -> bytes:
    return b"".join(pack(entries))


def refusal(path: Path, raw: bytes, limits: Limits | None = None) -> BundleError:
    path.write_bytes(raw)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path, limits=limits)
    assert str(path) in caught.value.message
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("../outside.txt", "leads out of the bundle"),
        ("assets/../../outside.txt", "leads out of the bundle"),
        ("/etc/passwd", "is absolute"),
        ("..\\outside.txt", "holds a backslash"),
        ("C:/windows/system.ini", "names a drive"),
        ("c:outside.txt", "names a drive"),
        ("assets//double", "holds an empty or '.' part"),
        ("./here", "holds an empty or '.' part"),
        ("folder/", "names a directory"),
        ("null\0byte", "not portable"),
        ("stream.txt:hidden", "not portable"),
        ("dot.", "ends with a space or a dot"),
        ("", "is empty"),
        ("x" * 241, "241 bytes long"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(release: Release, tmp_path: Path, name: str, complaint: str) -> None:
    error = refusal(tmp_path / "b.tide", archived([*entries_of(release), (name, b"evil")]))
    assert complaint in error.message
    assert repr(name) in error.message


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a\\b", "C:/x"])
def test_a_manifest_that_points_elsewhere_is_refused(release: Release, tmp_path: Path, path: str) -> None:
    manifest, files = release
    variant = msgspec.structs.replace(manifest.variants[0], file=path)
    evil = msgspec.structs.replace(manifest, variants=(variant,))
    error = refusal(tmp_path / "b.tide", archived([("manifest.json", encode(evil)), *sorted(files.items())]))
    assert repr(path) in error.message


def test_a_duplicate_entry_is_refused(release: Release, tmp_path: Path) -> None:
    error = refusal(tmp_path / "b.tide", archived([*entries_of(release), ("golden.npz", b"second")]))
    assert "'golden.npz' occurs twice" in error.message


def test_names_that_differ_only_in_case_are_refused(release: Release, tmp_path: Path) -> None:
    error = refusal(tmp_path / "b.tide", archived([*entries_of(release), ("GOLDEN.npz", b"second")]))
    assert "only in upper and lower case" in error.message


def test_a_missing_file_is_refused(release: Release, tmp_path: Path) -> None:
    entries = [entry for entry in entries_of(release) if entry[0] != "golden.npz"]
    error = refusal(tmp_path / "b.tide", archived(entries))
    assert "'golden.npz' is missing; expected" in error.message


def test_an_unlisted_file_is_refused(release: Release, tmp_path: Path) -> None:
    error = refusal(tmp_path / "b.tide", archived([*entries_of(release), ("extra.bin", b"?")]))
    assert "'extra.bin' is not listed" in error.message


def test_an_archive_without_manifest_is_refused(release: Release, tmp_path: Path) -> None:
    assert "has no manifest.json" in refusal(tmp_path / "b.tide", archived(entries_of(release)[1:])).message


def test_a_file_of_another_size_is_refused(release: Release, tmp_path: Path) -> None:
    entries = [(n, d + b"x") if n == "golden.npz" else (n, d) for n, d in entries_of(release)]
    error = refusal(tmp_path / "b.tide", archived(entries))
    assert isinstance(error, IntegrityError)
    assert "bytes long; expected" in error.message


def test_changed_content_is_refused_when_read(release: Release, tmp_path: Path) -> None:
    entries = [(n, b"M" + d[1:]) if n == "variants/a.onnx" else (n, d) for n, d in entries_of(release)]
    path = tmp_path / "b.tide"
    path.write_bytes(archived(entries))
    with Bundle.open(path) as bundle:
        assert bundle.asset("list") == b""
        for read in (bundle.verify_files, lambda: bundle.variant_bytes("onnx-fp32")):
            with pytest.raises(IntegrityError) as caught:
                read()
            assert digest(release[1]["variants/a.onnx"]) in caught.value.message
            assert "'variants/a.onnx' has SHA-256" in caught.value.message


def test_a_changed_manifest_is_refused_by_its_crc(tide_bytes: bytes, tmp_path: Path) -> None:
    raw = tide_bytes.replace(b'"release": 7', b'"release": 9')
    error = refusal(tmp_path / "b.tide", raw)
    assert isinstance(error, IntegrityError)
    assert "'manifest.json' has CRC" in error.message


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_bomb_is_refused_without_being_opened(release: Release, tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries_of(release):
            archive.writestr(name, data)
        archive.writestr("bomb.bin", bytes(16 << 20))
    tracemalloc.start()
    error = refusal(tmp_path / "b.tide", buffer.getvalue())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "is compressed (method" in error.message
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [(0o120777, "is a link"), (0o040755, "is not a regular file"), (0o010644, "is not a regular file")],
)
def test_a_link_or_special_file_is_refused(release: Release, tmp_path: Path, mode: int, complaint: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries_of(release):
            archive.writestr(name, data)
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, "/etc/passwd")
    error = refusal(tmp_path / "b.tide", buffer.getvalue())
    assert f"'link' {complaint}" in error.message


def test_every_truncation_is_refused(tide_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.tide"
    path.write_bytes(tide_bytes)
    for length in reversed(range(len(tide_bytes))):
        os.truncate(path, length)
        with pytest.raises(BundleError) as caught:
            Bundle.open(path)
        assert isinstance(caught.value, IntegrityError) or length < 4


@pytest.mark.parametrize("added", [b"\0", b"PK", bytes(100)])
def test_bytes_before_or_after_the_archive_are_refused(tide_bytes: bytes, tmp_path: Path, added: bytes) -> None:
    refusal(tmp_path / "b.tide", tide_bytes + added)
    refusal(tmp_path / "b.tide", added + tide_bytes)


def test_a_name_that_differs_between_header_and_directory_is_refused(tide_bytes: bytes, tmp_path: Path) -> None:
    first = tide_bytes.index(b"golden.npz", tide_bytes.index(b"PK\x03\x04", 100))
    raw = tide_bytes[:first] + b"goldem.npz" + tide_bytes[first + 10 :]
    assert "in its own header" in refusal(tmp_path / "b.tide", raw).message


def test_a_hidden_gap_between_files_is_refused(release: Release, tmp_path: Path) -> None:
    """Bytes that no entry owns could carry what no digest covers."""
    plain = archived(entries_of(release))
    directory = struct.unpack_from("<Q", plain, plain.rindex(b"PK\x06\x06") + 48)[0]
    gap = plain[:directory] + bytes(64) + plain[directory:]
    # Let the end record point at the moved directory, as an attacker would.
    end64 = gap.rindex(b"PK\x06\x06")
    shifted = bytearray(gap)
    struct.pack_into("<Q", shifted, end64 + 48, directory + 64)
    struct.pack_into("<Q", shifted, gap.rindex(b"PK\x06\x07") + 8, end64)
    assert "found an end at offset" in refusal(tmp_path / "b.tide", bytes(shifted)).message


def test_overlapping_entries_are_refused(release: Release, tmp_path: Path) -> None:
    """Two directory entries over one stretch of data, as in quoting bombs."""
    raw = bytearray(archived([*entries_of(release), ("variants/b.onnx", b"x" * 240)]))
    places = [at for at in range(len(raw)) if raw[at : at + 4] == b"PK\x01\x02"]
    first_offset = struct.unpack_from("<Q", raw, places[-2] + 46 + len("variants/a.onnx") + 4 + 16)[0]
    struct.pack_into("<Q", raw, places[-1] + 46 + len("variants/b.onnx") + 4 + 16, first_offset)
    assert "lies at offset" in refusal(tmp_path / "b.tide", bytes(raw)).message


@pytest.mark.parametrize(
    "raw",
    [b"", b"PK", b"#!/bin/sh\nexit\n", b"RIFF....WAVE", b"\x1f\x8b" + bytes(60), bytes(22), b"PK\x05\x06" + bytes(18)],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, raw: bytes) -> None:
    refusal(tmp_path / "b.tide", raw)


@pytest.mark.parametrize("schema", ["tidegate.bundle/2", "tidegate.bundle/1.1", "other/1", ""])
def test_an_unknown_schema_is_refused_before_its_fields_are_read(tmp_path: Path, schema: str) -> None:
    error = refusal(tmp_path / "b.tide", archived([("manifest.json", json.dumps({"schema": schema}).encode())]))
    assert f"has schema {schema!r}; this version of Tidegate reads 'tidegate.bundle/1'" in error.message


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}'])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, raw: bytes) -> None:
    refusal(tmp_path / "b.tide", archived([("manifest.json", raw)]))


def test_limits_are_kept(release: Release, tide_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.tide"
    assert "holds 4 files; expected at most 3" in refusal(path, tide_bytes, Limits(files=3)).message
    assert "bytes long; expected at most 100" in refusal(path, tide_bytes, Limits(manifest_bytes=100)).message
    assert "expected at most 200" in refusal(path, tide_bytes, Limits(file_bytes=200)).message


def test_a_count_of_entries_that_the_file_cannot_hold_costs_nothing(tide_bytes: bytes, tmp_path: Path) -> None:
    raw = bytearray(tide_bytes)
    end64 = tide_bytes.rindex(b"PK\x06\x06")
    struct.pack_into("<QQ", raw, end64 + 24, 1 << 62, 1 << 62)
    assert "files; expected at most 4096" in refusal(tmp_path / "b.tide", bytes(raw)).message


def test_enormous_shapes_open_without_allocating(release: Release, tmp_path: Path) -> None:
    manifest, files = release
    tensor = msgspec.structs.replace(manifest.signature.inputs[0], shape=(1 << 40, 1 << 40, 1 << 60))
    huge = msgspec.structs.replace(manifest, signature=msgspec.structs.replace(manifest.signature, inputs=(tensor,)))
    path = tmp_path / "b.tide"
    path.write_bytes(archived([("manifest.json", encode(huge)), *sorted(files.items())]))
    tracemalloc.start()
    with Bundle.open(path) as bundle:
        assert bundle.manifest.signature.inputs[0].shape[0] == 1 << 40
        bundle.verify_files()
        bundle.golden()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


# -- the same rules for a directory -----------------------------------------------------------------------------------


def unpacked(tide: Path) -> Path:
    target = tide.with_suffix("")
    with zipfile.ZipFile(tide) as archive:
        archive.extractall(target)
    return target


def link_to_file(root: Path) -> None:
    (root / "golden.npz").rename(root.parent / "elsewhere.npz")
    (root / "golden.npz").symlink_to(root.parent / "elsewhere.npz")


def link_to_directory(root: Path) -> None:
    (root / "variants").rename(root.parent / "elsewhere")
    (root / "variants").symlink_to(root.parent / "elsewhere", target_is_directory=True)


def deep(root: Path) -> None:
    (root / "/".join(["d"] * 30)).mkdir(parents=True)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (link_to_file, "'golden.npz' is a link"),
        (link_to_directory, "'variants' is a link"),
        (lambda root: os.mkfifo(root / "pipe"), "'pipe' is not a regular file"),
        (lambda root: (root / "extra").write_bytes(b""), "'extra' is not listed"),
        (lambda root: (root / "golden.npz").unlink(), "'golden.npz' is missing"),
        (lambda root: (root / "golden.npz").write_bytes(b"short"), "'golden.npz' is 5 bytes long"),
        (lambda root: (root / "manifest.json").unlink(), "has no manifest.json"),
        (deep, "lies deeper than"),
    ],
)
def test_a_damaged_directory_is_refused(tide: Path, damage: Callable[[Path], Any], complaint: str) -> None:
    root = unpacked(tide)
    with Bundle.open(root) as bundle:
        bundle.verify_files()
    damage(root)
    with pytest.raises(BundleError, match=complaint):
        Bundle.open(root)


def test_a_file_swapped_for_a_link_after_opening_is_not_followed(tide: Path) -> None:
    root = unpacked(tide)
    with Bundle.open(root) as bundle:
        link_to_file(root)
        with pytest.raises(BundleError, match=r"'golden.npz' is a link"):
            bundle.golden()


def test_a_file_changed_after_opening_is_refused(tide: Path) -> None:
    root = unpacked(tide)
    with Bundle.open(root) as bundle:
        bundle.read("variants/a.onnx")
        (root / "variants/a.onnx").write_bytes(b"M" * 240)
        with pytest.raises(IntegrityError, match="SHA-256"):
            bundle.read("variants/a.onnx")
        (root / "variants/a.onnx").write_bytes(b"M" * 500)
        with pytest.raises(IntegrityError, match="changed while"):
            bundle.read("variants/a.onnx")


def test_nothing_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no bundle at"):
        Bundle.open(tmp_path / "none.tide")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tide")
    with pytest.raises(BundleError, match="is not a regular file"):
        Bundle.open(tmp_path / "pipe.tide")


# -- fuzz -------------------------------------------------------------------------------------------------------------

MUTATION = st.tuples(st.integers(0, 1 << 16), st.sampled_from(["set", "delete", "insert"]), st.integers(0, 255))


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(mutations=st.lists(MUTATION, min_size=1, max_size=6))
def test_mutated_bytes_open_with_the_promised_content_or_are_refused(
    release: Release, tide_bytes: bytes, tmp_path: Path, mutations: list[tuple[int, str, int]]
) -> None:
    raw = bytearray(tide_bytes)
    for place, kind, value in mutations:
        at = place % len(raw)
        if kind == "set":
            raw[at] = value
        elif kind == "delete":
            del raw[at]
        else:
            raw.insert(at, value)
    path = tmp_path / "fuzzed.tide"
    path.write_bytes(raw)
    try:
        with Bundle.open(path) as bundle:
            for file in bundle.files:
                assert digest(bundle.read(file.path)) == file.sha256
            assert bundle.manifest == release[0]
    except BundleError:
        pass
