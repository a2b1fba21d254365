"""Train both networks from nothing: speak, spoil, learn, convert, measure.

    python train.py --work DIR             the real thing, about an hour on two cores
    python train.py --work DIR --quick     a smoke run of every step, a few minutes

Speech, windows and Keras files go to ``--work``; the models that are checked in
go to ``--out`` (by default ``models/`` beside this file).  Finished steps are
kept in ``--work``, so a second run goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import network
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
SEED = 2_026
BATCH = 128

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    speech_scale: float
    """Share of the full number of utterances per voice."""
    shards: int
    """Number of window files."""
    timelines_per_shard: int
    """Timelines in each."""
    epochs_small: int
    """Passes of the small network over all windows."""
    epochs_cloud: int
    """Passes of the cloud network."""


FULL = Plan(speech_scale=1.0, shards=36, timelines_per_shard=1_500, epochs_small=4, epochs_cloud=4)
QUICK = Plan(speech_scale=0.05, shards=2, timelines_per_shard=100, epochs_small=1, epochs_cloud=1)


def main() -> None:
    """Run every step."""
    arguments = parse_arguments()
    plan = QUICK if arguments.quick else FULL
    work, out = arguments.work, arguments.out
    speak_words(work, plan)
    make_windows(work, plan)
    fit_network(work, "small", network.SMALL, plan.shards, plan.epochs_small)
    fit_network(work, "cloud", network.CLOUD, plan.shards, plan.epochs_cloud)
    convert_models(work, out)
    measure_models(work, out, quick=arguments.quick)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True, help="folder for caches")
    parser.add_argument("--out", type=Path, default=HERE / "models", help="folder for models")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    return parser.parse_args()


def speak_words(work: Path, plan: Plan) -> None:
    """Step 1: speech of every voice."""
    from synthesise import synthesise

    synthesise(work, plan.speech_scale)


def make_windows(work: Path, plan: Plan) -> None:
    """Step 2: training windows."""
    from dataset import write_windows

    write_windows(work, plan.shards, plan.timelines_per_shard)


def fit_network(work: Path, name: str, size: network.NetworkSize, shards: int, epochs: int) -> None:
    """Step 3: train one network and keep it as ``WORK/NAME.keras`` with its history."""
    path = work / f"{name}.keras"
    if path.exists():
        return
    import keras
    from dataset import read_windows

    keras.utils.set_random_seed(SEED)
    log_mel, target = read_windows(work, shards)
    batches = batches_of(log_mel, target)
    steps = len(batches) * epochs
    model = network.build_network(size)
    rate = keras.optimizers.schedules.CosineDecay(
        2e-4, steps, alpha=1e-3, warmup_target=3e-3, warmup_steps=min(500, steps // 5)
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=2.0),
        loss="categorical_crossentropy",
        metrics=["categorical_accuracy"],
    )
    began = time.monotonic()
    keep = keras.callbacks.ModelCheckpoint(str(work / f"{name}-latest.keras"))
    history = model.fit(batches, epochs=epochs, verbose=2, callbacks=[keep]).history
    facts = {
        "parameters": int(model.count_params()),
        "windows": int(target.shape[0]),
        "epochs": epochs,
        "training_s": round(time.monotonic() - began),
        "history": {key: [round(float(v), 4) for v in values] for key, values in history.items()},
    }
    (work / f"{name}.json").write_text(json.dumps(facts, indent=1))
    model.save(path)


def batches_of(log_mel: NDArray[np.float16], target: Float) -> Any:
    """Return shuffled batches as a Keras data set, with small spectral perturbations."""
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined, unused-ignore]
        """Random batches; a new order each epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.rng = np.random.default_rng(SEED)
            self.order = self.rng.permutation(len(target))

        def __len__(self) -> int:
            return len(target) // BATCH

        def __getitem__(self, index: int) -> tuple[Float, Float]:
            chosen = np.sort(self.order[index * BATCH : (index + 1) * BATCH])
            return perturb(log_mel[chosen].astype(np.float32), self.rng), target[chosen]

        def on_epoch_end(self) -> None:
            self.order = self.rng.permutation(len(target))

    return Batches()


def perturb(log_mel: Float, rng: np.random.Generator) -> Float:
    """Jitter the bands and flatten a few of them, after SpecAugment (Park et al., 2019)."""
    count, _, bands = log_mel.shape
    tilt = rng.normal(0, 0.25, (count, 1, bands)).astype(np.float32)
    shaken = log_mel + tilt + rng.normal(0, 0.2, log_mel.shape).astype(np.float32)
    for row in np.flatnonzero(rng.random(count) < 0.4):
        first, width = int(rng.integers(0, bands)), int(rng.integers(1, 6))
        shaken[row, :, first : first + width] = shaken[row].mean()
    return np.asarray(shaken, dtype=np.float32)


def convert_models(work: Path, out: Path) -> None:
    """Step 4: the variants."""
    from convert import convert_all

    convert_all(work, out)


def measure_models(work: Path, out: Path, *, quick: bool) -> None:
    """Step 5: the report."""
    from evaluate import evaluate_all

    evaluate_all(work, out, repeats=1 if quick else 2)


if __name__ == "__main__":
    main()
