"""Deltas on a channel: signed, fetched by python-tuf's own client, leading to the very file that the track names."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tidegate.bundle import digest
from tidegate.cli.main import main
from tidegate.delta import Identity, apply, read_header
from tidegate.errors import ConfigError, IntegrityError, ResourceError
from tidegate.release.channel import Channel
from tidegate.release.disk import Disk
from tidegate.release.keys import KeyRing
from tidegate.release.track import delta_target
from tidegate.testing.channels import (
    PASSPHRASE,
    PlainDevice,
    make_channel,
    open_keys,
    serve,
    write_keys,
    write_tiny_bundle,
)


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory)
    return directory


@pytest.fixture(scope="module")
def keys(key_files: Path) -> KeyRing:
    return open_keys(key_files)


@pytest.fixture
def channel(tmp_path: Path, key_files: Path) -> Channel:
    return make_channel(tmp_path / "site", key_files)


@pytest.fixture
def device(tmp_path: Path, channel: Channel) -> Iterator[PlainDevice]:
    with serve(channel.path) as server:
        yield PlainDevice(tmp_path / "device", server.url, (channel.path / "metadata" / "1.root.json").read_bytes())


def model(number: int) -> bytes:
    """Return a model of 20 kB whose weights move a little from each number to the next."""
    weights = np.random.default_rng(1).normal(size=(50, 100)).astype(np.float32)
    weights.view(np.uint32)[...] += np.uint32(7 * number)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w")])
    return bytes(helper.make_model(graph).SerializeToString())


def release(directory: Path, number: int) -> Path:
    path = directory / f"{number}.tide"
    return write_tiny_bundle(path, version=f"1.{number}.0", weights=model(number))


def deltas_of(channel: Channel) -> set[str]:
    return {path for path in channel.read().files if path.startswith("deltas/")}


def between(*numbers: tuple[int, int]) -> set[str]:
    """Return the targets of deltas from one release to another, for both variants of a tiny bundle."""
    pairs = {(model(old), model(new)) for old, new in numbers}
    pairs |= {(old[::-1], new[::-1]) for old, new in pairs}
    return {delta_target(digest(old), digest(new)) for old, new in pairs}


def test_a_roll_back_has_deltas_from_the_releases_that_it_takes_back(
    tmp_path: Path, channel: Channel, keys: KeyRing
) -> None:
    for number in (1, 2, 3):
        channel.publish(release(tmp_path, number), track="stable", keys=keys)

    channel.roll_back("tiny", track="stable", version="1.1.0", reason="mishears", keys=keys)

    assert deltas_of(channel) == between((3, 1), (2, 1))


def test_the_model_of_this_test_is_one() -> None:
    onnx.load_from_string(model(1))


def test_a_device_gets_the_new_file_by_delta(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    for number in (1, 2):
        channel.publish(release(tmp_path, number), track="stable", keys=keys)
    client = device.refresh()
    target = client.get_targetinfo(delta_target(digest(model(1)), digest(model(2))))
    assert target is not None
    assert target.custom == {
        "schema": "tidegate.delta/1",
        "method": "typed",
        "from": {"sha256": digest(model(1)), "size_bytes": len(model(1))},
        "to": {"sha256": digest(model(2)), "size_bytes": len(model(2))},
    }
    delta = Path(client.download_target(target)).read_bytes()
    assert len(delta) == target.length < len(model(2)) / 10
    assert apply(model(1), delta, full=Identity.of(model(2))) == model(2)
    # Reversed, it is no model that anybody could read: still a delta, by the method that takes any file.
    other = client.get_targetinfo(delta_target(digest(model(1)[::-1]), digest(model(2)[::-1])))
    assert other is not None
    assert other.custom["method"] == "zstd-patch"


def test_deltas_come_from_the_last_three_releases(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    for number in range(1, 6):
        channel.publish(release(tmp_path, number), track="stable", keys=keys)
    # Those to earlier releases are listed no longer: no device is led there any more.
    assert deltas_of(channel) == between((2, 5), (3, 5), (4, 5))


def test_while_a_release_ramps_up_the_one_before_keeps_its_deltas(
    tmp_path: Path, channel: Channel, keys: KeyRing
) -> None:
    for number, percent in ((1, 100), (2, 100), (3, 10)):
        channel.publish(release(tmp_path, number), track="stable", keys=keys, percent=percent)
    channel.publish(write_tiny_bundle(tmp_path / "other.tide", name="other"), track="stable", keys=keys)
    assert deltas_of(channel) == between((1, 2), (1, 3), (2, 3))
    channel.promote("tiny", track="stable", keys=keys, percent=100)
    assert deltas_of(channel) == between((1, 3), (2, 3))
    for path in between((1, 2)):
        folder, _, name = path.rpartition("/")
        assert len(list((channel.path / "targets" / folder).glob(f"*.{name}"))) == 1, "the file stays"


def test_how_many_is_the_publishers_choice(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    channel.publish(release(tmp_path, 1), track="stable", keys=keys)
    channel.publish(release(tmp_path, 2), track="stable", keys=keys, delta_bases=0)
    assert deltas_of(channel) == set()
    channel.publish(release(tmp_path, 3), track="stable", keys=keys, delta_bases=1)
    assert delta_target(digest(model(2)), digest(model(3))) in deltas_of(channel)
    assert not deltas_of(channel) & between((1, 3))
    with pytest.raises(ConfigError, match="deltas from -1 releases"):
        channel.publish(release(tmp_path, 4), track="stable", keys=keys, delta_bases=-1)


def test_publishing_again_changes_nothing(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    for number in (1, 2):
        channel.publish(release(tmp_path, number), track="stable", keys=keys)
    before = {path: path.read_bytes() for path in channel.path.rglob("*") if path.is_file()}
    change = channel.publish(tmp_path / "2.tide", track="stable", keys=keys)
    assert change.offers == ()
    assert {path: path.read_bytes() for path in channel.path.rglob("*") if path.is_file()} == before


def test_promotion_makes_deltas_for_the_devices_of_its_track(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    channel.publish(release(tmp_path, 1), track="stable", keys=keys)
    for number in (2, 3):
        channel.publish(release(tmp_path, number), track="beta", keys=keys)
    assert not deltas_of(channel) & between((1, 2), (1, 3))
    channel.promote("tiny", source="beta", track="stable", keys=keys, percent=5)
    made = deltas_of(channel)
    assert delta_target(digest(model(1)), digest(model(3))) in made
    channel.promote("tiny", track="stable", keys=keys, percent=100)
    channel.withdraw("tiny", version="1.2.0", reason="wrong labels", keys=keys)
    assert deltas_of(channel) == made


def test_a_withdrawn_release_is_a_base_too(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    channel.publish(release(tmp_path, 1), track="stable", keys=keys)
    channel.publish(release(tmp_path, 2), track="stable", keys=keys)
    channel.withdraw("tiny", version="1.2.0", reason="wrong labels", keys=keys)
    channel.publish(release(tmp_path, 3), track="stable", keys=keys)
    assert deltas_of(channel) >= {delta_target(digest(model(old)), digest(model(3))) for old in (1, 2)}


def test_a_release_that_is_damaged_on_the_channel_is_told(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    channel.publish(release(tmp_path, 1), track="stable", keys=keys)
    sha256 = digest(model(1))
    stored = channel.path / "targets" / "files" / f"{sha256}.{sha256}"
    stored.write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"has SHA-256 .*; expected"):
        channel.publish(release(tmp_path, 2), track="stable", keys=keys)
    stored.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        channel.publish(release(tmp_path, 2), track="stable", keys=keys)
    assert [offer.version for offer in channel.read().tracks_of("tiny")["stable"].offers] == ["1.1.0"]
    channel.publish(release(tmp_path, 2), track="stable", keys=keys, delta_bases=0)


def test_the_command_line_takes_the_number(
    tmp_path: Path, channel: Channel, key_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_PASSPHRASE", PASSPHRASE)
    where = ["--channel", str(channel.path), "--keys", str(key_files), "--track", "stable"]
    for number, words in ((1, []), (2, ["--deltas", "0"]), (3, [])):
        assert main(["publish", str(release(tmp_path, number)), *where, *words]) == 0
    newest = digest(model(3))
    assert {path for path in deltas_of(channel) if path.endswith(newest)} == {
        delta_target(digest(model(old)), newest) for old in (1, 2)
    }
    files = (channel.path / "targets" / "deltas").rglob(f"*.{newest}")
    assert all(read_header(file.read_bytes()).full == Identity.of(model(3)) for file in files)


class FullDisk(Disk):
    """Takes so many bytes in all, then refuses as a full disk does."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def write(self, descriptor: int, data: bytes) -> int:
        if len(data) > self.free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free_bytes -= len(data)
        return super().write(descriptor, data)


def test_a_disk_that_is_full_at_any_file_leaves_the_old_release_and_the_same_command_goes_on(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    channel.publish(release(tmp_path, 1), track="stable", keys=keys)
    second = release(tmp_path, 2)
    before, elsewhere = tmp_path / "before", tmp_path / "elsewhere"
    shutil.copytree(channel.path, before)
    shutil.copytree(channel.path, elsewhere)
    plenty = FullDisk(10**9)
    Channel(elsewhere, disk=plenty).publish(second, track="stable", keys=keys)
    needed = 10**9 - plenty.free_bytes
    for free_bytes in range(0, needed, needed // 25):
        shutil.rmtree(channel.path)
        shutil.copytree(before, channel.path)
        with pytest.raises(ResourceError, match="No space left"):
            Channel(channel.path, disk=FullDisk(free_bytes)).publish(second, track="stable", keys=keys)
        assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"
        assert device.refresh().get_targetinfo(delta_target(digest(model(1)), digest(model(2)))) is None
    channel.publish(second, track="stable", keys=keys)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.2.0"
    assert deltas_of(channel) == between((1, 2))
