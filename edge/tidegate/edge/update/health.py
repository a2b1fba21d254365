"""`health.json`: what the apps of a device count, for the updater to judge by.

Several processes may run the active model. Each keeps its counts in memory and, at most once a second and at its close,
adds what is new to the file: under a lock of its own (`health.lock`), read, add, replace. So the counts are sums over
all processes, and `processes` tells them apart by process id and start time; they must see each other's ids, so
containers that share the directory must share their process ids too.

A process that is found dead without having closed is a restart, counted against the release that it ran; one that died
while it loaded is a failed load as well. Processes found dead by the same look count once, since they may have been
ended together. What died with the whole machine is no restart, but a load that died with it is a failed load.

Nothing is synced to the disk: a power cut may cost the file. What cannot be read counts as no evidence at all, neither
good nor bad (`Health.is_readable`), and the next writer begins again. An app never fails because its health cannot be
written; the counts are kept and written later, and `HealthWriter.problem` says why.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.edge.update.counters import Counters
from tidegate.edge.update.lock import exclusive
from tidegate.errors import ResourceError, StateError

SCHEMA = "tidegate.health/1"
RELEASES_KEPT = 4
INTERVAL_S = 1.0
CLOSE_ATTEMPTS = 50
CLOSE_PAUSE_S = 0.02
LARGEST_PID = 1 << 31
BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")

Stage = Literal["loading", "running"]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """An app that runs a model now, or ran one when it died."""

    boot: str
    """of the machine, so that a power cut is not held against the model; empty where the system does not tell"""
    started: str
    """of the process, in ticks since the boot, since ids are used again; empty where the system does not tell"""
    release: int
    version: str
    stage: Stage
    is_fallback: bool = False
    """it runs an older version, since the active one does not load or is failing its trial"""


class Health(msgspec.Struct, kw_only=True):
    """The content of `health.json`."""

    schema: str = SCHEMA
    releases: dict[int, Counters] = {}
    """by release; the one written last stands last"""
    processes: dict[int, Process] = {}
    """by process id"""
    is_readable: bool = True
    """False: the file was damaged, and this is not all there was"""

    def of(self, release: int) -> Counters:
        """Return the counters of a release; all 0 when nobody ran it."""
        return self.releases.get(release, Counters())


def read_health(path: Path) -> Health:
    """Return what the file says. A file that is not there is an empty one; nothing is raised for what it holds."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Health()
    except OSError:
        return Health(is_readable=False)
    try:
        health = msgspec.json.decode(raw, type=Health)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Health(is_readable=False)
    return health if health.schema == SCHEMA else Health(is_readable=False)


