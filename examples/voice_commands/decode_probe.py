"""Choose the decoder settings: word errors on segments as the endpointer cuts them.

The decoder is the package's own (:mod:`tidegate.speech.decoder`).  A segment is
300 ms of pre-roll, one utterance, or two with a gap of 150..400 ms, and 450 ms
of hang-over, in noise; windows slide over it at the decoder's hop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import augment
import numpy as np
from conditions import Condition
from numpy.typing import NDArray
from synthesise import read_voice
from timelines import label_of
from voices import Voice, test_groups
from words import LABELS, UNKNOWN

from tidegate.bundle.manifest import DecoderSettings
from tidegate.speech.decoder import decode, windows

SEED = 99
# The other variants differ from these by less than the width of the test.
PROBED = ("onnx-fp32", "tflite-int8", "cloud-onnx-fp16")
TAKES_PER_VOICE = 50
PRE_ROLL_SAMPLES = 4_800
HANGOVER_SAMPLES = 7_200
BATCH = 32

Float = NDArray[np.float32]
Predict = Callable[[Float], Float]


@dataclass(frozen=True)
class Segment:
    """A cut segment with the commands said in it."""

    audio: Float
    """float32 [n]."""
    commands: tuple[str, ...]
    """The truth, in order; empty if only unknown words were said."""


def make_segments(work: Path, voices: Sequence[Voice], noise: Condition, repeats: int) -> list[Segment]:
    """Return segments of the test utterances, one in five with two utterances."""
    rng = np.random.default_rng(SEED)
    segments = []
    for voice in voices:
        takes = read_voice(work / "speech" / "test" / f"{voice.key}.npz")
        for index in rng.permutation(len(takes))[:TAKES_PER_VOICE].tolist() * repeats:
            chosen = [takes[index]]
            if rng.random() < 0.2:
                chosen.append(takes[int(rng.integers(len(takes)))])
            segments.append(make_segment(chosen, noise, rng))
    return segments


def make_segment(utterances: Sequence[tuple[str, Float]], noise: Condition, rng: np.random.Generator) -> Segment:
    """Join utterances with pre-roll, gaps and hang-over; add noise; set a level of -25..0 dB."""
    parts = [np.zeros(PRE_ROLL_SAMPLES, np.float32)]
    for _, audio in utterances:
        parts += [audio, np.zeros(int(rng.uniform(0.15, 0.4) * 16_000), np.float32)]
    parts[-1] = np.zeros(HANGOVER_SAMPLES, np.float32)
    audio = np.concatenate(parts)
    audio = noise.add_to(audio, augment.level_rms(np.concatenate([u[1] for u in utterances])), rng)
    audio = audio / max(float(np.abs(audio).max()), 1.0)
    labels = [label_of(text) for text, _ in utterances]
    gained = augment.apply_gain(audio, float(rng.uniform(-25, 0)))
    return Segment(gained, tuple(label for label in labels if label != UNKNOWN))


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Return the edit distance (substitutions, deletions, insertions) of two word lists."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], best
    return row[-1]


def segment_probabilities(predict: Predict, segments: Sequence[Segment], hop_ms: int) -> list[Float]:
    """Return the window probabilities of each segment."""
    settings = DecoderSettings(kind="keywords", hop_ms=hop_ms)
    slid = [windows(segment.audio, settings, 16_000) for segment in segments]
    counts = np.cumsum([len(w) for w in slid])[:-1]
    everything = np.concatenate(slid)
    padded = np.concatenate([everything, np.zeros((-len(everything) % BATCH, 16_000), np.float32)])
    parts = [predict(padded[i : i + BATCH]) for i in range(0, len(padded), BATCH)]
    return np.split(np.concatenate(parts)[: len(everything)], counts)


def score(segments: Sequence[Segment], probabilities: Sequence[Float], settings: DecoderSettings) -> dict[str, float]:
    """Return the word error rate, the share of wrong or lost words, and false alarms.

    ``false_alarms`` is the share of segments without any command that gave one.
    """
    errors = words = lost = false = empty = 0
    for segment, rows in zip(segments, probabilities, strict=True):
        heard = [word.text for word in decode(rows, LABELS, settings).words]
        if segment.commands:
            words += len(segment.commands)
            errors += word_errors(segment.commands, heard)
            lost += sum(1 for command in segment.commands if command not in heard)
        else:
            empty += 1
            false += bool(heard)
    return {
        "word_error_rate": round(errors / max(words, 1), 4),
        "missed_or_wrong": round(lost / max(words, 1), 4),
        "false_alarms": round(false / max(empty, 1), 4),
    }


def probe(work: Path, predictors: dict[str, Predict], conditions: dict[str, Condition], repeats: int) -> dict[str, Any]:
    """Search the settings on the float32 small model, then score three variants with them."""
    sets = {
        (group, condition): make_segments(work, voices, noise, repeats if len(voices) < 5 else 1)
        for group, voices in test_groups().items()
        for condition, noise in conditions.items()
    }
    base = DecoderSettings(kind="keywords")
    reference = {
        key: segment_probabilities(predictors["onnx-fp32"], segments, base.hop_ms) for key, segments in sets.items()
    }
    grid = []
    for smoothing in (1, 3, 5):
        for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            for minimum in (1, 2, 3):
                settings = DecoderSettings(
                    kind="keywords",
                    smoothing_windows=smoothing,
                    threshold=threshold,
                    minimum_windows=minimum,
                )
                scores = [score(sets[key], reference[key], settings) for key in sets]
                cost = float(np.mean([s["word_error_rate"] + 0.5 * s["false_alarms"] for s in scores]))
                grid.append((cost, settings))
    best = min(grid, key=lambda item: item[0])[1]
    table: dict[str, Any] = {}
    for variant in PROBED:
        predict = predictors[variant]
        for key, segments in sets.items():
            known = variant == "onnx-fp32"
            rows = reference[key] if known else segment_probabilities(predict, segments, best.hop_ms)
            table.setdefault(variant, {}).setdefault(key[0], {})[key[1]] = score(segments, rows, best)
    ranked = sorted(grid, key=lambda item: item[0])[:12]
    return {
        "settings": settings_facts(best),
        "scores": table,
        "grid": [{**settings_facts(settings), "cost": round(cost, 4)} for cost, settings in ranked],
    }


def settings_facts(settings: DecoderSettings) -> dict[str, float]:
    """Return the settings by name, defaults included."""
    return {
        "hop_ms": settings.hop_ms,
        "smoothing_windows": settings.smoothing_windows,
        "threshold": settings.threshold,
        "minimum_windows": settings.minimum_windows,
    }


__all__ = ["LABELS", "Segment", "make_segment", "make_segments", "probe", "score", "word_errors"]
