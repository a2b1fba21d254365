"""Rows in, answered rows out: convert, run in batches, and find the row that a failing batch fails for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import is_float, numpy_dtype
from tidegate.errors import InputError, ModelError
from tidegate.predict.cells import column_values, vector_values
from tidegate.predict.plan import Plan
from tidegate.predict.rows import ColumnSpec, Rows, Values, chosen, stacked
from tidegate.runtime import Model


@dataclass(frozen=True)
class Answers:
    """What became of some rows."""

    places: Sequence[int]
    """of the rows that were answered, among those given, in order"""
    values: Mapping[str, Values]
    """by output, a row for each of `places`"""
    faults: Mapping[int, str]
    """why each of the others was not, by place"""


class Answerer(Protocol):
    """What answers rows: a model, or a speech pipeline."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the source that it needs."""

    @property
    def read_rows(self) -> int:
        """Rows that it wants at a time."""

    @property
    def outputs(self) -> tuple[ColumnSpec, ...]:
        """Columns that it adds."""

    def answer(self, rows: Rows) -> Answers:
        """Answer some rows; what is wrong with a row is told, not raised.

        Raises:
            ResourceError: not enough memory.
        """

    def close(self) -> None:
        """Free the model."""


class Predictor:
    """A model that answers rows of a table."""

    def __init__(self, model: Model, plan: Plan) -> None:
        """Join the two; the model is closed with this."""
        self._model = model
        self._plan = plan
        self._specs = {spec.name: spec for spec in model.signature.inputs}
        self.reads = tuple(dict.fromkeys(column for columns in plan.columns.values() for column in columns))
        self.read_rows = plan.read_rows
        self.outputs = plan.outputs

    def answer(self, rows: Rows) -> Answers:
        """See `Answerer.answer`."""
        inputs, faults = self._inputs(rows)
        good = [place for place in range(rows.count) if place not in faults]
        values: dict[int, dict[str, Array]] = {}
        parts: list[tuple[list[int], dict[str, Array]]] = []
        for places, feeds in self._calls(inputs, good):
            outputs = self._run(feeds, len(places))
            if isinstance(outputs, str):
                self._run_alone(inputs, places, values, faults, outputs)
            else:
                parts.append((places, outputs))
        return self._answers(parts, values, faults)

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _inputs(self, rows: Rows) -> tuple[dict[str, Values], dict[int, str]]:
        inputs: dict[str, Values] = {}
        faults = dict(rows.faults)
        for name, columns in self._plan.columns.items():
            dtype, shape = self._specs[name].dtype, self._plan.row_shapes[name]
            if len(columns) == 1:
                values, wrong = column_values(rows.cells[columns[0]], columns[0], dtype, shape)
            else:
                values, wrong = vector_values([rows.cells[column] for column in columns], columns, dtype, shape)
            inputs[name] = values
            faults = wrong | faults
            if self._specs[name].finite:
                faults = _not_finite(name, values, faults) | faults
        return inputs, faults

    def _calls(self, inputs: Mapping[str, Values], good: list[int]) -> list[tuple[list[int], dict[str, Array]]]:
        """Return the places and the feeds of each call; rows of other shapes never share one."""
        if not self._plan.call_rows:
            return [([place], {name: _row(values, place) for name, values in inputs.items()}) for place in good]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for place in good:
            form = tuple(_row(values, place).shape for values in inputs.values())
            groups.setdefault(form, []).append(place)
        size = self._plan.call_rows
        batches = [places[at : at + size] for places in groups.values() for at in range(0, len(places), size)]
        return [(places, {name: _batch(values, places) for name, values in inputs.items()}) for places in batches]

    def _run(self, feeds: dict[str, Array], count: int) -> dict[str, Array] | str:
        """Return each output [count, ...], or why there is none."""
        size = self._plan.call_rows
        if self._plan.padded and count < size:
            feeds = {name: np.concatenate([array, array[-1:].repeat(size - count, 0)]) for name, array in feeds.items()}
        try:
            outputs = self._model.run(feeds)
        except (InputError, ModelError) as error:
            return error.message
        if not size:
            return {name: output[None] for name, output in outputs.items()}
        called = size if self._plan.padded else count
        for name, output in outputs.items():
            if output.ndim == 0 or len(output) != called:
                return (
                    f"output {name!r} has shape {list(output.shape)} for {called} rows; expected [{called}, ...]; "
                    "if the first axis is not the row, ask for whole inputs"
                )
        return {name: output[:count] for name, output in outputs.items()}

    def _run_alone(
        self,
        inputs: Mapping[str, Values],
        places: list[int],
        values: dict[int, dict[str, Array]],
        faults: dict[int, str],
        reason: str,
    ) -> None:
        """Run the rows of a failed batch one by one, so that only those are lost that fail by themselves."""
        for place in places:
            outputs: dict[str, Array] | str = reason
            if len(places) > 1:
                outputs = self._run({name: _batch(rows, [place]) for name, rows in inputs.items()}, 1)
            if isinstance(outputs, str):
                faults[place] = outputs
            else:
                values[place] = outputs

    def _answers(
        self,
        parts: list[tuple[list[int], dict[str, Array]]],
        alone: dict[int, dict[str, Array]],
        faults: dict[int, str],
    ) -> Answers:
        parts = parts + [([place], outputs) for place, outputs in alone.items()]
        unordered = [place for places, _ in parts for place in places]
        order = sorted(range(len(unordered)), key=unordered.__getitem__)
        values: dict[str, Values] = {}
        for spec in self._plan.outputs:
            pieces = [outputs[spec.name] for _, outputs in parts]
            values[spec.name] = _in_order(pieces, order, spec)
        return Answers([unordered[index] for index in order], values, faults)


def _in_order(pieces: list[Array], order: list[int], spec: ColumnSpec) -> Values:
    if not pieces:
        return np.empty((0,) * (spec.rank + 1), numpy_dtype(spec.dtype))
    if len({piece.shape[1:] for piece in pieces}) > 1:
        rows = [row for piece in pieces for row in (piece[at, ...] for at in range(len(piece)))]
        return [rows[index] for index in order]
    whole: Array = np.concatenate(pieces)
    return whole if order == list(range(len(order))) else whole[order]


def _row(values: Values, place: int) -> Array:
    row: Array = values[place, ...] if isinstance(values, np.ndarray) else values[place]
    return row


def _batch(values: Values, places: list[int]) -> Array:
    if isinstance(values, np.ndarray):
        if places == list(range(places[0], places[0] + len(places))):
            return np.ascontiguousarray(values[places[0] : places[0] + len(places)])
        return values[places]
    picked = chosen(values, places)
    assert isinstance(picked, list)
    return stacked(picked)


def _not_finite(name: str, values: Values, known: Mapping[int, Any]) -> dict[int, str]:
    """Return the rows that hold NaN or an infinity, which the model refuses."""
    if not len(values) or not is_float(values[0].dtype):
        return {}
    return {
        place: f"input {name!r} holds NaN or an infinity; the model takes finite numbers only"
        for place in range(len(values))
        if place not in known and not np.isfinite(_row(values, place)).all()
    }
