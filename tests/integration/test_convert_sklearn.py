"""scikit-learn estimators and pipelines to ONNX, and some that cannot be converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from tidegate.convert import Conversion, convert
from tidegate.convert.sklearn import _reason
from tidegate.convert.sklearn_trees import _PlainNumbers
from tidegate.errors import ConfigError, ModelError
from tidegate.runtime import load

X = np.random.default_rng(0).normal(size=(120, 4))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
WORDS = np.array(["no", "yes"])[Y]
COUNTRY = np.array(["at", "be", "ch"])[np.arange(120) % 3]

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def one(source: Any, folder: Path, data: Any = None) -> tuple[Conversion, Shapes, Shapes]:
    """Convert, and return also dtype and shape of inputs and outputs."""
    made = convert(source, ["onnx-fp32"], folder, data=data)
    with load(made.variants[0].path) as model:
        inputs = {spec.name: (spec.dtype, spec.shape) for spec in model.signature.inputs}
        return made, inputs, {spec.name: (spec.dtype, spec.shape) for spec in model.signature.outputs}


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), "INT64"),
        (GradientBoostingClassifier(n_estimators=5).fit(X, WORDS), "BYTES"),
        (HistGradientBoostingClassifier(max_iter=5).fit(X, Y), "INT64"),
        (MLPClassifier((6,), solver="lbfgs", max_iter=2000, random_state=0).fit(X, WORDS), "BYTES"),
        (GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, WORDS), "BYTES"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_classifier_gives_label_and_probabilities(model: Any, label: str, tmp_path: Path) -> None:
    made, inputs, outputs = one(model, tmp_path, {"features": X})
    assert inputs == {"features": ("FP32", (-1, 4))}
    assert outputs == {"label": (label, (-1,)), "probabilities": ("FP32", (-1, 2))}
    (variant,) = made.variants
    assert variant.parity.agreement == 1.0
    assert variant.parity.maximum_error is not None
    assert variant.parity.maximum_error < 1e-5


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (LinearSVC().fit(X, Y), {"label", "scores"}),
        (LinearRegression().fit(X, X[:, 1]), {"prediction"}),
        (RandomForestRegressor(n_estimators=3).fit(X, X[:, 1:3]), {"prediction"}),
        (make_pipeline(StandardScaler(), PCA(2)).fit(X), {"transformed"}),
        (KMeans(3, n_init=1).fit(X), {"label", "scores"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_estimators_have_telling_outputs(model: Any, outputs: set[str], tmp_path: Path) -> None:
    made, inputs, found = one(model, tmp_path)
    assert inputs == {"input": ("FP32", (-1, 4))}
    assert found.keys() == outputs
    assert made.on_generated_input
    assert made.variants[0].parity.agreement in (None, 1.0)
    assert (made.variants[0].parity.maximum_error or 0.0) < 1e-4


def test_columns_of_numbers_and_texts(tmp_path: Path) -> None:
    table = np.empty((120, 3), object)
    table[:, 0], table[:, 1], table[:, 2] = X[:, 0], X[:, 1], COUNTRY
    encode = [("numbers", StandardScaler(), [0, 1]), ("country", OneHotEncoder(handle_unknown="ignore"), [2])]
    steps = [("columns", ColumnTransformer(encode)), ("model", LogisticRegression())]
    model = Pipeline(steps).fit(table, WORDS)
    rows = {"amount": X[:, 0], "hour": X[:, 1], "country": COUNTRY}
    made, inputs, _ = one(model, tmp_path, rows)
    assert inputs == {"amount": ("FP32", (-1, 1)), "hour": ("FP32", (-1, 1)), "country": ("BYTES", (-1, 1))}
    assert made.variants[0].parity.agreement == 1.0
    with pytest.raises(ConfigError, match="names and types of its columns are not known"):
        convert(model, ["onnx-fp32"], tmp_path)


def test_a_pipeline_fitted_on_a_data_frame_takes_its_columns_by_name(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"amount": X[:, 0], "country": COUNTRY, "hour": X[:, 1]})
    encode = [("numbers", StandardScaler(), ["hour", "amount"]), ("country", OneHotEncoder(), ["country"])]
    model = Pipeline([("columns", ColumnTransformer(encode)), ("model", LogisticRegression())]).fit(frame, WORDS)
    rows = {"hour": X[:, 1], "country": COUNTRY, "amount": X[:, 0]}
    made, inputs, _ = one(model, tmp_path, rows)
    assert list(inputs) == ["amount", "country", "hour"]
    assert made.variants[0].parity.agreement == 1.0
    with pytest.raises(ConfigError, match=r"has the columns 'hour', 'land'; .* was fitted on 'amount', 'country'"):
        convert(model, ["onnx-fp32"], tmp_path, data={"hour": X[:, 1], "land": COUNTRY})


def test_a_model_of_a_matrix_may_have_one_input_for_each_column(tmp_path: Path) -> None:
    rows = {name: X[:, position] for position, name in enumerate("abcd")}
    made, inputs, _ = one(LogisticRegression().fit(X, Y), tmp_path, rows)
    assert inputs == dict.fromkeys("abcd", ("FP32", (-1, 1)))
    assert made.variants[0].parity.agreement == 1.0


TEXTS = np.array(["Buy cheap pills now", "hello Müller, my friend", "CHEAP ÄPFEL a b now", "lunch über there at 1"] * 5)
KINDS = np.array(["spam", "ham", "spam", "ham"] * 5)


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_gradient_boosting_sends_rows_without_a_value_where_scikit_learn_does(kind: Any, tmp_path: Path) -> None:
    holes = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
    made, _, _ = one(kind(max_iter=5).fit(holes, Y), tmp_path, {"features": holes})
    assert made.variants[0].parity.maximum_error == pytest.approx(0.0, abs=1e-5)


def test_truth_values_become_numbers_before_onnx_sees_them(tmp_path: Path) -> None:
    """protobuf 7 takes no truth value for a whole number; what skl2onnx's converter hands on has none."""
    seen: list[Any] = []

    class Container:
        def add_node(self, op_type: str, inputs: Any, outputs: Any, **attributes: Any) -> None:
            seen.append((op_type, attributes))

    _PlainNumbers(Container()).add_node("Tree", "x", "y", tracks=[np.True_, False, 2, "a"], depth=3, strict=True)
    ((op_type, attributes),) = seen
    assert op_type == "Tree"
    assert [(value, type(value)) for value in attributes["tracks"]] == [(1, int), (0, int), (2, int), ("a", str)]
    assert attributes["depth"] == 3


