"""CSV and JSON Lines, read row by row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tidegate.errors import InputError
from tidegate.predict.rows import Rows
from tidegate.predict.sources.protocol import file_identity, no_column, not_carried, unreadable

Parsed = tuple[dict[str, Any] | None, str]
"""One row by column, or None and why there is none."""

LONGEST_CELL_CHARACTERS = 1 << 26
"""The csv module refuses cells of more than 131,072 characters unless told otherwise; a list of numbers is longer."""


class TextSource:
    """A file of rows of text. Its columns are those of the first row."""

    keys: tuple[str, ...] = ()

    def __init__(self, path: Path, rows_of: Callable[[BinaryIO], Iterator[Parsed]]) -> None:
        """Look at the first row.

        Args:
            path: of the file.
            rows_of: yields the rows of a file that is open.

        Raises:
            NotFoundError: no such file.
            InputError: the first row cannot be read, or there is none.
            ResourceError: the system refused.
        """
        self._path = path
        self._rows_of = rows_of
        self.origin = str(path)
        self.identity = file_identity(path)
        self._first = self._look()
        self.columns: tuple[str, ...] = tuple(self._first)
        self.steps = path.stat().st_size

    def dtype(self, column: str) -> str:
        """See `Source.dtype`; the first row decides."""
        value = self._first[column]
        for kind, name in ((bool, "BOOL"), (int, "INT64"), (float, "FP64"), (str, "BYTES")):
            if isinstance(value, kind):
                return name
        raise not_carried(self.origin, column, "nothing in its first row" if value is None else type(value).__name__)

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[Rows]:
        """See `Source.read`."""
        for column in columns:
            if self.columns and column not in self.columns:
                raise no_column(self.origin, column, self.columns)
        try:
            with self._path.open("rb") as file:
                rows = islice(self._rows_of(file), first, None)
                while stretch := list(islice(rows, count)):
                    yield Rows(
                        first,
                        len(stretch),
                        {name: [row and row.get(name) for row, _ in stretch] for name in columns},
                        file.tell(),
                        {place: why for place, (row, why) in enumerate(stretch) if row is None},
                    )
                    first += len(stretch)
        except csv.Error as error:
            raise InputError(f"{self.origin} is not CSV after row {first}: {error}", fix="mend the file") from error
        except OSError as error:
            raise unreadable(self._path, error) from error

    def _look(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as file:
                row, why = next(self._rows_of(file), (None, ""))
        except csv.Error as error:
            raise InputError(f"{self.origin} is not CSV: {error}", fix="mend the file") from error
        except OSError as error:
            raise unreadable(self._path, error) from error
        if row is None and not why:
            raise InputError(f"{self.origin} holds no rows", fix="give a file with one row at least")
        if row is None:
            raise InputError(
                f"{self.origin}: the first row {why}", fix="mend the file; its first row names the columns"
            )
        return row


def json_rows(file: BinaryIO) -> Iterator[Parsed]:
    """Yield the objects of a JSON Lines file; empty lines are no rows."""
    decoder = msgspec.json.Decoder()
    for line in iter(file.readline, b""):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield None, f"is not JSON: {error}"
            continue
        yield (row, "") if isinstance(row, dict) else (None, f"is a JSON {type(row).__name__}; expected an object")


def csv_rows(file: BinaryIO) -> Iterator[Parsed]:
    """Yield the rows of a CSV file under the names of its first line; UTF-8, commas, double quotes."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL_CHARACTERS))
    lines = (line.decode("utf-8-sig" if number == 0 else "utf-8", "surrogateescape") for number, line in
             enumerate(iter(file.readline, b"")))  # fmt: skip
    reader = csv.reader(lines)
    names = next(reader, [])
    if len(set(names)) != len(names):
        yield None, "names a column twice"
        return
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(names):
            yield None, f"has {len(cells)} cells; the first line names {len(names)} columns"
        elif any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell if not cell.isascii()):
            yield None, "is not UTF-8"
        else:
            yield dict(zip(names, (cell if cell else None for cell in cells), strict=True)), ""
