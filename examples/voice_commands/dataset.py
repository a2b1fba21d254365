"""Training windows: timelines from the speech cache, spoilt, as log-mel with targets.

Each shard ``WORK/windows/NNN.npz`` holds ``log_mel`` float16 [n, 98, 40] and
``target`` float32 [n, labels], made from its own seed; existing shards are kept.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import frontend
import numpy as np
from noises import random_noise
from numpy.typing import NDArray
from synthesise import read_voice
from timelines import Timeline, label_of, lay_out, spoil, warp_speed, window_starts, window_target
from words import COMMANDS, CONFUSABLE_WORDS, UNKNOWN

Float = NDArray[np.float32]
Rng = np.random.Generator

TIMELINES_PER_SHARD = 1_500
NATURAL_SHARE = 0.55
WARPS = tuple(float(w) for w in np.linspace(0.86, 1.16, 13))


@dataclass(frozen=True)
class Speech:
    """The training utterances, by voice and text."""

    natural: list[dict[str, list[Float]]]
    """One dictionary (text to takes) per voice built from recordings."""
    formant: list[dict[str, list[Float]]]
    """The same for the eSpeak NG voices."""

    def voice(self, rng: Rng) -> dict[str, list[Float]]:
        """Draw a voice; natural voices are few, yet speak more than half of the time."""
        pool = self.natural if rng.random() < NATURAL_SHARE and self.natural else self.formant
        return pool[int(rng.integers(len(pool)))]


@cache
def read_speech(folder: Path) -> Speech:
    """Read every voice of a cache folder."""
    natural: list[dict[str, list[Float]]] = []
    formant: list[dict[str, list[Float]]] = []
    for path in sorted(folder.glob("*.npz")):
        takes: dict[str, list[Float]] = {}
        for text, audio in read_voice(path):
            takes.setdefault(text, []).append(audio)
        (formant if path.name.startswith("espeak") else natural).append(takes)
    return Speech(natural, formant)


def draw_utterance(speech: Speech, rng: Rng) -> tuple[str, Float]:
    """Draw a text and a take of it: 60 % commands, then confusable, ordinary, sentences."""
    voice = speech.voice(rng)
    draw = rng.random()
    if draw < 0.60:
        choices = [word for word in COMMANDS if word in voice]
    elif draw < 0.78:
        choices = [word for word in CONFUSABLE_WORDS if word in voice]
    elif draw < 0.94:
        choices = [text for text in voice if label_of(text) == UNKNOWN and " " not in text]
    else:
        choices = [text for text in voice if " " in text]
    text = choices[int(rng.integers(len(choices)))] if choices else next(iter(voice))
    takes = voice[text]
    audio = takes[int(rng.integers(len(takes)))]
    if " " in text and audio.size > 24_000:
        start = int(rng.integers(0, audio.size - 24_000))
        audio = audio[start : start + 24_000]
    if rng.random() < 0.8:
        audio = warp_speed(audio, float(np.exp(rng.uniform(-0.16, 0.16))))
    return text, audio


def draw_timeline(speech: Speech, rng: Rng) -> Timeline:
    """Draw a spoilt timeline; one in fourteen holds no speech at all."""
    if rng.random() < 0.07:
        samples = 3 * frontend.WINDOW_SAMPLES
        sound = random_noise(samples, rng) * np.float32(10 ** rng.uniform(-4, -1))
        return spoil(Timeline(sound if rng.random() < 0.85 else sound * 0, ()), sound, rng)
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    timeline = lay_out([draw_utterance(speech, rng) for _ in range(count)], rng)
    babble = np.zeros(timeline.audio.size, np.float32)
    for _ in range(3):
        _, other = draw_utterance(speech, rng)
        babble += np.resize(other, babble.size)
    return spoil(timeline, babble, rng)


def windows_of(timeline: Timeline, rng: Rng) -> tuple[Float, Float]:
    """Cut windows: log-mel [n, 98, 40] (with a random vocal tract length) and targets."""
    starts = window_starts(timeline, rng)
    mel = frontend.mel_matrix(WARPS[int(rng.integers(len(WARPS)))])
    log_mel = frontend.log_mel(timeline.audio, mel)
    cut = np.stack([log_mel[s // 160 : s // 160 + frontend.FRAMES] for s in starts])
    return cut, np.stack([window_target(timeline.spans, s) for s in starts])


def write_shard(work: Path, timelines: int, index: int) -> None:
    """Make shard ``index`` unless it exists."""
    path = work / "windows" / f"{index:03d}.npz"
    if path.exists():
        return
    rng = np.random.default_rng([20_26, index])
    speech = read_speech(work / "speech" / "train")
    pairs = [windows_of(draw_timeline(speech, rng), rng) for _ in range(timelines)]
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        log_mel=np.concatenate([p[0] for p in pairs]).astype(np.float16),
        target=np.concatenate([p[1] for p in pairs]),
    )
    part.rename(path)


def write_windows(work: Path, shards: int, timelines: int = TIMELINES_PER_SHARD, workers: int = 2) -> None:
    """Make the training set of ``shards`` files."""
    (work / "windows").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(write_shard, work, timelines), range(shards)))


def read_windows(work: Path, shards: int) -> tuple[NDArray[np.float16], Float]:
    """Return all windows of the first ``shards`` shards: log-mel and targets."""
    log_mel, target = [], []
    for index in range(shards):
        with np.load(work / "windows" / f"{index:03d}.npz") as data:
            log_mel.append(data["log_mel"])
            target.append(data["target"])
    return np.concatenate(log_mel), np.concatenate(target)
