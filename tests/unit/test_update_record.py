"""What a device keeps on its disk: the record, the settings, the history, the lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.edge.update import history
from tidegate.edge.update.history import MAXIMUM_BYTES, HistoryEntry
from tidegate.edge.update.lock import exclusive, holder
from tidegate.edge.update.record import (
    SCHEMA,
    Interruptions,
    LastCheck,
    Quarantined,
    Record,
    Slot,
    encode,
    read_record,
    read_slot,
    salvage,
    write_record,
)
from tidegate.edge.update.settings import DeviceSettings, decode, read_settings, write_settings
from tidegate.edge.update.states import State
from tidegate.errors import BundleError, ConfigError, NotFoundError, ResourceError, StateError
from tidegate.fetch.settings import FetchSettings

SLOT = Slot(
    model="m",
    track="stable",
    release=7,
    version="1.2.3",
    manifest_sha256="a" * 64,
    variant="onnx-fp32",
    variant_sha256="b" * 64,
    installed_at="2026-01-01T00:00:00Z",
)
FULL = Record(
    schema=SCHEMA,
    phase=State.PROBING,
    active=SLOT,
    factory=msgspec.structs.replace(SLOT, release=0, why="the factory version"),
    previous=msgspec.structs.replace(SLOT, release=6),
    candidate=msgspec.structs.replace(SLOT, release=8),
    quarantined=(Quarantined(release=5, version="1.0.0", reason="deaf", at="2026-01-01T00:00:00Z"),),
    counters={"stable": 7, "beta": 9},
    interruptions=Interruptions(release=8, count=2, since="2026-01-01T00:00:00Z"),
    last_check=LastCheck(at="2026-01-01T00:00:00Z", latest_release=8, latest_version="1.3.0"),
)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_record(path, FULL)
    assert read_record(path) == FULL
    assert f'"schema": "{SCHEMA}"'.encode() in path.read_bytes()
    write_record(path, msgspec.structs.replace(FULL, phase=State.TRIAL, candidate=None))
    assert read_record(path).phase is State.TRIAL
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "truncated"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "state.json"),
        (encode(FULL)[:-40], "truncated"),
        (encode(FULL).replace(b'"probing"', b'"waltzing"'), "waltzing"),
        (encode(FULL).replace(b"device/1", b"device/2"), "reads 'tidegate.device/1'"),
        (encode(msgspec.structs.replace(FULL, candidate=None)), "without a candidate"),
    ],
    ids=["empty", "binary", "deep", "cut", "phase", "schema", "no candidate"],
)
def test_a_record_that_cannot_be_understood_is_said_so(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=words):
        read_record(path)
    assert "factory" not in salvage(path) or salvage(path)["factory"] == FULL.factory


def test_what_can_be_understood_of_a_foreign_record_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    fields: dict[str, Any] = msgspec.json.decode(encode(FULL))
    fields |= {"phase": "waltzing", "previous": {"no": "slot"}, "counters": "none"}
    path.write_bytes(msgspec.json.encode(fields))
    kept = salvage(path)
    assert kept == {"active": FULL.active, "factory": FULL.factory, "quarantined": FULL.quarantined}
    path.unlink()
    assert salvage(path) == {}


@given(st.binary(max_size=200))
def test_no_content_of_a_record_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("device") / "state.json"
    path.write_bytes(raw)
    with pytest.raises(BundleError):
        read_record(path)
    assert salvage(path) == {}


def test_a_device_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a device"):
        read_record(tmp_path / "state.json")
    with pytest.raises(NotFoundError, match="is not a device"):
        read_settings(tmp_path / "device.json")
    (tmp_path / "factory.json").write_bytes(encode(SLOT))
    assert read_slot(tmp_path / "factory.json") == SLOT
    (tmp_path / "factory.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="missing required field"):
        read_slot(tmp_path / "factory.json")


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    settings = DeviceSettings(
        device_id="kiosk-1",
        url="https://models.example.com/site",
        model="m",
        hardware=("pi5",),
        memory_mb=64.0,
        probe={"calls": 30},
        fetch=FetchSettings(attempts=2),
    )
    write_settings(tmp_path / "device.json", settings)
    assert read_settings(tmp_path / "device.json") == settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device_id": ""}, "device_id is empty"),
        ({"url": "ftp://x"}, "not an http"),
        ({"track": "Stable!"}, "track 'Stable!'"),
        ({"memory_mb": 0}, "memory_mb is 0"),
        ({"check_interval_s": -1}, "check_interval_s"),
        ({"interruptions": 0}, "interruptions is 0"),
        ({"modle": "x"}, "'modle'"),
        ({"fetch": {"attempt": 3}}, "'attempt'"),
        ({"fetch": {"attempts": 0}}, "attempts"),
        ({"hardware": "pi5"}, "hardware"),
        ({"fetch": 5}, "object"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(change: dict[str, Any], words: str) -> None:
    plain = {"device_id": "kiosk-1", "url": "https://models.example.com", "model": "m"}
    assert decode(msgspec.json.encode(plain)).track == "stable"
    with pytest.raises(ConfigError, match=words):
        decode(msgspec.json.encode(plain | change))


def entry(number: int) -> HistoryEntry:
    return HistoryEntry(at="2026-01-01T00:00:00Z", event="activated", release=number, reason="x" * 100)


def test_a_torn_line_is_left_out_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert history.read(path) == []
    for number in range(3):
        history.append(path, entry(number))
    path.write_bytes(path.read_bytes()[:-20])
    assert [one.release for one in history.read(path)] == [0, 1]
    history.append(path, entry(3))
    assert [one.release for one in history.read(path)] == [0, 1, 3]


def test_the_history_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    old = b"".join(msgspec.json.encode(entry(number)) + b"\n" for number in range(2000))
    assert len(old) > MAXIMUM_BYTES
    path.write_bytes(old)
    history.append(path, entry(2000))
    assert path.stat().st_size < MAXIMUM_BYTES
    assert [one.release for one in history.read(path)] == list(range(1000, 2001))


def test_a_lock_excludes_and_ends_with_its_block(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path), pytest.raises(StateError, match="this process itself is at work"), exclusive(path):
        pass
    with exclusive(path):
        assert holder(path) == "this process itself"
    with pytest.raises(ResourceError), exclusive(tmp_path / "missing" / "lock"):
        pass
    assert holder(tmp_path / "missing") == "another process"


HOLDER = """
import sys, pathlib
from tidegate.edge.update.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StateError, match=f"process {process.pid} is at work"), exclusive(path):
            pass
        process.kill()
        process.wait()
    with exclusive(path):
        assert holder(path) == "this process itself"
