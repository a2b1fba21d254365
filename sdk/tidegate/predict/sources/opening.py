"""From a path to the source that can read it."""

from __future__ import annotations

from pathlib import Path

from tidegate.errors import ConfigError
from tidegate.predict.settings import INPUT_SUFFIXES
from tidegate.predict.sources.directory import DirectorySource
from tidegate.predict.sources.npz import NpzSource
from tidegate.predict.sources.parquet import ParquetSource
from tidegate.predict.sources.protocol import Source
from tidegate.predict.sources.text import TextSource, csv_rows, json_rows


def open_source(path: Path, *, sample_rate_hz: int | None = None) -> Source:
    """Open what is to be predicted.

    Args:
        path: a file whose ending says its format, or a directory of `.wav` or `.npy` files.
        sample_rate_hz: what the model wants of audio.

    Raises:
        ConfigError: a file of another ending.
        NotFoundError: nothing is there.
        InputError: it is not what its ending says.
        DependencyError: Parquet without pyarrow.
    """
    if path.is_dir():
        return DirectorySource(path, sample_rate_hz=sample_rate_hz)
    if path.suffix == ".parquet":
        return ParquetSource(path)
    if path.suffix == ".npz":
        return NpzSource(path)
    if path.suffix == ".jsonl":
        return TextSource(path, json_rows)
    if path.suffix == ".csv":
        return TextSource(path, csv_rows)
    raise ConfigError(
        f"input {path} ends in {path.suffix or 'nothing'!r}; expected {', '.join(INPUT_SUFFIXES)} or a directory",
        fix="name the file by its format",
    )
