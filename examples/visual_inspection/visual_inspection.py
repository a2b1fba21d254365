"""Visual inspection, end to end: draw parts, train, convert to four variants, pack, evaluate against criteria.

    python examples/visual_inspection/visual_inspection.py --out build/inspection

A part is a brushed metal surface under uneven light; a scratched one has a thin line. The small network runs on a
camera's own processor, as int8.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Bundle
from tidegate.convert import convert
from tidegate.convert.build import build
from tidegate.convert.spec import BuildSpec, BundleTable, GoldenTable, VariantTable
from tidegate.evaluate import Evaluation, Options, evaluate, read_criteria, read_evaluation_set

LABELS = ("clean", "scratched")
SIDE = 32
TOLERANCE = {"tflite-int8": 0.3, "tflite-fp32": 1e-3, "onnx-int8": 0.3, "onnx-fp32": 1e-3}
"""By variant, in the order of preference: the largest difference of a probability on the golden images."""
EXIT_CODES = {"pass": 0, "fail": 1, "wait": 3, None: 0}

Images = NDArray[np.float32]


def make(out: Path) -> Evaluation:
    """Do every step; the bundle is `out/visual-inspection.tide`."""
    out.mkdir(parents=True, exist_ok=True)
    images, labels = parts(1_200, seed=1)
    model = train(images, labels)
    made = convert(model, list(TOLERANCE), out, data={"image": images[:200]}, name="visual-inspection")
    write_golden(model, images[:4], out / "golden.npz")
    asked, truth = parts(600, seed=2)
    np.savez(out / "evaluation.npz", **{"input/image": asked, "label": truth, "positive_class": np.array("scratched")})
    spec = BuildSpec(
        bundle=BundleTable(
            name="visual-inspection",
            version="1.0.0",
            description="Grey images of 32 by 32 pixels in 0 to 1; finds scratches.",
            labels=LABELS,
        ),
        variant=tuple(
            VariantTable(id=variant.id, file=variant.path.name, tolerance=TOLERANCE[variant.id])
            for variant in made.variants
        ),
        golden=GoldenTable(file="golden.npz"),
        directory=out,
    )
    result = build(spec, out / "visual-inspection.tide")
    data = read_evaluation_set((out / "evaluation.npz").read_bytes(), origin="evaluation.npz")
    criteria = read_criteria(Path(__file__).with_name("criteria.toml"))
    with Bundle.open(result.path) as bundle:
        return evaluate(bundle, data, Options(criteria=criteria))


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


def write_golden(model: Any, images: Images, path: Path) -> None:
    """Write what the trained model itself answers."""
    answers = model(images, training=False).numpy()
    np.savez(path, **{"input/image": images, "output/probabilities": answers})


def main() -> int:
    """Read the command line; print what was found; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("build/visual_inspection"))
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    evaluation = make(arguments.out)
    for criterion in evaluation.criteria:
        found = "no figure" if criterion.estimate is None else f"{criterion.estimate:.4g}"
        print(f"{criterion.verdict}: {criterion.name} ({criterion.variant}): {found}; {criterion.reason}")
    return EXIT_CODES[evaluation.verdict]


if __name__ == "__main__":
    sys.exit(main())
