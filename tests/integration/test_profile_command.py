"""`tidegate profile` as a user types it, on a real model and on real audio."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.integration.test_cli_bundle import Typed
from tests.models import make_dense_onnx

from tidegate.bundle import Asset, Bundle, digest, write_bundle
from tidegate.bundle.archive import pack
from tidegate.cli.main import main
from tidegate.profile import Window, decode

ROWS = 400
SMALL = ("--window-rows", "100", "300")


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    return Typed(capfd)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a bundle, evaluation data and their profile, made once."""
    folder = tmp_path_factory.mktemp("release")
    model, bundle, data = folder / "dense.onnx", folder / "dense.tide", folder / "eval.npz"
    make_dense_onnx(model)
    assert main(["build", "--model", str(model), "--name", "dense", "--version", "1.0.0", "-o", str(bundle)]) == 0
    save(data, bundle)
    words = ["--data", str(data), "--bundle", str(bundle), "-o", str(folder / "profile.json")]
    assert main(["profile", "make", *words, *SMALL]) == 0
    return folder


@pytest.fixture
def bundle(tidegate: Typed, release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(release / "dense.tide", tmp_path))


@pytest.fixture
def profile(tidegate: Typed, bundle: Path, release: Path, tmp_path: Path) -> Path:
    shutil.copy(release / "eval.npz", tmp_path)
    return Path(shutil.copy(release / "profile.json", tmp_path))


def save(path: Path, bundle: Path, rows: int = ROWS, shift: float = 0.0, seed: int = 0, labels: bool = True) -> Path:
    with Bundle.open(bundle) as opened:
        (spec,) = opened.manifest.signature.inputs
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        f"input/{spec.name}": (rng.normal(size=(rows, *spec.shape[1:])) + shift).astype(np.float32)
    }
    if labels:
        arrays["label"] = rng.integers(0, 2, rows)
    np.savez(path, **arrays)
    return path


def test_made_shown_and_judged(tidegate: Typed, bundle: Path, profile: Path, tmp_path: Path) -> None:
    made = decode(profile.read_bytes())
    assert {feature.tensor.partition("/")[0] for feature in made.features} == {"input", "output"}
    assert made.data_sha256 == digest((tmp_path / "eval.npz").read_bytes())
    code, out, _ = tidegate("profile", "show", profile)
    assert code == 0
    assert all(feature.name in out for feature in made.features)
    assert json.loads(tidegate("profile", "show", profile, "--json")[1])["rows"] == ROWS

    same = save(tmp_path / "same.npz", bundle, seed=1, labels=False)
    moved = save(tmp_path / "moved.npz", bundle, shift=1.0, seed=2, labels=False)
    short = save(tmp_path / "short.npz", bundle, rows=20, seed=3, labels=False)
    found = {path.stem: tidegate("profile", "judge", profile, "--window", path) for path in (same, moved, short)}
    assert {name: code for name, (code, _, _) in found.items()} == {"same": 0, "moved": 1, "short": 3}
    assert "drift" in found["moved"][1]
    assert "absent" in found["same"][1]  # no outputs in the file, and no model to make them


def test_the_profile_of_a_bundle_judges_outputs_too(
    tidegate: Typed, bundle: Path, profile: Path, tmp_path: Path
) -> None:
    raw = profile.read_bytes()
    with Bundle.open(bundle) as opened:
        files = {file.path: opened.read(file.path) for file in opened.files} | {"profile.json": raw}
        manifest = opened.manifest
    listed = Asset(file="profile.json", sha256=digest(raw), size_bytes=len(raw))
    write_bundle(msgspec.structs.replace(manifest, reference_profile=listed), files, tmp_path / "with.tide")
    window = save(tmp_path / "moved.npz", bundle, shift=1.0, labels=False)
    code, out, err = tidegate("profile", "judge", "with.tide", "--window", window, "--json")
    assert code == 1, err
    report = json.loads(out)
    assert report["verdict"] == "drift"
    outputs = [one for one in report["features"] if one["feature"].startswith("output/")]
    assert outputs
    assert {one["rows"] for one in outputs} == {ROWS}  # the file has none: the bundle's model made them
    assert tidegate("profile", "show", "with.tide")[0] == 0


