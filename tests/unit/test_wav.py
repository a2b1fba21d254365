from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.edge.sources import WavSource
from tidegate.edge.sources.riff import ByteReader, read_header
from tidegate.edge.sources.wav import CHUNK_FRAMES, wave_chunks
from tidegate.errors import InputError, NotFoundError, StateError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(10_000) / 16_000)).astype(np.float64)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def fmt(tag: int, channels: int, rate_hz: int, bits: int, extensible: bool = False, container: int = 0) -> bytes:
    frame_bytes = channels * (container or bits // 8)
    head = struct.pack(
        "<HHIIHH", EXTENSIBLE if extensible else tag, channels, rate_hz, rate_hz * frame_bytes, frame_bytes, bits
    )
    if not extensible:
        return chunk(b"fmt ", head)
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return chunk(b"fmt ", head + struct.pack("<HHI", 22, bits, 0) + guid)


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def encode(samples: NDArray[np.float64], tag: int, bits: int) -> bytes:
    if tag == FLOAT:
        return samples.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return np.rint(samples * 127 + 128).astype(np.uint8).tobytes()
    steps = np.rint(samples * (2 ** (bits - 1) - 1)).astype("<i8")
    return b"".join(int(step).to_bytes(bits // 8, "little", signed=True) for step in steps.ravel())


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(WavSource(path).chunks()))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.fix
    return caught.value.message


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(
    ("tag", "bits", "step"),
    [(PCM, 8, 1 / 60), (PCM, 16, 1e-4), (PCM, 24, 1e-6), (PCM, 32, 1e-6), (FLOAT, 32, 1e-7), (FLOAT, 64, 1e-7)],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_format(tmp_path: Path, tag: int, bits: int, step: float, channels: int, extensible: bool) -> None:
    frames = np.stack([TONE * (k + 1) / channels for k in range(channels)], axis=1)
    path = write(
        tmp_path / "a.wav",
        riff(fmt(tag, channels, 44_100, bits, extensible), chunk(b"data", encode(frames, tag, bits))),
    )
    source = WavSource(path)
    assert (source.sample_rate_hz, source.channels) == (44_100, channels)
    parts = list(source.chunks())
    assert all(part.dtype == np.float32 and 0 < part.size <= CHUNK_FRAMES for part in parts)
    assert len(parts) == 3
    assert np.abs(np.concatenate(parts) - frames.mean(axis=1)).max() < step


@pytest.mark.parametrize(("bits", "container", "values"), [(20, 3, 2**23), (24, 4, 2**31), (12, 2, 2**15)])
def test_fewer_bits_than_their_container_stand_at_the_top(
    tmp_path: Path, bits: int, container: int, values: int
) -> None:
    half = (values // 2).to_bytes(container, "little", signed=True)
    path = write(tmp_path / "a.wav", riff(fmt(PCM, 1, 8_000, bits, True, container), chunk(b"data", half * 4)))
    assert read(path).tolist() == [0.5] * 4


def test_full_scale(tmp_path: Path) -> None:
    data = np.array([-32768, 32767, 0], "<i2").tobytes()
    found = read(write(tmp_path / "a.wav", riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", data))))
    assert found.tolist() == [-1.0, 32767 / 32768, 0.0]


def test_other_chunks_before_and_after_are_passed_over(tmp_path: Path) -> None:
    data = encode(TONE, PCM, 16)
    path = write(
        tmp_path / "a.wav",
        riff(
            chunk(b"JUNK", b"x" * 27),
            fmt(PCM, 1, 16_000, 16),
            chunk(b"LIST", b"INFO" + b"y" * 100_000),
            chunk(b"data", data),
            chunk(b"LIST", b"\xff" * 1000),
        ),
    )
    assert read(path).size == TONE.size


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
def test_a_size_that_the_writer_never_filled_in_means_until_the_end(tmp_path: Path, size: int) -> None:
    data = encode(TONE, PCM, 16)
    path = write(tmp_path / "a.wav", riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", data, size), size=size))
    assert read(path).size == TONE.size


def test_rf64_holds_its_size_in_another_place(tmp_path: Path) -> None:
    data = encode(TONE, PCM, 16)
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, len(data), TONE.size, 0))
    body = riff(
        sizes, fmt(PCM, 1, 16_000, 16), chunk(b"data", data, 0xFFFF_FFFF), chunk(b"LIST", b"z" * 50), magic=b"RF64"
    )
    assert read(write(tmp_path / "a.wav", body)).size == TONE.size


def test_a_cut_off_file_is_refused_before_any_audio(tmp_path: Path) -> None:
    whole = riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", encode(TONE, PCM, 16)))
    path = write(tmp_path / "a.wav", whole[:-5_000])
    with pytest.raises(InputError, match="promises 20000 bytes of audio, 15000 are there"):
        WavSource(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", encode(np.zeros(200_000), PCM, 16))))
    chunks = WavSource(path).chunks()
    next(chunks)
    with path.open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(InputError, match="promises 400000 bytes"):
        list(chunks)


@pytest.mark.parametrize("length", range(44))
def test_every_cut_inside_the_header_is_refused(tmp_path: Path, length: int) -> None:
    whole = riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", encode(TONE, PCM, 16)))
    assert str(tmp_path / "a.wav") in refused(write(tmp_path / "a.wav", whole[:length]))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"ID3\x04\0\0\0\0\0\0\0\0\0", "it looks like an MP3 file"),
        (b"\xff\xfb\x90\x64" + b"\0" * 20, "it looks like an MP3 file"),
        (b"\n<!DOCTYPE html><html>", "it looks like an HTML or XML page"),
        (b"fLaC\0\0\0\x22" + b"\0" * 20, "it looks like a FLAC file"),
        (b"OggS" + b"\0" * 20, "it looks like an Ogg file"),
        (b"PK\x03\x04" + b"\0" * 20, "it looks like a ZIP archive"),
        (b"RIFX\0\0\0\0WAVE", "it looks like a big-endian WAV file"),
        (b"RIFF\0\0\0\0AVI LIST", "it begins with b'RIFF"),
        (b"hello, this is text", "it begins with b'hello, t'"),
    ],
)
def test_what_is_no_wav_is_named(tmp_path: Path, start: bytes, said: str) -> None:
    assert said in refused(write(tmp_path / "a.wav", start))


@pytest.mark.parametrize(
    ("tag", "name"),
    [(2, "Microsoft ADPCM"), (6, "A-law"), (7, "mu-law"), (0x11, "IMA ADPCM"), (0x55, "MP3"), (0x1234, "unknown")],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_other_codecs_are_named(tmp_path: Path, tag: int, name: str, extensible: bool) -> None:
    said = refused(write(tmp_path / "a.wav", riff(fmt(tag, 1, 8_000, 8, extensible), chunk(b"data", bytes(100)))))
    assert name in said
    assert f"0x{tag:04X}" in said


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("no samples", riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", b"")), "holds no audio"),
        (
            "no samples, a chunk behind",
            riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", b""), chunk(b"LIST", b"abcd")),
            "holds no audio",
        ),
        ("no fmt", riff(chunk(b"data", bytes(10))), "before a 'fmt ' chunk"),
        ("no data", riff(fmt(PCM, 1, 16_000, 16)), "ends inside a chunk header"),
        ("short fmt", riff(chunk(b"fmt ", bytes(8)), chunk(b"data", bytes(10))), "8 usable bytes"),
        ("huge fmt", riff(chunk(b"fmt ", bytes(5000)), chunk(b"data", bytes(10))), "0 usable bytes"),
        ("no channels", riff(fmt(PCM, 0, 16_000, 16), chunk(b"data", bytes(10))), "0 channels"),
        ("no rate", riff(fmt(PCM, 1, 0, 16), chunk(b"data", bytes(10))), "0 Hz"),
        ("64-bit PCM", riff(fmt(PCM, 1, 16_000, 64), chunk(b"data", bytes(16))), "64-bit PCM"),
        ("16-bit float", riff(fmt(FLOAT, 1, 16_000, 16), chunk(b"data", bytes(16))), "16-bit float"),
        ("half a sample", riff(fmt(PCM, 2, 16_000, 16), chunk(b"data", bytes(4 * 10 + 2))), "ends inside a sample"),
        (
            "half a sample, size unknown",
            riff(fmt(PCM, 2, 16_000, 16), chunk(b"data", bytes(42), 0xFFFF_FFFF)),
            "ends inside a sample: 2 of 4 bytes",
        ),
        (
            "private codec",
            riff(fmt(PCM, 1, 16_000, 16, True).replace(bytes.fromhex("9b71"), b"??"), chunk(b"data", bytes(10))),
            "private",
        ),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    assert said in refused(write(tmp_path / "a.wav", data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_float_samples_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    samples = np.zeros((9_000, 2))
    samples[8_000, 1] = value
    path = write(tmp_path / "a.wav", riff(fmt(FLOAT, 2, 16_000, 32), chunk(b"data", encode(samples, FLOAT, 32))))
    assert f"sample 8000 (0.500 s) is {value}" in refused(path)


def test_float_samples_a_little_over_full_scale_are_clipped(tmp_path: Path) -> None:
    data = encode(np.array([1.5, -3.0, 0.25]), FLOAT, 32)
    found = read(write(tmp_path / "a.wav", riff(fmt(FLOAT, 1, 16_000, 32), chunk(b"data", data))))
    assert found.tolist() == [1.0, -1.0, 0.25]


def test_float_samples_on_another_scale_are_refused(tmp_path: Path) -> None:
    data = encode(np.array([0.0, 12_000.0]), FLOAT, 32)
    said = refused(write(tmp_path / "a.wav", riff(fmt(FLOAT, 1, 16_000, 32), chunk(b"data", data))))
    assert "12000" in said
    assert "full scale is 1.0" in said


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        WavSource(tmp_path / "missing.wav")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        WavSource(tmp_path)


def test_a_path_through_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", b"")
    with pytest.raises(NotFoundError, match="no such file"):
        WavSource(tmp_path / "a.wav" / "b.wav")


def test_it_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", encode(TONE, PCM, 16))))
    source = WavSource(path)
    list(source.chunks())
    with pytest.raises(StateError):
        source.chunks()


class Trickle:
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._file = io.BytesIO(data)
        self._sizes = sizes

    def read(self, size: int, /) -> bytes:
        if self._sizes:
            return self._file.read(min(size, self._sizes.pop()))
        return self._file.read(size)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=100), st.sampled_from([(PCM, 8), (PCM, 24), (FLOAT, 64)]))
def test_how_a_pipe_cuts_the_bytes_changes_nothing(sizes: list[int], kind: tuple[int, int]) -> None:
    tag, bits = kind
    data = riff(fmt(tag, 2, 16_000, bits), chunk(b"data", encode(TONE[:1000].reshape(-1, 2), tag, bits), 0xFFFF_FFFF))

    def samples(reader: ByteReader) -> bytes:
        return np.concatenate(list(wave_chunks(reader, read_header(reader, "pipe"), "pipe"))).tobytes()

    assert samples(Trickle(data, sizes)) == samples(io.BytesIO(data))


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_damaged_bytes_never_raise_anything_else(noise: bytes, position: int) -> None:
    whole = riff(fmt(PCM, 1, 16_000, 16), chunk(b"data", encode(TONE[:50], PCM, 16)))
    damaged = io.BytesIO(whole[:position] + noise + whole[position + len(noise) :])
    try:
        total = sum(part.size for part in wave_chunks(damaged, read_header(damaged, "damaged"), "damaged"))
    except InputError:
        return
    assert total > 0
