"""The same rows-to-answers step for frameworks that bring batches of numpy arrays, such as Ray Data.

    import ray
    from tidegate.predict import BundleMapper

    dataset = ray.data.read_parquet("rows.parquet")
    answers = dataset.map_batches(
        BundleMapper, fn_constructor_args=("mlp.tide",), batch_format="numpy", batch_size=256, concurrency=2
    )

An object of the class holds the loaded model, so that each worker loads it once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tidegate.bundle import Bundle
from tidegate.bundle.arrays import Array
from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ConfigError, InputError
from tidegate.predict.outputs.blocks import as_text
from tidegate.predict.plan import make_plan
from tidegate.predict.predictor import Predictor
from tidegate.predict.rows import Rows
from tidegate.predict.settings import PredictSettings
from tidegate.runtime import load


class BundleMapper:
    """Answers batches of columns: arrays by column name in, arrays by column name out."""

    def __init__(
        self, bundle: str | Path, settings: PredictSettings | None = None, *, errors: str | Path | None = None
    ) -> None:
        """Load the model once for this worker.

        Args:
            bundle: a path that every worker can read.
            settings: columns, keys, variant, batches; checkpoints have no meaning here.
            errors: directory for the side files of rows that are left out; needed with `on_error` skip, so that no
                row vanishes without a word. Every batch with a bad row writes a file of its own.

        Raises:
            ConfigError: rows are to be left out, and nothing says where their reasons go.
            NotFoundError, BundleError, ModelError, DependencyError: as `tidegate.runtime.load`.
        """
        self._settings = settings or PredictSettings()
        if self._settings.on_error == "skip" and errors is None:
            raise ConfigError("bad rows are to be skipped and errors names no directory", fix="give errors=DIRECTORY")
        self._errors = None if errors is None else Path(errors)
        with Bundle.open(bundle) as opened:
            self._model = load(
                opened,
                variant=self._settings.variant,
                backend=self._settings.backend,
                threads=self._settings.threads,
            )

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch.

        Args:
            batch: arrays [rows, ...] by column.

        Returns:
            The key columns as they came and every output; text as `str` objects. Rows of other shapes than their
            neighbours make a column of objects.

        Raises:
            InputError: a row is bad and `on_error` is `fail`.
        """
        plan = make_plan(self._model.signature, tuple(batch), self._settings)
        count = len(next(iter(batch.values())))
        predictor = Predictor(self._model, plan)
        answers = predictor.answer(Rows(0, count, batch, count))
        faults = {place: self._fault(batch, place, why) for place, why in sorted(answers.faults.items())}
        if faults:
            self._tell(faults)
        picked = np.asarray(answers.places, np.intp)
        kept = {key: np.asarray(batch[key])[picked] for key in self._settings.keys}
        columns: dict[str, Any] = {}
        for spec in plan.outputs:
            values = answers.values[spec.name]
            columns[spec.name] = (
                values
                if isinstance(values, np.ndarray) and spec.dtype != "BYTES"
                else _objects(as_text(values, spec) if spec.dtype == "BYTES" else list(values))
            )
        return kept | columns

    def _fault(self, batch: Mapping[str, Array], place: int, why: str) -> dict[str, object]:
        keys = {key: np.asarray(batch[key])[place] for key in self._settings.keys}
        return {"keys": {name: _plain(key) for name, key in keys.items()}, "reason": why}

    def _tell(self, faults: Mapping[int, dict[str, object]]) -> None:
        if self._settings.on_error == "fail":
            place, fault = next(iter(faults.items()))
            raise InputError(
                f"row {place} of a batch, {fault['keys']}: {fault['reason']}",
                fix="mend the row, or leave bad rows out with on_error='skip'",
            )
        assert self._errors is not None
        self._errors.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{uuid.uuid4().hex}.jsonl"
        write_atomically(self._errors / name, [msgspec.json.encode(fault) + b"\n" for fault in faults.values()])


def _plain(value: Any) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _objects(values: list[Any]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array
