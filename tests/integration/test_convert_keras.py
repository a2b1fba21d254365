"""Keras and SavedModel sources through every converter, and models that cannot be converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.bundle import digest
from tidegate.bundle.arrays import pack_arrays
from tidegate.convert import Conversion, convert
from tidegate.convert.routes import variants_from
from tidegate.errors import ConfigError, ModelError
from tidegate.runtime import load

ROWS = 32
MAXIMUM_ERROR = {
    "tflite-fp32": 1e-5,
    "tflite-fp16": 5e-3,
    "tflite-dynamic-int8": 0.05,
    "tflite-int8": 0.1,
    "tflite-int8-io": 0.1,
    "onnx-fp32": 1e-5,
    "onnx-fp16": 5e-3,
    "onnx-dynamic-int8": 0.05,
    "onnx-int8": 0.1,
}


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    return keras


@pytest.fixture(scope="module")
def images() -> NDArray[np.float64]:
    """float64, as a notebook has it."""
    return np.random.default_rng(0).normal(size=(ROWS, 12, 12, 1))


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    """A convolution, a normalisation with statistics of its own, a dense layer large enough to be quantised."""
    layers = keras.layers
    image = keras.Input((12, 12, 1), name="image")
    hidden = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    normalisation = layers.BatchNormalization()
    hidden = layers.MaxPooling2D()(layers.ReLU()(normalisation(hidden)))
    hidden = layers.Dense(16, activation="relu")(layers.Flatten()(hidden))
    probabilities = layers.Dense(3, activation="softmax", name="probabilities")(hidden)
    model = keras.Model(image, probabilities, name="parts")
    scale, offset, _, _ = normalisation.get_weights()
    rng = np.random.default_rng(1)
    normalisation.set_weights([scale, offset, rng.normal(0, 0.2, 8), rng.uniform(0.5, 1.5, 8)])
    return model


@pytest.fixture(scope="module")
def converted(network: Any, images: NDArray[np.float64], tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    """Every variant of a .keras file."""
    folder = tmp_path_factory.mktemp("keras")
    network.save(folder / "parts.keras")
    (folder / "rows.npz").write_bytes(pack_arrays({"input/image": images, "label": np.zeros(ROWS)}))
    return convert(folder / "parts.keras", variants_from("keras"), folder / "out", data=folder / "rows.npz")


def test_every_variant_of_a_keras_file_is_made_and_near_to_the_source(converted: Conversion) -> None:
    assert [made.id for made in converted.variants] == list(MAXIMUM_ERROR)
    assert not converted.on_generated_input
    for made in converted.variants:
        assert made.path.name == f"parts-{made.id}.{'tflite' if made.backend == 'litert' else 'onnx'}"
        assert made.precision == made.id.partition("-")[2].removesuffix("-io")
        assert (made.size_bytes, made.sha256) == (made.path.stat().st_size, digest(made.path.read_bytes()))
        assert made.parity.rows == ROWS
        assert made.parity.maximum_error is not None
        assert made.parity.maximum_error <= MAXIMUM_ERROR[made.id], made.id


def test_all_variants_have_the_names_of_the_model_and_a_free_batch(
    converted: Conversion, network: Any, images: NDArray[np.float64]
) -> None:
    for made in converted.variants:
        with load(made.path) as model:
            (given,), (answer,) = model.signature.inputs, model.signature.outputs
            assert (given.name, given.dtype, given.shape) == ("image", "FP32", (-1, 12, 12, 1))
            assert (answer.name, answer.dtype, answer.shape[-1]) == ("probabilities", "FP32", 3)
            expected = network(images[:5], training=False).numpy()
            found = model(images[:5].astype(np.float32))
        np.testing.assert_allclose(found, expected, atol=MAXIMUM_ERROR[made.id])


def test_quantised_variants_are_smaller_and_int8_io_takes_integers(converted: Conversion) -> None:
    size = {made.id: made.size_bytes for made in converted.variants}
    assert size["tflite-int8"] < size["tflite-fp16"] < size["tflite-fp32"]
    assert size["onnx-int8"] < size["onnx-fp32"]
    assert size["onnx-fp16"] < size["onnx-fp32"]
    paths = {made.id: made.path for made in converted.variants}
    for variant, dtype in (("tflite-int8", "FP32"), ("tflite-int8-io", "INT8")):
        with load(paths[variant], raw=True) as model:
            assert {spec.dtype for spec in (*model.signature.inputs, *model.signature.outputs)} == {dtype}


def test_several_inputs_and_outputs_keep_their_names(keras: Any, tmp_path: Path) -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    both = keras.layers.Concatenate()([left, right])
    total = keras.layers.Dense(2, name="total")(both)
    alone = keras.layers.Dense(5, name="alone")(left)
    model = keras.Model({"right": right, "left": left}, {"z_total": total, "a_alone": alone}, name="two")
    rng = np.random.default_rng(0)
    rows = {"left": rng.normal(size=(8, 4)), "right": rng.normal(size=(8, 3))}
    made = convert(model, ["tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8"], tmp_path, data=rows)
    for variant in made.variants:
        with load(variant.path) as loaded:
            assert {spec.name: spec.shape for spec in loaded.signature.inputs} == {"left": (-1, 4), "right": (-1, 3)}
            assert {spec.name for spec in loaded.signature.outputs} == {"z_total", "a_alone"}
        assert variant.parity.maximum_error is not None
        assert variant.parity.maximum_error < 0.1


def test_a_sequential_model_with_a_recurrent_layer_and_integer_input(keras: Any, tmp_path: Path) -> None:
    def recurrent(unroll: bool) -> Any:
        words = keras.Input((6,), dtype="int32", name="words")
        layers = [words, keras.layers.Embedding(20, 8), keras.layers.LSTM(7, unroll=unroll, name="memory")]
        return keras.Sequential([*layers, keras.layers.Dense(2, activation="softmax", name="answer")])

    with pytest.raises(ModelError, match=r"memory.*TensorList") as caught:
        convert(recurrent(unroll=False), ["tflite-fp32"], tmp_path)
    assert "unroll=True" in (caught.value.fix or "")
    assert convert(recurrent(unroll=False), ["onnx-fp32"], tmp_path).variants[0].parity.rows > 1
    made = convert(recurrent(unroll=True), ["tflite-fp32", "onnx-fp32"], tmp_path)
    assert made.on_generated_input
    for variant in made.variants:
        with load(variant.path) as loaded:
            assert [(spec.name, spec.dtype) for spec in loaded.signature.inputs] == [("words", "INT32")]
            assert [spec.name for spec in loaded.signature.outputs] == ["answer"]
        assert variant.parity.maximum_error is not None
        assert variant.parity.maximum_error < 1e-5


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with variables of its own and two outputs, not made by Keras."""
    import tensorflow as tf

    class Scale(tf.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.weights = tf.Variable(np.linspace(-1, 1, 40).reshape(8, 5).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "features")])  # type: ignore[untyped-decorator, unused-ignore]
        def serve(self, features: Any) -> dict[str, Any]:
            product = features @ self.weights
            return {"squashed": tf.tanh(product), "best": tf.argmax(product, axis=1)}

    folder = tmp_path_factory.mktemp("saved") / "scale"
    module = Scale()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def test_a_saved_model_keeps_the_names_of_its_signature(saved_model: Path, tmp_path: Path) -> None:
    rows = {"features": np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)}
    made = convert(saved_model, variants_from("savedmodel"), tmp_path, data=rows)
    for variant in made.variants:
        with load(variant.path) as model:
            assert [spec.name for spec in model.signature.inputs] == ["features"]
            assert {spec.name for spec in model.signature.outputs} == {"squashed", "best"}
        assert variant.parity.agreement is not None
        assert variant.parity.agreement >= (1.0 if "fp32" in variant.id else 0.8)
    # Weights of under 1024 elements are left alone by the dynamic-range converter, and the file says so.
    assert {v.id: v.precision for v in made.variants}["tflite-dynamic-int8"] == "fp32"


