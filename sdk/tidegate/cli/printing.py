"""Tables and JSON on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec


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


class Progress:
    """A bar on standard error while a known number of steps goes by; silent unless that is a terminal."""

    def __init__(self, label: str, steps: int) -> None:
        self._label = label
        self._steps = max(steps, 1)
        self._shown = sys.stderr.isatty()

    def update(self, done: int) -> None:
        """Show that `done` of the steps are behind us."""
        if self._shown:
            filled = 30 * min(done, self._steps) // self._steps
            sys.stderr.write(f"\r{self._label} [{'#' * filled}{'.' * (30 - filled)}] {done}/{self._steps}")
            sys.stderr.flush()

    def close(self) -> None:
        """Wipe the bar."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
