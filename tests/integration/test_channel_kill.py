"""SIGKILL at every operation on files of every command: no device ever meets a channel that is not valid."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.release.channel import Channel
from tidegate.release.keys import read_public_key
from tidegate.release.lifetimes import ROLES
from tidegate.release.moments import utc_now
from tidegate.release.report import report
from tidegate.release.rotation import draft_rotation
from tidegate.testing.channels import (
    PlainDevice,
    make_channel,
    open_keys,
    role_keys,
    serve,
    write_keys,
    write_tiny_bundle,
)

WORKER = Path(__file__).with_name("channel_kill_worker.py")

STABLE = {
    "publish": ("1.1.0", "1.3.0"),
    "promote": ("1.1.0", "1.2.0"),
    "ramp": ("1.1.0", "1.1.0"),
    "roll_back": ("1.1.0", "1.0.0"),
    "withdraw": ("1.1.0", "1.1.0"),
    "refresh": ("1.1.0", "1.1.0"),
    "retire": ("1.1.0", "1.1.0"),
    "prune": ("1.1.0", "1.1.0"),
    **{f"rotate_{role}": ("1.1.0", "1.1.0") for role in ROLES},
    "apply_withdraw": ("1.1.0", "1.0.0"),
    "apply_rotate_targets": ("1.1.0", "1.1.0"),
}
"""What stable offers before and after each command."""

AT_LEAST_POINTS = {
    "create": 30,
    "publish": 48,
    "rotate_targets": 30,
    "rotate_root": 6,
    "refresh": 18,
    "retire": 18,
    "prune": 6,
    "apply_create": 30,
    "apply_withdraw": 18,
    "apply_rotate_targets": 30,
}
"""So that a worker that counts nothing cannot pass."""


@dataclass(frozen=True)
class World:
    site: Path
    keys: Path
    bundles: Path
    used_device: Path
    """state of a device that has installed from the site before"""
    url_root: bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """stable offers 1.1.0 after 1.0.0, beta 1.2.0 to half of the devices."""
    home = tmp_path_factory.mktemp("world")
    write_keys(home / "keys", [*ROLES, *(f"{role}-2" for role in ROLES)])
    (home / "bundles").mkdir()
    keys = open_keys(home / "keys")
    channel = make_channel(home / "site", home / "keys")
    for version, track, percent in (("1.0.0", "stable", 100), ("1.1.0", "stable", 100), ("1.2.0", "beta", 50)):
        bundle = write_tiny_bundle(home / "bundles" / f"{version}.tide", version=version, weights=version.encode())
        channel.publish(bundle, track=track, keys=keys, percent=percent)
    old, new = (read_public_key(home / "keys" / f"{name}.pub") for name in ("targets", "targets-2"))
    drafts = {
        "create": Channel(home / "another").draft_creation(role_keys(home / "keys"), keys),
        "withdraw": channel.withdraw("tiny", version="1.1.0", reason="test", keys=keys, in_turns=True).draft,
        "rotate_targets": draft_rotation(channel.path, "targets", keys, add=[new], remove=[old.keyid]),
    }
    for name, draft in drafts.items():
        assert draft is not None
        (home / "bundles" / f"{name}.draft").write_bytes(draft.to_bytes())
    write_tiny_bundle(home / "bundles" / "new.tide", version="1.3.0", weights=b"1.3.0", assets={"list": b"words"})
    root = (channel.path / "metadata" / "1.root.json").read_bytes()
    with serve(home / "site") as server:
        PlainDevice(home / "device", server.url, root).install("tiny", "stable", "onnx-fp32")
    return World(home / "site", home / "keys", home / "bundles", home / "device", root)


def killed_at_every_point(step: str, site: Path, world: World, out: Path) -> list[dict[str, str]]:
    out.mkdir()
    command = [sys.executable, WORKER, step, site, world.keys, world.bundles, out]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) >= AT_LEAST_POINTS.get(step, 18), step
    print(f"{step}: {len(points)} points")
    return points


@pytest.mark.parametrize("step", STABLE)
def test_killed_at_any_point_the_channel_is_valid_and_the_same_command_completes_it(
    step: str, world: World, tmp_path: Path
) -> None:
    before, after = STABLE[step]
    seen = set()
    with serve(tmp_path) as server:
        for number, point in enumerate(killed_at_every_point(step, world.site, world, tmp_path / "out")):
            used = tmp_path / f"used-{number}"
            shutil.copytree(world.used_device, used, symlinks=True)
            for site, expected in ((point["left"], {before, after}), (point["again"], {after})):
                url = f"{server.url}/{Path(site).relative_to(tmp_path)}"
                for state in (used, tmp_path / f"new-{Path(site).name}"):
                    installed = PlainDevice(state, url, world.url_root).install("tiny", "stable", "onnx-fp32")
                    assert installed.manifest.version in expected
                    assert installed.files["models/a.onnx"] == installed.manifest.version.encode()
                    seen.add(installed.manifest.version)
            whole = report(Channel(Path(point["again"])).read(), utc_now(), check_files=True)
            assert whole.warnings == ()
            assert list(Path(point["again"]).rglob("*.part")) == []
    assert seen == {before, after}


@pytest.mark.parametrize("step", ["create", "apply_create"])
def test_killed_while_a_channel_is_made_it_is_made_or_the_same_command_makes_it(
    step: str, world: World, tmp_path: Path
) -> None:
    for point in killed_at_every_point(step, tmp_path / "nothing", world, tmp_path / "out"):
        assert Channel(Path(point["again"])).read().root.version == 1
