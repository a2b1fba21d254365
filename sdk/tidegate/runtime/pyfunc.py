"""What MLflow calls to load a bundle that `tidegate export --mlflow` wrote. It imports nothing of MLflow's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import numpy_dtype
from tidegate.errors import InputError
from tidegate.runtime.loading import load
from tidegate.runtime.model import Model


class PyFunc:
    """A model with MLflow's one method."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            model_input: arrays by input name; or one array, for a model with one input.
            params: MLflow's; there are none.

        Returns:
            A fresh array for each output, by name.

        Raises:
            InputError: an input is missing, or does not fit the signature.
        """
        specs = self.model.signature.inputs
        if not isinstance(model_input, Mapping):
            if len(specs) != 1:
                raise InputError(
                    f"one {type(model_input).__name__} was given; the model's inputs are "
                    + ", ".join(spec.name for spec in specs),
                    fix="give a dict of arrays by these names",
                )
            model_input = {specs[0].name: model_input}
        # MLflow hands over what its own enforcement made of the input; text may have become numpy strings.
        feeds = {
            spec.name: np.asarray(model_input[spec.name], dtype=numpy_dtype(spec.dtype))
            for spec in specs
            if spec.name in model_input
        }
        strangers = {name: value for name, value in model_input.items() if name not in feeds}
        return self.model.run({**feeds, **strangers})


def _load_pyfunc(path: str) -> PyFunc:
    """Load the bundle at `path`: the name and form that MLflow's `loader_module` asks for."""
    return PyFunc(load(path))
