"""Tables and JSON on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

import msgspec

from tidegate.errors import TidegateError


def print_json(value: Any) -> None:
    """Print one value as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2).decode())


def print_json_line(value: Any) -> None:
    """Print one value as one line of JSON, and let it out at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print left-aligned columns; columns whose cells are all numbers are right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    numeric = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True)]
        print("  ".join(cells).rstrip())


def _is_number(cell: str) -> bool:
    return cell.strip().replace(",", "").replace(".", "", 1).replace("-", "", 1).isdigit() or cell.strip() in {"", "-"}


def complain(error: TidegateError, stream: TextIO | None = None) -> None:
    """Say what was wrong and what to do about it, on standard error or another stream."""
    to = stream or sys.stderr
    to.write(f"tidegate: {error.message}\n")
    if error.fix:
        to.write(f"  what to do: {error.fix}\n")


class Progress:
    """A bar on standard error while a known number of steps goes by; silent unless that is a terminal."""

    def __init__(self, label: str, steps: int, stream: TextIO | None = None) -> None:
        self._label = label
        self._steps = max(steps, 1)
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()

    def update(self, done: int) -> None:
        """Show that `done` of the steps are behind us."""
        if self._shown:
            filled = 30 * min(done, self._steps) // self._steps
            self._stream.write(f"\r{self._label} [{'#' * filled}{'.' * (30 - filled)}] {done}/{self._steps}")
            self._stream.flush()

    def close(self) -> None:
        """Wipe the bar."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()


class Bars:
    """One progress bar after the other, a new one for each label. A context manager."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._label = ""
        self._bar: Progress | None = None

    def show(self, label: str, done: int, steps: int) -> None:
        """Show how many steps of what `label` names are done."""
        if label != self._label:
            self._wipe()
            self._label, self._bar = label, Progress(label, steps, self._stream)
        if self._bar is not None:
            self._bar.update(done)

    def _wipe(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._wipe()
