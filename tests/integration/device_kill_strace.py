"""Kill a device with SIGKILL at every system call that changes its files, counted and injected by strace.

    OPENBLAS_NUM_THREADS=1 python -m tests.integration.device_kill_strace HOME KEYS [--every N] [SCENE ...]

strace must be installed, and allowed to attach. A first run under strace lists the calls; then for each call that is
about the device's directory a fresh process on a fresh copy is killed on entering it, and what it left is examined,
every N-th time to the end. One JSON line for each scene. KEYS is a directory that
`tidegate.testing.channels.write_keys` filled.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.device_examination import examine
from tests.device_scenes import SCENES, Scene, make_scene, one_thread, probe_in_this_process, server_process

NAMES = (
    "openat",
    "open",
    "creat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "truncate",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "chmod",
    "fchmod",
    "fchmodat",
)
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_READS_ONLY = re.compile(r"O_RDONLY(?!.*O_(CREAT|TRUNC))")
ATTACH_LIMIT_S = 20.0


def traced(scene: Scene, device: Path, *options: str) -> int:
    """Run the command in a forked child under strace and return how it ended: 0, or minus the signal."""
    waiting, going = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(going)
            os.read(waiting, 1)
            scene.command(device)
            code = 0
        finally:
            os._exit(code)
    os.close(waiting)
    known = "?" + ",?".join(NAMES)  # A name that this machine's kernel does not have is left out.
    words = ("strace", "-f", "-qq", "-y", "-s", "0", "-p", str(child), "-e", f"trace={known}", *options)
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as tracer:
        end_s = time.monotonic() + ATTACH_LIMIT_S
        status = Path(f"/proc/{child}/status")
        while "TracerPid:\t0\n" in status.read_text():
            assert time.monotonic() < end_s, "strace did not attach"
            time.sleep(0.002)
        os.write(going, b"!")
        os.close(going)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tracer.wait()
    return code


def calls_of(scene: Scene, home: Path) -> list[tuple[str, int, str]]:
    """Return name, number among the calls of that name, and text of each call that changes the device."""
    device, log = _copy(scene, home / "undisturbed"), home / "calls.log"
    code = traced(scene, device, "-o", str(log))
    assert code == 0, f"the undisturbed run ended with {code}"
    lines = [found for line in log.read_text().splitlines() if (found := _CALL.match(line))]
    first = lines[0][1]
    seen: Counter[str] = Counter()
    calls = []
    for _, name, text in (found.groups() for found in lines if found[1] == first):
        seen[name] += 1
        if str(device) in text and not (name.startswith("open") and _READS_ONLY.search(text)):
            calls.append((name, seen[name], text.replace(str(device), "")))
    others = [found[0] for found in lines if found[1] != first and str(device) in found[0]]
    others = [line for line in others if not _READS_ONLY.search(line)]
    assert others == [], f"another thread changes files too: {others[:3]}"
    return calls


def go_through(name: str, scene: Scene, every: int) -> dict[str, object]:
    """Kill at each call and examine what is left."""
    calls = calls_of(scene, scene.site.home)
    answered: Counter[str] = Counter()
    for index, (call, number, text) in enumerate(calls):
        device = _copy(scene, scene.site.home / "killed")
        code = traced(scene, device, "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={number}")
        assert code == -signal.SIGKILL, f"{name}: {call} {number}: ended with {code}"
        try:
            answered[examine(scene, device, thoroughly=index % every == 0)] += 1
        except AssertionError as error:
            raise AssertionError(f"{name}, killed at {call} {number} ({text}): {error}") from error
        if device.exists():
            shutil.rmtree(device)
    kinds = Counter(call for call, _, _ in calls)
    return {"scene": name, "killed": len(calls), "calls": kinds, "answered": answered}


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
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_intermixed_args()
    options.home.mkdir(parents=True, exist_ok=True)
    with one_thread(), probe_in_this_process(), server_process(options.home) as url:
        for number, name in enumerate(options.scenes or SCENES):
            scene = make_scene(name, options.home / str(number), options.keys, f"{url}/{number}")
            print(json.dumps(go_through(name, scene, options.every)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
