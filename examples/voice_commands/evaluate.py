"""Measure every variant on voices that training never heard, and write the report.

Two views: single windows (the word whole, anywhere in the window) and segments
as the pipeline cuts them, decoded by :mod:`tidegate.speech.decoder`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import augment
import decode_probe
import numpy as np
from conditions import CONDITIONS, Condition
from convert import VARIANT_FILES
from noises import random_noise
from numpy.typing import NDArray
from report import write_report
from synthesise import read_voice
from timelines import label_of
from voices import Voice, test_groups
from words import LABELS, SILENCE, UNKNOWN

SEED = 77
WINDOW_SAMPLES = 16_000

Float = NDArray[np.float32]
Predict = Callable[[Float], Float]


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of one group of voices in one condition."""

    audio: Float
    """float32 [n, 16000]."""
    labels: NDArray[np.int64]
    """Index into the labels, int64 [n]."""
    voices: list[str]
    """Voice of each window."""


def evaluate_all(work: Path, out: Path, reports: Path, repeats: int = 2) -> None:
    """Score all variants; write the golden windows to ``out``, ``report.json`` and ``REPORT.md`` to ``reports``."""
    predictors = {variant: load_variant(out / name) for variant, name in VARIANT_FILES.items()}
    facts: dict[str, Any] = {
        "labels": list(LABELS),
        "training": {n: json.loads((work / f"{n}.json").read_text()) for n in ("small", "cloud")},
        "files": {variant: (out / name).stat().st_size for variant, name in VARIANT_FILES.items()},
        "latency_ms": {variant: latency_ms(predict) for variant, predict in predictors.items()},
        "windows": score_windows(work, predictors, repeats),
        "negatives": score_negatives(predictors),
        "golden": write_golden(work, out, predictors),
        "segments": decode_probe.probe(work, predictors, CONDITIONS, repeats),
    }
    (reports / "report.json").write_text(json.dumps(facts, indent=1) + "\n")
    write_report(facts, reports / "REPORT.md")


