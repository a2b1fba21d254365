"""From a segment to windows, and from the windows' label probabilities to words. Pure functions.

The model looks at windows of fixed length. They are slid over the segment so that their centres run from its first
sample to its last; beyond the segment they hold zeros, so a word at either end is seen whole.

Decoding is the posterior handling of small keyword spotters (Chen, Parada and Heigold, "Small-footprint keyword
spotting using deep neural networks", ICASSP 2014: smoothing, then a threshold), with runs in place of a single peak so
that one segment may hold several words:

1. a moving average over `smoothing_windows` windows steadies each label;
2. adjacent windows won by the same word at `threshold` or more form a run; a run under `minimum_windows` is dropped;
3. a run that is longer than any one word can make it is split into equal parts, each the same word said again;
4. of two runs whose centres are closer than two words can be spoken, the one with more evidence stays;
5. each run that is left is one word.

Times: a word fires in every window that holds all of it. So the word lies in the intersection of the run's windows,
from the last window's start to the first window's end, and a word of length d gives a run of about (window - d) / hop
windows. That intersection is the estimate of where the word starts and ends, at least `SHORTEST_WORD_S`.

A word also fires in windows that hold only most of it, so the run of one word can be a little longer than a window. A
run whose first and last centre are further apart than `LONGEST_RUN` windows is more than one word: the same word at
least twice, with a pause too short to leave a window without it. On the example's model one word gives runs of up to 12
windows of 1 s at a hop of 100 ms; said twice with pauses of 0.1 to 0.3 s, 14 to 18.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.manifest import DecoderSettings
from tidegate.errors import InputError
from tidegate.speech.transcript import Transcript, Word

SHORTEST_WORD_S = 0.1
"""No spoken word is shorter; the estimate of a word's extent never goes below."""

CLOSEST_WORDS_S = 0.2
"""Centres of two spoken words are never closer: fluent speech has four to five syllables a second."""

LONGEST_RUN = 1.25
"""The longest run that one word can make, in windows."""

REPEAT_S = 0.7
"""From one word to the same word again in one breath: half a second and a short pause. As many of these, to the
nearest, as a run is longer than a window are the words after the first."""


