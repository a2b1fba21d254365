"""Missed, clipped and false segments of the gate, and the share of bytes it sends: per detector and per noise.

Words are spoken by the test voices (espeak-ng and flite), laid out in groups with pauses of 0.3 to 0.5 s inside a group
and 1.2 to 3 s between groups, and spoilt. The words are kept in the folder WORK, so the next run starts at once:

    python examples/voice_commands/measure_gate.py --work WORK
    python examples/voice_commands/measure_gate.py --work WORK --kind webrtc --option mode=2 --hangover-ms 300

or one recording is judged against its truth, a JSON file with a list "words" of {"start_s", "end_s"}:

    python examples/voice_commands/measure_gate.py --wav demo.wav --truth demo_truth.json

`missed`: words of which less than half lies in segments. `clipped`: words whose core (above -30 dB of their peak) lies
in segments by less than 97 %. `split`: words whose core lies in two segments. `false`: segments that touch no word.
`sent`: share of the audio that lies in segments.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import augment
import noises
import numpy as np
from numpy.typing import NDArray
from synthesise import SAMPLE_RATE_HZ, Utterance, speak, trim
from voices import Voice, test_groups
from words import COMMANDS

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.endpoint import SegmentEnded, SegmentStarted
from tidegate.edge.gate import Gate
from tidegate.edge.sources import WavSource

Float = NDArray[np.float32]
Span = tuple[int, int]

SPEECH_DBFS = -20.0
CHUNK_SAMPLES = 1600
CORE_SHARE = 0.97


@dataclass(frozen=True)
class Condition:
    """How a stream is spoilt."""

    name: str
    noise: str
    """`silence` (digital), `quiet` (a floor 60 dB below the words) or a function of noises.py"""
    snr_db: float = 0.0
    gain_db: float = 0.0
    lead_s: float = 1.0
    """what comes before the first word"""
    single: bool = False
    """every word is a stream of its own"""
    skip: float = 0.0
    """share of the word that was before the stream began"""
    pause_s: tuple[float, float] = (1.2, 3.0)
    """between groups of words"""
    gap_s: tuple[float, float] = (0.3, 0.5)
    """between the words of a group"""
    only_noise: bool = False
    """the words are taken out again"""
    step_db: float = 0.0
    """how much louder the noise becomes in the middle of the stream"""
    zeros_s: float = 0.0
    """digital silence in front, as some devices give before they record"""


CONDITIONS = (
    Condition("digital silence", "silence"),
    Condition("quiet", "quiet"),
    Condition("quiet -20 dB", "quiet", gain_db=-20),
    Condition("quiet -30 dB", "quiet", gain_db=-30),
    Condition("white 20 dB", "white", 20),
    Condition("white 10 dB", "white", 10),
    Condition("white 5 dB", "white", 5),
    Condition("pink 20 dB", "pink", 20),
    Condition("pink 10 dB", "pink", 10),
    Condition("pink 10 dB, -30 dB", "pink", 10, gain_db=-30),
    Condition("pink 5 dB", "pink", 5),
    Condition("brown 10 dB", "brown", 10),
    Condition("hum 10 dB", "hum", 10),
    Condition("car 10 dB", "car", 10),
    Condition("gusts 10 dB", "gusts", 10),
    Condition("clicks 20 dB", "clicks", 20),
    Condition("begins at word", "quiet", lead_s=0.0, single=True),
    Condition("begins in word", "quiet", lead_s=0.0, single=True, skip=0.3),
    Condition("one word, pink 10", "pink", 10, lead_s=0.3, single=True),
    Condition("no pauses, pink 10", "pink", 10, pause_s=(0.05, 0.2), gap_s=(0.05, 0.2)),
    Condition("no pauses, quiet", "quiet", pause_s=(0.05, 0.2), gap_s=(0.05, 0.2)),
    Condition("only room floor", "quiet", only_noise=True),
    Condition("only white", "white", 10, only_noise=True),
    Condition("only pink", "pink", 10, only_noise=True),
    Condition("only pink, loud", "pink", -10, only_noise=True),
    Condition("only hum", "hum", 10, only_noise=True),
    Condition("only car", "car", 10, only_noise=True),
    Condition("only gusts", "gusts", 10, only_noise=True),
    Condition("only clicks", "clicks", 20, only_noise=True),
    Condition("zeros, then pink", "pink", 20, only_noise=True, zeros_s=0.5),
    Condition("pink, step 15 dB", "pink", 20, only_noise=True, step_db=15),
)


@dataclass
class Score:
    """Sums over streams."""

    words: int = 0
    missed: int = 0
    clipped: int = 0
    split: int = 0
    false: int = 0
    samples: int = 0
    sent: int = 0
    cpu_s: float = 0.0

    def add(self, segments: Sequence[Span], words: Sequence[Span], cores: Sequence[Span], samples: int) -> None:
        """Count one stream."""
        inside = np.zeros(samples, dtype=bool)
        for start, end in segments:
            inside[start:end] = True
        self.words += len(words)
        self.samples += samples
        self.sent += int(inside.sum())
        for (start, end), (core_start, core_end) in zip(words, cores, strict=True):
            missed = inside[start:end].mean() < 0.5
            self.missed += int(missed)
            self.clipped += int(not missed and inside[core_start:core_end].mean() < CORE_SHARE)
        self.split += sum(sum(start < b and end > a for start, end in segments) > 1 for a, b in cores)
        self.false += sum(not any(start < b and end > a for a, b in words) for start, end in segments)

    def row(self, name: str) -> str:
        """Return one line of the table."""
        return (
            f"{name:<20}{self.words:>6}{self.missed:>8}{self.clipped:>9}{self.split:>7}{self.false:>7}"
            f"{60 * self.false * SAMPLE_RATE_HZ / self.samples:>11.2f}"
            f"{self.sent / self.samples:>8.1%}{1e3 * self.cpu_s * SAMPLE_RATE_HZ / self.samples:>11.2f}"
        )


HEADER = (
    f"{'condition':<20}{'words':>6}{'missed':>8}{'clipped':>9}{'split':>7}{'false':>7}{'false/min':>11}"
    f"{'sent':>8}{'cpu ms/s':>11}"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one recording, or the grid."""
    arguments = parse(argv)
    settings = PrefilterSettings(
        kind=arguments.kind,
        options=dict(arguments.option),
        pre_roll_ms=arguments.pre_roll_ms,
        minimum_speech_ms=arguments.minimum_speech_ms,
        hangover_ms=arguments.hangover_ms,
    )
    print(f"{settings}\n{HEADER}")
    if arguments.wav:
        print(measure_recording(settings, arguments.wav, arguments.truth).row(arguments.wav.name))
        return 0
    words = spoken_words(arguments.work, arguments.rounds, arguments.engine)
    for condition in CONDITIONS:
        if arguments.only in condition.name:
            print(measure(settings, condition, words, arguments.seed).row(condition.name), flush=True)
    return 0


