"""One suite for every audio source; the microphone runs on a sound card made of software."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.edge.pacing import PacedSource
from tidegate.edge.sources import AudioSource, MicrophoneSource, StdinSource, WavSource
from tidegate.errors import ConfigError, DependencyError, InputError, NotFoundError, ResourceError, StateError
from tidegate.speech.pcm import float32_from_int16

RATE_HZ = 22_050
SAMPLES = np.rint(9_000 * np.sin(np.arange(11_025) / 9)).astype(np.int16)


def wav_bytes() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(SAMPLES.tobytes())
    return buffer.getvalue()


def pipe_of(data: bytes) -> io.BufferedReader:
    """Return the reading end of a real pipe into which a thread writes."""
    read_end, write_end = os.pipe()

    def feed() -> None:
        with os.fdopen(write_end, "wb") as file:
            file.write(data)

    threading.Thread(target=feed, daemon=True).start()
    return os.fdopen(read_end, "rb")


class SoftwareInput:
    """PortAudio's input stream: a thread calls back with blocks until the recording is over or it is closed."""

    def __init__(
        self, recording: NDArray[np.float32], blocksize: int, channels: int, callback: Any, **rest: Any
    ) -> None:
        self.samplerate = float(rest["samplerate"])
        self.active = True
        self._recording = recording
        self._blocksize = blocksize
        self._channels = channels
        self._callback = callback
        self.done = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self.active = False

    def _run(self) -> None:
        for start in range(0, len(self._recording), self._blocksize):
            if self._closing.is_set():
                break
            block = np.repeat(self._recording[start : start + self._blocksize, None], self._channels, axis=1)
            self._callback(block, len(block), None, SimpleNamespace(input_overflow=start == self._blocksize))
            # The buffer belongs to PortAudio and is used again.
            block[:] = 9.0
        self.done.set()
        self.active = False


class PortAudioError(Exception):
    pass


def software_sound_card(channels: int = 1, present: bool = True) -> ModuleType:
    """Return a module with the part of sounddevice's interface that is used."""
    module = ModuleType("sounddevice")

    def query_devices(device: object, kind: str) -> dict[str, Any]:
        assert kind == "input"
        if not present:
            raise PortAudioError("Error querying device -1")
        if device is not None and device != "desk":
            raise ValueError(f"No input device matching {device!r}")
        return {"default_samplerate": float(RATE_HZ), "max_input_channels": channels}

    def input_stream(**arguments: Any) -> SoftwareInput:
        return SoftwareInput(float32_from_int16(SAMPLES), **arguments)

    module.__dict__.update(query_devices=query_devices, InputStream=input_stream, PortAudioError=PortAudioError)
    return module


