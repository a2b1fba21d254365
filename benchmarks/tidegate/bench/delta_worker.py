"""The child process of `tidegate bench delta`: makes or applies one update once, in a fresh interpreter.

`python -m tidegate.bench.delta_worker`. The task comes on standard input as JSON, the answer goes to standard output.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.delta import Identity, Method, apply_file, make
from tidegate.delta.frames import LEVEL, zstandard
from tidegate.errors import IntegrityError, TidegateError
from tidegate.runtime.process import peak_resident_bytes, resident_bytes

CHUNK_BYTES = 1 << 16
APPLICATIONS = 3

UpdateMethod = Literal["full", "zstd-19", "zstd-patch", "typed"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to do once."""

    step: Literal["make", "apply"]
    method: UpdateMethod
    base: str
    """path of the old file"""
    full: str
    """path of the new file"""
    update: str
    """path of what a device fetches: written by `make`, read by `apply`"""
    out: str
    """path that `apply` writes"""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It was done."""

    elapsed_ns: int
    """median of the runs"""
    runs: int
    baseline_rss_bytes: int | None
    """resident before: Python, numpy, zstandard"""
    peak_rss_bytes: int | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """An error that Tidegate knows."""

    kind: str
    message: str
    fix: str | None


Answer = Done | Refused


def main() -> int:
    """Read the task, do it, answer."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        answer: Answer = measure(task)
    except TidegateError as error:
        answer = Refused(kind=type(error).__name__, message=error.message, fix=error.fix)
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


def measure(task: Task) -> Done:
    """Make once, or apply a few times; time and memory from files to files."""
    zstandard()  # imported before the memory is looked at
    full = _identity(Path(task.full)) if task.step == "apply" else Identity("", 0)
    baseline = resident_bytes()
    act: Callable[[], None] = (lambda: _make(task)) if task.step == "make" else (lambda: _apply(task, full))
    times_ns = []
    for _ in range(1 if task.step == "make" else APPLICATIONS):
        started_ns = time.perf_counter_ns()
        act()
        times_ns.append(time.perf_counter_ns() - started_ns)
    return Done(
        elapsed_ns=round(statistics.median(times_ns)),
        runs=len(times_ns),
        baseline_rss_bytes=baseline,
        peak_rss_bytes=peak_resident_bytes(),
    )


def _make(task: Task) -> None:
    full = Path(task.full).read_bytes()
    if task.method == "full":
        update = full
    elif task.method == "zstd-19":
        update = zstandard().ZstdCompressor(level=LEVEL).compress(full)
    else:
        method: Method = task.method
        update = make(Path(task.base).read_bytes(), full, method).data
    Path(task.update).write_bytes(update)


def _apply(task: Task, full: Identity) -> None:
    """Do what a device does with what it fetched: write the new file, digest checked, in place of the last."""
    update, out = Path(task.update), Path(task.out)
    if task.method in ("zstd-patch", "typed"):
        apply_file(Path(task.base), update, out, full=full)
    else:
        write_atomically(out, _checked(_decompressed(update) if task.method == "zstd-19" else _chunks(update), full))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _decompressed(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file, zstandard().ZstdDecompressor().stream_reader(file) as reader:
        while chunk := reader.read(CHUNK_BYTES):
            yield chunk


def _checked(chunks: Iterator[bytes], full: Identity) -> Iterator[bytes]:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
        yield chunk
    if found.hexdigest() != full.sha256:
        raise IntegrityError(f"SHA-256 {found.hexdigest()}; expected {full.sha256}", fix="report this")


def _identity(path: Path) -> Identity:
    found = hashlib.sha256()
    for chunk in _chunks(path):
        found.update(chunk)
    return Identity(found.hexdigest(), path.stat().st_size)


if __name__ == "__main__":
    sys.exit(main())
