"""What a run has finished so far, on disk: a directory `OUTPUT.parts` beside the output.

A part holds the answers of a stretch of rows. It is written under another name, flushed and renamed, so it is there
whole or not at all; the next run goes on behind the last one. `job.json` says what the parts belong to: the bundle, the
input and every setting that an answer depends on. The directory is removed once the output stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from tidegate.bundle.arrays import Array, pack_arrays, unpack_arrays
from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ConfigError, InputError, ResourceError
from tidegate.predict.rows import ColumnSpec, Fault, Values

JOB_FILE = "job.json"
LOCK_FILE = "lock"
_PART = re.compile(r"part-(\d{12})-(\d{12})\.npz")
LIMIT_BYTES = 1 << 40
_FLAT, _SHAPES = "flat", "shapes"


@dataclass(frozen=True)
class Part:
    """A finished stretch of rows."""

    first: int
    """row of the input"""
    end: int
    """row after its last"""
    path: Path

    @property
    def faults_path(self) -> Path:
        """Its side file: rows without an answer."""
        return self.path.with_suffix(".errors.jsonl")


class Parts:
    """The directory of one run."""

    def __init__(self, output: Path, specs: Sequence[ColumnSpec]) -> None:
        """Name the directory; `opened` makes it."""
        self.path = output.with_name(f"{output.name}.parts")
        self._specs = tuple(specs)

    @contextmanager
    def opened(self, job: Mapping[str, object], *, restart: bool) -> Iterator[None]:
        """Hold the directory for a run.

        Raises:
            StateError: another run is at work on it.
            ConfigError: what is there belongs to another job.
            ResourceError: the disk refuses.
        """
        from tidegate.edge.update.lock import exclusive

        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise _refused(self.path, error) from error
        with exclusive(self.path / LOCK_FILE):
            if restart:
                self._clear()
            self._claim(msgspec.json.format(msgspec.json.encode(job, order="deterministic"), indent=2))
            yield

    def list(self) -> list[Part]:
        """Return the finished parts in order.

        Raises:
            InputError: one is missing in between.
        """
        names = sorted(path.name for path in self.path.iterdir())
        found = [
            Part(int(match[1]), int(match[2]), self.path / name) for name in names if (match := _PART.fullmatch(name))
        ]
        end = 0
        for part in found:
            if part.first != end:
                raise InputError(
                    f"{self.path}: rows {end} to {part.first} are missing", fix="repeat the command with --restart"
                )
            end = part.end
        return found

    def add(self, first: int, end: int, columns: Mapping[str, Values], faults: Sequence[Fault]) -> None:
        """Write one part: what is wrong first, the answers last, so that a part that is there is complete."""
        part = Part(first, end, self.path / f"part-{first:012d}-{end:012d}.npz")
        members: dict[str, Array] = {}
        for index, spec in enumerate(self._specs):
            members |= _packed(index, columns[spec.name])
        encoder = msgspec.json.Encoder(order="deterministic")
        write_atomically(part.faults_path, (encoder.encode(_record(fault)) + b"\n" for fault in faults))
        write_atomically(part.path, [pack_arrays(members)])

    def read(self, part: Part) -> dict[str, Values]:
        """Return the columns of a part."""
        try:
            raw = part.path.read_bytes()
        except OSError as error:
            raise _refused(part.path, error) from error
        members = unpack_arrays(raw, origin=str(part.path), limit_bytes=LIMIT_BYTES)
        return {spec.name: _unpacked(index, members, spec) for index, spec in enumerate(self._specs)}

    def remove(self) -> None:
        """Take the directory away, the last part first: what a kill leaves is a shorter run that can go on."""
        try:
            for part in reversed(self.list()):
                part.path.unlink()
            self._clear()
            (self.path / LOCK_FILE).unlink()
            self.path.rmdir()
        except OSError as error:
            raise _refused(self.path, error) from error

    def _claim(self, job: bytes) -> None:
        file = self.path / JOB_FILE
        try:
            known = file.read_bytes() if file.exists() else None
        except OSError as error:
            raise _refused(file, error) from error
        if known is None:
            self._clear()
            write_atomically(file, [job])
        elif known != job:
            raise ConfigError(
                f"{self.path} belongs to another run: {_difference(known, job)}",
                fix="repeat that run's command to finish it, or throw it away with --restart",
            )

    def _clear(self) -> None:
        try:
            # The job first: parts without one belong to nobody, so that a kill in between leaves no run with gaps.
            for file in sorted(self.path.iterdir(), key=lambda file: file.name != JOB_FILE):
                if file.name != LOCK_FILE:
                    file.unlink()
        except OSError as error:
            raise _refused(self.path, error) from error


def _packed(index: int, values: Values) -> dict[str, Array]:
    if isinstance(values, np.ndarray):
        return {f"{index}": values}
    flat = [row.reshape(-1) for row in values]
    return {
        f"{index}-{_FLAT}": np.concatenate(flat),
        f"{index}-{_SHAPES}": np.array([row.shape for row in values], np.int64).reshape(len(values), values[0].ndim),
    }


def _unpacked(index: int, members: Mapping[str, Array], spec: ColumnSpec) -> Values:
    if f"{index}" in members:
        return members[f"{index}"]
    flat, shapes = members[f"{index}-{_FLAT}"], members[f"{index}-{_SHAPES}"]
    ends = np.cumsum(shapes.prod(axis=1, dtype=np.int64)).tolist()
    starts = [0, *ends[:-1]]
    return [flat[start:end].reshape(shape) for start, end, shape in zip(starts, ends, shapes.tolist(), strict=True)]


def _record(fault: Fault) -> dict[str, object]:
    return {"row": fault.row, "keys": dict(fault.keys), "reason": fault.reason}


def _difference(known: bytes, job: bytes) -> str:
    try:
        old = msgspec.json.decode(known, type=dict[str, object])
    except msgspec.DecodeError:
        return "its job.json cannot be read"
    new = msgspec.json.decode(job, type=dict[str, object])
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)


def _refused(path: Path, error: OSError) -> ResourceError:
    return ResourceError(f"{path}: {error.strerror or error}", fix="check free space and permissions, then repeat")
