"""A loaded model, called in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from tidegate.runtime import Model


class ModelSystem:
    """Runs `model` on the same arrays every time, as an application does: numpy in, numpy out."""

    def __init__(self, model: Model, feeds: Mapping[str, NDArray[Any]]) -> None:
        self._model = model
        self._feeds = feeds

    def call(self) -> None:
        """Run the model once."""
        self._model.run(self._feeds)

    def close(self) -> None:
        """Close the model."""
        self._model.close()
