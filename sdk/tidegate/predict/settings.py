"""What a batch run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tidegate.errors import ConfigError

OnError = Literal["fail", "skip"]

INPUT_SUFFIXES = (".parquet", ".csv", ".jsonl", ".npz")
OUTPUT_SUFFIXES = (".parquet", ".csv", ".jsonl", ".npz")


@dataclass(frozen=True)
class PredictSettings:
    """How rows become tensors, how the model runs, and what happens to bad rows."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """input name to the columns that feed it; several columns of numbers make one vector. An input that is not named
    here is fed by the column of its own name"""
    keys: tuple[str, ...] = ()
    """columns carried through; none: `row`, the row's number from 0 (of a directory: `file`)"""
    on_error: OnError = "fail"
    """of a bad row: stop there, or leave it out and write the reason into the side file"""
    variant: str | None = None
    """id; None for the first whose runtime is installed"""
    backend: str | None = None
    """`litert` or `onnx`; None for either"""
    threads: int | None = None
    """of the runtime; None for 1"""
    batch_rows: int = 32
    """rows a call, for a model whose first axis is free"""
    whole_inputs: bool = False
    """each row holds whole inputs, first axis included: one call a row"""
    checkpoint_rows: int = 8192
    """a crash loses at most so many rows of work"""
    checkpoint_s: float = 10.0
    """and at most so many seconds of it, or one read"""
    restart: bool = False
    """throw away what an earlier run left behind"""

    def __post_init__(self) -> None:
        for name in ("batch_rows", "checkpoint_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        if not self.checkpoint_s >= 0:
            raise ConfigError(f"checkpoint_s is {self.checkpoint_s}; expected 0 or more", fix="use 0 for every read")
        if self.on_error not in ("fail", "skip"):
            raise ConfigError(f"on_error is {self.on_error!r}; expected fail or skip", fix="use one of the two")
        if len(set(self.keys)) != len(self.keys):
            raise ConfigError(f"a key is named twice: {', '.join(self.keys)}", fix="name each key column once")
        if any(not columns for columns in self.columns.values()):
            raise ConfigError("an input is mapped to no column", fix="use INPUT=COLUMN or INPUT=COLUMN,COLUMN")


def checked_output(path: Path) -> Path:
    """Return an output path whose ending says a known format.

    Raises:
        ConfigError: another ending, or the directory is not there.
    """
    if path.suffix not in OUTPUT_SUFFIXES:
        raise ConfigError(
            f"output {path} ends in {path.suffix or 'nothing'!r}; expected {', '.join(OUTPUT_SUFFIXES)}",
            fix="name the output by the format you want",
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a directory", fix="make it first, or name another file")
    return path
