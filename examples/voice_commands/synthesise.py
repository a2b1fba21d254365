"""Speak words with eSpeak NG, flite and Festival into a cache of waveforms.

One cache file per voice: ``WORK/speech/SET/VOICE.npz`` with ``samples`` (int16,
all utterances end to end, trimmed to the speech), ``offsets`` (int64, one more
than utterances) and ``texts``.  A file that exists is not made again, so an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
import wave
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from voices import Voice, test_groups, train_voices
from words import COMMANDS, CONFUSABLE_WORDS, SENTENCES, TEST_ONLY_WORDS, TRAIN_UNKNOWN_WORDS

SAMPLE_RATE_HZ = 16_000
TRIM_BELOW_PEAK_DB = 46.0
FULL_SCALE = 32_767.0

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Utterance:
    """One text spoken in one way."""

    text: str
    """What is said, without punctuation."""
    ending: str
    """Punctuation that shapes the intonation: empty, ``.``, ``?`` or ``!``."""
    pace: float
    """Speaking rate relative to the voice's own (0.7 slow, 1.3 fast)."""
    pitch: float
    """Position in the voice's pitch range, 0 (low) to 1 (high)."""


def speak(voice: Voice, utterance: Utterance) -> Float:
    """Return ``utterance`` spoken by ``voice``: float32 [n], 16 kHz, trimmed to the speech."""
    if voice.engine == "espeak":
        samples, rate_hz = _espeak(voice, utterance)
    elif voice.engine == "flite":
        samples, rate_hz = _flite(voice, utterance)
    else:
        samples, rate_hz = festival_batch(voice, [utterance])[0]
    return to_speech(samples, rate_hz)


def to_speech(samples: Float, rate_hz: int) -> Float:
    """Resample to 16 kHz, scale the peak to 0.9 and cut the silence at both ends."""
    import soxr

    audio = np.asarray(soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ), dtype=np.float32)
    return trim(audio * (0.9 / max(float(np.abs(audio).max(initial=0.0)), 1e-6)))


