import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.bundle import Signature, TensorSpec
from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.errors import ConfigError, InputError
from tidegate.runtime.feeds import FREE_AXIS_SIZE, make_feeds


def signature(*shapes: tuple[int, ...], dtype: str = "FP32") -> Signature:
    specs = tuple(TensorSpec(name=f"x{index}", dtype=dtype, shape=shape) for index, shape in enumerate(shapes))
    return Signature(inputs=specs, outputs=())


ROWS = {"x0": np.arange(12, dtype=np.float32).reshape(4, 3)}


@pytest.mark.parametrize(("batch", "expected"), [(None, [0]), (1, [0]), (3, [0, 3, 6]), (6, [0, 3, 6, 9, 0, 3])])
def test_golden_rows_come_first_and_are_repeated_when_too_few(batch: int | None, expected: list[int]) -> None:
    feeds = make_feeds(signature((-1, 3)), batch=batch, golden=ROWS)
    assert feeds.record.origin == "golden"
    assert feeds.arrays["x0"][:, 0].tolist() == expected
    assert feeds.record.rows_per_call == len(expected)
    assert bool(feeds.record.notes) == (len(expected) > 4)


def test_the_users_file_is_used_whole() -> None:
    feeds = make_feeds(signature((-1, 3)), given=ROWS, golden={"x0": np.zeros((1, 3), np.float32)})
    assert feeds.record.origin == "file"
    assert feeds.record.shapes == {"x0": (4, 3)}


def test_random_is_the_same_every_time_and_says_what_it_chose() -> None:
    one, two = (make_feeds(signature((-1, -1, 3)), batch=2) for _ in range(2))
    assert one.record.origin == "random"
    assert one.record.shapes == {"x0": (2, FREE_AXIS_SIZE, 3)}
    assert one.record.notes
    np.testing.assert_array_equal(one.arrays["x0"], two.arrays["x0"])


@settings(deadline=None)
@given(
    dtype=st.sampled_from(sorted(NAMES)),
    shape=st.lists(st.integers(-1, 4), max_size=3).map(tuple).filter(lambda shape: 0 not in shape),
)
def test_random_fits_every_signature(dtype: str, shape: tuple[int, ...]) -> None:
    array = make_feeds(signature(shape, dtype=dtype)).arrays["x0"]
    assert array.dtype == numpy_dtype(dtype)
    assert all(wanted in (-1, found) for wanted, found in zip(shape, array.shape, strict=True))


def test_a_fixture_without_all_inputs_is_not_mixed_with_random_data() -> None:
    assert make_feeds(signature((-1, 3), (-1, 3)), golden=ROWS).record.origin == "random"


def test_fixed_shape_counts_as_one_row() -> None:
    assert make_feeds(signature((16, 16, 3))).record.rows_per_call == 1


@pytest.mark.parametrize(("shape", "batch"), [((-1, 3), 0), ((1, 3), 2), ((), 1)])
def test_batch_that_cannot_be(shape: tuple[int, ...], batch: int) -> None:
    with pytest.raises(ConfigError, match=r"batch"):
        make_feeds(signature(shape), batch=batch)


@pytest.mark.parametrize(
    "given_arrays",
    [
        {},
        {"y": np.zeros((1, 3), np.float32)},
        {"x0": np.zeros((1, 3), np.float64)},
        {"x0": np.zeros((1, 4), np.float32)},
        {"x0": np.zeros(3, np.float32)},
    ],
)
def test_file_that_does_not_fit(given_arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> None:
    with pytest.raises(InputError):
        make_feeds(signature((-1, 3)), given=given_arrays)