def load_variant(path: Path) -> Predict:
    """Return the function audio [n, 16000] -> probabilities [n, labels] of a model file."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options)
        return lambda audio: np.asarray(session.run(["probabilities"], {"audio": audio})[0])
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    return lambda audio: np.asarray(runner(audio=audio)["probabilities"])


def predict_all(predict: Predict, audio: Float, batch: int = 64) -> Float:
    """Run ``predict`` in batches (the last one padded, so that the shape stays the same)."""
    if not len(audio):
        return np.zeros((0, len(LABELS)), np.float32)
    padded = np.concatenate([audio, np.zeros((-len(audio) % batch, WINDOW_SAMPLES), np.float32)])
    parts = [predict(padded[i : i + batch]) for i in range(0, len(padded), batch)]
    return np.concatenate(parts)[: len(audio)]


def latency_ms(predict: Predict, calls: int = 100) -> float:
    """Return the median time of one window on one thread, in milliseconds."""
    audio = np.random.default_rng(SEED).standard_normal((1, WINDOW_SAMPLES)).astype(np.float32) * 0.1
    times = []
    for _ in range(calls + 20):
        began = time.perf_counter()
        predict(audio)
        times.append(time.perf_counter() - began)
    return round(float(np.median(times[20:])) * 1000, 3)


def one_window(speech: Float, noise: Condition, rng: np.random.Generator) -> Float:
    """Place an utterance whole at a random position, add noise, set a level of -25..0 dB."""
    audio = np.zeros(WINDOW_SAMPLES, np.float32)
    if speech.size > WINDOW_SAMPLES:
        cut = (speech.size - WINDOW_SAMPLES) // 2
        speech = speech[cut : cut + WINDOW_SAMPLES]
    start = int(rng.integers(0, WINDOW_SAMPLES - speech.size + 1))
    audio[start : start + speech.size] = speech
    audio = noise.add_to(audio, augment.level_rms(speech), rng)
    peak = float(np.abs(audio).max())
    return augment.apply_gain(audio / max(peak, 1.0), float(rng.uniform(-25, 0)))


def windows_of_voices(
    work: Path, voices: tuple[Voice, ...], noise: Condition, repeats: int, seed: int = SEED
) -> LabelledWindows:
    """Return the windows of a group of voices in one condition."""
    rng = np.random.default_rng(seed)
    audio, labels, names = [], [], []
    for voice in voices:
        for text, speech in read_voice(work / "speech" / "test" / f"{voice.key}.npz") * repeats:
            audio.append(one_window(speech, noise, rng))
            labels.append(LABELS.index(label_of(text)))
            names.append(voice.key)
    return LabelledWindows(np.stack(audio), np.array(labels), names)


def calibration_windows(work: Path, count: int) -> Float:
    """Return windows of training voices for the ranges of the int8 variants."""
    rng = np.random.default_rng(SEED + 1)
    paths = sorted((work / "speech" / "train").glob("*.npz"))
    windows: list[Float] = []
    takes: list[tuple[str, Float]] = []
    for index in range(count):
        if index % 20 == 0:
            takes = read_voice(paths[int(rng.integers(len(paths)))])
        _, speech = takes[int(rng.integers(len(takes)))]
        snr_db = None if index % 3 == 0 else float(rng.uniform(0, 25))
        windows.append(one_window(speech, Condition(snr_db), rng))
    for index in range(0, count, 25):
        windows[index] = random_noise(WINDOW_SAMPLES, rng) * np.float32(0.05 if index else 0)
    return np.stack(windows)


def score_windows(work: Path, predictors: dict[str, Predict], repeats: int) -> dict[str, Any]:
    """Return accuracy by variant, group and condition, by voice, and per-word recall."""
    result: dict[str, Any] = {"by_group": {}, "by_voice": {}, "by_word": {}}
    for group, voices in test_groups().items():
        for condition, noise in CONDITIONS.items():
            windows = windows_of_voices(work, voices, noise, repeats)
            for variant, predict in predictors.items():
                best = predict_all(predict, windows.audio).argmax(axis=1)
                right = best == windows.labels
                command = windows.labels >= 2
                scores = result["by_group"].setdefault(variant, {}).setdefault(group, {})
                scores[condition] = {
                    "commands": _share(right[command]),
                    "unknown_rejected": _share(best[~command] < 2),
                }
                names = np.array(windows.voices)
                for name in sorted(set(windows.voices)):
                    chosen = command & (names == name)
                    voice_scores = result["by_voice"].setdefault(name, {}).setdefault(variant, {})
                    voice_scores[condition] = _share(right[chosen])
                if variant == "onnx-fp32":
                    words = result["by_word"].setdefault(group, {}).setdefault(condition, {})
                    for index, label in enumerate(LABELS[2:], start=2):
                        words[label] = _share(right[windows.labels == index])
    return result


def score_negatives(predictors: dict[str, Predict]) -> dict[str, Any]:
    """Return how often noise alone and digital silence are taken for a command."""
    rng = np.random.default_rng(SEED + 2)
    noise = np.stack([random_noise(WINDOW_SAMPLES, rng) for _ in range(400)])
    noise *= (10 ** rng.uniform(-4, -1, (400, 1))).astype(np.float32)
    nothing = np.zeros((1, WINDOW_SAMPLES), np.float32)
    result = {}
    for variant, predict in predictors.items():
        best = predict_all(predict, noise).argmax(axis=1)
        result[variant] = {
            "noise_taken_for_command": _share(best >= 2),
            "noise_is_silence": _share(best == LABELS.index(SILENCE)),
            "digital_silence": LABELS[int(predict(nothing)[0].argmax())],
        }
    return result


def write_golden(work: Path, out: Path, predictors: dict[str, Predict]) -> dict[str, float]:
    """Write one noisy window and its expected probabilities for each bundle; return each variant's deviation on four.

    The expectation is the float32 result of the small network, and the cloud network's own.
    """
    group = test_groups()["held-out flite"]
    windows = windows_of_voices(work, group, Condition(None), 1, SEED + 3)
    noisy = windows_of_voices(work, group, Condition(15.0), 1, SEED + 3)
    rows = [noisy.audio[len(noisy.audio) // 3], windows.audio[0], windows.audio[-1], np.zeros(WINDOW_SAMPLES)]
    audio = (np.round(np.stack(rows) * 32768) / 32768).astype(np.float32)
    expected = {"device": predictors["onnx-fp32"](audio), "cloud": predictors["cloud-onnx-fp16"](audio)}
    for folder, probabilities in expected.items():
        arrays = {"input/audio": audio[:1], "output/probabilities": probabilities[:1]}
        np.savez(out / folder / "golden.npz", **arrays)
    return {
        variant: float(np.abs(predict(audio) - expected["cloud" if "cloud" in variant else "device"]).max())
        for variant, predict in predictors.items()
    }


def _share(flags: NDArray[np.bool_]) -> float:
    return round(float(np.mean(flags)), 4) if flags.size else 0.0


__all__ = ["UNKNOWN", "calibration_windows", "evaluate_all", "load_variant", "predict_all"]
