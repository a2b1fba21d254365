"""Bodies of HTTP and the text form of metrics: round trips, and nothing but our own errors for whatever is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tidegate.cloud.http.exchange import decompressed
from tidegate.cloud.http.routes import HEALTH_ROUTES, INFERENCE_ROUTES, METRICS_ROUTES, Routes
from tidegate.cloud.http.tensors import read_body, write_body
from tidegate.cloud.metrics.exposition import Family, from_bytes, merged, number, render, to_bytes
from tidegate.errors import TidegateError, UnavailableError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
DATATYPES = st.sampled_from(["FP32", "FP16", "INT8", "UINT64", "BOOL", "BYTES", "BF16", "", "fp32"])


def attempt(action: Callable[[], Any]) -> Any:
    """What an action returns, or the error of ours that it raises; any other one fails the test."""
    try:
        return action()
    except TidegateError as error:
        return error


def says_what_to_do(found: object) -> bool:
    return not isinstance(found, TidegateError) or bool(found.fix)


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_any_bytes_are_read_or_refused(body: bytes, json_bytes: int | None) -> None:
    assert says_what_to_do(attempt(lambda: read_body(body, json_bytes)))


@given(
    JSON_VALUES,
    DATATYPES,
    st.lists(st.integers(-2, 3) | st.just(2**70), max_size=4),
    JSON_VALUES,
    st.binary(max_size=20),
)
def test_any_tensor_is_read_or_refused(
    data: object, datatype: str, shape: list[int], size: object, behind: bytes
) -> None:
    for extra in ({"data": data}, {"parameters": {"binary_data_size": size}}, {"data": [], "parameters": data}):
        head = json.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, **extra}]}).encode()
        found = attempt(partial(read_body, head + behind, len(head)))
        assert says_what_to_do(found)
        if isinstance(found, tuple):
            assert list(found[1]["x"].shape) == shape


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.booleans())
def test_numbers_survive_both_forms(values: list[float], binary: bool) -> None:
    array = np.array([values], np.float32)
    written = write_body({"model_name": "m"}, {"x": array}, {}, default_binary=binary)
    answer = json.loads(written.body[: written.json_bytes])
    request = json.dumps({"inputs": answer["outputs"]}).encode()
    _, feeds = read_body(request + written.body[written.json_bytes :], len(request))
    np.testing.assert_array_equal(feeds["x"], array)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_are_decompressed_or_refused(body: bytes, encoding: str) -> None:
    found = attempt(lambda: decompressed(body, encoding, 50))
    assert says_what_to_do(found)
    assert isinstance(found, TidegateError) or len(found) <= 50


@given(st.text(alphabet="v2/models{}nameinferready", max_size=60), st.sampled_from(["GET", "POST", "PUT", "HEAD"]))
def test_any_path_is_found_or_refused(path: str, method: str) -> None:
    found = attempt(lambda: Routes((*INFERENCE_ROUTES, *HEALTH_ROUTES, *METRICS_ROUTES)).find(method, path))
    assert says_what_to_do(found)
    assert isinstance(found, TidegateError) or found.route.method == method.replace("HEAD", "GET")


@given(st.text(), st.floats())
def test_labels_and_numbers_are_read_back(label: str, value: float) -> None:
    family = Family("a_metric", "gauge", "Help.", [])
    family.add(value, name=label)
    (read,) = text_string_to_metric_families(render([family]).decode("utf-8", "surrogatepass"))
    (sample,) = read.samples
    # Lines end where text says so, not at characters that only look like an end.
    assert sample.labels == {"name": label}
    assert sample.value == value or (math.isnan(value) and math.isnan(sample.value))


def test_families_of_workers_are_joined_and_told_apart() -> None:
    by_worker = {}
    for worker in (1, 0):
        family = Family("seconds", "histogram", "Help.", [])
        family.add_histogram((0.1, 1.0), (worker, 2, 3), 4.5, {"model": "m"})
        by_worker[worker] = from_bytes(to_bytes([family]))
    (read,) = text_string_to_metric_families(render(merged(by_worker)).decode())
    found = {(s.name, s.labels["worker"], s.labels.get("le")): s.value for s in read.samples}
    assert found[("seconds_bucket", "0", "+Inf")] == found[("seconds_count", "0", None)] == 5
    assert found[("seconds_bucket", "1", "1")] == 3
    assert len(found) == 10


def test_a_worker_that_breaks_off_is_an_error_of_ours() -> None:
    with pytest.raises(UnavailableError):
        from_bytes(to_bytes([Family("a", "gauge", "", [])])[:-1])


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (0.25, "0.25"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")]
)
def test_numbers_as_prometheus_writes_them(value: float, text: str) -> None:
    assert number(value) == text
