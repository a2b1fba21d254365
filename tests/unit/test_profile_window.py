"""Windows: exact in any order and any portions, small in bytes, refused when damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import InputError
from tidegate.profile import Options, Profile, Window, profile_from
from tidegate.profile.encoding import BOUND_BYTES, LARGEST_ROWS, encode_summary
from tidegate.profile.summary import LARGEST_STEP, Summary

RNG = np.random.default_rng(3)
PROFILE: Profile = profile_from(
    {
        "x": RNG.normal(5.0, 2.0, (300, 1)),
        "kind": np.array([b"a", b"b", b"c"], dtype=object)[RNG.integers(0, 3, 300)],
        "many": np.array([f"n{code}".encode() for code in RNG.integers(0, 40, 300)], dtype=object),
    },
    {},
    options=Options(replicates=1000, window_rows=(100,)),
)
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
texts = st.sampled_from(["", "a", "b", "c", "n7", "n39", "never seen", "ä"])
rows = st.lists(st.tuples(numbers, texts), max_size=12)


def window(content: list[tuple[float, str]]) -> Window:
    made = Window(PROFILE)
    made.add(arrays(content))
    return made


def arrays(content: list[tuple[float, str]]) -> dict[str, Any]:
    words = np.empty(len(content), dtype=object)
    words[:] = [text.encode() for _, text in content]
    return {"x": np.array([[number] for number, _ in content]).reshape(-1, 1), "kind": words, "many": words}


@given(rows, rows, rows)
def test_merge_is_associative_and_commutative(a: Any, b: Any, c: Any) -> None:
    one, two, three = window(a), window(b), window(c)
    assert one.merge(two).merge(three).summaries == one.merge(two.merge(three)).summaries
    assert one.merge(two).summaries == two.merge(one).summaries
    assert one.merge(Window(PROFILE)).summaries == one.summaries


@given(rows, st.integers(0, 12))
def test_portions_do_not_matter(content: Any, cut: int) -> None:
    whole, parts = window(content), window(content[:cut])
    parts.add(arrays(content[cut:]))
    assert parts.summaries == whole.summaries == window(content[:cut]).merge(window(content[cut:])).summaries


@given(rows)
def test_bytes_give_back_the_window(content: Any) -> None:
    made = window(content)
    assert Window.decode(made.encode(), PROFILE).summaries == made.summaries


def test_counts_and_moments_are_those_of_the_rows() -> None:
    values = [4.0, 7.0, float("nan"), float("inf"), 4.5]
    made = window([(value, "a") for value in values[:3]] + [(values[3], ""), (values[4], "zz")])
    number, kind, length = (
        next(one for one, f in zip(made.summaries, PROFILE.features, strict=True) if f.name == name)
        for name in ("input/x/value", "input/kind/value", "input/kind/length")
    )
    assert (number.rows, number.present, number.null, number.missing) == (5, 3, 2, 0)
    feature = PROFILE.features[0]
    mean, variance = number.moments(feature)  # type: ignore[arg-type]
    assert mean == pytest.approx(np.mean([4.0, 7.0, 4.5]), abs=2e-3)
    assert variance == pytest.approx(np.var([4.0, 7.0, 4.5]), abs=2e-2)
    assert (kind.missing, kind.present, sum(kind.counts[3:])) == (1, 4, 1)
    assert length.missing == 1


@settings(max_examples=200)
@given(st.data())
def test_a_record_has_at_most_100_bytes(data: st.DataObject) -> None:
    feature = data.draw(st.sampled_from(PROFILE.features))
    cells = len(feature.counts)
    shares = data.draw(st.lists(st.integers(0, LARGEST_ROWS // (cells + 2)), min_size=cells + 2, max_size=cells + 2))
    present = sum(shares[2:])
    worst = Summary(
        missing=shares[0],
        null=shares[1],
        counts=tuple(shares[2:]),
        total=-present * LARGEST_STEP,
        squares=present * LARGEST_STEP**2,
        least=-LARGEST_STEP,
        largest=LARGEST_STEP,
    )
    assert len(encode_summary(feature, worst)) <= BOUND_BYTES


def test_the_bound_holds_for_the_most_bins_and_cells_there_can_be() -> None:
    share = LARGEST_ROWS // 40
    for feature in PROFILE.features:
        present = share * len(feature.counts)
        counts = (share,) * len(feature.counts)
        worst = Summary(share, share, counts, -present * LARGEST_STEP, present * LARGEST_STEP**2, -LARGEST_STEP, 1)
        assert len(encode_summary(feature, worst)) <= BOUND_BYTES
    assert max(len(feature.counts) for feature in PROFILE.features) == 22


def test_a_window_that_is_too_long_is_refused() -> None:
    feature = PROFILE.features[0]
    with pytest.raises(InputError, match="too long"):
        encode_summary(feature, Summary(LARGEST_ROWS + 1, 0, (0,) * len(feature.counts)))


@given(st.lists(st.tuples(numbers, texts), min_size=1, max_size=12), st.data())
def test_damaged_bytes_are_refused_or_harmless(content: Any, data: st.DataObject) -> None:
    raw = bytearray(window(content).encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        read = Window.decode(bytes(raw), PROFILE)
    except InputError:
        return
    assert read.encode()  # a changed count is still a window


@given(st.binary(max_size=80))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InputError):
        Window.decode(raw, PROFILE)
    with pytest.raises(InputError):
        Window.decode(Window(PROFILE).encode()[:12] + raw[:3] + b"\xff", PROFILE)


def test_every_truncation_is_refused() -> None:
    raw = window([(1.0, "a"), (9.0, "")]).encode()
    for length in range(len(raw)):
        with pytest.raises(InputError):
            Window.decode(raw[:length], PROFILE)
    with pytest.raises(InputError, match="too many"):
        Window.decode(raw + b"\0", PROFILE)


def test_a_window_of_another_profile_is_refused() -> None:
    other = profile_from({"x": RNG.normal(size=(100, 1))}, {}, options=Options(replicates=1000, window_rows=(100,)))
    with pytest.raises(InputError, match="profile"):
        Window.decode(Window(other).encode(), PROFILE)
    with pytest.raises(InputError, match="different profiles"):
        Window(other).merge(Window(PROFILE))


def test_an_array_that_does_not_fit_counts_nothing() -> None:
    made = window([(1.0, "a")])
    before = made.summaries
    with pytest.raises(InputError):
        made.add({"x": np.zeros((2, 1)), "kind": np.zeros(2)})
    with pytest.raises(InputError, match="value"):
        made.add({"x": np.zeros((2, 5))})
    assert made.summaries == before
