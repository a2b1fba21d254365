"""The small pure rules of the runtime: quantisation, output shapes, versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tidegate.errors import ConfigError, ModelError
from tidegate.runtime.backends import ModelFile
from tidegate.runtime.backends.litert import numpy_problem
from tidegate.runtime.backends.output_shapes import output_shapes
from tidegate.runtime.backends.quantisation import Quantisation
from tidegate.runtime.loading import runtime_suffices

INTEGERS = st.sampled_from([np.int8, np.uint8, np.int16])


@given(data=st.data(), dtype=INTEGERS, scale=st.floats(1e-6, 1e3))
def test_every_integer_survives_there_and_back(data: st.DataObject, dtype: Any, scale: float) -> None:
    limits = np.iinfo(dtype)
    zero_point = data.draw(st.integers(int(limits.min), int(limits.max)))
    integers = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
    quantisation = Quantisation(scale, zero_point, np.dtype(dtype))
    back = quantisation.quantise(quantisation.dequantise(integers))
    assert back.dtype == dtype
    assert np.array_equal(back, integers)


@given(values=hnp.arrays(np.float32, 20, elements=st.floats(-1, 1, width=32)))
def test_the_error_is_at_most_half_a_step(values: Any) -> None:
    quantisation = Quantisation(2 / 255, 0, np.dtype(np.int8))
    error = np.abs(quantisation.dequantise(quantisation.quantise(values)) - values)
    assert float(error.max()) <= 1 / 255 + 1e-6


def test_out_of_range_saturates() -> None:
    quantisation = Quantisation(0.5, -3, np.dtype(np.int8))
    assert quantisation.quantise(np.array([-1e30, 1e30, 0, 0.25, 0.75], np.float32)).tolist() == [-128, 127, -3, -3, -1]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_cannot_be(scale: float) -> None:
    with pytest.raises(ModelError, match="scale"):
        Quantisation(scale, 0, np.dtype(np.int8))


@pytest.mark.parametrize(
    ("inputs", "outputs", "shapes", "expected"),
    [
        ([(1, 64)], [(1, 10)], ((1, 64),), ((1, 10),)),
        ([("n", 64)], [("n", 10)], ((7, 64),), ((7, 10),)),
        ([("n", "m")], [("m", "n"), ()], ((2, 3),), ((3, 2), ())),
        ([("n",), ("n",)], [("n",)], ((4,), (4,)), ((4,),)),
        ([("n",), ("n",)], [("n",)], ((4,), (1,)), None),
        ([("n",)], [("k",)], ((4,),), None),
        ([("n",)], [(None,)], ((4,),), None),
        ([(None,)], [(3,)], ((4,),), ((3,),)),
        ([], [(3,)], (), ((3,),)),
    ],
)
def test_output_shapes(inputs: Any, outputs: Any, shapes: Any, expected: Any) -> None:
    assert output_shapes(inputs, outputs, shapes) == expected


@pytest.mark.parametrize(
    ("runtime", "minimum", "expected"),
    [
        ("onnxruntime 1.31.1", "", True),
        ("onnxruntime 1.31.1", "1.31", True),
        ("onnxruntime 1.31.1", "1.31.1", True),
        ("onnxruntime 1.9.0", "1.10", False),
        ("ai_edge_litert 2.3.0", "10.0", False),
        ("ai_edge_litert 2.3", "2.3.0", True),
        ("ai_edge_litert 2.3", "2.3.1", False),
    ],
)
def test_runtime_suffices(runtime: str, minimum: str, expected: bool) -> None:
    assert runtime_suffices(runtime, minimum) is expected


def test_the_older_runtime_needs_the_older_numpy() -> None:
    assert numpy_problem("tflite_runtime", "2.4.6") == "tflite_runtime needs numpy<2, found 2.4.6"
    assert numpy_problem("tflite_runtime", "1.26.4") is None
    assert numpy_problem("ai_edge_litert", "2.4.6") is None


@pytest.mark.parametrize("settings", [{}, {"content": b"", "path": Path("m")}, {"path": Path("m"), "threads": 0}])
def test_a_model_file_that_cannot_be_meant(settings: Any) -> None:
    with pytest.raises(ConfigError):
        ModelFile("m", **settings)
