"""CSV and JSON Lines. Neither has a place for the run's facts, so they go into a side file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidegate.predict.outputs.blocks import Blocks, as_text, even_blocks
from tidegate.predict.rows import ColumnSpec

TEXT_BLOCK_BYTES = 1 << 20
"""A float of four bytes takes 32 as a Python object, and some 20 as text."""


def write_jsonl(path: Path, specs: Sequence[ColumnSpec], blocks: Blocks) -> None:
    """Write an object a line; NaN and infinities become null, since JSON has none. Raises OSError."""
    encoder = msgspec.json.Encoder()
    names = [spec.name for spec in specs]
    with path.open("wb") as file:
        for block in even_blocks(blocks, specs, TEXT_BLOCK_BYTES):
            columns = [as_text(block[spec.name], spec) for spec in specs]
            file.writelines(
                encoder.encode(dict(zip(names, row, strict=True))) + b"\n" for row in zip(*columns, strict=True)
            )


def write_csv(path: Path, specs: Sequence[ColumnSpec], blocks: Blocks) -> None:
    """Write a line of names and a line a row; a tensor is a JSON list in its cell. Raises OSError."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([spec.name for spec in specs])
        for block in even_blocks(blocks, specs, TEXT_BLOCK_BYTES):
            columns = [_cells(as_text(block[spec.name], spec), spec) for spec in specs]
            writer.writerows(zip(*columns, strict=True))


def _cells(values: list[object], spec: ColumnSpec) -> list[object]:
    if spec.rank:
        return [msgspec.json.encode(value).decode() for value in values]
    return [str(value).lower() if isinstance(value, bool) else value for value in values]
