"""Write the output in the format that its ending says, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tidegate.bundle.atomic import sync_directory, write_atomically
from tidegate.errors import ResourceError
from tidegate.predict.outputs.blocks import Blocks
from tidegate.predict.outputs.npz import write_npz
from tidegate.predict.outputs.parquet import write_parquet
from tidegate.predict.outputs.text import write_csv, write_jsonl
from tidegate.predict.rows import ColumnSpec

__all__ = ["Blocks", "metadata_path", "write_output", "write_side_file"]


def metadata_path(output: Path) -> Path | None:
    """Return the side file for the run's facts; None where the format holds them itself."""
    return output.with_name(f"{output.name}.meta.json") if output.suffix in (".csv", ".jsonl") else None


def write_output(output: Path, specs: Sequence[ColumnSpec], blocks: Blocks, metadata: bytes, *, scratch: Path) -> None:
    """Replace the output; what stood there before stays as it was until the new one is complete.

    Args:
        output: its ending says the format.
        specs: columns in order.
        blocks: rows in order.
        metadata: JSON, into the file or beside it.
        scratch: where to write first, on the same file system.

    Raises:
        InputError: the format cannot hold the rows.
        ResourceError: the disk refuses.
        DependencyError: Parquet without pyarrow.
    """
    try:
        if output.suffix == ".parquet":
            write_parquet(scratch, specs, blocks, metadata)
        elif output.suffix == ".npz":
            write_npz(scratch, specs, blocks, metadata)
        elif output.suffix == ".jsonl":
            write_jsonl(scratch, specs, blocks)
        else:
            write_csv(scratch, specs, blocks)
        side = metadata_path(output)
        if side is not None:
            write_side_file(side, [metadata], scratch.parent)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(output)
        sync_directory(output.parent)
    except OSError as error:
        raise ResourceError(
            f"{output} could not be written: {error.strerror or error}",
            fix="check free space and permissions, then repeat: what was computed is kept",
        ) from error


def write_side_file(path: Path, chunks: Iterable[bytes], scratch: Path) -> None:
    """Replace a file beside the output by way of the directory `scratch`, so that a kill leaves no stray file.

    Raises:
        ResourceError: the disk refuses.
    """
    made = scratch / f"side-{path.name}"
    write_atomically(made, chunks)
    try:
        made.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written: {error.strerror or error}", fix="check permissions, then repeat"
        ) from error