def measure_recording(settings: PrefilterSettings, wav: Path, truth: Path) -> Score:
    """Judge one file."""
    source = WavSource(wav)
    scale = SAMPLE_RATE_HZ
    listed = json.loads(truth.read_text())["words"]
    words = [(int(word["start_s"] * scale), int(word["end_s"] * scale)) for word in listed]
    audio = np.concatenate(list(source.chunks()))
    score = Score()
    segments = gated(settings, audio, score, source.sample_rate_hz)
    score.add(segments, words, words, round(audio.size * scale / source.sample_rate_hz))
    return score


def measure(settings: PrefilterSettings, condition: Condition, voices: Sequence[Sequence[Float]], seed: int) -> Score:
    """Lay out every voice's words, spoil them, run the gate, count."""
    score = Score()
    for index, words in enumerate(voices):
        rng = np.random.default_rng([seed, index])
        groups = [[word] for word in words] if condition.single else [list(words)]
        for group in groups:
            audio, spans = lay_out(group, condition, rng)
            cores = [core(audio, span) for span in spans]
            noisy = spoil(audio, spans, condition, rng)
            if condition.only_noise:
                spans, cores = [], []
            score.add(gated(settings, noisy, score), spans, cores, noisy.size)
    return score


def gated(settings: PrefilterSettings, audio: Float, score: Score, rate_hz: int = SAMPLE_RATE_HZ) -> list[Span]:
    """Return the segments of a stream as [start, end) in samples at 16 kHz."""
    gate = Gate(settings, rate_hz)
    events = []
    for start in range(0, audio.size, CHUNK_SAMPLES):
        events += gate.push(audio[start : start + CHUNK_SAMPLES])
    events += gate.flush()
    score.cpu_s += gate.account.detector_cpu_s + gate.account.resample_cpu_s
    starts = [event.start_sample for event in events if isinstance(event, SegmentStarted)]
    ends = [event.end_sample for event in events if isinstance(event, SegmentEnded)]
    return list(zip(starts, ends, strict=True))


