"""Word error rate, missed and false segments of the whole pipeline, on voices that training never heard.

For each test voice a stream of all command words with pauses between them is laid out, once per condition (signal to
noise ratio and gain), and played through the same `Listener` that an app uses. Needs espeak-ng, flite and festival:

    python examples/voice_commands/measure_listen.py --bundle examples/voice_commands/voice-commands.tide
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import augment
import noises
import numpy as np
from numpy.typing import NDArray
from synthesise import SAMPLE_RATE_HZ, Utterance, festival_batch, speak, to_speech
from voices import Voice, test_groups
from words import COMMANDS

from tidegate.edge import Listener
from tidegate.edge.results import SegmentResult

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Condition:
    """How the stream is spoilt."""

    name: str
    snr_db: float | None
    """against the mean level of the words; None: no noise"""
    gain_db: float = 0.0
    noise: str = "pink"
    """`white`, `pink` or `brown`"""


CONDITIONS = (
    Condition("quiet", None),
    Condition("quiet, -30 dB", None, gain_db=-30.0),
    Condition("pink 20 dB", 20.0),
    Condition("pink 10 dB", 10.0),
    Condition("white 10 dB", 10.0, noise="white"),
    Condition("brown 10 dB", 10.0, noise="brown"),
    Condition("pink 5 dB", 5.0),
)
EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}


@dataclass(frozen=True)
class Spoken:
    """One word of the truth."""

    word: str
    start_s: float
    end_s: float


@dataclass
class Score:
    """Sums over streams."""

    words: int = 0
    errors: int = 0
    missed_segments: int = 0
    false_segments: int = 0
    false_words: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def add(self, truth: Sequence[Spoken], results: Sequence[SegmentResult], seconds: float, voice: str) -> None:
        """Count one stream."""
        said = [spoken.word for spoken in truth]
        heard = [word for result in results for word in result.text.split()]
        self.words += len(said)
        self.errors += edit_distance(said, heard)
        self.seconds += seconds
        for spoken in truth:
            covering = [r for r in results if r.start_s < spoken.end_s and r.end_s > spoken.start_s]
            self.missed_segments += not covering
            if spoken.word not in " ".join(r.text for r in covering).split():
                self.wrong.append(f"{voice}: {spoken.word} -> {' '.join(r.text or r.label for r in covering) or '-'}")
        for result in results:
            if not any(result.start_s < s.end_s and result.end_s > s.start_s for s in truth):
                self.false_segments += 1
                self.false_words += len(result.text.split())


class ArraySource:
    """An audio source that holds its stream in memory."""

    def __init__(self, audio: Float) -> None:
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self._audio = audio

    def chunks(self) -> Iterator[Float]:
        """Yield 100 ms at a time."""
        for start in range(0, self._audio.size, SAMPLE_RATE_HZ // 10):
            yield self._audio[start : start + SAMPLE_RATE_HZ // 10]

    def close(self) -> None:
        """Nothing is held."""


def main(argv: Sequence[str] | None = None) -> int:
    """Speak, lay out, listen, count, print."""
    arguments = parse(argv)
    print(f"{'voices':<22}{'condition':<16}{'words':>6}{'WER':>8}{'missed':>8}{'false':>7}{'false words':>13}")
    for group, voices in test_groups().items():
        streams = {voice: spoken_words(voice, arguments.rounds) for voice in voices}
        for condition in CONDITIONS:
            score = Score()
            for voice, words in streams.items():
                audio, truth = lay_out(words, seed=arguments.seed)
                with Listener.open(arguments.bundle, variant=arguments.variant) as listener:
                    noisy = spoil(audio, truth, condition, arguments.seed)
                    results = list(listener.listen(ArraySource(noisy)))
                score.add(truth, results, audio.size / SAMPLE_RATE_HZ, voice.key)
            print(
                f"{group:<22}{condition.name:<16}{score.words:>6}{score.errors / score.words:>8.1%}"
                f"{score.missed_segments:>8}{score.false_segments:>7}{score.false_words:>13}",
                flush=True,
            )
            if arguments.show_errors:
                print("\n".join(f"    {line}" for line in score.wrong))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parent / "voice-commands.tide")
    parser.add_argument("--variant")
    parser.add_argument("--rounds", type=int, default=2, help="times each voice says each word")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--show-errors", action="store_true")
    return parser.parse_args(argv)


def spoken_words(voice: Voice, rounds: int) -> list[tuple[str, Float]]:
    """Return every command `rounds` times, each time at another pace and pitch."""
    manner = [("", 1.0, 0.5), (".", 0.85, 0.3), ("!", 1.15, 0.65), ("?", 1.0, 0.6)]
    script = [Utterance(word, *manner[index % len(manner)]) for index in range(rounds) for word in COMMANDS]
    if voice.engine == "festival":
        audio = [to_speech(*spoken) for spoken in festival_batch(voice, script)]
    else:
        audio = [speak(voice, utterance) for utterance in script]
    return [(utterance.text, sound) for utterance, sound in zip(script, audio, strict=True)]


def lay_out(words: Sequence[tuple[str, Float]], seed: int) -> tuple[Float, list[Spoken]]:
    """Join words with pauses of 0.8 to 1.6 s and levels within 8 dB; return the stream and its truth."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(SAMPLE_RATE_HZ, np.float32)]
    truth: list[Spoken] = []
    position = SAMPLE_RATE_HZ
    for word, sound in words:
        pause = np.zeros(int(rng.uniform(0.8, 1.6) * SAMPLE_RATE_HZ), np.float32)
        parts += [augment.apply_gain(sound, float(rng.uniform(-8, 0))), pause]
        truth.append(Spoken(word, position / SAMPLE_RATE_HZ, (position + sound.size) / SAMPLE_RATE_HZ))
        position += sound.size + pause.size
    return np.concatenate(parts), truth


def spoil(audio: Float, truth: Sequence[Spoken], condition: Condition, seed: int) -> Float:
    """Add a noise floor or the noise of `condition`, then its gain."""
    rng = np.random.default_rng(seed + 1)
    speech = [audio[int(s.start_s * SAMPLE_RATE_HZ) : int(s.end_s * SAMPLE_RATE_HZ)] for s in truth]
    speech_rms = augment.level_rms(np.concatenate(speech))
    # A microphone in a quiet room still has a floor, here 60 dB below the words.
    snr_db = 60.0 if condition.snr_db is None else condition.snr_db
    noise = noises.coloured(audio.size, EXPONENTS[condition.noise], rng)
    return augment.apply_gain(augment.mix_at_snr(audio, noise, snr_db, speech_rms), condition.gain_db)


def edit_distance(expected: Sequence[str], found: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and substitutions (Levenshtein) between two word lists."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(expected, 1):
        previous, row = row, [i]
        for j, other in enumerate(found, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (word != other)))
    return row[-1]


if __name__ == "__main__":
    sys.exit(main())
