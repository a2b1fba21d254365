"""Make demo.wav and demo_truth.json: a short scene with commands, other words, pauses and noise.

    python make_demo_audio.py --out DIR

Voices of both synthesisers speak, most of them held out from training.  One
stretch of the scene has noise 15 dB below the speech, another is noise alone.
The same versions of the synthesisers give the same file.
"""

from __future__ import annotations

import argparse
import json
import wave
from dataclasses import dataclass
from pathlib import Path

import augment
import numpy as np
from noises import car, coloured
from numpy.typing import NDArray
from synthesise import Utterance, speak
from voices import Voice

SAMPLE_RATE_HZ = 16_000
ROOM_TONE_DBFS = -66.0
NOISE_DBFS = -38.0

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Cue:
    """One entry of the scene."""

    pause_s: float
    """Silence in front of the word."""
    word: str
    """What is said."""
    voice: Voice
    """Who says it."""
    level_db: float
    """Gain below a peak of 0.9."""


HELD_OUT_SCOT = Voice("espeak", "en-gb-scotland+f4")
HELD_OUT_YORK = Voice("espeak", "en-us-nyc+m6")
HELD_OUT_LINDA = Voice("espeak", "en-us+linda")
HELD_OUT_RMS = Voice("flite", "rms")
SLT = Voice("flite", "slt")
AWB = Voice("flite", "awb")

SCENE: tuple[Cue, ...] = (
    Cue(0.8, "yes", HELD_OUT_RMS, -3),
    Cue(1.0, "music", SLT, -9),
    Cue(0.9, "up", HELD_OUT_SCOT, -6),
    Cue(1.4, "table", HELD_OUT_RMS, -6),
    Cue(1.0, "weather", HELD_OUT_LINDA, -12),
    Cue(1.8, "stop", SLT, -20),
    Cue(1.1, "left", HELD_OUT_RMS, 0),
    # From here on with driving noise.
    Cue(2.0, "right", HELD_OUT_RMS, -8),
    Cue(1.2, "down", SLT, -8),
    Cue(1.0, "on", HELD_OUT_YORK, -8),
    Cue(1.3, "off", HELD_OUT_RMS, -8),
    # From here on quiet again, after a stretch of pink noise alone.
    Cue(3.8, "go", AWB, -6),
    Cue(1.1, "no", HELD_OUT_RMS, -14),
    Cue(0.9, "planet", HELD_OUT_LINDA, -6),
    Cue(1.5, "weather", HELD_OUT_RMS, -10),
    Cue(0.8, "stop", HELD_OUT_SCOT, -4),
)
FIRST_NOISY, LAST_NOISY = 7, 10
TAIL_S = 1.0


def main() -> None:
    """Speak the scene, add the noises, write both files."""
    parser = argparse.ArgumentParser(description="make demo.wav and demo_truth.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    out: Path = parser.parse_args().out
    audio, words = lay_out_scene()
    audio, noises = add_noises(audio, words)
    write_wav(out / "demo.wav", audio)
    truth = {"words": words, "noises": noises, "duration_s": round(audio.size / SAMPLE_RATE_HZ, 3)}
    (out / "demo_truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def lay_out_scene() -> tuple[Float, list[dict[str, object]]]:
    """Return the speech alone and the truth: word, voice, start_s and end_s of each cue."""
    parts: list[Float] = []
    words: list[dict[str, object]] = []
    position = 0
    for cue in SCENE:
        pause = np.zeros(round(cue.pause_s * SAMPLE_RATE_HZ), np.float32)
        speech = speak(cue.voice, Utterance(cue.word, ".", 0.95, 0.5))
        start = position + pause.size
        position = start + speech.size
        parts += [pause, augment.apply_gain(speech, cue.level_db)]
        words.append(
            {
                "start_s": round(start / SAMPLE_RATE_HZ, 3),
                "end_s": round(position / SAMPLE_RATE_HZ, 3),
                "word": cue.word,
                "voice": cue.voice.key,
            }
        )
    parts.append(np.zeros(round(TAIL_S * SAMPLE_RATE_HZ), np.float32))
    return np.concatenate(parts), words


def add_noises(audio: Float, words: list[dict[str, object]]) -> tuple[Float, list[dict[str, object]]]:
    """Add room tone throughout, driving noise at 15 dB SNR, and a stretch of pink noise alone."""
    rng = np.random.default_rng(7)
    tone = coloured(audio.size, 1.0, rng) * np.float32(10 ** (ROOM_TONE_DBFS / 20))
    first, last = words[FIRST_NOISY], words[LAST_NOISY]
    spans = [(_sample(w["start_s"]), _sample(w["end_s"])) for w in words[FIRST_NOISY : LAST_NOISY + 1]]
    speech_rms = augment.level_rms(np.concatenate([audio[a:b] for a, b in spans]))
    start, end = _sample(first["start_s"]) - 12_800, _sample(last["end_s"]) + 12_800
    driving = car(end - start, rng) * np.float32(speech_rms * 10 ** (-15 / 20))
    mixed = audio + tone
    mixed[start:end] += _faded(driving)
    alone = end + 8_000
    pink = coloured(28_800, 1.0, rng) * np.float32(10 ** (NOISE_DBFS / 20))
    mixed[alone : alone + pink.size] += _faded(pink)
    noises: list[dict[str, object]] = [
        {"kind": "driving noise, 15 dB SNR", "start_s": start / 16_000, "end_s": end / 16_000},
        {"kind": "pink noise alone", "start_s": alone / 16_000, "end_s": (alone + pink.size) / 16_000},
    ]
    return np.asarray(mixed, dtype=np.float32), noises


def write_wav(path: Path, audio: Float) -> None:
    """Write 16-bit mono PCM at 16 kHz."""
    pcm = np.round(np.clip(audio, -1, 1) * 32_767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())


def _faded(noise: Float, samples: int = 1_600) -> Float:
    ramp = np.ones(noise.size, np.float32)
    ramp[:samples] = np.linspace(0, 1, samples)
    ramp[-samples:] = np.linspace(1, 0, samples)
    return np.asarray(noise * ramp, dtype=np.float32)


def _sample(time_s: object) -> int:
    return round(float(str(time_s)) * SAMPLE_RATE_HZ)


if __name__ == "__main__":
    main()
