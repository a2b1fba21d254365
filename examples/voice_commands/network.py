"""The two networks: depthwise-separable residual nets on the normalised log-mel window.

After Zhang et al., "Hello Edge" (2017), with residual connections.  The word may
stand anywhere in the window, so the head sees the mean and the maximum over
time; a learned weight per channel and time step (a depthwise filter as long as
the window) lets it prefer the word nearest to the centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import frontend
from words import LABELS


@dataclass(frozen=True)
class NetworkSize:
    """How large a network is."""

    stem: int
    """Channels of the first convolution."""
    middle: int
    """Channels at a quarter of the resolution."""
    late: int
    """Channels once frequency is folded away."""
    middle_blocks: int
    """Residual blocks at a quarter of the resolution."""
    late_blocks: int
    """Residual blocks over time alone."""


SMALL = NetworkSize(stem=20, middle=40, late=64, middle_blocks=3, late_blocks=2)
CLOUD = NetworkSize(stem=24, middle=48, late=104, middle_blocks=3, late_blocks=4)


def build_network(size: NetworkSize) -> Any:
    """Return the Keras model log-mel [-1, 98, 40] -> probabilities [-1, labels]."""
    import keras

    layers = keras.layers

    @keras.saving.register_keras_serializable(package="voice_commands")
    class Normalise(layers.Layer):  # type: ignore[misc, name-defined, unused-ignore]
        """Level-safe scaling: see :func:`frontend.normalise`."""

        def call(self, log_mel: Any) -> Any:
            return frontend.graph_normalise(log_mel)

    def batch_norm(x: Any, name: str) -> Any:
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    def unit(x: Any, name: str, kernel: tuple[int, int], channels: int, strides: Any = 1, skip: bool = False) -> Any:
        deep = f"{name}_depthwise"
        y = layers.DepthwiseConv2D(kernel, strides=strides, padding="same", use_bias=False, name=deep)(x)
        y = batch_norm(y, deep)
        y = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise")(y)
        y = batch_norm(y, f"{name}_pointwise")
        if skip:
            y = layers.Add()([x, y])
        return layers.ReLU()(y)

    log_mel = keras.Input((frontend.FRAMES, frontend.MEL_BANDS), name="log_mel")
    x = Normalise(name="normalise")(log_mel)
    x = layers.Conv2D(size.stem, (5, 5), strides=(2, 2), padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU()(batch_norm(x, "stem"))
    x = unit(x, "shrink", (3, 3), size.middle, strides=(2, 2))
    for block in range(size.middle_blocks):
        x = unit(x, f"middle{block}", (5, 3), size.middle, skip=True)
    x = layers.DepthwiseConv2D((1, 10), depth_multiplier=2, use_bias=False, name="fold")(x)
    x = layers.ReLU()(batch_norm(x, "fold"))
    x = layers.Conv2D(size.late, 1, use_bias=False, name="project")(x)
    x = layers.ReLU()(batch_norm(x, "project"))
    for block in range(size.late_blocks):
        x = unit(x, f"late{block}", (9, 1), size.late, skip=True)
    steps = x.shape[1]
    flat = layers.Reshape((size.late,))
    placed = flat(layers.DepthwiseConv2D((steps, 1), padding="valid", name="place")(x))
    mean = flat(layers.AveragePooling2D((steps, 1))(x))
    peak = flat(layers.MaxPooling2D((steps, 1))(x))
    x = layers.Dropout(0.15)(layers.Concatenate()([placed, mean, peak]))
    probabilities = layers.Dense(len(LABELS), activation="softmax", name="probabilities")(x)
    return keras.Model(log_mel, probabilities)
