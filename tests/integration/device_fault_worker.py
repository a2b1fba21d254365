"""Let the disk refuse at each call that a device's command makes, and examine what came of it.

    python -m tests.integration.device_fault_worker HOME KEYS [--step N] [--every N] [SCENE ...]

Four faults at every N-th point (`--step`): the disk is full from there on, full for that one call, read-only from there
on, and failing (EIO) for that one call. The command may fail, with an error of ours only; what it leaves is examined as
after a kill. One JSON line for each scene.
"""

from __future__ import annotations

import argparse
import errno
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

from tests.deadly_calls import refuser, watch
from tests.device_examination import examine
from tests.device_scenes import SCENES, Scene, make_scene, one_thread, probe_in_this_process, server_process
from tests.forked import in_child
from tests.integration.device_kill_worker import points_of

from tidegate.errors import TidegateError

FAULTS = {
    "full": (errno.ENOSPC, True),
    "full once": (errno.ENOSPC, False),
    "read-only": (errno.EROFS, True),
    "failing once": (errno.EIO, False),
}


def run_with(scene: Scene, device: Path, fault: str, number: int) -> str:
    """Run the command on a disk that refuses; return the name of the error, or nothing."""
    code, lasting = FAULTS[fault]

    def run() -> str:
        watch(device, refuser(number, code, lasting=lasting))
        try:
            scene.command(device)
        except TidegateError as error:
            return type(error).__name__
        return ""

    return in_child(run)


def go_through(name: str, scene: Scene, *, step: int, every: int) -> dict[str, object]:
    """Try every fault at the points of one scene."""
    home = scene.site.home
    points = points_of(scene, home)
    errors: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    tried = 0
    for kind, fault in enumerate(FAULTS):
        for point in points[kind % step :: step]:
            device = home / "refused"
            if scene.device is not None:
                shutil.copytree(scene.device, device, symlinks=True)
            try:
                errors[run_with(scene, device, fault, point.number) or "none"] += 1
                answered[examine(scene, device, thoroughly=tried % every == 0)] += 1
            except AssertionError as error:
                raise AssertionError(f"{name}, {fault} at {point}: {error}") from error
            if device.exists():
                shutil.rmtree(device)
            tried += 1
    return {"scene": name, "points": len(points), "tried": tried, "errors": errors, "answered": answered}


def main() -> int:
    """Go through the scenes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("keys", type=Path)
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_intermixed_args()
    options.home.mkdir(parents=True, exist_ok=True)
    with one_thread(), probe_in_this_process(), server_process(options.home) as url:
        for number, name in enumerate(options.scenes or SCENES):
            scene = make_scene(name, options.home / str(number), options.keys, f"{url}/{number}")
            print(json.dumps(go_through(name, scene, step=options.step, every=options.every)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