def test_a_device_s_summary_is_judged(tidegate: Typed, bundle: Path, profile: Path, tmp_path: Path) -> None:
    made = decode(profile.read_bytes())
    with Bundle.open(bundle) as opened:
        (spec,) = opened.manifest.signature.inputs
    window = Window(made)
    for seed in range(3):
        part = np.random.default_rng(seed).normal(3.0, 1.0, (100, *spec.shape[1:]))
        window.add({spec.name: part.astype(np.float32)})
    (tmp_path / "device.tgw").write_bytes(window.encode())
    code, out, _ = tidegate("profile", "judge", profile, "--window", "device.tgw", "--correction", "holm")
    assert code == 1
    assert "300" in out
    (tmp_path / "device.tgw").write_bytes(window.encode()[:-1])
    code, _, err = tidegate("profile", "judge", profile, "--window", "device.tgw")
    assert code == 1
    assert "what to do" in err


def test_audio_and_kinds_are_taken_from_the_command_line(tidegate: Typed, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = (rng.normal(size=(60, 800)) * rng.uniform(0.01, 0.2, (60, 1))).astype(np.float32)
    np.savez(tmp_path / "clips.npz", **{"input/a": clips, "label": np.zeros(60, np.int64)})  # type: ignore[arg-type]
    words = ("profile", "make", "--data", "clips.npz", "--kind", "a=audio", "-o", "p.json")
    code, _, err = tidegate(*words)
    assert code == 1
    assert "sample rate" in err
    assert tidegate(*words, "--sample-rate-hz", "8000", "--window-rows", "50", "200")[0] == 0
    made = decode((tmp_path / "p.json").read_bytes())
    assert [feature.measure for feature in made.features] == [
        "level_dbfs", "duration_s", "clipping_share", "speech_fraction",
    ]  # fmt: skip
    assert made.window_rows == (50, 200)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["show", "nothing.json"], 1, "no file"),
        (["show", "dense.tide"], 1, "no reference profile"),
        (["make", "--data", "eval.npz", "-o", "no/where.json"], 2, "not a directory"),
        (["make", "--data", "eval.npz", "--kind", "x", "-o", "p.json"], 2, "INPUT=KIND"),
        (["make", "--data", "eval.npz", "--kind", "x=smell", "-o", "p.json"], 2, "INPUT=KIND"),
        (["make", "--data", "eval.npz", "--window-rows", "3", "-o", "p.json"], 2, "window_rows"),
        (["judge", "profile.json", "--window", "nothing.npz"], 1, "no file"),
        (["judge", "profile.json", "--window", "stranger.npz"], 1, "nothing that the profile knows"),
        (["judge", "profile.json", "--window", "profile.json"], 1, "not a window summary"),
        (["judge", "profile.json"], 2, "--window"),
        ([], 2, "ACTION"),
    ],
)
def test_mistakes_are_named(
    tidegate: Typed, profile: Path, tmp_path: Path, words: list[str], code: int, complaint: str
) -> None:
    np.savez(tmp_path / "stranger.npz", **{"input/nobody": np.zeros(300)})  # type: ignore[arg-type]
    found, _, err = tidegate("profile", *words)
    assert (found, complaint in err) == (code, True), err


def test_a_damaged_npz_is_no_crash(tidegate: Typed, profile: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"".join(pack([("input/x.npy", b"rubbish")])))
    code, _, err = tidegate("profile", "judge", profile, "--window", "damaged.npz")
    assert code == 1
    assert "damaged.npz" in err


def test_the_schema_is_printed(tidegate: Typed) -> None:
    code, out, _ = tidegate("profile", "schema")
    assert code == 0
    assert "NumberFeature" in json.loads(out)["$defs"]
