"""`tidegate listen` as users call it: sources, formats, output, exit codes, Ctrl-C."""

from __future__ import annotations

import array
import fcntl
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from tests.waiting import wait_until

from tidegate.cli.main import main
from tidegate.cloud.server import Server

RATE_HZ = 16_000
Say = Callable[..., NDArray[np.float32]]
WORDS = ["yes", "no", "up"]
SPOKEN = [("yes", 1.0), ("no", 3.0), ("up", 5.0)]

PCM, FLOAT = 1, 3


def wav_bytes(samples: NDArray[np.float32], rate_hz: int = RATE_HZ, *, bits: int = 16, code: int = PCM) -> bytes:
    """A WAV of float32 [n] or [n, channels]."""
    frames = samples.reshape(len(samples), -1)
    if code == FLOAT:
        data = frames.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = (frames * 127 + 128).astype(np.uint8).tobytes()
    elif bits == 24:
        data = (frames * (2**31 - 1)).astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:].tobytes()
    else:
        data = (frames * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}").tobytes()
    block = frames.shape[1] * bits // 8
    header = struct.pack("<HHIIHH", code, frames.shape[1], rate_hz, rate_hz * block, block, bits)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE"
        b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data)) + data
    )


@pytest.fixture(scope="module")
def spoken(say: Say) -> NDArray[np.float32]:
    return say(SPOKEN, 7.0)


@pytest.fixture
def wav(tmp_path: Path, spoken: NDArray[np.float32]) -> Path:
    path = tmp_path / "spoken.wav"
    path.write_bytes(wav_bytes(spoken))
    return path


