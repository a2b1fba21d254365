"""The bundle that ships, on the recording that ships, against the truth that was written when it was made."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from tidegate.cloud.server import Server
from tidegate.edge import Listener, SegmentResult, Summary, WavSource

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"
BUNDLE = EXAMPLE / "voice-commands.tide"
CLOUD_BUNDLE = EXAMPLE / "voice-commands-cloud.tide"
RECORDING = EXAMPLE / "demo.wav"
RATE_HZ = 16_000
MOST_ERRORS_IN_NOISE = 2
COMMANDS = ("yes", "no", "up", "down", "left", "right", "stop", "go", "on", "off", "weather", "music")


@dataclass(frozen=True)
class Spoken:
    word: str
    start_s: float
    end_s: float


_truth = json.loads((EXAMPLE / "demo_truth.json").read_text())
TRUTH = [Spoken(entry["word"], entry["start_s"], entry["end_s"]) for entry in _truth["words"]]
NOISY = [(noise["start_s"], noise["end_s"]) for noise in _truth["noises"]]
VARIANTS = ("tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8")


def is_noisy(time_s: float) -> bool:
    return any(start_s <= time_s <= end_s for start_s, end_s in NOISY)


def errors(results: list[SegmentResult]) -> tuple[int, int]:
    """Return the word errors in the quiet part and in the part with driving noise at 15 dB."""
    found = []
    for noisy in (False, True):
        said = [spoken.word for spoken in TRUTH if spoken.word in COMMANDS and is_noisy(spoken.start_s) == noisy]
        words = [word for result in results for word in result.words]
        heard = [word.text for word in words if is_noisy((word.start_s + word.end_s) / 2) == noisy]
        found.append(word_errors(said, heard))
    return found[0], found[1]


def listen(path: Path, **settings: Any) -> tuple[list[SegmentResult], Summary]:
    with Listener.open(BUNDLE, **settings) as listener:
        return list(listener.listen(WavSource(path))), listener.summary


@pytest.mark.parametrize("variant", VARIANTS)
def test_commands_are_heard_and_other_words_are_not(variant: str) -> None:
    results, _ = listen(RECORDING, variant=variant)
    quiet, noisy = errors(results)
    assert quiet == 0
    assert noisy <= MOST_ERRORS_IN_NOISE
    assert {result.variant for result in results} == {variant}


def test_the_gate_loses_no_word_and_times_fit() -> None:
    results, summary = listen(RECORDING)
    for spoken in TRUTH:
        assert any(r.start_s < spoken.start_s and spoken.end_s < r.end_s for r in results), spoken
    for word in (word for result in results for word in result.words):
        middle_s = (word.start_s + word.end_s) / 2
        truths_s = [(spoken.start_s + spoken.end_s) / 2 for spoken in TRUTH if spoken.word == word.text]
        assert min(abs(middle_s - truth_s) for truth_s in truths_s) < 0.3, word
    assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(results))
    assert summary.held_back_share > 0.15


def test_each_command_finds_entries_of_its_own() -> None:
    results, _ = listen(RECORDING)
    for result in results:
        if len(result.words) == 1:
            assert [found.id.partition("-")[0] for found in result.search_results[:2]] == [result.text] * 2
        if not result.words:
            assert result.search_results == ()


def test_the_larger_model_on_a_server() -> None:
    with Server([CLOUD_BUNDLE]) as server:
        results, _ = listen(RECORDING, cloud=server.address, cloud_timeout_s=30)
    quiet, noisy = errors(results)
    assert quiet == 0
    assert noisy <= MOST_ERRORS_IN_NOISE
    assert {(result.decided_by, result.bundle) for result in results} == {("cloud", "voice-commands-cloud")}
    assert all(result.search_results for result in results if result.words)


def wav(samples: NDArray[np.float32], rate_hz: int, *, is_float: bool = False) -> bytes:
    """Return a WAV of float32 [n] or [n, channels] as 16-bit PCM or 32-bit float."""
    frames = samples.reshape(len(samples), -1)
    data = frames.astype("<f4").tobytes() if is_float else np.rint(frames * 32767).astype("<i2").tobytes()
    block = frames.shape[1] * (4 if is_float else 2)
    header = struct.pack(
        "<HHIIHH", 3 if is_float else 1, frames.shape[1], rate_hz, rate_hz * block, block, 8 * block // frames.shape[1]
    )
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + header
        + b"data" + struct.pack("<I", len(data)) + data
    )  # fmt: skip


def resampled(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    return np.clip(np.asarray(soxr.resample(samples, RATE_HZ, rate_hz), np.float32), -1, 1)


FORMATS: dict[str, Callable[[NDArray[np.float32]], bytes]] = {
    "8 kHz": lambda x: wav(resampled(x, 8000), 8000),
    "44.1 kHz": lambda x: wav(resampled(x, 44_100), 44_100),
    "48 kHz stereo float": lambda x: wav(np.stack([resampled(x, 48_000)] * 2, axis=1), 48_000, is_float=True),
    "stereo, one side silent": lambda x: wav(np.stack([x, np.zeros_like(x)], axis=1), RATE_HZ),
    "30 dB quieter, float": lambda x: wav(x * np.float32(10 ** (-30 / 20)), RATE_HZ, is_float=True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_of_the_file_costs_at_most_one_word(name: str, tmp_path: Path) -> None:
    samples = np.concatenate(list(WavSource(RECORDING).chunks()))
    path = tmp_path / "other.wav"
    path.write_bytes(FORMATS[name](samples))
    quiet, noisy = errors(listen(path)[0])
    assert quiet <= 1
    assert noisy <= MOST_ERRORS_IN_NOISE + 1


def word_errors(said: list[str], found: list[str]) -> int:
    """Edit distance of two lists of words (Levenshtein, 1966)."""
    row = list(range(len(found) + 1))
    for count, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], count
        for column, other in enumerate(found, start=1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
    return row[-1]
