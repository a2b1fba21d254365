"""What a format has to offer to be read in batches, from any row on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tidegate.errors import InputError, NotFoundError, ResourceError
from tidegate.predict.rows import Rows


class Source(Protocol):
    """Rows of a file or a directory. Reading keeps one stretch of rows in memory, whatever the size of the whole."""

    @property
    def origin(self) -> str:
        """How messages call it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, as the format or its first row tells them."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that name a row when nobody asks for others; empty for none."""

    @property
    def steps(self) -> int:
        """What `Rows.done` rises to: rows, files or bytes."""

    @property
    def identity(self) -> str:
        """Differs when the content is another one: names, sizes and times of change."""

    def dtype(self, column: str) -> str:
        """Return the Open Inference datatype of a column that is carried through.

        Raises:
            InputError: it holds lists, or something without such a datatype.
        """

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[Rows]:
        """Yield all rows from `first` on, `count` at a time; only the last stretch is shorter.

        Args:
            columns: to read.
            first: number of the first row.
            count: rows of a stretch.

        Raises:
            InputError: the file is damaged.
            ResourceError: the system refused to read.
        """


def file_identity(path: Path) -> str:
    """Return name, size and time of change of a file.

    Raises:
        NotFoundError: there is none.
        ResourceError: the system refused.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise NotFoundError(f"no input at {path}", fix="correct the path given as input") from error
    except OSError as error:
        raise unreadable(path, error) from error
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"


def unreadable(path: Path, error: OSError) -> ResourceError:
    """Return the error for a file that the system refuses to read."""
    return ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check the disk and permissions")


def not_carried(origin: str, column: str, kind: str) -> InputError:
    """Return the error for a column that cannot be carried through."""
    return InputError(
        f"{origin}: column {column!r} holds {kind}, which cannot be carried through",
        fix="carry a column of whole numbers, floats, booleans or text; cast it where the table is made",
    )


def no_column(origin: str, column: str, known: Sequence[str]) -> InputError:
    """Return the error for a column that is not there."""
    return InputError(
        f"{origin} has no column {column!r}; it has {', '.join(map(repr, known)) or 'none'}",
        fix="map inputs with INPUT=COLUMN, and name keys by columns that are there",
    )
