"""Parquet, read by pyarrow in stretches of rows; a row group is the most that is open at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.errors import DependencyError, InputError
from tidegate.predict.rows import Cells, Rows
from tidegate.predict.sources.protocol import file_identity, not_carried, unreadable

READ_BUFFER_BYTES = 1 << 20


class ParquetSource:
    """One Parquet file."""

    keys: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Read the footer.

        Raises:
            NotFoundError: no such file.
            InputError: not a Parquet file.
            DependencyError: pyarrow is not installed.
        """
        self._path = path
        self.origin = str(path)
        self.identity = file_identity(path)
        self._arrow, parquet = import_pyarrow()
        try:
            # Without pre-buffering, pages are read as they are needed instead of whole row groups.
            self._file = parquet.ParquetFile(path, buffer_size=READ_BUFFER_BYTES, pre_buffer=False)
        except self._arrow.ArrowException as error:
            raise InputError(f"{path} is not a Parquet file: {error}", fix="give a readable .parquet file") from error
        except OSError as error:
            raise unreadable(path, error) from error
        self._schema = self._file.schema_arrow
        self.columns: tuple[str, ...] = tuple(self._schema.names)
        self.steps: int = self._file.metadata.num_rows

    def dtype(self, column: str) -> str:
        """See `Source.dtype`."""
        kind, types = self._schema.field(column).type, self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if any(is_text(kind) for is_text in (types.is_string, types.is_large_string, types.is_binary)):
            return "BYTES"
        names = {"bool": "BOOL", "halffloat": "FP16", "float": "FP32", "double": "FP64"}
        name = names.get(str(kind)) or (str(kind).upper() if types.is_integer(kind) else None)
        if name is None:
            raise not_carried(self.origin, column, str(kind))
        return name

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[Rows]:
        """See `Source.read`."""
        group, before = self._group_of(first)
        row = first
        groups = list(range(group, self._file.metadata.num_row_groups))
        try:
            batches = self._file.iter_batches(
                batch_size=count, row_groups=groups, columns=list(columns), use_threads=False
            )
            for batch in exact_batches(self._arrow, batches, skip=first - before, count=count):
                cells = {name: self._cells(batch.column(name)) for name in columns}
                yield Rows(row, batch.num_rows, cells, row + batch.num_rows)
                row += batch.num_rows
        except self._arrow.ArrowException as error:
            raise InputError(f"{self.origin} is damaged after row {row}: {error}", fix="write it again") from error
        except OSError as error:
            raise unreadable(self._path, error) from error

    def _group_of(self, row: int) -> tuple[int, int]:
        """Return the row group that holds a row, and the number of rows before it."""
        metadata, before = self._file.metadata, 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if row < before + rows:
                return group, before
            before += rows
        return metadata.num_row_groups, before

    def _cells(self, column: Any) -> Cells:
        """Return numbers and lists of equal length as arrays, everything else as Python values."""
        types = self._arrow.types
        flat = column
        sizes = [len(column)]
        while types.is_list(flat.type) or types.is_large_list(flat.type) or types.is_fixed_size_list(flat.type):
            lengths = np.unique(np.asarray(flat.value_lengths())).tolist() if flat.null_count == 0 else []
            if len(lengths) != 1:
                break
            flat = flat.flatten()
            sizes.append(int(lengths[0]))
        simple = types.is_integer(flat.type) or types.is_floating(flat.type) or types.is_boolean(flat.type)
        if simple and flat.null_count == 0:
            array: np.ndarray[Any, Any] = flat.to_numpy(zero_copy_only=False)
            return array.reshape(sizes)
        values: list[Any] = column.to_pylist()
        return values


def import_pyarrow() -> tuple[Any, Any]:
    """Return `pyarrow` and `pyarrow.parquet`.

    Raises:
        DependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(f"Parquet needs pyarrow: {error}", fix="pip install 'tidegate[batch]'") from error
    return pyarrow, parquet


def exact_batches(arrow: Any, batches: Iterator[Any], *, skip: int, count: int) -> Iterator[Any]:
    """Yield batches of exactly `count` rows, however the file is cut; the last one may be shorter."""
    waiting: list[Any] = []
    for batch in batches:
        dropped = min(skip, batch.num_rows)
        skip -= dropped
        waiting.append(batch.slice(dropped))
        while sum(part.num_rows for part in waiting) >= count:
            whole = _one(arrow, waiting)
            yield whole.slice(0, count)
            waiting = [whole.slice(count)]
    if sum(part.num_rows for part in waiting):
        yield _one(arrow, waiting)


def _one(arrow: Any, batches: list[Any]) -> Any:
    filled = [batch for batch in batches if batch.num_rows]
    return filled[0] if len(filled) == 1 else arrow.concat_batches(filled)
