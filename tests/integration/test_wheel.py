"""The wheel, installed as a user would: it holds what the tree holds, and its extras bring what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "voice_commands"
ROOMS = ("sdk", "edge", "cloud", "benchmarks", "protos")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, ROOT)
    (built,) = out.glob("tidegate-*.whl")
    return built


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new, empty environment."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    return home / "bin" / "python"


def installed(python: Path) -> set[str]:
    listing = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    return {entry["name"].lower() for entry in listing}


def test_wheel_holds_every_file_of_the_rooms(wheel: Path) -> None:
    tracked = run("git", "ls-files", *(f"{room}/tidegate" for room in ROOMS), cwd=ROOT).splitlines()
    expected = {str(Path(*Path(name).parts[1:])) for name in tracked}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected


@pytest.mark.timeout(600)
def test_core_then_edge_install(wheel: Path, python: Path, tmp_path: Path) -> None:
    run(python, "-m", "pip", "install", "--quiet", wheel)
    core = installed(python)
    assert {"numpy", "msgspec"} <= core
    assert core <= {"tidegate", "numpy", "msgspec", "pip", "setuptools"}

    tidegate = python.parent / "tidegate"
    inspected = run(tidegate, "inspect", EXAMPLE / "voice-commands.tide", "--json", cwd=tmp_path)
    assert json.loads(inspected)["name"] == "voice-commands"

    refused = subprocess.run(
        [tidegate, "verify", EXAMPLE / "voice-commands.tide"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "tidegate[" in refused.stdout + refused.stderr, "the message names the extra to install"

    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[edge]")
    edge = installed(python)
    assert {"ai-edge-litert", "webrtcvad-wheels", "grpcio"} <= edge
    assert not edge & {"tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime"}

    lines = run(
        tidegate, "listen", EXAMPLE / "voice-commands.tide", "--wav", EXAMPLE / "demo.wav", "--json", cwd=tmp_path
    ).splitlines()
    results = [json.loads(line) for line in lines]
    assert "summary" in results[-1]
    assert any(result["text"] for result in results[:-1])
