"""A release of a few hundred bytes for the tests of the bundle format; no runtime is needed to open it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tidegate.bundle import (
    Asset,
    Golden,
    GoldenFixture,
    Manifest,
    Signature,
    TensorSpec,
    Variant,
    digest,
    write_bundle,
)

Release = tuple[Manifest, dict[str, bytes]]


@pytest.fixture(scope="session")
def release() -> Release:
    """Return a manifest and the files that it lists."""
    golden = GoldenFixture(
        inputs={"x": np.zeros((1, 4), np.float32)}, outputs={"y": np.full((1, 3), 0.25, np.float32)}
    ).to_npz()
    files = {"variants/a.onnx": b"model " * 40, "assets/list.txt": b"", "golden.npz": golden}
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name="tiny",
        version="1.2.3",
        release=7,
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 4)),),
            outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 3)),),
        ),
        labels=("a", "b", "c"),
        variants=(
            Variant(
                id="onnx-fp32",
                backend="onnx",
                precision="fp32",
                file="variants/a.onnx",
                sha256=digest(files["variants/a.onnx"]),
                size_bytes=240,
            ),
        ),
        golden=Golden(file="golden.npz", sha256=digest(golden), size_bytes=len(golden), tolerance=1e-3),
        assets={"list": Asset(file="assets/list.txt", sha256=digest(b""), size_bytes=0)},
    )
    return manifest, files


@pytest.fixture(scope="session")
def tide_bytes(release: Release, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of the release as a .tide archive."""
    path = tmp_path_factory.mktemp("release") / "tiny.tide"
    write_bundle(*release, path)
    return path.read_bytes()


@pytest.fixture
def tide(tide_bytes: bytes, tmp_path: Path) -> Path:
    """Return the release as a .tide file of this test's own."""
    path = tmp_path / "tiny.tide"
    path.write_bytes(tide_bytes)
    return path
