"""Start the child process for one variant, follow it, and say how it ended."""

from __future__ import annotations

import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

import msgspec

from tidegate.bench.job import Failed, Job, Measured, Message, PhaseReached
from tidegate.runtime.process import ending

COMMAND = (sys.executable, "-m", "tidegate.bench.worker")
LAST_WORDS_BYTES = 2_000

Phase = Literal["loading", "warming", "timing"]


@dataclass(frozen=True)
class Progress:
    """Where a variant stands."""

    name: str
    phase: Phase
    pid: int
    """of the child process"""
    elapsed_s: float
    """in this phase"""
    expected_s: float
    """of this phase; 0 when unknown"""


Observer = Callable[[Progress], None]


@dataclass(frozen=True)
class Crashed:
    """The child ended without an answer."""

    cause: str
    """name of the signal, or `exit 1`"""
    last_words: str
    """end of its standard error"""


def measure_in_child(job: Job, observer: Observer, tick_s: float | None) -> Measured | Failed | Crashed:
    """Run one job in a fresh interpreter.

    Args:
        observer: told of every phase as it begins.
        tick_s: how often it is told in between; None for not at all, so that this process sleeps while calls are timed.
    """
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(  # noqa: S603 our own interpreter and module
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
        )
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child.stdin, job)
            outcome = _follow(child.stdout, job, child.pid, observer, tick_s)
            child.wait()
        finally:
            child.kill()  # only reached alive when this process is interrupted
            child.wait()
            for pipe in (child.stdin, child.stdout):
                # To close a pipe is to send what is left, which a child that read nothing does not take any more.
                with suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
        if outcome is not None:
            return outcome
        return Crashed(cause=ending(child.returncode), last_words=_tail(complaints))


def _send(pipe: IO[bytes], job: Job) -> None:
    try:
        pipe.write(msgspec.json.encode(job) + b"\n")
        pipe.flush()
    except BrokenPipeError:  # died at once; its end is reported with its exit code
        return


def _follow(pipe: IO[bytes], job: Job, pid: int, observer: Observer, tick_s: float | None) -> Measured | Failed | None:
    """Read messages until the outcome, or until the child closes the pipe without one."""
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read_lines, args=(pipe, lines), daemon=True).start()
    name = job.variant or "model"
    phase: Phase = "loading"
    expected_s, since_s = 0.0, time.monotonic()
    while True:
        observer(Progress(name, phase, pid, time.monotonic() - since_s, expected_s))
        try:
            line = lines.get(timeout=tick_s)
        except queue.Empty:
            continue
        message = _message(line)
        if not isinstance(message, PhaseReached):
            return message
        phase, expected_s, since_s = message.phase, message.expected_s, time.monotonic()


def _read_lines(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
    for line in iter(pipe.readline, b""):
        lines.put(line)
    lines.put(b"")


def _message(line: bytes) -> Message | None:
    """Parse one line; a last line that was cut off by the child's death is no message."""
    if not line.endswith(b"\n"):
        return None
    message: Message = msgspec.json.decode(line, type=Message)
    return message


def _tail(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, 2)
    complaints.seek(max(size - LAST_WORDS_BYTES, 0))
    return complaints.read().decode(errors="replace").strip()
