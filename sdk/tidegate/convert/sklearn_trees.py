"""Histogram gradient boosting for skl2onnx on protobuf 7.

scikit-learn keeps in each tree node, as a truth value, where rows without a value go. skl2onnx 1.20 hands that to ONNX
as a whole number; protobuf up to 6 takes it for one, protobuf 7 refuses. Here it becomes a number before it gets there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class _PlainNumbers:
    """skl2onnx's container; in the attributes of a node, truth values inside lists become 0 and 1."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, op_type: str, inputs: Any, outputs: Any, **attributes: Any) -> None:
        plain = {name: _numbers(value) if isinstance(value, list) else value for name, value in attributes.items()}
        self._container.add_node(op_type, inputs, outputs, **plain)


def tree_converters() -> dict[type, Callable[[Any, Any, Any], None]]:
    """Return skl2onnx's own converters of histogram gradient boosting, by estimator, for `custom_conversion_functions`.

    skl2onnx must be installed.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return dict.fromkeys((HistGradientBoostingClassifier, HistGradientBoostingRegressor), _convert)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.common._registration import get_converter

    get_converter(operator.type)(scope, operator, _PlainNumbers(container))


def _numbers(values: list[Any]) -> list[Any]:
    return [int(value) if isinstance(value, (bool, np.bool_)) else value for value in values]
