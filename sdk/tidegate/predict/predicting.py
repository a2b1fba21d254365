"""The batch run: open, answer what is not answered yet, write the output."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from tidegate.bundle import Bundle
from tidegate.errors import ConfigError, InputError
from tidegate.predict.cells import column_values
from tidegate.predict.finishing import Progress, errors_path, finish
from tidegate.predict.opening import open_answerer
from tidegate.predict.outputs.blocks import decoded
from tidegate.predict.parts import Parts
from tidegate.predict.predictor import Answerer, Answers
from tidegate.predict.rows import ColumnSpec, Fault, Rows, Values, chosen, joined
from tidegate.predict.settings import PredictSettings, checked_output
from tidegate.predict.sources import Source, open_source

ROW = "row"
"""Key column of rows that have no other: the row's number in the input, from 0."""

PENDING_BYTES = 16 << 20
"""Answers that are kept in memory before they become a part, whatever the settings say."""


class PredictSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did."""

    rows: int
    """of the input"""
    answered: int
    """rows of the output"""
    failed: int
    """rows that were left out; each is in the side file"""
    resumed: int
    """rows of the input that an earlier run had done"""
    wall_s: float
    output: str
    errors: str | None
    """the side file; None when no row failed"""
    model: dict[str, str]
    """what answered: bundle, version, digests, variant, runtime"""


@dataclass
class _Pending:
    """Answers that are not on the disk yet."""

    first: int
    began_s: float
    end: int = 0
    columns: list[Mapping[str, Values]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    size_bytes: int = 0


def predict(
    bundle: str | Path,
    source: str | Path,
    output: str | Path,
    settings: PredictSettings | None = None,
    *,
    on_progress: Progress = lambda label, done, steps: None,
) -> PredictSummary:
    """Run a bundle on every row of a file or directory and write the answers.

    A run that was cut off, by a crash or by the power, goes on where it stopped when it is called again with the same
    arguments, and then the output has the same bytes as if nothing had happened. Memory does not grow with the input.

    Args:
        bundle: a `.tide` file or a bundle directory.
        source: `.parquet`, `.csv`, `.jsonl`, `.npz`, or a directory of `.wav` or `.npy` files.
        output: `.parquet`, `.csv`, `.jsonl` or `.npz`; replaced in one step at the end.
        settings: columns, keys, bad rows, variant, batches.
        on_progress: told after every stretch of rows.

    Raises:
        InputError: a row is bad and `on_error` is `fail`, or the input is damaged.
        ConfigError: settings that cannot be meant, or an unfinished run of another job is in the way.
        NotFoundError, BundleError, ModelError, DependencyError: as `tidegate.runtime.load`.
        ResourceError: the disk or the memory refuses.
        StateError: another process is at work on this output.
    """
    began_s = time.monotonic()
    settings, path = settings or PredictSettings(), checked_output(Path(output))
    with Bundle.open(bundle) as opened:
        front_end = opened.manifest.front_end
        rows = open_source(Path(source), sample_rate_hz=front_end.sample_rate_hz if front_end else None)
        answerer, model = open_answerer(opened, rows, settings)
        digest = hashlib.sha256(opened.manifest_bytes).hexdigest()
    facts = model | {"manifest_sha256": digest, "tidegate": version("tidegate")}
    with closing(answerer):
        keys = _key_specs(rows, settings, answerer)
        parts = Parts(path, (*keys, *answerer.outputs))
        with parts.opened(_job(facts, rows, path, settings), restart=settings.restart):
            resumed = sum(part.end - part.first for part in parts.list())
            _answer_rest(rows, answerer, keys, parts, settings, resumed, path.suffix, on_progress)
            answered, failed = finish(path, parts, (*keys, *answerer.outputs), facts, on_progress)
            total = sum(part.end - part.first for part in parts.list())
            parts.remove()
    return PredictSummary(
        rows=total,
        answered=answered,
        failed=failed,
        resumed=resumed,
        wall_s=round(time.monotonic() - began_s, 3),
        output=str(path),
        errors=str(errors_path(path)) if failed else None,
        model=facts,
    )


def _key_specs(source: Source, settings: PredictSettings, answerer: Answerer) -> tuple[ColumnSpec, ...]:
    keys = settings.keys or source.keys
    for key in keys:
        if source.columns and key not in source.columns:
            raise ConfigError(
                f"{source.origin} has no column {key!r}; it has {', '.join(map(repr, source.columns))}",
                fix="name keys by columns that are there",
            )
    specs = tuple(ColumnSpec(key, source.dtype(key), 0) for key in keys) or (ColumnSpec(ROW, "INT64", 0),)
    taken = [spec.name for spec in specs if spec.name in {output.name for output in answerer.outputs}]
    if taken:
        raise ConfigError(f"key {taken[0]!r} is the name of an output as well", fix="rename the column in the input")
    return specs


def _job(facts: Mapping[str, str], source: Source, output: Path, settings: PredictSettings) -> dict[str, object]:
    """Return everything that an answer depends on."""
    return {
        "model": dict(facts),
        "input": source.identity,
        "format": output.suffix,
        "columns": {name: list(columns) for name, columns in settings.columns.items()},
        "keys": list(settings.keys),
        "threads": settings.threads,
        "batch_rows": settings.batch_rows,
        "whole_inputs": settings.whole_inputs,
    }


def _answer_rest(
    source: Source,
    answerer: Answerer,
    keys: tuple[ColumnSpec, ...],
    parts: Parts,
    settings: PredictSettings,
    first: int,
    suffix: str,
    on_progress: Progress,
) -> None:
    """Answer the rows from `first` on, and put them on the disk part by part."""
    carried = [spec.name for spec in keys if spec.name in source.columns]
    pending = _Pending(first, time.monotonic())
    for rows in source.read(tuple(dict.fromkeys((*answerer.reads, *carried))), first, answerer.read_rows):
        key_values, key_faults = _keys(rows, keys)
        answers = _without(answerer.answer(rows), key_faults)
        if suffix != ".npz":
            answers = _without(answers, _unwritable(answers, answerer.outputs))
        faults = [
            Fault(rows.first + place, answers.faults[place], _readable_keys(key_values, place, key_faults))
            for place in sorted(answers.faults)
        ]
        if faults and settings.on_error == "fail":
            _flush(parts, pending, (*keys, *answerer.outputs))
            raise _bad_row(source, faults[0])
        kept = {name: chosen(values, answers.places) for name, values in key_values.items()}
        _note(pending, rows, {**kept, **answers.values}, faults)
        on_progress("predicting", rows.done, source.steps)
        if _due(pending, settings):
            _flush(parts, pending, (*keys, *answerer.outputs))
            pending = _Pending(pending.end, time.monotonic())
    _flush(parts, pending, (*keys, *answerer.outputs))


def _keys(rows: Rows, keys: tuple[ColumnSpec, ...]) -> tuple[dict[str, Values], dict[int, str]]:
    values: dict[str, Values] = {}
    faults: dict[int, str] = {}
    for spec in keys:
        if spec.name not in rows.cells:
            values[spec.name] = np.arange(rows.first, rows.first + rows.count, dtype=np.int64)
            continue
        values[spec.name], wrong = column_values(rows.cells[spec.name], spec.name, spec.dtype, ())
        faults = {place: why for place, why in wrong.items() if place not in rows.faults} | faults
    return values, faults


def _without(answers: Answers, faults: Mapping[int, str]) -> Answers:
    """Return the answers of all rows but some."""
    if not faults:
        return answers
    kept = [index for index, place in enumerate(answers.places) if place not in faults]
    return Answers(
        [answers.places[index] for index in kept],
        {name: chosen(values, kept) for name, values in answers.values.items()},
        {**faults, **answers.faults},
    )


def _unwritable(answers: Answers, outputs: tuple[ColumnSpec, ...]) -> dict[int, str]:
    """Return the rows whose text the output cannot hold."""
    faults: dict[int, str] = {}
    for spec in outputs:
        if spec.dtype != "BYTES":
            continue
        for index, place in enumerate(answers.places):
            try:
                decoded(np.asarray(answers.values[spec.name][index], object).tolist())
            except InputError as error:
                faults[place] = f"output {spec.name!r}: {error.message}"
    return faults


def _readable_keys(values: Mapping[str, Values], place: int, faults: Mapping[int, str]) -> dict[str, object]:
    """Return the keys of a row for people; none where one of them is bad."""
    if place in faults:
        return {}
    found = {name: column[place] for name, column in values.items() if np.size(column[place]) == 1}
    plain = {name: key.item() if isinstance(key, np.generic | np.ndarray) else key for name, key in found.items()}
    return {name: key.decode(errors="replace") if isinstance(key, bytes) else key for name, key in plain.items()}


def _note(pending: _Pending, rows: Rows, columns: Mapping[str, Values], faults: list[Fault]) -> None:
    pending.columns.append(columns)
    pending.faults += faults
    pending.end = rows.first + rows.count
    pending.size_bytes += sum(
        column.nbytes if isinstance(column, np.ndarray) else sum(row.nbytes for row in column)
        for column in columns.values()
    )


def _due(pending: _Pending, settings: PredictSettings) -> bool:
    return (
        pending.end - pending.first >= settings.checkpoint_rows
        or pending.size_bytes >= PENDING_BYTES
        or time.monotonic() - pending.began_s >= settings.checkpoint_s
    )


def _flush(parts: Parts, pending: _Pending, specs: tuple[ColumnSpec, ...]) -> None:
    if pending.columns:
        columns = {spec.name: joined([part[spec.name] for part in pending.columns], spec) for spec in specs}
        parts.add(pending.first, pending.end, columns, pending.faults)


def _bad_row(source: Source, fault: Fault) -> InputError:
    keys = "".join(f", {name} {value!r}" for name, value in fault.keys.items() if name != ROW)
    return InputError(
        f"{source.origin}: row {fault.row}{keys}: {fault.reason}",
        fix="mend the row, or leave bad rows out with --on-error skip; what was computed is kept",
    )
