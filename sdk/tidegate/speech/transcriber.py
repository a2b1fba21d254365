"""A speech model and its decoder as one thing: a segment's samples in, a transcript out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.manifest import DecoderSettings, Manifest
from tidegate.errors import BundleError, InputError, ModelError
from tidegate.speech.decoder import decode, windows
from tidegate.speech.transcript import Transcript

WINDOWS_PER_CALL = 1
"""Of a model with a free batch. Measured on the example's networks, one thread: 16 windows one by one cost 9 ms of CPU
time on LiteRT and 12 ms on ONNX Runtime, in one batch 13 ms each, because the activations of a single window stay in
the cache; and LiteRT plans its memory anew each time the batch changes, as it would from segment to segment."""

_FIX = "build the bundle from a specification with [front_end], [decoder] and labels"


class SpeechModel(Protocol):
    """What a transcriber needs of a model; `tidegate.runtime.Model` has it, and so has a version that counts calls."""

    @property
    def manifest(self) -> Manifest | None: ...  # noqa: D102
    @property
    def variant_id(self) -> str: ...  # noqa: D102
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...  # noqa: D102


class Transcriber:
    """Slides a speech model over a segment and decodes what it says.

    Safe to call from several threads when the model is, as those of `tidegate.runtime` are.
    """

    def __init__(self, model: SpeechModel) -> None:
        """Check that `model` is a speech model.

        Args:
            model: loaded from a bundle. Input FP32 [-1, window] or [b, window], output FP32 [-1, labels].

        Raises:
            BundleError: it is not; the message says what is missing or does not fit.
        """
        manifest = model.manifest
        problems = ["it is a bare model file without a manifest"] if manifest is None else _problems(manifest)
        if manifest is None or manifest.front_end is None or manifest.decoder is None or problems:
            name = "the model" if manifest is None else f"{manifest.name} {manifest.version}"
            raise BundleError(f"{name} is not a speech model: {'; '.join(problems)}", fix=_FIX)
        self._model = model
        self._labels = manifest.labels
        self._settings: DecoderSettings = manifest.decoder
        self._input = manifest.signature.inputs[0].name
        self._output = manifest.signature.outputs[0].name
        self._fixed_batch = manifest.signature.inputs[0].shape[0]
        self.sample_rate_hz: int = manifest.front_end.sample_rate_hz

    def transcribe(self, samples: NDArray[np.float32]) -> Transcript:
        """Recognise one segment.

        Args:
            samples: float32 [n], n >= 1, mono in [-1, 1] at `sample_rate_hz`.

        Returns:
            Times count from `samples[0]`. `text` is empty and `label` set when no word was recognised.

        Raises:
            InputError: empty, not one axis, not float32, NaN or infinite.
            ModelError: the runtime failed, or the model answered NaN.
        """
        _check_samples(samples)
        probabilities = self.probabilities(samples)
        return self.decode(probabilities, duration_s=len(samples) / self.sample_rate_hz)

    def probabilities(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model's output for each window of the segment, float32 [k, labels]; see `decoder.windows`."""
        slid = windows(samples, self._settings, self.sample_rate_hz)
        batch = self.windows_per_call
        return np.concatenate([self.call(slid[first : first + batch]) for first in range(0, len(slid), batch)])

    @property
    def settings(self) -> DecoderSettings:
        """Of the decoder."""
        return self._settings

    @property
    def windows_per_call(self) -> int:
        """How many windows one call of the model takes."""
        return self._fixed_batch if self._fixed_batch > 0 else WINDOWS_PER_CALL

    def decode(self, probabilities: NDArray[np.float32], *, duration_s: float) -> Transcript:
        """Return what the windows of a segment so far say; see `decoder.decode`."""
        return decode(probabilities, self._labels, self._settings, duration_s=duration_s)

    def call(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model's output for up to `windows_per_call` windows, float32 [k, window] to [k, labels].

        A model with a fixed batch gets zeros for the windows that are missing.

        Raises:
            ModelError: the runtime failed, or the model answered NaN.
        """
        count = len(part)
        if 0 < self._fixed_batch != count:
            part = np.concatenate([part, np.zeros((self._fixed_batch - count, part.shape[1]), np.float32)])
        output = self._model.run({self._input: np.ascontiguousarray(part)})[self._output]
        if not np.isfinite(output).all():
            raise ModelError(
                f"variant {self._model.variant_id} answered NaN or infinite probabilities",
                fix="run `tidegate verify` on the bundle and choose another variant",
            )
        return np.asarray(output[:count], np.float32)


def _problems(manifest: Manifest) -> list[str]:
    """Return what keeps the manifest from describing a speech model; empty when nothing does."""
    front_end, decoder, signature = manifest.front_end, manifest.decoder, manifest.signature
    problems: list[str] = []
    if front_end is None or front_end.kind != "audio":
        problems.append("it has no audio front end")
    if decoder is None:
        problems.append("it has no decoder")
    if not manifest.labels:
        problems.append("it has no labels")
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        problems.append(f"it has {len(signature.inputs)} inputs and {len(signature.outputs)} outputs, expected 1 and 1")
    if problems or front_end is None or decoder is None:
        return problems
    audio, output = signature.inputs[0], signature.outputs[0]
    window = decoder.window_ms * front_end.sample_rate_hz // 1000
    if not front_end.inside_graph:
        problems.append("its front end is outside the graph, but the transcriber hands over raw audio")
    if audio.dtype != "FP32" or len(audio.shape) != 2:
        problems.append(f"input {audio.name!r} is {audio.dtype} {list(audio.shape)}, expected FP32 [-1, {window}]")
    elif audio.shape[1] not in (-1, window):
        problems.append(
            f"input {audio.name!r} takes {audio.shape[1]} samples, but window_ms {decoder.window_ms} at "
            f"{front_end.sample_rate_hz} Hz gives {window}"
        )
    elif audio.shape[0] == 0:
        problems.append(f"input {audio.name!r} has a batch of 0")
    if len(output.shape) != 2 or output.shape[-1] not in (-1, len(manifest.labels)):
        problems.append(
            f"output {output.name!r} has shape {list(output.shape)}, expected [-1, {len(manifest.labels)}]: "
            "one probability per label"
        )
    return problems + _setting_problems(decoder)


def _setting_problems(decoder: DecoderSettings) -> list[str]:
    rules = {
        f"decoder.hop_ms is {decoder.hop_ms}, expected 1 to window_ms": 1 <= decoder.hop_ms <= decoder.window_ms,
        f"decoder.smoothing_windows is {decoder.smoothing_windows}, expected 1 or more": decoder.smoothing_windows >= 1,
        f"decoder.minimum_windows is {decoder.minimum_windows}, expected 1 or more": decoder.minimum_windows >= 1,
        f"decoder.threshold is {decoder.threshold}, expected over 0 and up to 1": 0 < decoder.threshold <= 1,
    }
    return [problem for problem, holds in rules.items() if not holds]


def _check_samples(samples: NDArray[np.float32]) -> None:
    if samples.dtype != np.float32 or samples.ndim != 1:
        raise InputError(
            f"the segment is {samples.dtype} {list(samples.shape)}, expected float32 [n]",
            fix="mix to one channel and scale to [-1, 1], as tidegate.speech.pcm does",
        )
    if len(samples) == 0:
        raise InputError("the segment is empty, expected one sample or more", fix="pass the audio of a segment")
    if not np.isfinite(samples).all():
        raise InputError("the segment holds NaN or infinite samples", fix="check what produces the audio")
