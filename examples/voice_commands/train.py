"""Train both networks from nothing: speak, spoil, learn, convert, measure.

    python train.py --work DIR             the real thing, about two hours on two cores
    python train.py --work DIR --quick     a smoke run of every step, a few minutes

Speech, windows and Keras files go to ``--work``; the variants go to ``--out`` (by
default ``models/`` beside this file), from where ``tidegate build`` packs them.  Finished steps are
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
from spectral import perturb
from widen import widen
from words import LABELS, UNKNOWN

HERE = Path(__file__).parent
SEED = 2_026
BATCH = 128
# Half of all windows are `unknown`; at full weight a voice unlike all training
# voices would end up there whatever it says.
UNKNOWN_DISCOUNT = 0.65

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Cycle:
    """One cosine cycle of training."""

    shards: int
    """Window files that it sees."""
    epochs: int
    """Passes over them."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    speech_scale: float
    """Share of the full number of utterances per voice."""
    timelines_per_shard: int
    """Timelines in each window file."""
    small: tuple[Cycle, ...]
    """Training of the small network."""
    cloud: tuple[Cycle, ...]
    """Training of the cloud network, which starts from the small one."""
    cloud_last_weight: float
    """Share of the last cycle in the cloud network's weights; the rest is the cycle before."""

    @property
    def shards(self) -> int:
        """Window files that are needed."""
        return max(cycle.shards for cycle in self.small + self.cloud)


FULL = Plan(
    speech_scale=1.0,
    timelines_per_shard=1_500,
    small=(Cycle(20, 2), Cycle(20, 2), Cycle(20, 1), Cycle(30, 2)),
    cloud=(Cycle(20, 1), Cycle(20, 1), Cycle(30, 2)),
    cloud_last_weight=0.6,
)
QUICK = Plan(
    speech_scale=0.05, timelines_per_shard=100, small=(Cycle(2, 1),), cloud=(Cycle(2, 1),), cloud_last_weight=1.0
)


def main() -> None:
    """Run every step."""
    arguments = parse_arguments()
    plan = QUICK if arguments.quick else FULL
    work, out = arguments.work, arguments.out
    speak_words(work, plan)
    make_windows(work, plan)
    fit_network(work, "small", network.SMALL, plan.small)
    fit_network(work, "cloud", network.CLOUD, plan.cloud, start="small", last_weight=plan.cloud_last_weight)
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


def fit_network(
    work: Path,
    name: str,
    size: network.NetworkSize,
    cycles: tuple[Cycle, ...],
    start: str = "",
    last_weight: float = 1.0,
) -> None:
    """Step 3: train one network in cosine cycles and keep it as ``WORK/NAME.keras``.

    Each cycle starts from the weights of the one before (warm restarts, after
    Loshchilov and Hutter, 2017) and leaves ``WORK/NAME-CYCLE.keras``.  The first
    starts from the trained network ``start`` (see :mod:`widen`), if one is named.
    The weights that are kept are those of the last cycle, averaged with the one
    before (Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018)
    unless ``last_weight`` is 1: the large network leans less on its training
    voices that way.
    """
    if (work / f"{name}.keras").exists():
        return
    import keras
    from convert import load_network
    from dataset import read_windows

    keras.utils.set_random_seed(SEED)
    model = network.build_network(size)
    if start:
        widen(load_network(work / f"{start}.keras"), model)
    facts: dict[str, Any] = {"parameters": int(model.count_params()), "cycles": []}
    for number, cycle in enumerate(cycles):
        path = work / f"{name}-{number}.keras"
        before = model.get_weights()
        if not path.exists():
            batches = batches_of(*read_windows(work, cycle.shards))
            done = fit_cycle(model, batches, cycle.epochs, peak=2.5e-3 if start or number else 3e-3)
            path.with_suffix(".json").write_text(json.dumps(done))
            model.save(path)
        model.set_weights(keras.models.load_model(path, compile=False).get_weights())
        facts["cycles"].append(json.loads(path.with_suffix(".json").read_text()))
    (work / f"{name}.json").write_text(json.dumps(facts, indent=1))
    pairs = zip(before, model.get_weights(), strict=True)
    model.set_weights([(1 - last_weight) * old + last_weight * new for old, new in pairs])
    model.save(work / f"{name}.keras")


def fit_cycle(model: Any, batches: Any, epochs: int, peak: float) -> dict[str, Any]:
    """Train for one cosine cycle; return what it took and how the loss fell."""
    import keras

    steps = len(batches) * epochs
    rate = keras.optimizers.schedules.CosineDecay(
        2e-4, steps, alpha=1e-3, warmup_target=peak, warmup_steps=min(500, steps // 5)
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=2.0),
        loss="categorical_crossentropy",
        weighted_metrics=["categorical_accuracy"],
    )
    began = time.monotonic()
    history = model.fit(batches, epochs=epochs, verbose=2).history
    return {
        "windows": len(batches) * BATCH,
        "epochs": epochs,
        "training_s": round(time.monotonic() - began),
        "loss": [round(float(value), 4) for value in history["loss"]],
        "accuracy": [round(float(value), 4) for value in history["categorical_accuracy"]],
    }


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

        def __getitem__(self, index: int) -> tuple[Float, Float, Float]:
            chosen = np.sort(self.order[index * BATCH : (index + 1) * BATCH])
            shaken = perturb(log_mel[chosen].astype(np.float32), self.rng)
            weight = 1 - UNKNOWN_DISCOUNT * target[chosen, LABELS.index(UNKNOWN)]
            return shaken, target[chosen], weight

        def on_epoch_end(self) -> None:
            self.order = self.rng.permutation(len(target))

    return Batches()


def convert_models(work: Path, out: Path) -> None:
    """Step 4: the variants."""
    from convert import convert_all

    convert_all(work, out)


def measure_models(work: Path, out: Path, *, quick: bool) -> None:
    """Step 5: the report; that of a smoke run stays with its models."""
    from evaluate import evaluate_all

    evaluate_all(work, out, reports=out if quick else HERE, repeats=1 if quick else 2)


if __name__ == "__main__":
    main()