def json_lines(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return lines[:-1], lines[-1]["summary"]


def resampled(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    return np.asarray(soxr.resample(samples, RATE_HZ, rate_hz), np.float32)


FORMATS: dict[str, Callable[[NDArray[np.float32]], bytes]] = {
    "16 kHz, 16 bit": wav_bytes,
    "8 kHz": lambda x: wav_bytes(resampled(x, 8000), 8000),
    "44.1 kHz": lambda x: wav_bytes(resampled(x, 44_100), 44_100),
    "48 kHz stereo": lambda x: wav_bytes(np.stack([resampled(x, 48_000)] * 2, axis=1), 48_000),
    "8 bit": lambda x: wav_bytes(x, bits=8),
    "24 bit": lambda x: wav_bytes(x, bits=24),
    "32 bit": lambda x: wav_bytes(x, bits=32),
    "float 32": lambda x: wav_bytes(x, bits=32, code=FLOAT),
    "float 64, 44.1 kHz stereo": lambda x: wav_bytes(
        np.stack([resampled(x, 44_100)] * 2, axis=1), 44_100, bits=64, code=FLOAT
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_wav_gives_the_same_words(
    tone_bundle: Path, tmp_path: Path, spoken: NDArray[np.float32], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "any.wav"
    path.write_bytes(FORMATS[name](spoken))
    assert main(["listen", str(tone_bundle), "--wav", str(path), "--json"]) == 0
    results, summary = json_lines(capsys.readouterr().out)
    assert [result["text"] for result in results] == WORDS
    assert summary["duration_s"] == pytest.approx(7.0, abs=0.01)


def test_json_form(tone_bundle: Path, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", str(tone_bundle), "--wav", str(wav), "--json"]) == 0
    captured = capsys.readouterr()
    results, summary = json_lines(captured.out)
    assert captured.err == ""
    first = results[0]
    assert set(first) == {
        "start_s",
        "end_s",
        "text",
        "label",
        "confidence",
        "decided_by",
        "latency_ms",
        "bundle",
        "version",
        "variant",
        "words",
        "results",
    }
    assert (first["bundle"], first["version"], first["variant"]) == ("tones", "1.2.3", "onnx-fp32")
    assert first["decided_by"] == "edge"
    assert set(first["words"][0]) == {"text", "start_s", "end_s", "confidence"}
    assert first["results"][0]["title"] == "Say yes"
    assert summary["segments"] == 3
    assert summary["bytes_total"] == 7 * RATE_HZ * 2
    assert summary["bytes_held_back"] > 0


def test_lines_for_people(tone_bundle: Path, tmp_path: Path, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(say([("yes", 1.0), ("unknown", 3.0)], 5.0)))
    assert main(["listen", str(tone_bundle), "--wav", str(path), "--results", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[2] == "yes"
    assert lines[0].split()[4] == "edge"
    assert lines[0].endswith(" ms")
    assert lines[1].strip() == "- Say yes: An entry for yes."
    assert lines[2].split()[2] == "(unknown)"
    assert lines[3] == ""
    assert lines[4].startswith("5.0 s of audio in ")
    assert any(line.startswith("held back by the gate: ") for line in lines)


def test_a_catalogue_and_the_number_of_results(
    tone_bundle: Path, wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(f'{{"id": "{n}", "title": "yes {n}"}}\n' for n in range(9)))
    command = ["listen", str(tone_bundle), "--wav", str(wav), "--json", "--catalogue", str(own), "--results", "5"]
    assert main(command) == 0
    results, _ = json_lines(capsys.readouterr().out)
    assert [len(result["results"]) for result in results] == [5, 0, 0]


def test_realtime_paces_the_file(
    tone_bundle: Path, tmp_path: Path, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.wav"
    path.write_bytes(wav_bytes(say([("yes", 0.5)], 1.6)))
    assert main(["listen", str(tone_bundle), "--wav", str(path), "--json", "--realtime"]) == 0
    results, summary = json_lines(capsys.readouterr().out)
    assert [result["text"] for result in results] == ["yes"]
    assert summary["wall_s"] >= 1.6


def test_the_cloud_decides(tone_bundle: Path, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server([tone_bundle]) as server:
        assert main(["listen", str(tone_bundle), "--wav", str(wav), "--json", "--cloud", server.address]) == 0
    captured = capsys.readouterr()
    results, summary = json_lines(captured.out)
    assert [result["text"] for result in results] == WORDS
    assert results[0]["results"][0]["title"] == "Say yes"
    assert summary["bytes_sent"] > 0
    assert captured.err == "" or "going on with the model on this device" in captured.err


def test_a_dead_server_is_one_line_on_stderr(tone_bundle: Path, wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        assert main(["listen", str(tone_bundle), "--wav", str(wav), "--json", "--cloud", address]) == 0
    captured = capsys.readouterr()
    results, _ = json_lines(captured.out)
    assert [(result["text"], result["decided_by"]) for result in results] == [(word, "edge") for word in WORDS]
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith(f"tidegate: {address}: ")


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: cut(data), "is cut off"),
        (lambda data: data[:30], "any.wav"),
        (lambda data: b"", "any.wav"),
        (lambda data: b"ID3" + bytes(2000), "any.wav"),
        (lambda data: data[:44], "any.wav"),
        (lambda data: data[:20] + b"\x55\x00" + data[22:], "MP3"),
    ],
    ids=["truncated", "half a header", "empty", "not a WAV", "no audio", "MP3 inside"],
)
def test_files_that_cannot_be_heard(
    tone_bundle: Path,
    tmp_path: Path,
    spoken: NDArray[np.float32],
    content: Callable[[bytes], bytes],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "any.wav"
    path.write_bytes(content(wav_bytes(spoken)))
    assert main(["listen", str(tone_bundle), "--wav", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "what to do: " in captured.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--wav"),
        (["--wav", "a.wav", "--mic"], 2, "not allowed with"),
        (["--wav", "a.wav", "--stdin"], 2, "not allowed with"),
        (["--wav", "missing.wav"], 1, "missing.wav: no such file"),
        (["--wav", "a.wav", "--rate", "8000"], 2, "states its own rate"),
        (["--stdin", "--realtime"], 2, "--realtime"),
        (["--wav", "a.wav", "--threads", "0"], 2, "--threads is 0"),
        (["--wav", "a.wav", "--results", "-1"], 2, "maximum_results is -1"),
        (["--wav", "a.wav", "--cloud", "nowhere"], 2, "HOST:PORT"),
        (["--wav", "a.wav", "--variant", "absent"], 1, "absent"),
        (["--wav", "a.wav", "--catalogue", "absent.jsonl"], 1, "absent.jsonl"),
    ],
)
def test_wrong_use(
    tone_bundle: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["listen", str(tone_bundle), *words])
    except SystemExit as left:
        found = int(str(left.code))
    captured = capsys.readouterr()
    assert (found, captured.out) == (code, "")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_bundle_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "absent.tide", "--wav", "a.wav"]) == 1
    assert "absent.tide" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["wav", "raw"])
def test_standard_input(
    tone_bundle: Path,
    spoken: NDArray[np.float32],
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = wav_bytes(spoken)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data if kind == "wav" else data[44:])))
    rate = [] if kind == "wav" else ["--rate", str(RATE_HZ)]
    assert main(["listen", str(tone_bundle), "--stdin", "--json", *rate]) == 0
    results, _ = json_lines(capsys.readouterr().out)
    assert [result["text"] for result in results] == WORDS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_and_keeps_what_was_said(tone_bundle: Path, say: Say, number: signal.Signals) -> None:
    """The pipe stays open; the segment that is open at the signal must come out nevertheless."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", "listen", str(tone_bundle), "--stdin", "--rate", "16000", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    # The stream stops 0.3 s after the word, inside the hang-over: the segment is open.
    samples = say([("yes", 1.0), ("no", 3.0)], 3.8)
    process.stdin.write((samples * 32767).astype("<i2").tobytes())
    process.stdin.flush()
    first = json.loads(process.stdout.readline())
    until_empty(process.stdin.fileno())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    lines = [json.loads(line) for line in out.splitlines()]
    assert first["text"] == "yes"
    assert [line.get("text") for line in lines] == ["no", None]
    assert lines[-1]["summary"]["segments"] == 2
    assert (process.returncode, err) == (0, b"")


def until_empty(pipe: int) -> None:
    """Wait until the reader has taken everything out of the pipe."""

    def is_empty() -> bool:
        waiting = array.array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
        return not waiting[0]

    wait_until(is_empty)


def test_a_reader_that_leaves_is_no_failure_of_ours(tone_bundle: Path, wav: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", "listen", str(tone_bundle), "--wav", str(wav), "--realtime"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() == 1
    process.stderr.close()