def test_a_layer_of_wide_range_can_stay_in_float(keras: Any, tmp_path: Path) -> None:
    mixing = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)

    class FrontEnd(keras.layers.Layer):  # type: ignore[misc, unused-ignore, name-defined]
        def call(self, audio: Any) -> Any:
            return keras.ops.log(keras.ops.square(keras.ops.matmul(audio, mixing)) * 1e6 + 1e-6)

    audio = keras.Input((32,), name="audio")
    hidden = keras.layers.Dense(64, activation="relu")(FrontEnd(name="front_end")(audio) / 10)
    model = keras.Model(audio, keras.layers.Dense(3, activation="softmax", name="answer")(hidden), name="heard")
    loudness = np.logspace(-3, 1, 64)[:, None]
    rows = {"audio": np.random.default_rng(1).normal(size=(64, 32)) * loudness}
    variants = ["tflite-int8", "onnx-int8"]
    notes: list[str] = []
    plain = convert(model, variants, tmp_path / "plain", data=rows, note=notes.append)
    kept = convert(model, variants, tmp_path / "kept", data=rows, keep_float=["*front_end*"])
    for one, other in zip(plain.variants, kept.variants, strict=True):
        assert one.parity.maximum_error is not None
        assert other.parity.maximum_error is not None
        assert other.parity.maximum_error < one.parity.maximum_error / 4
    assert any("keep them in float32" in note for note in notes)
    with pytest.raises(ConfigError, match=r"no operator fits --keep-float 'nowhere'; there are .*front_end"):
        convert(model, ["tflite-int8"], tmp_path, data=rows, keep_float=["nowhere"])


