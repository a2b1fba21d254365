"""What an author is told whose variant misses the golden fixture."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bundle import Manifest, OutputError
from tidegate.convert.tolerances import advice, suggested
from tidegate.runtime.verify import VariantReport


@pytest.mark.parametrize(
    ("error", "tolerance"), [(0.0, 0.0), (0.02, 0.03), (0.021, 0.04), (1.96, 3.0), (7.0, 20.0), (2e-7, 3e-7)]
)
def test_a_suggested_tolerance_is_a_round_number_above_the_error(error: float, tolerance: float) -> None:
    assert suggested(error) == pytest.approx(tolerance, rel=1e-12)


@given(st.floats(1e-30, 1e30))
def test_a_suggested_tolerance_covers_the_error_and_not_much_more(error: float) -> None:
    assert error < suggested(error) <= 3.1 * error


def failed(id: str, error: float) -> VariantReport:
    problem = "has other bytes than expected" if math.isinf(error) else ""
    return VariantReport(id, "failed", outputs=(OutputError("y", error, 1e-3, problem),), problem="off")


def test_rounding_is_named_with_what_to_type(release: tuple[Manifest, dict[str, bytes]]) -> None:
    manifest = release[0]
    int8 = msgspec.structs.replace(manifest.variants[0], id="tflite-int8", precision="int8")
    both = msgspec.structs.replace(manifest, variants=(*manifest.variants, int8))
    text = advice(both, [failed("tflite-int8", 0.02)], generated=True)
    assert text.startswith("int8 rounds, so some difference is to be expected")
    assert "--tolerance tflite-int8=0.03" in text
    assert "inputs of your own in [golden]" in text
    assert "inputs of your own" not in advice(both, [failed("tflite-int8", 0.02)], generated=False)


def test_a_difference_between_exact_variants_is_not_excused(release: tuple[Manifest, dict[str, bytes]]) -> None:
    assert "rounds" not in advice(release[0], [failed("onnx-fp32", 0.02)], generated=False)


def test_no_tolerance_is_offered_where_none_helps(release: tuple[Manifest, dict[str, bytes]]) -> None:
    assert "no tolerance covers" in advice(release[0], [failed("onnx-fp32", math.inf)], generated=True)
