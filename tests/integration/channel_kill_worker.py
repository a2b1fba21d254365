"""Kill a publisher with SIGKILL at each of its operations on files, and keep what each one left.

    python channel_kill_worker.py STEP SITE KEYS BUNDLES OUT

For the Nth operation a copy of SITE is made at OUT/N and a child process runs STEP on it; before its Nth operation, or
in the middle of it when it is a write, the child kills itself. Then a second child runs the same step again, to its
end, on a copy of that copy, OUT/N-again. One JSON line for each point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tidegate.release.applying import apply
from tidegate.release.channel import Channel
from tidegate.release.disk import Disk
from tidegate.release.draft import read_draft
from tidegate.release.keys import KeyRing, read_public_key
from tidegate.release.lifetimes import ROLES
from tidegate.release.pruning import prune, retire
from tidegate.release.repository import exists
from tidegate.release.rotation import rotate
from tidegate.testing.channels import open_keys, role_keys


class DeadlyDisk(Disk):
    """Counts operations; ends the process at one of them. A write counts twice: before it, and half-way.

    Syncs are counted and not done: a killed process loses nothing that the system has taken. That they are done, and
    in which order, is tested in test_channel.py.
    """

    def __init__(self, last: int) -> None:
        self._left = last

    def make_directory(self, path: Path) -> None:
        self._count()
        super().make_directory(path)

    def create(self, path: Path, mode: int) -> int:
        self._count()
        return super().create(path, mode)

    def write(self, descriptor: int, data: bytes) -> int:
        self._count()
        half = super().write(descriptor, data[: len(data) // 2])
        self._count()
        return half + super().write(descriptor, data[half:])

    def sync(self, descriptor: int) -> None:
        self._count()

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._count()

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def remove_directory(self, path: Path) -> None:
        self._count()
        super().remove_directory(path)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


Step = Callable[[Path, Disk], object]


def steps(keys: KeyRing, key_files: Path, bundles: Path) -> dict[str, Step]:
    """Return every command that changes a channel. Drafts lie beside the bundles."""

    def channel(path: Path, disk: Disk) -> Channel:
        return Channel(path, disk=disk)

    def carrying_out(name: str) -> Step:
        draft = (bundles / f"{name}.draft").read_bytes()
        return lambda path, disk: apply(path, read_draft(draft, origin=name), keys, disk=disk)

    def rotation(role: str) -> Step:
        old, new = (read_public_key(key_files / f"{name}.pub") for name in (role, f"{role}-2"))

        def run(path: Path, disk: Disk) -> object:
            held = Channel(path).read().root.signed.roles[role].keyids
            gone = [old.keyid] if old.keyid in held else []
            return rotate(path, role, keys, add=[new], remove=gone, disk=disk)

        return run

    return {
        "create": lambda path, disk: exists(path) or channel(path, disk).create(role_keys(key_files), keys),
        "publish": lambda path, disk: channel(path, disk).publish(bundles / "new.tide", track="stable", keys=keys),
        "promote": lambda path, disk: channel(path, disk).promote("tiny", source="beta", track="stable", keys=keys),
        "ramp": lambda path, disk: channel(path, disk).promote("tiny", track="beta", percent=90, keys=keys),
        "roll_back": lambda path, disk: channel(path, disk).roll_back(
            "tiny", track="stable", version="1.0.0", reason="test", keys=keys
        ),
        "withdraw": lambda path, disk: channel(path, disk).withdraw("tiny", version="1.2.0", reason="test", keys=keys),
        "refresh": lambda path, disk: channel(path, disk).refresh(keys, renew_targets=True),
        "retire": lambda path, disk: retire(path, 1, keys, disk=disk),
        "prune": lambda path, disk: prune(path, grace=timedelta(0), disk=disk),
        **{f"rotate_{role}": rotation(role) for role in ROLES},
        **{f"apply_{name}": carrying_out(name) for name in ("create", "withdraw", "rotate_targets")},
    }


def in_child(run: Callable[[], object]) -> int:
    """Run in a forked process; return how it ended: 0, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run()
            code = 0
        finally:  # whatever happened, the child ends here and never runs on in the parent's place
            if code:
                traceback.print_exc()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(step_name: str, *paths: str) -> int:
    """Go through the points until a child lives to its end."""
    site, key_files, bundles, out = map(Path, paths)
    keys = open_keys(key_files)
    for keyid in keys.keyids:  # decrypt once, before forking
        keys.signer(keyid)
    step = steps(keys, key_files, bundles)[step_name]
    point = 0
    while True:
        point += 1
        left, again = out / str(point), out / f"{point}-again"
        if site.exists():
            shutil.copytree(site, left)
        code = in_child(lambda: step(left, DeadlyDisk(point)))  # noqa: B023
        if code == 0:
            return 0
        if code != -signal.SIGKILL:
            return 1
        if left.exists():
            shutil.copytree(left, again)
        if in_child(lambda: step(again, DeadlyDisk(0))) != 0:  # noqa: B023
            return 1
        print(json.dumps({"left": str(left), "again": str(again)}), flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
