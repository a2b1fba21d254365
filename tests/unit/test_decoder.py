"""The decoder on synthetic probabilities: what counts as a word, and when it was said."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle.manifest import DecoderSettings
from tidegate.errors import InputError
from tidegate.speech.decoder import CLOSEST_WORDS_S, SHORTEST_WORD_S, decode, smooth, windows

LABELS = ("silence", "unknown", "yes", "no", "up")
SETTINGS = DecoderSettings(kind="keywords")
RAW = DecoderSettings(kind="keywords", smoothing_windows=1)
LETTER = {"_": "silence", "?": "unknown", "y": "yes", "n": "no", "u": "up"}


def matrix(timeline: str, p: float = 0.9) -> NDArray[np.float32]:
    """One letter a window: its label gets `p`, the others share the rest; '.' gives all labels the same."""
    rows = np.full((len(timeline), len(LABELS)), (1 - p) / (len(LABELS) - 1), np.float32)
    for row, letter in enumerate(timeline):
        if letter == ".":
            rows[row] = 1 / len(LABELS)
        else:
            rows[row, LABELS.index(LETTER[letter])] = p
    return rows


@pytest.mark.parametrize(
    ("timeline", "settings", "text"),
    [
        ("____yyyyy____", SETTINGS, "yes"),
        ("yyyyy", SETTINGS, "yes"),
        ("y", DecoderSettings(kind="keywords", minimum_windows=1), "yes"),
        ("y", SETTINGS, ""),
        ("____y____", SETTINGS, ""),  # smoothed away
        ("____y____", RAW, ""),  # shorter than minimum_windows
        ("____yy____", RAW, "yes"),
        ("__yyyy__nnnn__", SETTINGS, "yes no"),
        ("__yyyynnnn__", SETTINGS, "yes no"),
        ("__yyyy__yyyy__", SETTINGS, "yes yes"),
        ("__yyyy_yyyy__", RAW, "yes yes"),
        ("__yyyyyyyy__", SETTINGS, "yes"),
        ("yyyy___nnnn___yyyy", SETTINGS, "yes no yes"),
        ("_____________", SETTINGS, ""),
        ("??????", SETTINGS, ""),
        (".............", SETTINGS, ""),
        ("__yyyyyy", RAW, "yes"),
        # Two runs with their centres 350 ms apart are two words …
        ("__uunnnnn__", RAW, "up no"),
        # … but at a hop of 40 ms they are 140 ms apart, and the one with more evidence stays, whichever comes first.
        ("__uunnnnn__", DecoderSettings(kind="keywords", smoothing_windows=1, hop_ms=40), "no"),
        ("__nnnnnuu__", DecoderSettings(kind="keywords", smoothing_windows=1, hop_ms=40), "no"),
        ("__yyy_yyy__", DecoderSettings(kind="keywords", smoothing_windows=1, hop_ms=40), "yes"),
        ("__uunnnyy__", DecoderSettings(kind="keywords", smoothing_windows=1, hop_ms=40), "no"),
    ],
)
def test_words_of_a_timeline(timeline: str, settings: DecoderSettings, text: str) -> None:
    assert decode(matrix(timeline), LABELS, settings).text == text


@pytest.mark.parametrize(("p", "text"), [(0.49, ""), (0.51, "yes")])
def test_threshold(p: float, text: str) -> None:
    assert decode(matrix("__yyyyy__", p), LABELS, RAW).text == text


def test_under_a_low_threshold_the_best_label_wins_the_window() -> None:
    low = DecoderSettings(kind="keywords", smoothing_windows=1, threshold=0.2)
    rows = np.tile(np.array([[0.0, 0.0, 0.3, 0.4, 0.3]], np.float32), (5, 1))
    assert decode(rows, LABELS, low).text == "no"


@pytest.mark.parametrize(
    ("timeline", "label"), [("_____", "silence"), ("_????_", "unknown"), ("??yy", "unknown"), ("___?", "silence")]
)
def test_without_a_word_the_best_rejected_label_is_named(timeline: str, label: str) -> None:
    transcript = decode(matrix(timeline, 0.45), LABELS, SETTINGS)
    assert (transcript.text, transcript.words, transcript.label) == ("", (), label)
    assert 0 < transcript.confidence <= 0.45 + 1e-6


def test_without_rejected_labels_there_is_no_label() -> None:
    transcript = decode(np.full((4, 2), 0.4, np.float32), ("a", "b"), SETTINGS)
    assert (transcript.text, transcript.label, transcript.confidence) == ("", "", 0.0)


def test_confidence_is_the_maximum_of_the_run_and_the_lowest_of_the_words() -> None:
    rows = matrix("__yyyy__nnnn__")
    rows[3, 2], rows[9, 3] = 0.97, 0.6
    transcript = decode(rows, LABELS, RAW)
    assert [word.confidence for word in transcript.words] == pytest.approx([0.97, 0.9])
    assert transcript.confidence == pytest.approx(0.9)
    assert transcript.label == ""


def test_times_are_the_intersection_of_the_windows_that_hold_the_word() -> None:
    """A word from 1.2 to 1.7 s is whole in the windows centred from 1.2 s to 1.7 s."""
    fires = [1.7 - 0.5 - 1e-9 <= 0.1 * row <= 1.2 + 0.5 + 1e-9 for row in range(40)]
    word = decode(matrix("".join("y" if hit else "_" for hit in fires)), LABELS, SETTINGS).words[0]
    assert (word.start_s, word.end_s) == pytest.approx((1.2, 1.7))


def test_a_run_as_long_as_a_window_still_has_an_extent() -> None:
    (word,) = decode(matrix("_" * 5 + "y" * 11 + "_" * 5), LABELS, SETTINGS).words
    assert word.end_s - word.start_s == pytest.approx(SHORTEST_WORD_S)


@pytest.mark.parametrize(
    ("length", "count"), [(8, 1), (11, 1), (13, 1), (14, 2), (17, 2), (21, 2), (22, 3), (28, 3), (29, 4)]
)
def test_a_run_longer_than_a_window_is_the_same_word_again(length: int, count: int) -> None:
    """At a hop of 100 ms a window of 1 s spans 11 centres; up to 13 can be one word; then about 700 ms is one more."""
    words = decode(matrix("_" * 5 + "y" * length + "_" * 5), LABELS, SETTINGS).words
    assert [word.text for word in words] == ["yes"] * count
    assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(words))


def test_the_times_of_a_word_said_twice_without_a_gap_between_the_runs() -> None:
    """From 1.0 to 1.5 s and from 1.8 to 2.3 s: one run of the windows centred from 1.0 to 2.3 s."""
    fires = [1.0 - 1e-9 <= 0.1 * row <= 2.3 + 1e-9 for row in range(40)]
    words = decode(matrix("".join("y" if hit else "_" for hit in fires)), LABELS, SETTINGS).words
    times_s = [time_s for word in words for time_s in (word.start_s, word.end_s)]
    assert times_s == pytest.approx([1.0, 1.5, 1.8, 2.3], abs=0.15)


def test_no_word_leaves_the_segment() -> None:
    transcript = decode(matrix("yyyy____nnnn"), LABELS, SETTINGS, duration_s=1.05)
    assert transcript.words[0].start_s == 0.0
    assert transcript.words[-1].end_s == 1.05


@pytest.mark.parametrize("shape", [(0, 5), (3, 4), (5,), (2, 5, 1)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \[windows, 5\]"):
        decode(np.zeros(shape, np.float32), LABELS, SETTINGS)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 7))
def test_smoothing_is_the_mean_of_the_neighbours_that_there_are(values: list[float], length: int) -> None:
    smoothed = smooth(np.array(values)[:, np.newaxis], length)[:, 0]
    expected = [np.mean(values[max(0, row - (length - 1) // 2) : row + length // 2 + 1]) for row in range(len(values))]
    np.testing.assert_allclose(smoothed, expected, atol=1e-9)


settings_strategy = st.builds(
    DecoderSettings,
    kind=st.just("keywords"),
    window_ms=st.integers(100, 1500),
    hop_ms=st.integers(10, 100),
    smoothing_windows=st.integers(1, 5),
    threshold=st.floats(0.05, 1),
    minimum_windows=st.integers(1, 5),
)


@given(st.data(), settings_strategy, st.integers(1, 60), st.floats(0.01, 5))
def test_whatever_the_probabilities_the_transcript_is_sound(
    data: st.DataObject, settings: DecoderSettings, count: int, duration_s: float
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    sharpness = data.draw(st.sampled_from([1.0, 5.0, 20.0]))
    logits = np.random.default_rng(seed).normal(size=(count, len(LABELS))) * sharpness
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    transcript = decode(rows / rows.sum(axis=1, keepdims=True), LABELS, settings, duration_s=duration_s)

    assert transcript.text == " ".join(word.text for word in transcript.words)
    assert bool(transcript.text) != bool(transcript.label)
    assert all(word.text not in settings.rejected_labels for word in transcript.words)
    assert all(0 <= word.start_s <= word.end_s <= duration_s for word in transcript.words)
    assert all(settings.threshold - 1e-9 <= word.confidence <= 1 for word in transcript.words)
    assert 0 <= transcript.confidence <= 1


@given(
    st.lists(st.tuples(st.sampled_from("ynu"), st.integers(4, 8), st.integers(2, 6)), min_size=1, max_size=8),
    st.integers(0, 5),
)
def test_each_clear_run_is_one_word_in_order(spoken: list[tuple[str, int, int]], lead: int) -> None:
    timeline = "_" * lead + "".join(letter * length + "_" * pause for letter, length, pause in spoken)
    transcript = decode(matrix(timeline), LABELS, SETTINGS)
    assert [word.text for word in transcript.words] == [LETTER[letter] for letter, _, _ in spoken]
    middles = [(word.start_s + word.end_s) / 2 for word in transcript.words]
    assert all(later - earlier >= CLOSEST_WORDS_S for earlier, later in itertools.pairwise(middles))


@given(st.integers(1, 5000), st.integers(1, 400), st.integers(1, 400), st.sampled_from([1000, 8000, 16000]))
def test_windows_are_centred_on_every_hop_of_the_segment(count: int, window_ms: int, hop_ms: int, rate_hz: int) -> None:
    settings = DecoderSettings(kind="keywords", window_ms=window_ms, hop_ms=hop_ms)
    samples = np.arange(1, count + 1, dtype=np.float32)
    window, hop = window_ms * rate_hz // 1000, hop_ms * rate_hz // 1000
    slid = windows(samples, settings, rate_hz)
    assert slid.shape == (math.ceil(count / hop) + 1, window)
    assert slid.dtype == np.float32
    for row, part in enumerate(slid):
        first = row * hop - window // 2
        inside = np.arange(first, first + window)
        expected = np.where((inside >= 0) & (inside < count), inside + 1, 0)
        np.testing.assert_array_equal(part, expected)


def test_a_word_at_either_end_is_seen_whole() -> None:
    samples = np.ones(16_000 // 2, np.float32)
    whole = windows(samples, SETTINGS, 16_000).sum(axis=1) == len(samples)
    assert whole.all()
