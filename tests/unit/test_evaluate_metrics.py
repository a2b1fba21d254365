"""The metrics against values worked out by hand or published by others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.evaluate import metrics

TRUTH = np.array([0, 1, 2, 0, 1, 2])
DECISION = np.array([0, 2, 1, 0, 0, 1])


def test_confusion_matrix_counts_truth_by_decision() -> None:
    matrix = metrics.confusion_matrix(TRUTH, np.array([0, 2, 1, 0, -1, 1]), 3)
    assert matrix.tolist() == [[2, 0, 0, 0], [0, 0, 1, 1], [0, 2, 0, 0]]


def test_by_class_and_macro_figures_are_those_of_the_textbook() -> None:
    # The same six rows stand in scikit-learn's user guide: macro precision 0.22, recall 0.33, F1 0.26.
    matrix = metrics.confusion_matrix(TRUTH, DECISION, 3)
    assert metrics.accuracy(matrix) == pytest.approx(2 / 6)
    assert metrics.precision(matrix).tolist() == pytest.approx([2 / 3, 0, 0])
    assert metrics.recall(matrix).tolist() == pytest.approx([1, 0, 0])
    assert metrics.f1(matrix).tolist() == pytest.approx([0.8, 0, 0])
    assert metrics.macro(metrics.precision(matrix), matrix) == pytest.approx(2 / 9)
    assert metrics.macro(metrics.recall(matrix), matrix) == pytest.approx(1 / 3)
    assert metrics.macro(metrics.f1(matrix), matrix) == pytest.approx(0.8 / 3)


def test_a_class_that_never_occurs_has_no_figures_and_no_part_in_the_mean() -> None:
    matrix = metrics.confusion_matrix(np.array([0, 0]), np.array([0, 0]), 2)
    assert np.isnan(metrics.precision(matrix)[1])
    assert np.isnan(metrics.recall(matrix)[1])
    assert metrics.macro(metrics.f1(matrix), matrix) == 1.0


def test_average_precision_of_four_rows() -> None:
    # From the top: right (1/1), wrong, right (2/3), wrong: (1 + 2/3) / 2.
    positive, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.average_precision(positive, score) == pytest.approx(5 / 6)


def test_tied_scores_are_one_point_of_the_curve() -> None:
    positive, score = np.array([True, False, True, False]), np.zeros(4)
    precision, recall, threshold = metrics.precision_recall_curve(positive, score)
    assert (precision.tolist(), recall.tolist(), threshold.tolist()) == ([0.5], [1.0], [0.0])
    assert metrics.average_precision(positive, score) == 0.5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_weights_are_repeated_rows(rows: list[tuple[bool, int]]) -> None:
    positive = np.array([row[0] for row in rows])
    score = np.array([float(row[1]) for row in rows])
    counts = np.random.default_rng(len(rows)).integers(0, 4, len(rows))
    if not positive[counts > 0].any():
        return
    repeated = metrics.average_precision(np.repeat(positive, counts), np.repeat(score, counts))
    assert metrics.weighted_average_precision(positive, score, counts[None, :].astype(float))[0] == pytest.approx(
        repeated
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_several_models_at_once_are_as_one_by_one(rows: list[tuple[bool, int, int]]) -> None:
    positive = np.array([True, *(row[0] for row in rows)])
    scores = np.array([[0.0, *(row[1] for row in rows)], [3.0, *(row[2] for row in rows)]], np.float64)
    expected = [metrics.average_precision(positive, score) for score in scores]
    assert metrics.average_precisions(positive, scores).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "words"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 0, 6),
        ("the cat sat on the mat", "the cat sit on mat", 2, 6),
        ("go", "", 1, 1),
        ("", "go go", 2, 0),
        ("a b c", "b c d", 2, 3),
        ("Stop", "stop", 1, 1),
        ("one  two\tthree", "one two three", 0, 3),
    ],
)
def test_word_errors_are_the_fewest_edits(reference: str, hypothesis: str, errors: int, words: int) -> None:
    assert metrics.word_errors(reference, hypothesis) == (errors, words)


def test_word_error_rate_divides_all_errors_by_all_words() -> None:
    assert metrics.word_error_rate(["a b c", "d"], ["a b", "e f"]) == pytest.approx(3 / 4)


def test_calibration_error_is_the_gap_by_bin() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    right = np.array([True, True, True, False, True, False])
    # 0.9 said, 0.75 right, on 4 of 6 rows; 0.6 said, 0.5 right, on 2 of 6.
    assert metrics.calibration_error(confidence, right) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
