"""Kill a device with SIGKILL at the calls that change its files, and examine what each kill left.

    python -m tests.integration.device_kill_worker HOME KEYS [--step N] [--every N] [--all] [SCENE ...]

A run that is not disturbed counts the points and notes the state of the disk at each. Points between which the disk
does not change are one state; by default one kill is made for each state (`--all`: at every point; `--step N`: for
every N-th state), and of these kills every N-th (`--every N`) is examined to the end: an update to the newest version,
and a search for what is left over. The others are held to what must be true at once. One JSON line for each scene.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from tests.deadly_calls import Point, killer, recorder, watch
from tests.device_examination import examine
from tests.device_scenes import SCENES, Scene, make_scene, one_thread, probe_in_this_process, server_process
from tests.forked import ended

FEWEST_KILLS = 4
"""Of a scene, however large the steps."""


def points_of(scene: Scene, home: Path) -> list[Point]:
    """Run the scene's command once to its end and return every point of it."""
    device = _copy(scene, home / "undisturbed")

    def run() -> list[Point]:
        points: list[Point] = []
        watch(device, recorder(device, points))
        scene.command(device)
        return points

    how, points = ended(run)
    assert how == "returned", points
    counted: list[Point] = points
    examine(scene, device)
    return counted


def distinct(points: list[Point]) -> list[Point]:
    """Return the first point of each state of the disk."""
    seen: dict[str, Point] = {}
    for point in points:
        seen.setdefault(point.state, point)
    return list(seen.values())


def kill_at(scene: Scene, point: Point, device: Path) -> None:
    """Run the command on a copy at `device` and end it at this point."""

    def run() -> None:
        watch(device, killer(point.number))
        scene.command(device)

    how, what = ended(run)
    assert how == "died of SIGKILL", f"point {point}: {how} {what}"


def go_through(name: str, scene: Scene, *, step: int, every: int, everywhere: bool) -> dict[str, object]:
    """Kill one scene at its points and examine what is left."""
    home = scene.site.home
    points = points_of(scene, home)
    states = distinct(points)
    stride = max(1, min(step, len(states) // FEWEST_KILLS))
    chosen = points if everywhere else states[len(name) % stride :: stride]
    answered: dict[str, int] = {}
    for index, point in enumerate(chosen):
        device = _copy(scene, home / f"killed-{point.number}")
        kill_at(scene, point, device)
        try:
            version = examine(scene, device, thoroughly=index % every == 0)
        except AssertionError as error:
            raise AssertionError(f"{name}, killed at {point}: {error}") from error
        answered[version] = answered.get(version, 0) + 1
        shutil.rmtree(device)
    return {
        "scene": name,
        "points": len(points),
        "states": len(states),
        "killed": len(chosen),
        "to_the_end": len(range(0, len(chosen), every)),
        "answered": answered,
    }


def _copy(scene: Scene, device: Path) -> Path:
    if scene.device is not None:
        shutil.copytree(scene.device, device, symlinks=True)
    return device


def main() -> int:
    """Go through the scenes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("keys", type=Path)
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_intermixed_args()
    options.home.mkdir(parents=True, exist_ok=True)
    with one_thread(), probe_in_this_process(), server_process(options.home) as url:
        for number, name in enumerate(options.scenes or SCENES):
            scene = make_scene(name, options.home / str(number), options.keys, f"{url}/{number}")
            found = go_through(name, scene, step=options.step, every=options.every, everywhere=options.all)
            print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
