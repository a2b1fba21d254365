"""Timelines: words, gaps, room, noise and channel; and the target of a window on them.

The model hears 1 s windows slid over a segment, so training windows are cut
from short timelines that look like segments: one to three utterances, silence
of random length, a room, noise, a channel, a gain, and often plain zeros
outside of the segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import augment
import numpy as np
from noises import random_noise
from numpy.typing import NDArray
from words import COMMANDS, LABELS, SILENCE, UNKNOWN

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 16_000
WHOLE_FRACTION = 0.85
FRAGMENT_FRACTION = 0.55
AUDIBLE_SAMPLES = 960

Float = NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True)
class Span:
    """One utterance on a timeline."""

    label: str
    """A command, or ``unknown``."""
    start: int
    """First sample."""
    end: int
    """One after the last sample."""


@dataclass(frozen=True)
class Timeline:
    """Sound with the truth about it."""

    audio: Float
    """float32 [n] at 16 kHz."""
    spans: tuple[Span, ...]
    """Utterances in order of time; they do not overlap."""


def window_target(spans: Sequence[Span], start: int) -> Float:
    """Return the target probabilities, float32 [labels], of the window at sample ``start``.

    An utterance counts as inside from 85 % of its length on; of several the one
    nearest to the centre wins.  Between 55 % and 85 % the target slides from
    ``unknown`` to the word.  Less than that is ``unknown`` from 60 ms on, else
    ``silence``.
    """
    target = np.zeros(len(LABELS), dtype=np.float32)
    end, centre = start + WINDOW_SAMPLES, start + WINDOW_SAMPLES / 2
    overlaps = [(min(s.end, end) - max(s.start, start), s) for s in spans]
    fractions = [(o / (s.end - s.start), s) for o, s in overlaps]
    whole = [(abs((s.start + s.end) / 2 - centre), s.label) for f, s in fractions if f >= WHOLE_FRACTION]
    if whole:
        target[LABELS.index(min(whole)[1])] = 1.0
        return target
    fraction, longest = max(fractions, key=lambda item: item[0], default=(0.0, None))
    if longest is not None and fraction > FRAGMENT_FRACTION:
        weight = (fraction - FRAGMENT_FRACTION) / (WHOLE_FRACTION - FRAGMENT_FRACTION)
        target[LABELS.index(UNKNOWN)] += 1.0 - weight
        target[LABELS.index(longest.label)] += weight
    elif any(o >= AUDIBLE_SAMPLES for o, _ in overlaps):
        target[LABELS.index(UNKNOWN)] = 1.0
    else:
        target[LABELS.index(SILENCE)] = 1.0
    return target


def label_of(text: str) -> str:
    """Return the label of a spoken text: itself if a command, else ``unknown``."""
    return text if text in COMMANDS else UNKNOWN


def warp_speed(audio: Float, factor: float) -> Float:
    """Resample so that pitch, formants and tempo all rise by ``factor``."""
    import soxr

    return np.asarray(soxr.resample(audio, 16_000 * factor, 16_000, "MQ"), dtype=np.float32)


def lay_out(utterances: Sequence[tuple[str, Float]], rng: Rng) -> Timeline:
    """Put utterances one after another with 1 s of margin and random gaps of 30..700 ms."""
    parts = [np.zeros(WINDOW_SAMPLES, np.float32)]
    spans: list[Span] = []
    position = WINDOW_SAMPLES
    for text, audio in utterances:
        scaled = augment.apply_gain(audio, float(rng.uniform(-8, 0)))
        gap = np.zeros(int(rng.uniform(0.03, 0.7) * SAMPLE_RATE_HZ), np.float32)
        spans.append(Span(label_of(text), position, position + scaled.size))
        parts += [scaled, gap]
        position += scaled.size + gap.size
    parts.append(np.zeros(WINDOW_SAMPLES, np.float32))
    return Timeline(np.concatenate(parts), tuple(spans))


def spoil(timeline: Timeline, babble: Float, rng: Rng) -> Timeline:
    """Add room, noise, channel and gain, and cut to a segment of zeros outside at times.

    ``babble`` is speech of others, at least as long as the timeline.
    """
    audio = timeline.audio
    speech_rms = _active_rms(timeline)
    if rng.random() < 0.5:
        audio = augment.random_equaliser(audio, rng)
    if rng.random() < 0.4:
        response = augment.room_response(float(rng.uniform(0.1, 0.6)), float(rng.uniform(-3, 15)), rng)
        audio = augment.convolve(audio, response)
    if rng.random() < 0.2:
        audio = augment.envelope_wobble(audio, rng, 5.0)
    draw = rng.random()
    if draw < 0.78:
        noise = random_noise(audio.size, rng)
        snr_db = float(rng.uniform(0, 12) if rng.random() < 0.35 else rng.uniform(10, 40))
        audio = augment.mix_at_snr(audio, noise, snr_db, speech_rms)
    elif draw < 0.84:
        audio = augment.mix_at_snr(audio, babble[: audio.size], float(rng.uniform(6, 25)), speech_rms)
    audio = augment.damage_channel(audio, rng)
    if rng.random() < 0.5:
        audio = audio.copy()
        first = timeline.spans[0].start if timeline.spans else WINDOW_SAMPLES
        last = timeline.spans[-1].end if timeline.spans else audio.size - WINDOW_SAMPLES
        audio[: max(0, first - int(rng.uniform(0.08, 0.45) * SAMPLE_RATE_HZ))] = 0.0
        audio[last + int(rng.uniform(0.15, 0.6) * SAMPLE_RATE_HZ) :] = 0.0
    return Timeline(augment.apply_gain(audio, float(rng.uniform(-32, 0))), timeline.spans)


def _active_rms(timeline: Timeline) -> float:
    if not timeline.spans:
        return 0.1
    return augment.level_rms(np.concatenate([timeline.audio[s.start : s.end] for s in timeline.spans]))


def window_starts(timeline: Timeline, rng: Rng) -> list[int]:
    """Return where to cut training windows: whole utterances twice, edges, and silence.

    Multiples of 160 samples, so that windows can share one spectrogram.
    """
    starts: list[float] = []
    latest = timeline.audio.size - WINDOW_SAMPLES
    for span in timeline.spans:
        slack = abs(WINDOW_SAMPLES - (span.end - span.start))
        low = min(span.start, span.end - WINDOW_SAMPLES)
        starts += list(rng.uniform(low, low + slack, 2))
        length = min(span.end - span.start, WINDOW_SAMPLES)
        if rng.random() < 0.6:
            starts.append(span.start - WINDOW_SAMPLES + length * rng.uniform(0.0, 0.9))
        if rng.random() < 0.6:
            starts.append(span.end - length * rng.uniform(0.0, 0.9))
    if rng.random() < 0.6 or not starts:
        starts.append(rng.uniform(0, latest))
    return [int(np.clip(start, 0, latest)) // 160 * 160 for start in starts]