def lay_out(words: Sequence[Float], condition: Condition, rng: np.random.Generator) -> tuple[Float, list[Span]]:
    """Join words at levels within 8 dB; return the stream and where the words lie."""
    parts = [np.zeros(int(condition.lead_s * SAMPLE_RATE_HZ), np.float32)]
    spans: list[Span] = []
    left_in_group = int(rng.integers(1, 5))
    for word in words:
        begun = word[int(condition.skip * word.size) :]
        levelled = augment.apply_gain(
            begun, SPEECH_DBFS - 20 * np.log10(augment.level_rms(word)) + float(rng.uniform(-4, 4))
        )
        position = sum(part.size for part in parts)
        spans.append((position, position + levelled.size))
        left_in_group -= 1
        pause_s = rng.uniform(*(condition.gap_s if left_in_group else condition.pause_s))
        left_in_group = left_in_group or int(rng.integers(1, 5))
        parts += [levelled, np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.float32)]
    return np.concatenate(parts), spans


def core(audio: Float, span: Span) -> Span:
    """Return the part of a word between its first and last 5 ms block above -30 dB of its loudest block."""
    block = 80
    word = audio[span[0] : span[1]]
    blocks = np.square(word[: word.size // block * block]).reshape(-1, block).mean(axis=1)
    loud = np.flatnonzero(blocks > blocks.max() * 1e-3)
    return span[0] + int(loud[0]) * block, span[0] + int(loud[-1] + 1) * block


def spoil(audio: Float, spans: Sequence[Span], condition: Condition, rng: np.random.Generator) -> Float:
    """Add the noise from the first sample on, then the gain; quantise as a microphone does."""
    speech_rms = augment.level_rms(np.concatenate([audio[start:end] for start, end in spans]))
    colours = {"quiet": 1.0, "white": 0.0, "pink": 1.0, "brown": 2.0}
    if condition.only_noise:
        audio = np.zeros_like(audio)
    if condition.noise == "silence":
        noisy = audio
    else:
        exponent = colours.get(condition.noise)
        noise = (
            getattr(noises, condition.noise)(audio.size, rng)
            if exponent is None
            else noises.coloured(audio.size, exponent, rng)
        )
        snr_db = 60.0 if condition.noise == "quiet" else condition.snr_db
        noisy = augment.mix_at_snr(audio, noise, snr_db, speech_rms)
    noisy[noisy.size // 2 :] *= np.float32(10 ** (condition.step_db / 20))
    noisy[: int(condition.zeros_s * SAMPLE_RATE_HZ)] = 0.0
    scaled = augment.apply_gain(noisy, condition.gain_db)
    return np.asarray(np.clip(np.round(scaled * 32768), -32768, 32767) / 32768, dtype=np.float32)


def spoken_words(work: Path, rounds: int, engines: Sequence[str]) -> list[list[Float]]:
    """Return the command words of every test voice of these synthesisers, from the folder or spoken now."""
    voices = [voice for group in test_groups().values() for voice in group if voice.engine in engines]
    return [_voice_words(work, voice, rounds) for voice in voices]


def _voice_words(work: Path, voice: Voice, rounds: int) -> list[Float]:
    path = work / f"{voice.key}-{rounds}.npz"
    if not path.exists():
        paces = (1.0, 0.85, 1.2)
        said = [speak(voice, Utterance(word, ".", paces[i % 3], 0.5)) for i in range(rounds) for word in COMMANDS]
        work.mkdir(parents=True, exist_ok=True)
        np.savez(path, *[trim(word) for word in said])
    with np.load(path) as data:
        return [data[name] for name in data.files]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("gate-words"), help="folder for the spoken words")
    parser.add_argument("--wav", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--kind", default="webrtc+energy")
    parser.add_argument("--option", type=_option, action="append", default=[], metavar="NAME=VALUE")
    defaults = PrefilterSettings(kind="energy")
    for name in ("pre_roll_ms", "minimum_speech_ms", "hangover_ms"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--engine", nargs="+", default=["espeak", "flite"], choices=["espeak", "flite", "festival"])
    parser.add_argument("--rounds", type=int, default=2, help="times each voice says each word")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    return parser.parse_args(argv)


def _option(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


if __name__ == "__main__":
    sys.exit(main())