def windows(samples: NDArray[np.float32], settings: DecoderSettings, sample_rate_hz: int) -> NDArray[np.float32]:
    """Return the windows of a segment.

    Args:
        samples: float32 [n], n >= 1.
        settings: gives `window_ms` and `hop_ms`.
        sample_rate_hz: rate of `samples`.

    Returns:
        float32 [k, window], a read-only view. Window i is centred on sample i * hop; beyond the segment are zeros.
        k = ceil(n / hop) + 1, so that the last centre lies at the end of the segment or just behind it.
    """
    window = settings.window_ms * sample_rate_hz // 1000
    hop = settings.hop_ms * sample_rate_hz // 1000
    count = math.ceil(len(samples) / hop) + 1
    padded = np.zeros(max((count - 1) * hop + window, window // 2 + len(samples)), np.float32)
    padded[window // 2 : window // 2 + len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, window)[: (count - 1) * hop + 1 : hop]


def smooth(probabilities: NDArray[np.floating], length: int) -> NDArray[np.float64]:
    """Return the centred moving average over `length` rows; at the ends, over the rows that there are."""
    count = len(probabilities)
    sums = np.concatenate([np.zeros((1, probabilities.shape[1])), np.cumsum(probabilities, axis=0, dtype=np.float64)])
    first = np.maximum(np.arange(count) - (length - 1) // 2, 0)
    behind = np.minimum(np.arange(count) + length // 2 + 1, count)
    average: NDArray[np.float64] = (sums[behind] - sums[first]) / (behind - first)[:, np.newaxis]
    return average


def decode(
    probabilities: NDArray[np.floating],
    labels: Sequence[str],
    settings: DecoderSettings,
    *,
    duration_s: float = math.inf,
) -> Transcript:
    """Turn label probabilities into a transcript.

    Args:
        probabilities: [k, labels], row i from the window centred at i * hop_ms.
        labels: what the columns mean.
        settings: thresholds and lengths.
        duration_s: length of the segment; no word ends after it.

    Returns:
        Times count from the first sample of the segment.

    Raises:
        InputError: `probabilities` is not [k, labels] with k >= 1.
    """
    if probabilities.ndim != 2 or len(probabilities) == 0 or probabilities.shape[1] != len(labels):
        raise InputError(
            f"probabilities have shape {list(probabilities.shape)}, expected [windows, {len(labels)}]",
            fix="pass one row per window and one column per label",
        )
    smoothed = smooth(probabilities, settings.smoothing_windows)
    runs = _resolved(_runs(smoothed, labels, settings), settings.hop_ms / 1000)
    if not runs:
        return _rejected(smoothed, labels, settings)
    words = tuple(_word(run, labels, settings, duration_s) for run in runs)
    return Transcript(
        text=" ".join(word.text for word in words),
        confidence=min(word.confidence for word in words),
        words=words,
    )


@dataclass(frozen=True)
class _Run:
    """Adjacent windows `first` to `last`, both included, that one label won."""

    label: int
    first: int
    last: int
    peak: float
    evidence: float
    """sum of the smoothed probabilities"""

    @property
    def centre(self) -> float:
        return (self.first + self.last) / 2


def _runs(smoothed: NDArray[np.float64], labels: Sequence[str], settings: DecoderSettings) -> list[_Run]:
    winners = smoothed.argmax(axis=1)
    best = smoothed.max(axis=1)
    is_word = np.array([label not in settings.rejected_labels for label in labels])
    fired = np.where(is_word[winners] & (best >= settings.threshold), winners, -1)
    bounds = [0, *(np.flatnonzero(np.diff(fired)) + 1).tolist(), len(fired)]
    runs = [
        _Run(int(fired[a]), a, b - 1, float(best[a:b].max()), float(best[a:b].sum()))
        for a, b in itertools.pairwise(bounds)
        if fired[a] >= 0 and b - a >= settings.minimum_windows
    ]
    return [part for run in runs for part in _split(run, best, settings)]


def _split(run: _Run, best: NDArray[np.float64], settings: DecoderSettings) -> list[_Run]:
    """Return one run for each time that the word was said; see the module's text."""
    length_ms = (run.last - run.first) * settings.hop_ms
    if length_ms <= LONGEST_RUN * settings.window_ms:
        return [run]
    count = 1 + max(round((length_ms - settings.window_ms) / (REPEAT_S * 1000)), 1)
    parts = np.array_split(np.arange(run.first, run.last + 1), count)
    return [
        _Run(run.label, int(part[0]), int(part[-1]), float(best[part].max()), float(best[part].sum())) for part in parts
    ]


def _resolved(runs: list[_Run], hop_s: float) -> list[_Run]:
    """Of runs closer than words can be spoken keep the one with more evidence; equal labels become one run."""
    kept: list[_Run] = []
    for candidate in runs:
        run = candidate
        while kept and (run.centre - kept[-1].centre) * hop_s < CLOSEST_WORDS_S - 1e-9:
            other = kept.pop()
            if other.label == run.label:
                run = _joined(other, run)
            elif other.evidence >= run.evidence:
                run = other
        kept.append(run)
    return kept


def _joined(a: _Run, b: _Run) -> _Run:
    return _Run(a.label, a.first, b.last, max(a.peak, b.peak), a.evidence + b.evidence)


def _word(run: _Run, labels: Sequence[str], settings: DecoderSettings, duration_s: float) -> Word:
    hop_s, half_s = settings.hop_ms / 1000, settings.window_ms / 2000
    start_s, end_s = run.last * hop_s - half_s, run.first * hop_s + half_s
    if end_s - start_s < SHORTEST_WORD_S:
        middle_s = run.centre * hop_s
        start_s, end_s = middle_s - SHORTEST_WORD_S / 2, middle_s + SHORTEST_WORD_S / 2
    end_s = min(max(end_s, 0.0), duration_s)
    return Word(labels[run.label], min(max(start_s, 0.0), end_s), end_s, min(run.peak, 1.0))


def _rejected(smoothed: NDArray[np.float64], labels: Sequence[str], settings: DecoderSettings) -> Transcript:
    """The transcript of a segment without a word: the rejected label with the highest mean."""
    columns = [column for column, label in enumerate(labels) if label in settings.rejected_labels]
    if not columns:
        return Transcript(text="", confidence=0.0)
    best = max(columns, key=lambda column: float(smoothed[:, column].mean()))
    return Transcript(text="", confidence=min(float(smoothed[:, best].max()), 1.0), label=labels[best])
