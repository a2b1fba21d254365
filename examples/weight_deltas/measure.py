"""How large deltas are after real fine-tuning: a MobileNetV2 on made-up spectrograms, trained, then trained on.

Prints the table of docs/delta-format.md: bytes of each method as a share of the full file. Only bytes are judged, not
accuracy. Needs `tidegate[delta]` and TensorFlow.

    python examples/weight_deltas/measure.py --alpha 0.5

With `--keep DIR` every model stays there, for `tidegate bench delta`, such as DIR/before-int8.tflite and
DIR/whole-net-lr-1e-4-int8.tflite.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

CLASSES = 12
FRAMES, BANDS = 64, 48
BATCH = 32
LAST_BLOCK = "block_16_expand"
"""First layer of the last inverted residual block of keras.applications.MobileNetV2."""

UPDATES: dict[str, tuple[float, str]] = {
    "whole net, lr 1e-4": (1e-4, "all"),
    "whole net, lr 1e-5": (1e-5, "all"),
    "last block + head, lr 1e-4": (1e-4, "last block"),
    "head only, lr 1e-4": (1e-4, "head"),
}
PRECISIONS = ("fp32", "fp16", "int8")


def main() -> None:
    """Train, update, convert, compare."""
    arguments = _arguments()
    import keras
    import zstandard

    from tidegate.delta import METHODS, make

    keras.utils.set_random_seed(arguments.seed)
    network = build(arguments.alpha)
    train(network, 1e-3, arguments.steps, seed=1)
    weights = network.get_weights()
    before = {precision: convert(network, precision) for precision in PRECISIONS}
    if arguments.keep:
        for precision, model in before.items():
            keep(arguments.keep, f"before-{precision}", model)
    print(
        f"MobileNetV2, alpha {arguments.alpha}, {network.count_params():,} parameters, {arguments.steps} steps, ",
        end="",
    )
    print(f"then {arguments.update_steps} steps; % of the full file", flush=True)
    print("| update | precision | full, bytes | zstd-19 of full | zstd-patch | typed |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for update, (rate, part) in UPDATES.items():
        network.set_weights(weights)
        freeze(network, part)
        train(network, rate, arguments.update_steps, seed=2)
        for precision in PRECISIONS:
            after = convert(network, precision)
            if arguments.keep:
                name = update.replace(",", "").replace(" + ", " ").replace(" ", "-")
                keep(arguments.keep, f"{name}-{precision}", after)
            sizes = [len(zstandard.ZstdCompressor(level=19).compress(after))]
            sizes += [len(make(before[precision], after, method).data) for method in METHODS]
            cells = [f"{100 * size / len(after):.1f}" for size in sizes]
            print(f"| {update} | {precision} | {len(after):,} | {' | '.join(cells)} |", flush=True)


def keep(directory: Path, name: str, model: bytes) -> None:
    """Write one model."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.tflite").write_bytes(model)


def build(alpha: float) -> Any:
    """Return an untrained network over [batch, FRAMES, BANDS, 1]."""
    import keras

    body = keras.applications.MobileNetV2(
        (FRAMES, BANDS, 1), alpha=alpha, include_top=False, weights=None, pooling="avg"
    )
    head = keras.layers.Dense(CLASSES, activation="softmax", name="head")(body.output)
    return keras.Model(body.input, head)


def freeze(network: Any, part: str) -> None:
    """Let only a part of the network learn; what is frozen keeps its batch statistics too."""
    first = {"all": 0, "last block": _index(network, LAST_BLOCK), "head": _index(network, "head")}[part]
    for index, layer in enumerate(network.layers):
        layer.trainable = index >= first


def train(network: Any, rate: float, steps: int, seed: int) -> None:
    """Take `steps` steps of Adam."""
    import keras

    network.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    for spectrograms, labels in batches(steps, seed):
        network.train_on_batch(spectrograms, labels)


def batches(count: int, seed: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield spectrograms float32 [BATCH, FRAMES, BANDS, 1] of rising or falling tones in noise, and their classes."""
    rng = np.random.default_rng(seed)
    frames, bands = np.arange(FRAMES)[:, None], np.arange(BANDS)[None, :]
    for _ in range(count):
        labels = rng.integers(0, CLASSES, BATCH)
        made = rng.normal(0, 0.7, (BATCH, FRAMES, BANDS, 1)).astype(np.float32)
        for spectrogram, label in zip(made, labels, strict=True):
            slope = (label % 4 - 1.5) * 0.3
            centre = 8 + 12 * (label // 4) + rng.normal(0, 1.5) + slope * (frames - FRAMES / 2)
            spectrogram[:, :, 0] += 3 * np.exp(-0.5 * ((bands - centre) / 1.5) ** 2)
        yield made, labels


def convert(network: Any, precision: str) -> bytes:
    """Return the network as TFLite; int8 with integer inputs and outputs."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = _representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with contextlib.redirect_stdout(sys.stderr):  # it lists every variable
        return bytes(converter.convert())


def _representative() -> Iterator[list[NDArray[np.float32]]]:
    for spectrograms, _ in batches(2, seed=3):
        for spectrogram in spectrograms:
            yield [spectrogram[None]]


def _index(network: Any, name: str) -> int:
    names: list[str] = [layer.name for layer in network.layers]
    return names.index(name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, default=0.5, help="width of the network (default %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of the first training (default %(default)s)")
    parser.add_argument("--update-steps", type=int, default=60, help="of each update (default %(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write every model there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