def trim(audio: Float, block: int = 80) -> Float:
    """Cut leading and trailing 5 ms blocks quieter than 46 dB below the loudest block."""
    blocks = audio[: audio.size // block * block].reshape(-1, block)
    level = np.sqrt(np.mean(np.square(blocks), axis=1))
    loud = np.flatnonzero(level > level.max(initial=0.0) * 10 ** (-TRIM_BELOW_PEAK_DB / 20))
    if loud.size == 0:
        return audio
    return audio[loud[0] * block : (loud[-1] + 1) * block]


def _espeak(voice: Voice, utterance: Utterance) -> tuple[Float, int]:
    words_per_minute = round(155 * utterance.pace)
    pitch = round(20 + 60 * utterance.pitch)
    command = ["espeak-ng", "-v", voice.name, "-s", str(words_per_minute), "-p", str(pitch)]
    return _wav(_run([*command, "--stdout", utterance.text + utterance.ending]))


def _flite(voice: Voice, utterance: Utterance) -> tuple[Float, int]:
    low_hz, high_hz = (130.0, 245.0) if voice.name == "slt" else (75.0, 170.0)
    f0_hz = low_hz + (high_hz - low_hz) * utterance.pitch
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        _run(
            [
                *("flite", "-voice", voice.name),
                *("--setf", f"duration_stretch={1 / utterance.pace:.3f}"),
                *("--setf", f"int_f0_target_mean={f0_hz:.1f}"),
                *("--setf", f"int_f0_target_stddev={8 + 20 * utterance.pitch:.1f}"),
                *("-t", utterance.text + utterance.ending, "-o", file.name),
            ]
        )
        return _wav(Path(file.name).read_bytes())


def festival_batch(voice: Voice, utterances: Sequence[Utterance]) -> list[tuple[Float, int]]:
    """Speak many utterances in one Festival process (it takes a second to start)."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{voice.name})"]
        for index, utterance in enumerate(utterances):
            lines.append(f"(Parameter.set 'Duration_Stretch {1 / utterance.pace:.3f})")
            text = utterance.text + utterance.ending
            lines.append(f'(utt.save.wave (SynthText "{text}") "{folder}/{index}.wav" \'riff)')
        script = Path(folder) / "speak.scm"
        script.write_text("\n".join(lines))
        _run(["festival", "-b", str(script)])
        return [_wav((Path(folder) / f"{i}.wav").read_bytes()) for i in range(len(utterances))]


def _run(command: Sequence[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


def _wav(data: bytes) -> tuple[Float, int]:
    # eSpeak NG writes a stream header without the true length, so read what is there.
    with wave.open(io.BytesIO(data)) as file:
        rate_hz = file.getframerate()
        raw = file.readframes(len(data))
    pcm = np.frombuffer(raw[: len(raw) // 2 * 2], dtype="<i2")
    return pcm.astype(np.float32) / np.float32(FULL_SCALE), rate_hz


def train_script(voice: Voice, scale: float) -> list[Utterance]:
    """Return what a training voice says; natural voices say more, since they are few."""
    rng = np.random.default_rng(crc32(voice.key.encode()))
    command_takes, unknown_count, sentence_count = (90, 2200, 64) if voice.is_natural else (5, 70, 3)
    unknown = np.array(TRAIN_UNKNOWN_WORDS + CONFUSABLE_WORDS)
    texts = [word for word in COMMANDS for _ in range(max(1, round(command_takes * scale)))]
    texts += list(rng.choice(unknown, max(4, round(unknown_count * scale))))
    texts += list(rng.choice(np.array(SENTENCES), max(1, round(sentence_count * scale))))
    return [_vary(text, rng) for text in texts]


def test_script(voice: Voice, scale: float) -> list[Utterance]:
    """Return what a test voice says: every command often, and words of both unknown lists."""
    rng = np.random.default_rng(crc32(voice.key.encode()) + 1)
    texts = [word for word in COMMANDS for _ in range(max(1, round(6 * scale)))]
    texts += list(rng.permutation(np.array(TEST_ONLY_WORDS))[: max(2, round(30 * scale))])
    texts += list(rng.choice(np.array(TRAIN_UNKNOWN_WORDS), max(2, round(30 * scale))))
    return [_vary(text, rng, spread=0.7) for text in texts]


def _vary(text: str, rng: np.random.Generator, spread: float = 1.0) -> Utterance:
    ending = str(rng.choice(["", ".", "?", "!", ","], p=[0.4, 0.25, 0.12, 0.13, 0.1]))
    pace = float(np.exp(rng.uniform(-0.34, 0.34) * spread))
    return Utterance(str(text), ending, pace, float(rng.uniform(0.5 - spread / 2, 0.5 + spread / 2)))


def write_voice(voice: Voice, script: Iterable[Utterance], path: Path) -> None:
    """Speak ``script`` and write the cache file, unless it exists."""
    if path.exists():
        return
    utterances = list(script)
    if voice.engine == "festival":
        waves = [to_speech(*spoken) for spoken in festival_batch(voice, utterances)]
    else:
        waves = [speak(voice, utterance) for utterance in utterances]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        samples=np.concatenate([np.round(w * FULL_SCALE).astype(np.int16) for w in waves]),
        offsets=np.cumsum([0, *(w.size for w in waves)]),
        texts=np.array([u.text for u in utterances]),
    )
    part.rename(path)


def _write_one(folder: Path, scale: float, voice: Voice) -> None:
    script = train_script if folder.name == "train" else test_script
    write_voice(voice, script(voice, scale), folder / f"{voice.key}.npz")


def read_voice(path: Path) -> list[tuple[str, Float]]:
    """Return the utterances of a cache file as (text, float32 samples at 16 kHz)."""
    with np.load(path) as data:
        samples, offsets, texts = data["samples"], data["offsets"], data["texts"]
    return [
        (str(text), samples[start:end].astype(np.float32) / np.float32(FULL_SCALE))
        for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True)
    ]


def synthesise(work: Path, scale: float = 1.0, workers: int = 2) -> None:
    """Fill ``WORK/speech/train`` and ``WORK/speech/test`` with every voice of the split."""
    tests = [voice for group in test_groups().values() for voice in group]
    with ProcessPoolExecutor(workers) as pool:
        for name, voices in (("test", tests), ("train", list(train_voices())[::-1])):
            list(pool.map(partial(_write_one, work / "speech" / name, scale), voices))
