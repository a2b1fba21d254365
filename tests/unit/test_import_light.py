"""An import does nothing and loads nothing heavy; the package roots are namespaces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import COMMAND_TIMEOUT_S

import tidegate

PACKAGES = (
    "errors", "bundle", "delta", "runtime", "speech", "wire", "client", "fetch", "convert", "evaluate",
    "testing", "testing.backend_contract",
    "edge", "edge.update", "edge.update.updater", "cloud", "cloud.ray", "predict",
    "bench", "bench.overhead", "cli", "cli.main",
)  # fmt: skip
HEAVY = (
    "tensorflow",
    "keras",
    "sklearn",
    "skl2onnx",
    "pandas",
    "pyarrow",
    "ray",
    "onnxruntime",
    "onnx",
    "ai_edge_litert",
    "tflite_runtime",
    "grpc",
    "soxr",
    "webrtcvad",
    "sounddevice",
    "zstandard",
    "tuf",
    "securesystemslib",
    "urllib3",
    "matplotlib",
    "pytest",
)

ROOTS = [Path(root) for root in tidegate.__path__]


@pytest.mark.parametrize("package", PACKAGES)
def test_import_loads_nothing_heavy_and_says_nothing(package: str) -> None:
    code = f"import json, sys, tidegate.{package}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & set(HEAVY)
    assert f"tidegate.{package}" in loaded
    assert done.stderr == ""


def test_a_server_that_mirrors_a_manifest_loads_no_converter() -> None:
    code = "import json, sys, tidegate.convert.mirrors.oip; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    ours = {name for name in json.loads(done.stdout) if name.startswith("tidegate.")}
    converting = {name.removeprefix("tidegate.convert") for name in ours if name.startswith("tidegate.convert")}
    assert converting == {"", ".mirrors", ".mirrors.facts", ".mirrors.oip"}
    assert not {name for name in ours if name.split(".")[1] not in ("bundle", "convert", "errors")}


def test_names_of_the_converter_are_there_when_they_are_asked_for() -> None:
    import tidegate.convert as package
    from tidegate.convert.conversion import convert

    assert package.convert is convert
    with pytest.raises(AttributeError, match="has no attribute 'tpyo'"):
        _ = package.tpyo  # type: ignore[attr-defined, unused-ignore]


def test_roots_are_namespaces() -> None:
    assert ROOTS
    for root in ROOTS:
        assert not (root / "__init__.py").exists(), root


def test_each_package_is_typed() -> None:
    packages = [folder for root in ROOTS for folder in root.iterdir() if (folder / "__init__.py").exists()]
    assert {"errors", "bundle", "profile", "runtime", "edge", "cloud", "predict", "bench", "cli", "client"} <= {
        item.name for item in packages
    }
    for folder in packages:
        assert (folder / "py.typed").exists(), folder
