"""The child process of a probe: started, watched, and killed when it takes too long or too much memory.

Its memory is looked at from here, by its status file; where there is none, only the time limit stands.
"""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import msgspec

from tidegate.edge.update.probe_job import FAILED, SAID_LIMIT_BYTES, Failed, Job, Measured, Message, Reached
from tidegate.errors import ResourceError
from tidegate.runtime.process import ending, peak_resident_bytes, status_file_of

MODULE = "tidegate.edge.update.probe_worker"
LAST_WORDS_BYTES = 500
TICK_S = 0.02
GRACE_S = 5.0
"""For a child that has answered to end."""
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Where the child is killed."""

    own_bytes: float
    """the version's fault"""
    comparing_bytes: float
    """the same while the whole fixture runs at once: budgets are for one row"""
    machine_bytes: float
    """the machine's: it has no more to spare"""


def in_child(job: Job, limits: Limits, *, python: str, timeout_s: float) -> Measured | Failed | str:
    """Run one job in a fresh interpreter; return its outcome, or in words how the child failed.

    Args:
        job: what to measure.
        limits: of memory.
        python: interpreter.
        timeout_s: from the start of the child to its answer.

    Raises:
        ResourceError: no process could be started, or the machine has no more memory to spare.
    """
    with tempfile.TemporaryFile() as complaints:
        child = _start(python, complaints)
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child.stdin, job)
            outcome = _follow(child, job, limits, timeout_s)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                # To close a pipe is to send what is left, which a child that read nothing does not take any more.
                with suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
        return f"{outcome.what}{_tail(complaints)}" if isinstance(outcome, _Ended) else outcome


@dataclass(frozen=True)
class _Ended:
    what: str


def _start(python: str, complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    # A module of the app's own directory must not take the place of one of Python's. (Python 3.11 and later.)
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        return subprocess.Popen(  # noqa: S603 our own interpreter and module
            (python, "-m", MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            # A Ctrl-C in the app's terminal is the app's.
            start_new_session=True,
        )
    except OSError as error:
        raise ResourceError(
            f"no child process could be started for the probe: {error.strerror or error}",
            fix=f"check memory and limits of this machine, and that {python} is a Python interpreter",
        ) from error


def _send(pipe: IO[bytes], job: Job) -> None:
    try:
        pipe.write(msgspec.json.encode(job) + b"\n")
        pipe.flush()
    except BrokenPipeError:  # died at once; its end is reported with its exit code
        return


def _follow(child: subprocess.Popen[bytes], job: Job, limits: Limits, timeout_s: float) -> Measured | Failed | _Ended:
    """Read what the child says until its outcome or its end; kill it when it takes too long or too much."""
    assert child.stdout is not None
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True).start()
    deadline_s = time.monotonic() + timeout_s
    status_file = status_file_of(child.pid)
    stage = "starting"
    peak_bytes = 0
    while True:
        try:
            said = _message(lines.get(timeout=TICK_S))
        except queue.Empty:
            peak_bytes = max(peak_resident_bytes(status_file) or 0, peak_bytes)
            own_bytes = limits.comparing_bytes if stage == "comparing" else limits.own_bytes
            if peak_bytes > min(own_bytes, limits.machine_bytes):
                return _too_big(peak_bytes, own_bytes, limits.machine_bytes, stage)
            if time.monotonic() > deadline_s:
                return _Ended(f"no answer within {timeout_s:g} s while {stage}")
            continue
        if isinstance(said, Reached):
            stage = said.stage
        elif said is None:
            return _Ended(f"the child process ended with {_end_of(child)} while {stage}")
        else:
            return _agreed(child, job, said)


def _too_big(peak_bytes: int, own_bytes: float, machine_bytes: float, stage: str) -> _Ended:
    found = f"{peak_bytes / MEGABYTE:.0f} MB while {stage}"
    if machine_bytes < own_bytes:
        raise ResourceError(
            f"the probe took {found}; {machine_bytes / MEGABYTE:.0f} MB could be spared",
            fix="run the update again when more memory is free",
        )
    return _Ended(f"it took {found}; it was stopped at {own_bytes / MEGABYTE:.0f} MB")


def _agreed(child: subprocess.Popen[bytes], job: Job, said: Measured | Failed) -> Measured | Failed | _Ended:
    """Take an outcome only from the child itself, and only if the child also ended as it says."""
    end = _end_of(child)
    expected = ending(FAILED if isinstance(said, Failed) else 0)
    if end != expected:
        return _Ended(f"the child process reported an outcome and ended with {end}; expected {expected}")
    if said.token != job.token:
        return _Ended("the child process reported an outcome without its token")
    return said


def _end_of(child: subprocess.Popen[bytes]) -> str:
    try:
        return ending(child.wait(GRACE_S))
    except subprocess.TimeoutExpired:
        return "nothing: it hung"


def _read_lines(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
    while line := pipe.readline(SAID_LIMIT_BYTES):
        lines.put(line)
    lines.put(b"")


def _message(line: bytes) -> Message | None:
    """Parse one line; what was cut off by the child's death, or is no message, is the end."""
    try:
        message: Message = msgspec.json.decode(line, type=Message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message


def _tail(complaints: IO[bytes]) -> str:
    """Return the child's last words on one line, or nothing."""
    size = complaints.seek(0, 2)
    complaints.seek(max(size - LAST_WORDS_BYTES, 0))
    said = " ".join(complaints.read().decode(errors="replace").split())
    return f"; its last words: {said}" if said else ""