@pytest.fixture
def sound_card(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    return lambda module: monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.fixture(params=["wav", "paced wav", "stdin wav", "stdin bare", "microphone", "stereo microphone"])
def source(request: pytest.FixtureRequest, tmp_path: Path, sound_card: Callable[[ModuleType], None]) -> AudioSource:
    if request.param in ("wav", "paced wav"):
        (tmp_path / "a.wav").write_bytes(wav_bytes())
        wav = WavSource(tmp_path / "a.wav")
        return wav if request.param == "wav" else PacedSource(wav)
    if request.param == "stdin wav":
        return StdinSource(pipe_of(wav_bytes()))
    if request.param == "stdin bare":
        return StdinSource(pipe_of(SAMPLES.tobytes()), RATE_HZ)
    sound_card(software_sound_card(channels=2 if "stereo" in request.param else 1))
    microphone = MicrophoneSource()
    # What the recording holds is in the queue; closing says that nothing more comes.
    assert microphone._stream.done.wait(60)
    return microphone


def test_the_protocol_is_kept(source: AudioSource) -> None:
    assert isinstance(source, AudioSource)


def test_the_rate_is_known_before_the_first_chunk(source: AudioSource) -> None:
    assert source.sample_rate_hz == RATE_HZ
    assert type(source.sample_rate_hz) is int


def test_every_sample_comes_once_and_in_order(source: AudioSource) -> None:
    chunks = source.chunks()
    if isinstance(source, MicrophoneSource):
        source.close()
    parts = list(chunks)
    assert all(part.dtype == np.float32 and part.ndim == 1 and part.size for part in parts)
    assert np.abs(np.concatenate(parts) - float32_from_int16(SAMPLES)).max() < 1e-6


def test_it_is_streamed(source: AudioSource) -> None:
    assert next(iter(source.chunks())).size < SAMPLES.size
    source.close()


def test_chunks_can_be_asked_for_once(source: AudioSource) -> None:
    source.chunks()
    with pytest.raises(StateError):
        source.chunks()
    source.close()


def test_after_close_there_are_no_chunks(source: AudioSource) -> None:
    source.close()
    source.close()
    with pytest.raises(StateError):
        source.chunks()


def test_stdin_gives_what_has_come_without_waiting_for_more() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        writer.write(SAMPLES[:100].tobytes())
        chunks = StdinSource(reader, RATE_HZ).chunks()
        assert next(chunks).size + next(chunks).size == 100
        writer.write(SAMPLES[100:150].tobytes())
        assert next(chunks).size == 50


def test_stdin_of_a_process() -> None:
    code = "import sys; from tidegate.edge.sources import StdinSource; s = StdinSource(sys.stdin.buffer); "
    code += "print(s.sample_rate_hz, sum(map(len, s.chunks())))"
    done = subprocess.run([sys.executable, "-c", code], input=wav_bytes(), capture_output=True, timeout=60, check=True)
    assert done.stdout.split() == [b"22050", b"11025"]


def test_bare_samples_need_a_rate() -> None:
    with pytest.raises(ConfigError, match="sample rate is not known") as caught:
        StdinSource(io.BytesIO(SAMPLES.tobytes()))
    assert caught.value.fix is not None
    assert "--rate" in caught.value.fix


def test_a_rate_that_the_wav_contradicts_is_refused() -> None:
    with pytest.raises(ConfigError, match="a WAV of 22050 Hz; the rate given is 16000 Hz"):
        StdinSource(io.BytesIO(wav_bytes()), 16_000)


def test_an_odd_number_of_bytes_is_refused() -> None:
    with pytest.raises(InputError, match="ends inside a sample"):
        list(StdinSource(io.BytesIO(SAMPLES.tobytes()[:-1]), RATE_HZ).chunks())


@pytest.mark.parametrize("data", [b"", b"x"])
def test_nothing_on_stdin_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        list(StdinSource(io.BytesIO(data), RATE_HZ).chunks())


def test_a_wav_cut_off_in_the_pipe_is_refused() -> None:
    with pytest.raises(InputError, match="promises 22050 bytes of audio, 12000 are there"):
        list(StdinSource(io.BytesIO(wav_bytes()[: 44 + 12_000])).chunks())


def test_a_full_queue_drops_and_counts(sound_card: Callable[[ModuleType], None]) -> None:
    sound_card(software_sound_card())
    microphone = MicrophoneSource(block_ms=20, buffer_s=0.1)
    assert microphone._stream.done.wait(60)
    microphone_chunks = microphone.chunks()
    microphone.close()
    kept = np.concatenate(list(microphone_chunks))
    block = RATE_HZ * 20 // 1000
    assert kept.size == 5 * block
    assert microphone.account.dropped_samples == SAMPLES.size - kept.size
    assert microphone.account.overflows == 1


def test_a_microphone_that_goes_away_is_an_error_and_no_end(sound_card: Callable[[ModuleType], None]) -> None:
    sound_card(software_sound_card())
    microphone = MicrophoneSource()
    with pytest.raises(ResourceError, match="stopped"):
        list(microphone.chunks())


@pytest.mark.parametrize(
    ("present", "device", "said"),
    [(False, None, "the default microphone cannot be opened"), (True, "none", "microphone 'none' cannot be opened")],
)
def test_no_microphone(sound_card: Callable[[ModuleType], None], present: bool, device: str | None, said: str) -> None:
    sound_card(software_sound_card(present=present))
    with pytest.raises(ResourceError, match=said):
        MicrophoneSource(device)


def test_without_sounddevice_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DependencyError, match="sounddevice") as caught:
        MicrophoneSource()
    assert caught.value.fix == "pip install 'tidegate[mic]'"


def test_without_portaudio_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(DependencyError, match="PortAudio library not found") as caught:
        MicrophoneSource()
    assert caught.value.fix is not None
    assert "libportaudio2" in caught.value.fix


@pytest.mark.parametrize("arguments", [{"block_ms": 0}, {"buffer_s": 0.001}, {"sample_rate_hz": 10}])
def test_microphone_settings_that_cannot_be_meant(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        MicrophoneSource(**arguments)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        WavSource(tmp_path / "missing.wav")


def test_importing_the_sources_and_the_gate_loads_nothing_heavy() -> None:
    code = "import sys, tidegate.edge.sources, tidegate.edge.gate, tidegate.edge.prefilter; "
    code += "print(sorted({'soxr', 'webrtcvad', 'sounddevice', 'grpc', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True, text=True)
    assert done.stdout.strip() == "[]"
