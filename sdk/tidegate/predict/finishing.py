"""From finished parts to the output and, where rows were left out, the side file that says why."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tidegate.predict.outputs import write_output, write_side_file
from tidegate.predict.parts import Part, Parts
from tidegate.predict.rows import ColumnSpec, Values

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps are behind us, and of how many."""


def errors_path(output: Path) -> Path:
    """Return the side file that names the rows which were left out, and why."""
    return output.with_name(f"{output.name}.errors.jsonl")


def finish(
    output: Path, parts: Parts, specs: Sequence[ColumnSpec], facts: Mapping[str, str], on_progress: Progress
) -> tuple[int, int]:
    """Write the side file, then the output; return how many rows were answered and how many left out.

    Raises:
        InputError: the format cannot hold the rows.
        ResourceError: the disk refuses.
    """
    found = parts.list()
    answered = 0

    def blocks() -> Iterator[Mapping[str, Values]]:
        nonlocal answered
        answered = 0
        for number, part in enumerate(found):
            columns = parts.read(part)
            answered += len(columns[specs[0].name])
            yield columns
            on_progress("writing", number + 1, len(found))

    # An output that is there is complete, so what belongs to it comes first.
    failed = _write_errors(errors_path(output), found, parts.path)
    metadata = msgspec.json.encode(dict(facts), order="deterministic")
    write_output(output, specs, blocks, metadata, scratch=parts.path / f"output{output.suffix}")
    return answered, failed


def _write_errors(path: Path, parts: Sequence[Part], scratch: Path) -> int:
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        for part in parts:
            for line in part.faults_path.read_bytes().splitlines(keepends=True):
                count += 1
                yield line

    remaining = lines()
    first = next(remaining, None)
    if first is None:
        path.unlink(missing_ok=True)
    else:
        write_side_file(path, itertools.chain([first], remaining), scratch)
    return count
