"""Finished rows as a stream of blocks whose cut does not depend on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tidegate.errors import InputError
from tidegate.predict.rows import ColumnSpec, Values, joined

Blocks = Callable[[], Iterator[Mapping[str, Values]]]
"""Begins the stream of blocks anew; a format may need several passes."""

BLOCK_ROWS = 8192
BLOCK_BYTES = 8 << 20
TEXT_BYTES = 64


def even_blocks(
    blocks: Blocks, specs: Sequence[ColumnSpec], limit_bytes: int = BLOCK_BYTES
) -> Iterator[dict[str, Values]]:
    """Yield the rows in blocks of one size, which the first row decides; only the last block is smaller."""
    size, waiting, rows = 0, list[Mapping[str, Values]](), 0
    for block in blocks():
        count = len(block[specs[0].name])
        if count == 0:
            continue
        size = size or max(1, min(BLOCK_ROWS, limit_bytes // _row_bytes(block, specs)))
        waiting.append(block)
        rows += count
        while rows >= size:
            whole = _one(waiting, specs)
            yield {name: values[:size] for name, values in whole.items()}
            waiting, rows = [{name: values[size:] for name, values in whole.items()}], rows - size
    if rows:
        yield _one(waiting, specs)


def as_text(values: Values, spec: ColumnSpec) -> list[object]:
    """Return a column as Python values, text decoded.

    Raises:
        InputError: text that is not UTF-8.
    """
    rows: list[object] = values.tolist() if isinstance(values, np.ndarray) else [row.tolist() for row in values]
    return [decoded(row) for row in rows] if spec.dtype == "BYTES" else rows


def decoded(value: object) -> object:
    """Return text, or nested lists of it, as `str`; raises InputError when it is not UTF-8."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    assert isinstance(value, bytes)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"text {value[:20]!r} is not UTF-8", fix="write .npz, which holds any bytes") from error


def _one(blocks: Sequence[Mapping[str, Values]], specs: Sequence[ColumnSpec]) -> dict[str, Values]:
    return {spec.name: joined([block[spec.name] for block in blocks], spec) for spec in specs}


def _row_bytes(block: Mapping[str, Values], specs: Sequence[ColumnSpec]) -> int:
    total = 0
    for spec in specs:
        first = np.asarray(block[spec.name][0])
        total += first.size * (TEXT_BYTES if spec.dtype == "BYTES" else first.itemsize)
    return max(1, total)
