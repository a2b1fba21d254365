"""Disks, lines and people that fail a device: a working model all the while, and nothing unverified ever active."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.device_examination import UPDATES, answering, check_nothing_unverified
from tests.device_scenes import Scene, make_scene, probe_in_this_process, record_of
from tests.fault_server import Request, serve_with_faults
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.edge.update import Updater
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.settings import read_settings, write_settings
from tidegate.errors import BundleError, ConfigError, NotFoundError, TidegateError, UnavailableError
from tidegate.testing.channels import serve, write_keys

ROOT = Path(__file__).parents[2]
SCENES_WITH_FAULTS = ["check", "update, all files", "settle, commit", "settle, roll back", "rollback", "app"]


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory)
    return directory


@pytest.mark.parametrize("scene", SCENES_WITH_FAULTS)
def test_a_disk_that_is_full_read_only_or_failing_at_any_call(scene: str, key_files: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.integration.device_fault_worker", tmp_path / "home", key_files, scene]
    everywhere = os.environ.get("TIDEGATE_KILL") == "all"
    extent = ["--step", "1" if everywhere else "12", "--every", "4"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words] + extent,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        # At every point it takes minutes, on a busy machine many; then pytest's own limit, of an hour, holds.
        timeout=None if everywhere else COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"{scene}: {found['tried']} faults at {found['points']} points: {found['errors']}")
    assert sum(found["answered"].values()) == found["tried"] >= 8


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


def kinds_of_file(device: Path) -> dict[str, Path]:
    """Return one file of every kind that a device has."""
    layout, record = Layout(device), record_of(device)
    return {
        "active model": layout.store.path(record.active.variant_sha256),
        "active manifest": layout.store.path(record.active.manifest_sha256),
        "factory model": layout.store.path(record.factory.variant_sha256),
        "factory manifest": layout.store.path(record.factory.manifest_sha256),
        "state.json": layout.state,
        "factory.json": layout.factory,
        "history.jsonl": layout.history,
        "health.json": layout.health,
        "lock": layout.lock,
        "root metadata": layout.metadata / "root_history" / "1.root.json",
        "root link": layout.metadata / "root.json",
        "timestamp": layout.metadata / "timestamp.json",
        "snapshot": layout.metadata / "snapshot.json",
        "targets": layout.metadata / "targets.json",
    }


KINDS = (
    "active model",
    "active manifest",
    "factory model",
    "factory manifest",
    "state.json",
    "factory.json",
    "history.jsonl",
    "health.json",
    "lock",
    "root metadata",
    "root link",
    "timestamp",
    "snapshot",
    "targets",
)


def bring_to(version: str, device: Path) -> None:
    """Update until this version runs."""
    for _ in range(UPDATES):
        try:
            Updater(device).update()
        except TidegateError:
            continue
        if record_of(device).active.version == version:
            return
    raise AssertionError(f"{record_of(device).active.version} runs; expected {version}")


@pytest.fixture(scope="module")
def scene(key_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A device on 1.1.0 with 1.0.0 behind it; 1.2.0 is offered."""
    home = tmp_path_factory.mktemp("world")
    with serve(home) as server:
        yield make_scene("update, delta", home / "home", key_files, f"{server.url}/home")


@pytest.fixture
def device(scene: Scene, tmp_path: Path) -> Path:
    assert scene.device is not None
    shutil.copytree(scene.device, tmp_path / "kiosk", symlinks=True)
    return tmp_path / "kiosk"


@pytest.mark.parametrize("damage", [flipped, cut, emptied, gone])
@pytest.mark.parametrize("kind", KINDS)
def test_any_one_file_that_is_damaged(kind: str, damage: Callable[[Path], None], scene: Scene, device: Path) -> None:
    Updater(device).check()
    assert answering(scene, device) == "1.1.0"
    path = kinds_of_file(device)[kind]
    if damage in (gone, emptied) or path.stat().st_size:
        damage(path)
    assert answering(scene, device) in ("1.0.0", "1.1.0")
    bring_to("1.2.0", device)
    assert answering(scene, device) == "1.2.0"
    if not kind.startswith("factory"):
        check_nothing_unverified(scene, device)


@pytest.mark.parametrize("damage", [flipped, cut, emptied, gone])
@pytest.mark.parametrize("name", ["device.json", "root.json"])
def test_what_the_owner_gave_is_not_guessed(
    name: str, damage: Callable[[Path], None], scene: Scene, device: Path
) -> None:
    whole = (device / name).read_bytes()
    damage(device / name)
    with pytest.raises((ConfigError, NotFoundError, BundleError)):
        Updater(device).update()
    assert answering(scene, device) == "1.1.0"
    (device / name).write_bytes(whole)
    bring_to("1.2.0", device)


def test_a_line_that_breaks_after_any_number_of_bytes(scene: Scene, device: Path, tmp_path: Path) -> None:
    left = [0]

    def break_off(request: Request) -> bool:
        data = request.content()
        if data is None:
            return False
        begin = request.wanted_from(len(data)) or 0
        if left[0] >= len(data) - begin:
            left[0] -= len(data) - begin
            return False
        request.send_file(stop_after=left[0])
        left[0] = 0
        return True

    with serve_with_faults(scene.site.channel.path) as site:
        site.rules["/"] = break_off
        tried = 0
        for length in range(0, 1 << 20, 701):
            here = tmp_path / f"cut-{length}"
            shutil.copytree(device, here, symlinks=True)
            left[0] = length
            follow(here, site.url)
            try:
                with probe_in_this_process():
                    Updater(here).update()
            except UnavailableError:
                tried += 1
                assert answering(scene, here) == "1.1.0"
                check_nothing_unverified(scene, here)
                shutil.rmtree(here)
                continue
            break
        else:
            raise AssertionError("no length was enough")
        print(f"{tried} cuts, every 701 bytes")
        assert tried > 5
        assert answering(scene, here) == "1.2.0"


def follow(device: Path, url: str) -> None:
    path = Layout(device).settings
    write_settings(path, replace(read_settings(path), url=url))


def test_two_processes_at_once_and_one_of_them_works(scene: Scene, device: Path) -> None:
    program = "import sys; from tidegate.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "device", "update", "--json", "--directory", str(device)]
    several = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=COMMAND_TIMEOUT_S) for process in several]
    codes = [process.returncode for process in several]
    assert codes.count(0) >= 1, said
    assert set(codes) <= {0, 1}
    for code, (_, complaints) in zip(codes, said, strict=True):
        assert code == 0 or "is at work on" in complaints
    assert answering(scene, device) == "1.2.0"
    check_nothing_unverified(scene, device)


def test_a_copy_of_the_directory_that_is_made_in_the_middle_of_an_update(
    scene: Scene, device: Path, tmp_path: Path
) -> None:
    copies: list[Path] = []

    def copy(*_: object) -> None:
        copies.append(tmp_path / f"copy-{len(copies)}")
        shutil.copytree(device, copies[-1], symlinks=True, copy_function=copy_file)

    def copy_file(source: str, target: str) -> None:
        # Other files go on being fetched meanwhile: one of them may be renamed between the list and the copy.
        with suppress(FileNotFoundError):
            shutil.copy2(source, target)

    assert Updater(device, conditions=copy, on_progress=copy).update().outcome == "activated"
    assert len(copies) > 3
    for one in copies:
        assert answering(scene, one) == "1.1.0"
        check_nothing_unverified(scene, one)
    for one in copies[:: len(copies) // 2]:
        bring_to("1.2.0", one)
        assert answering(scene, one) == "1.2.0"