def test_a_failure_tells_the_first_cause_and_no_dump() -> None:
    """skl2onnx wraps what went wrong in a message with every number of the model."""
    first = TypeError("expected an int, got a boolean")
    dump = ValueError(f"Unable to create node with attributes={list(range(10_000))}")
    dump.__cause__ = first
    assert _reason(dump) == str(first)


@pytest.mark.parametrize("settings", [{}, {"ngram_range": (1, 2)}, {"lowercase": False}, {"stop_words": "english"}])
def test_text_goes_in_as_bytes_and_words_beyond_ascii_are_whole(settings: dict[str, Any], tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(**settings), LogisticRegression()).fit(TEXTS, KINDS)
    joblib.dump(model, tmp_path / "spam.joblib")
    asked = np.array([*TEXTS[:4], "äpfel MÜLLER x now", "nothing known", ""])
    made, inputs, outputs = one(tmp_path / "spam.joblib", tmp_path, {"message": asked})
    assert inputs == {"message": ("BYTES", (-1,))}
    assert outputs["label"] == ("BYTES", (-1,))
    assert made.variants[0].parity.agreement == 1.0
    assert made.variants[0].parity.maximum_error is not None
    assert made.variants[0].parity.maximum_error < 1e-6


def test_without_data_a_text_pipeline_has_the_input_text(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, KINDS)
    _, inputs, _ = one(model, tmp_path)
    assert inputs == {"text": ("BYTES", (-1,))}


class Doubling(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    def fit(self, x: NDArray[Any], y: Any = None) -> Doubling:
        self.fitted_ = True
        return self

    def transform(self, x: NDArray[Any]) -> NDArray[Any]:
        return x * 2


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ([("scale", StandardScaler()), ("twice", Doubling())], r"step 'twice' \(Doubling\)"),
        ([("log", FunctionTransformer(np.log1p))], r"step 'log' \(FunctionTransformer\)"),
    ],
)
def test_a_step_without_converter_is_named(steps: list[Any], named: str, tmp_path: Path) -> None:
    model = Pipeline([*steps, ("model", LogisticRegression())]).fit(np.abs(X), Y)
    with pytest.raises(ModelError, match=named):
        convert(model, ["onnx-fp32"], tmp_path, data={"x": np.abs(X)})


def test_characters_instead_of_words_are_refused_by_step(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(analyzer="char_wb"), LogisticRegression()).fit(TEXTS, KINDS)
    with pytest.raises(ModelError, match=r"step 'tfidfvectorizer' \(TfidfVectorizer\)"):
        convert(model, ["onnx-fp32"], tmp_path)


def test_what_is_no_fitted_estimator(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not fitted"):
        convert(LogisticRegression(), ["onnx-fp32"], tmp_path)
    joblib.dump({"a": 1}, tmp_path / "dictionary.joblib")
    with pytest.raises(ModelError, match="holds a dict"):
        convert(tmp_path / "dictionary.joblib", ["onnx-fp32"], tmp_path)
    (tmp_path / "damaged.pkl").write_bytes(b"no pickle")
    with pytest.raises(ModelError, match="cannot be unpickled"):
        convert(tmp_path / "damaged.pkl", ["onnx-fp32"], tmp_path)
    with pytest.raises(ConfigError, match=r"a sklearn source gives no variant 'tflite-fp32'; it gives onnx-fp32"):
        convert(LogisticRegression().fit(X, Y), ["tflite-fp32"], tmp_path)