@pytest.fixture(scope="module")
def unconvertible(keras: Any) -> Any:
    """A model with an operator that neither TFLite nor ONNX has."""
    import tensorflow as tf

    class Odd(keras.layers.Layer):  # type: ignore[misc, unused-ignore, name-defined]
        def call(self, values: Any) -> Any:
            positive = tf.abs(values) + 1.0
            return tf.math.betainc(positive, positive, tf.sigmoid(values))

    given = keras.Input((4,), name="x")
    return keras.Model(given, Odd(name="odd_layer")(keras.layers.Dense(4)(given)), name="odd")


@pytest.mark.parametrize("variant", ["tflite-fp32", "onnx-fp32"])
def test_a_failure_names_operator_and_layer(unconvertible: Any, variant: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Betainc") as caught:
        convert(unconvertible, [variant], tmp_path)
    assert "odd_layer" in caught.value.message
    assert len(caught.value.message) < 500
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_int8_form_is_named(keras: Any, tmp_path: Path) -> None:
    given = keras.Input((4,), name="x")
    model = keras.Model(given, keras.ops.floor(keras.layers.Dense(4)(given)), name="steps")
    rows = {"x": np.random.default_rng(0).normal(size=(8, 4))}
    notes: list[str] = []
    convert(model, ["tflite-int8-io"], tmp_path, data=rows, note=notes.append)
    assert [note for note in notes if "FLOOR have no int8 form and stay float32" in note]


def test_a_layer_that_cannot_be_traced_is_named(keras: Any, tmp_path: Path) -> None:
    class Eager(keras.layers.Layer):  # type: ignore[misc, unused-ignore, name-defined]
        def call(self, values: Any) -> Any:
            return keras.ops.convert_to_tensor(np.asarray(values) * 2)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

        def compute_output_spec(self, values: Any) -> Any:
            return keras.KerasTensor(values.shape, values.dtype)

    given = keras.Input((4,), name="x")
    model = keras.Model(given, Eager(name="eager_layer")(given))
    with pytest.raises(ModelError, match=r"cannot be traced: .*Eager"):
        convert(model, ["tflite-fp32"], tmp_path)


def test_files_that_keras_cannot_load(keras: Any, tmp_path: Path) -> None:
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ModelError, match=r"damaged\.keras: Keras cannot load it"):
        convert(tmp_path / "damaged.keras", ["onnx-fp32"], tmp_path)

    class Private(keras.layers.Layer):  # type: ignore[misc, unused-ignore, name-defined]
        def call(self, values: Any) -> Any:
            return values

    given = keras.Input((4,))
    keras.Model(given, Private()(given)).save(tmp_path / "private.keras")
    with pytest.raises(ModelError, match="Private"):
        convert(tmp_path / "private.keras", ["onnx-fp32"], tmp_path)
    keras.Model(given, keras.layers.Lambda(lambda values: values * 2)(given)).save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="Lambda"):
        convert(tmp_path / "lambda.keras", ["onnx-fp32"], tmp_path)


def test_models_that_state_no_signature(keras: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    class Free(keras.Model):  # type: ignore[misc, unused-ignore, name-defined]
        def call(self, values: Any) -> Any:
            return values * 2

    with pytest.raises(ModelError, match=r"\(Free\) does not state its inputs"):
        convert(Free(name="free"), ["tflite-fp32"], tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    with pytest.raises(ModelError, match="has the signatures none"):
        convert(tmp_path / "bare", ["tflite-fp32"], tmp_path)


def test_data_that_does_not_fit_is_refused(network: Any, images: NDArray[np.float64], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tflite-int8, onnx-int8 of keras model 'parts' needs representative data"):
        convert(network, ["tflite-fp32", "tflite-int8", "onnx-int8"], tmp_path)
    with pytest.raises(ConfigError, match=r"has the inputs 'picture'; .* takes 'image'"):
        convert(network, ["tflite-int8"], tmp_path, data={"picture": images})
    with pytest.raises(ConfigError, match=r"has <U\d|has object for input 'image'"):
        convert(network, ["tflite-fp32"], tmp_path, data={"image": np.array(["a", "b"])})


def test_the_same_model_gives_the_same_bytes_again_in_the_same_process(keras: Any, tmp_path: Path) -> None:
    """What a process converted before must not show: tf2onnx notes the number of TensorFlow's function."""
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3, name="y")(keras.layers.Dense(4, activation="relu")(inputs)))
    model.save(tmp_path / "small.keras")
    ids = ["onnx-fp32", "onnx-fp16", "tflite-fp32"]
    first, second = (
        convert(tmp_path / "small.keras", ids, tmp_path / folder).variants for folder in ("first", "second")
    )
    assert [made.sha256 for made in first] == [made.sha256 for made in second]
    assert b"__inference" not in first[0].path.read_bytes()
