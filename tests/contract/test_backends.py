"""The backend contract on LiteRT and ONNX Runtime. What a backend is known not to do stands in `backend_gaps.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models import make_contract_onnx, tflite

from tidegate.runtime import load
from tidegate.testing.backend_contract import CHECKS, MODELS, Subject

BACKENDS = ("litert", "onnx")


def known_gaps() -> set[tuple[str, str]]:
    lines = (Path(__file__).parent / "backend_gaps.txt").read_text().splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line and not line.startswith("#")]
    return {(backend, check) for backend, check, _reason in rows}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def subject(backend: str, folder: Path) -> Subject:
    def file(name: str) -> Path:
        if backend == "litert":
            return tflite(name)
        path = folder / f"{name}.onnx"
        return path if path.exists() else make_contract_onnx(folder, name)

    return Subject(load=lambda name: load(file(name)), load_file=load, file=file)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_contract(backend: str, check: str, models: Path, tmp_path: Path) -> None:
    if (backend, check) in known_gaps():
        with pytest.raises(Exception):  # noqa: B017 - a gap that closes must leave the list
            CHECKS[check](subject(backend, models), tmp_path)
    else:
        CHECKS[check](subject(backend, models), tmp_path)


def test_gaps_name_real_checks() -> None:
    assert known_gaps() <= {(backend, check) for backend in BACKENDS for check in CHECKS}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_model_of_the_contract_exists(backend: str, models: Path) -> None:
    for name in MODELS:
        assert subject(backend, models).file(name).stat().st_size < 5000