class HealthWriter:
    """One process's share of the health file. Thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Write nothing yet.

        Args:
            path: of `health.json`.
            clock: seconds since 1970.
            interval_s: least time between two writes of counts.
        """
        self._path = path
        self._clock = clock
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._pending: dict[int, Counters] = {}
        self._process: Process | None = None
        self._written_s = float("-inf")
        self._is_contended = False
        self.problem = ""
        """why the last write failed; empty when it did not"""

    def began(self, release: int, version: str, stage: Stage, *, is_fallback: bool = False) -> Health:
        """Note at once what this process does now, and settle the accounts of those that died.

        Returns:
            The file's new content, so that the caller sees what the release did to processes before this one.
        """
        with self._lock:
            self._process = Process(
                boot=_boot(),
                started=_start_of(os.getpid()),
                release=release,
                version=version,
                stage=stage,
                is_fallback=is_fallback,
            )
            return self._write()

    def add(self, release: int, counters: Counters) -> None:
        """Take counts over; they are written when `write_if_due` finds it time."""
        with self._lock:
            self._pending.setdefault(release, Counters()).add(counters)

    def write_if_due(self) -> Health | None:
        """Write what is pending, at most once in the interval; return the file's content when it was written."""
        if not self._pending or time.monotonic() - self._written_s < self._interval_s:
            return None
        with self._lock:
            return self._write()

    def write(self) -> Health:
        """Write what is pending now; return the file's content."""
        with self._lock:
            return self._write()

    def close(self) -> None:
        """Write what is pending and take this process out: it ended cleanly."""
        with self._lock:
            self._process = None
            for _ in range(CLOSE_ATTEMPTS):
                self._write()
                if not self._is_contended:
                    return
                # Another process's write takes a fraction of a millisecond.
                time.sleep(CLOSE_PAUSE_S)

    def _write(self) -> Health:
        """Add what is pending to the file; on failure keep it and say why."""
        self._written_s = time.monotonic()
        self._is_contended, self.problem = False, ""
        health = self._merged(read_health(self._path))
        try:
            with exclusive(self._path.with_suffix(".lock")):
                health = self._merged(read_health(self._path))
                _replace(self._path, health)
                self._pending.clear()
        except StateError as error:
            self._is_contended, self.problem = True, error.message
        except ResourceError as error:
            self.problem = error.message
        return health

    def _merged(self, health: Health) -> Health:
        """Return the file's content with this process's share added and the dead taken out."""
        health.is_readable = True
        dead = {pid: process for pid, process in health.processes.items() if not _lives(pid, process)}
        for pid in (*dead, os.getpid()):
            health.processes.pop(pid, None)
        if self._process is not None:
            health.processes[os.getpid()] = self._process
        for release in sorted({process.release for process in dead.values()}):
            deaths = [process for process in dead.values() if process.release == release]
            _add(health.releases, release, self._counted(deaths))
        for release, counters in self._pending.items():
            _add(health.releases, release, counters)
        for old in list(health.releases)[:-RELEASES_KEPT]:
            del health.releases[old]
        return health

    def _counted(self, deaths: list[Process]) -> Counters:
        in_load = any(process.stage == "loading" for process in deaths)
        here = any(process.boot == _boot() for process in deaths)
        return Counters(
            restarts=(self._clock(),) if here else (),
            load_failures=int(in_load),
            crashed_loads=int(in_load),
            last_problem="a process died while it loaded the model" if in_load else "a process died" if here else "",
        )


def _add(releases: dict[int, Counters], release: int, counters: Counters) -> None:
    """Add to a release and move it to the end."""
    merged = releases.pop(release, Counters())
    merged.add(counters)
    releases[release] = merged


def _lives(pid: int, process: Process) -> bool:
    if process.boot != _boot() or not 0 < pid < LARGEST_PID:
        return False
    if os.name == "nt":  # Signal 0 would end the process there, so its restarts are not counted.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process, and it lives
        return True
    return _start_of(pid) == process.started


@cache
def _boot() -> str:
    return _text(BOOT_FILE).strip()


def _start_of(pid: int) -> str:
    """Return the clock ticks from boot to the start of a process; empty without /proc.

    Field 22 of /proc/PID/stat (proc(5)); the command before it is in brackets and may hold anything.
    """
    after_command = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return after_command[19] if after_command else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def forget(path: Path, release: int) -> None:
    """Take out what was counted of a release, because it begins a new trial.

    Raises:
        StateError: an app kept writing all the while.
        ResourceError: the disk refuses.
    """
    for attempt in range(1, CLOSE_ATTEMPTS + 1):
        try:
            with exclusive(path.with_suffix(".lock")):
                health = read_health(path)
                if health.is_readable and health.releases.pop(release, None) is not None:
                    _replace(path, health)
                return
        except StateError:
            if attempt == CLOSE_ATTEMPTS:
                raise
        # Another process's write takes a fraction of a millisecond.
        time.sleep(CLOSE_PAUSE_S)


def _replace(path: Path, health: Health) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(msgspec.json.encode(health))
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written: {error.strerror or error}", fix="check free space and permissions"
        ) from error
