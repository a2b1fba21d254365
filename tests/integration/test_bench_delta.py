"""`tidegate bench delta`: every method in real processes on real models."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tidegate.bench.delta import UPDATE_METHODS, DeltaReport, bench_delta
from tidegate.bundle import Bundle, digest, write_bundle
from tidegate.cli.main import main
from tidegate.delta import choose
from tidegate.delta.weights import find_weights
from tidegate.errors import NotFoundError

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"


def moved(model: bytes) -> bytes:
    """Return the model with one unit added to every second element of its weights."""
    changed = bytearray(model)
    for weights in find_weights(model):
        values = np.frombuffer(model, f"<u{weights.width}", weights.size_bytes // weights.width, weights.offset).copy()
        values[::2] += 1
        changed[weights.offset : weights.offset + weights.size_bytes] = values.tobytes()
    return bytes(changed)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two model files."""
    place = tmp_path_factory.mktemp("models")
    with Bundle.open(EXAMPLE / "voice-commands.tide") as bundle:
        model = bundle.variant_bytes("tflite-int8")
    (place / "old.tflite").write_bytes(model)
    (place / "new.tflite").write_bytes(moved(model))
    return place / "old.tflite", place / "new.tflite"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two releases; the weights of the first variant moved."""
    old = EXAMPLE / "voice-commands.tide"
    new = tmp_path_factory.mktemp("releases") / "new.tide"
    with Bundle.open(old) as opened:
        manifest, contents = opened.manifest, {file.path: opened.read(file.path) for file in opened.files}
    first = manifest.variants[0]
    contents[first.file] = moved(contents[first.file])
    changed = msgspec.structs.replace(first, sha256=digest(contents[first.file]))
    write_bundle(msgspec.structs.replace(manifest, variants=(changed, *manifest.variants[1:])), contents, new)
    return old, new


@pytest.fixture(scope="module")
def report(files: tuple[Path, Path]) -> DeltaReport:
    return bench_delta(*files)


def test_sizes_are_those_that_would_be_published(files: tuple[Path, Path], report: DeltaReport) -> None:
    (pair,) = report.pairs
    old, new = (path.read_bytes() for path in files)
    by_method = {result.method: result for result in pair.methods}
    assert tuple(by_method) == UPDATE_METHODS
    assert (pair.base_bytes, pair.full_bytes, pair.identical) == (len(old), len(new), False)
    assert by_method["full"].size_bytes == len(new)
    assert by_method["full"].percent == 100
    chosen = choose(old, new)
    assert chosen is not None
    assert pair.published == chosen.header.method == "typed"
    assert by_method["typed"].size_bytes == len(chosen.data)


def test_time_and_memory_are_there(report: DeltaReport) -> None:
    for result in report.pairs[0].methods:
        assert result.status == "ok"
        assert (result.make is None) == (result.method == "full")
        for cost in filter(None, (result.make, result.apply)):
            assert cost.elapsed_ms > 0
            assert cost.peak_rss_bytes is not None
            assert cost.above_baseline_bytes is not None
            assert 0 <= cost.above_baseline_bytes < cost.peak_rss_bytes


def test_a_method_that_does_not_take_the_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"some text " * 100)
    (tmp_path / "b.bin").write_bytes(b"some text " * 100)
    (pair,) = bench_delta(tmp_path / "a.bin", tmp_path / "b.bin").pairs
    typed = pair.methods[-1]
    assert (typed.method, typed.status, typed.apply) == ("typed", "not-applicable", None)
    assert typed.problem is not None
    assert "not a TFLite or ONNX model" in typed.problem
    assert pair.identical
    assert pair.published == "zstd-patch"


def test_releases_are_compared_variant_by_variant(
    releases: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with Bundle.open(releases[0]) as bundle:
        first, second = (variant.id for variant in bundle.manifest.variants[:2])
    words = ["bench", "delta", *map(str, releases), "--variant", first, "--variant", second]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "tidegate.bench-delta/1"
    assert [(pair["name"], pair["identical"]) for pair in told["pairs"]] == [(first, False), (second, True)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert f"{first}: " in table
    assert f"{second}: " in table
    for method in UPDATE_METHODS:
        assert table.count(f"\n{method} ") == 2
    assert table.count("published") == 2


def test_what_cannot_be_compared_is_refused(releases: tuple[Path, Path], files: tuple[Path, Path]) -> None:
    with pytest.raises(NotFoundError, match="has no variant 'other'"):
        bench_delta(*releases, variants=["other"])
    with pytest.raises(NotFoundError, match="is no bundle"):
        bench_delta(releases[0], files[1])
    with pytest.raises(NotFoundError, match="is no bundle"):
        bench_delta(*files, variants=["tflite-int8"])
    with pytest.raises(NotFoundError, match="no file"):
        bench_delta(files[0], files[1].with_name("none.tflite"))


def test_the_command_line(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "delta", str(files[0]), "none.tflite"]) == 1
    assert "no file none.tflite" in capsys.readouterr().err
    for words in (["bench", "delta"], ["bench", "delta", str(files[0])]):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
    with pytest.raises(SystemExit) as left:
        main(["bench", "delta", "--help"])
    assert left.value.code == 0
    assert "tidegate bench delta old.tflite new.tflite" in capsys.readouterr().out


def test_a_bundle_may_still_be_called_delta(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path / "delta")]) == 1
    assert "usage" not in capsys.readouterr().err
