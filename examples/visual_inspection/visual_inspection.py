"""Visual inspection, end to end: draw parts, train; then one build that converts, evaluates, judges and packs.

    python examples/visual_inspection/visual_inspection.py --out build/inspection

A part is a brushed metal surface under uneven light; a scratched one has a thin line. The small network runs on a
camera's own processor, as int8.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.cli.main import main as tidegate

SIDE = 32

Images = NDArray[np.float32]


def make(out: Path) -> int:
    """Train, write what SPEC.toml names, and build `out/visual-inspection.tide`; return the exit code of the build."""
    out.mkdir(parents=True, exist_ok=True)
    images, labels = parts(1_200, seed=1)
    train(images, labels).save(out / "visual_inspection.keras")
    np.savez(out / "representative.npz", **{"input/image": images[:200]})
    np.savez(out / "golden.npz", **{"input/image": images[:4]})
    asked, truth = parts(600, seed=2)
    np.savez(out / "evaluation.npz", **{"input/image": asked, "label": truth, "positive_class": np.array("scratched")})
    for name in ("SPEC.toml", "criteria.toml"):
        shutil.copy(Path(__file__).with_name(name), out)
    return tidegate(["build", str(out / "SPEC.toml"), "-o", str(out / "visual-inspection.tide")])


def parts(count: int, seed: int) -> tuple[Images, NDArray[np.int64]]:
    """Return images [count, 32, 32, 1] in 0 to 1, and labels [count], 1 for scratched."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return np.stack([draw(rng, scratched=bool(label)) for label in labels]), labels


def draw(rng: np.random.Generator, *, scratched: bool) -> Images:
    """Return one image: light from a corner, brush strokes along x, sensor noise, and the scratch."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    light = 0.5 + rng.uniform(-0.2, 0.2) * x + rng.uniform(-0.2, 0.2) * y
    image = light + rng.normal(0, 0.03, (SIDE, 1)) + rng.normal(0, 0.02, (SIDE, SIDE))
    if scratched:
        angle, offset = rng.uniform(0.3, np.pi - 0.3), rng.uniform(-0.25, 0.25)
        distance = np.abs((x - 0.5) * np.sin(angle) + (y - 0.5) * np.cos(angle) - offset) * SIDE
        image += rng.choice([-1, 1]) * rng.uniform(0.15, 0.35) * np.exp(-(distance**2))
    return np.clip(image, 0, 1).astype(np.float32)[..., None]


def train(images: Images, labels: NDArray[np.int64]) -> Any:
    """Fit a network of 1,900 weights."""
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(16, activation="relu"),
            layers.Dense(2, activation="softmax", name="probabilities"),
        ],
        name="visual_inspection",
    )
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=32, epochs=12, verbose=0)
    return model


def main() -> int:
    """Read the command line; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("build/visual_inspection"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return make(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
