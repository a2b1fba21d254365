"""An author with a channel that is served, and a device that follows it, for the tests of updates: all of it real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
from tests.models import make_onnx, tflite

from tidegate.bundle import (
    Asset,
    Budgets,
    Golden,
    GoldenFixture,
    Manifest,
    Signature,
    TensorSpec,
    Variant,
    digest,
    write_bundle,
)
from tidegate.edge.update import DeviceSettings, Updater, initialise
from tidegate.edge.update.counters import Counters
from tidegate.edge.update.health import HealthWriter
from tidegate.edge.update.layout import Layout
from tidegate.fetch.settings import FetchSettings
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing
from tidegate.runtime.verify import VariantReport
from tidegate.testing.backend_contract import BIAS, WEIGHTS
from tidegate.testing.channels import StaticServer

Backend = Literal["onnx", "litert"]

QUICK_PROBE = {"calls": 20, "minimum_duration_s": 0.0, "warm_up_s": 0.0}
QUICK_TRIAL = {"minimum_calls": 10, "minimum_s": 0.0}


@dataclass
class Site:
    """One channel with its keys and its server, and a home for devices."""

    home: Path
    channel: Channel
    keys: KeyRing
    server: StaticServer
    backend: Backend = "onnx"

    def bundle(
        self, version: str, *, labels: str = "", shift: float = 0.0, wrong: float = 0.0, budgets: Budgets | None = None
    ) -> Path:
        """Write a release of the dense model.

        Args:
            version: of the release.
            labels: content of its asset; default: the version, so that each release differs.
            shift: added to the bias, so that the ONNX model is another one.
            wrong: added to what the golden fixture expects, so that the model fails it.
            budgets: of the manifest.
        """
        model = self._model(shift)
        rows = np.random.default_rng(3).normal(0, 1, (1, 64)).astype(np.float32)
        expected = rows @ WEIGHTS + BIAS + np.float32(wrong + (shift if self.backend == "onnx" else 0.0))
        golden = GoldenFixture(inputs={"x": rows}, outputs={"y": expected.astype(np.float32)}).to_npz()
        listed = (labels or version).encode()
        contents = {"models/dense": model, "golden.npz": golden, "assets/labels.txt": listed}
        manifest = Manifest(
            schema="tidegate.bundle/1",
            name="dense",
            version=version,
            signature=Signature(
                inputs=(TensorSpec(name="x", dtype="FP32", shape=(1, 64)),),
                outputs=(TensorSpec(name="y", dtype="FP32", shape=(1, 10)),),
            ),
            variants=(
                Variant(
                    id=f"{self.backend}-fp32",
                    backend=self.backend,
                    precision="fp32",
                    file="models/dense",
                    sha256=digest(model),
                    size_bytes=len(model),
                ),
            ),
            golden=Golden(file="golden.npz", sha256=digest(golden), size_bytes=len(golden), tolerance=1e-3),
            assets={"labels": Asset(file="assets/labels.txt", sha256=digest(listed), size_bytes=len(listed))},
            budgets=budgets,
        )
        path = self.home / f"{version}-{self.backend}.tide"
        write_bundle(manifest, contents, path)
        return path

    def publish(self, version: str, *, track: str = "stable", percent: int = 100, **changes: Any) -> None:
        self.channel.publish(self.bundle(version, **changes), track=track, percent=percent, keys=self.keys)

    def publish_unproven(self, version: str, **changes: Any) -> None:
        """Publish as an author does whose machine has no runtime for the model, so that nothing can be proven there."""
        unproven = VariantReport(f"{self.backend}-fp32", "not runnable", problem="there is no runtime")
        with patch("tidegate.runtime.verify.verify_bundle", return_value=[unproven]):
            self.publish(version, **changes)

    def settings(self, **changes: Any) -> DeviceSettings:
        defaults: dict[str, Any] = {
            "device_id": "kiosk-1",
            "url": self.server.url,
            "model": "dense",
            "probe": QUICK_PROBE,
            "trial": QUICK_TRIAL,
            "fetch": FetchSettings(attempts=1, connect_timeout_s=30, read_timeout_s=30),
        }
        return DeviceSettings(**(defaults | changes))

    def device(self, name: str = "kiosk", **changes: Any) -> Path:
        """Set a device up with the factory version 1.0.0 and return its directory."""
        directory = self.home / name
        factory = self.home / f"1.0.0-{self.backend}.tide"
        if not factory.exists():
            self.bundle("1.0.0")
        root = (self.channel.path / "metadata" / "1.root.json").read_bytes()
        initialise(directory, self.settings(**changes), root, factory)
        return directory

    def fetched(self) -> list[str]:
        """Return which files of releases were asked for so far, oldest first."""
        return [path for path, _ in self.server.requests if "/targets/files/" in path or "/targets/deltas/" in path]

    def _model(self, shift: float) -> bytes:
        if self.backend == "litert":
            return tflite("dense").read_bytes()
        path = make_onnx(
            self.home / "dense.onnx",
            [("Gemm", ["x", "weights", "bias"], ["y"])],
            {"x": ("FP32", [1, 64])},
            {"y": ("FP32", [1, 10])},
            {"weights": WEIGHTS, "bias": (BIAS + np.float32(shift)).astype(np.float32)},
        )
        return path.read_bytes()


def use(directory: Path, counts: Counters) -> None:
    """Do what an app does: count calls of what runs."""
    active = Updater(directory).status().active
    writer = HealthWriter(Layout(directory).health)
    writer.add(active.release, counts)
    writer.close()


def conditions_that_say(*answers: str | None) -> Callable[[], str | None]:
    """Return a hook that gives these answers, one at each call."""
    remaining = list(answers)
    return lambda: remaining.pop(0)
