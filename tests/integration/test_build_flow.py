"""The whole build as a user types it: source, conversion, parity, criteria, reference profile, bundle. Real models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.evaluated import linear_model, save
from tests.models import make_dense_onnx, tflite
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Bundle, GoldenFixture, Manifest, digest
from tidegate.cli.main import main
from tidegate.convert import convert, measuring
from tidegate.convert.build import build
from tidegate.convert.measuring import PLAN, measured_here, this_machine, variants_to_measure
from tidegate.convert.spec import read_spec
from tidegate.errors import BundleError, InputError, ModelError
from tidegate.evaluate import CRITERIA_ASSET, parse_criteria
from tidegate.profile import decode as decode_profile
from tidegate.release.content import read_content
from tidegate.testing.backend_contract import BIAS, WEIGHTS

Run = Callable[..., tuple[int, str, str]]

EXACT = np.eye(3) * 4
ROUGH = EXACT + np.array([[0, 3.0, 0], [0, 0, 0], [0, 0, 0]])
"""Answers class 0 with less certainty, and class 1 and 2 exactly as EXACT does."""

HEAD = """
[bundle]
name = "words"
version = "1.0.0"
labels = ["stop", "go", "left"]
"""
VARIANTS = """
[[variant]]
id = "onnx-fp32"
file = "exact.onnx"
[[variant]]
id = "onnx-small"
file = "rough.onnx"
precision = "int8"
"""
ONE = '[[variant]]\nid = "onnx-fp32"\nfile = "exact.onnx"\n'
GOLDEN = '[golden]\nfile = "golden.npz"\n'
EVALUATION = '[evaluation]\ndata = "eval.npz"\n'
PLAIN = "[profile]\nmake = false\n"
"""Calibrating a profile takes long."""
JUDGED = EVALUATION + 'criteria = "criteria.toml"\n'
PASSES = '[[criterion]]\nname = "good"\nmetric = "accuracy"\nat_least = 0.85\n'
FAILS = '[[criterion]]\nname = "better"\nmetric = "accuracy"\nat_least = 0.97\n'
WAITS = '[[criterion]]\nname = "close"\nmetric = "accuracy"\nat_least = 0.905\n'


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one command line: exit code, standard output, standard error."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two linear models, 300 labelled rows of which each tenth is wrong on purpose, and a golden fixture on which both
    models agree: it shows nothing but class 1."""
    monkeypatch.chdir(tmp_path)
    linear_model(tmp_path, "exact", EXACT)
    linear_model(tmp_path, "rough", ROUGH)
    (tmp_path / "golden.npz").write_bytes(
        GoldenFixture(inputs={"x": np.array([[0, 1, 0]], np.float32)}).to_npz(),
    )
    truth = np.arange(300) % 3
    shown = np.where(np.arange(300) % 10 == 0, (truth + 1) % 3, truth)
    noise = np.random.default_rng(0).normal(0, 0.05, (300, 3)).astype(np.float32)
    save(
        tmp_path / "eval.npz",
        input__x=np.eye(3, dtype=np.float32)[shown] + noise,
        label=np.array(["stop", "go", "left"])[truth],
    )
    return tmp_path


def write(folder: Path, *parts: str, criteria: str = "") -> Path:
    (folder / "SPEC.toml").write_text("\n".join(parts))
    (folder / "criteria.toml").write_text(criteria)
    return folder / "SPEC.toml"


def read(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    with Bundle.open(path) as bundle:
        bundle.verify_files()
        return bundle.manifest, {file.path: bundle.read(file.path) for file in bundle.files}


def nothing_written(folder: Path, before: set[str]) -> bool:
    return {path.name for path in folder.iterdir()} == before


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- what a release that passes carries --------------------------------------------------------------------------------


def test_measured_figures_criteria_and_profile_are_in_the_bundle(tidegate: Run, folder: Path) -> None:
    tolerant = "evaluation_tolerance = 0.9\nminimum_agreement = 0.9"
    spec = write(folder, HEAD, VARIANTS + tolerant, GOLDEN, JUDGED, criteria=PASSES)
    code, out, err = tidegate("build", spec, "-o", "words.tide")
    assert code == 0, err
    assert "PASS     good" in out
    manifest, files = read(folder / "words.tide")
    exact, rough = manifest.variants
    assert not manifest.failing
    assert exact.metrics["accuracy"] == pytest.approx(0.9)
    assert exact.parity is None
    assert rough.parity is not None
    assert (rough.parity.reference, rough.parity.rows) == ("onnx-fp32", 300)
    assert rough.parity.agreement is not None
    assert rough.parity.agreement >= 0.9
    assert 0.1 < (rough.parity.maximum_error or 0) < 0.9
    assert 0 < (rough.parity.mean_error or 0) < (rough.parity.maximum_error or 0)
    assert [(one.name, one.verdict, one.variant) for one in manifest.criteria] == [("good", "pass", "onnx-fp32")]
    assert manifest.evaluation is not None
    assert manifest.evaluation.sha256 == digest((folder / "eval.npz").read_bytes())
    carried = files[manifest.assets[CRITERIA_ASSET].file]
    assert carried == PASSES.encode()
    assert parse_criteria(carried, origin="asset").criterion[0].name == "good"
    assert manifest.reference_profile is not None
    profile = decode_profile(files[manifest.reference_profile.file])
    assert (profile.rows, profile.data_sha256) == (300, manifest.evaluation.sha256)
    assert {rule.tensor for rule in profile.tensors} == {"input/x", "output/y"}
    assert tidegate("verify", "words.tide")[0] == 0
    with read_content(folder / "words.tide") as content:
        assert content.release.version == "1.0.0"


def test_inspect_shows_what_was_measured(tidegate: Run, folder: Path) -> None:
    spec = write(folder, HEAD, VARIANTS + "evaluation_tolerance = 0.9", GOLDEN, JUDGED, criteria=PASSES)
    assert tidegate("build", spec, "-o", "words.tide")[0] == 0
    _, out, _ = tidegate("inspect", "words.tide")
    assert "metrics and parity, on 300 rows" in out
    assert "acceptance criteria\nverdict  criterion" in out
    assert "reference profile: " in out
    assert "input/x" in out
    assert "failing" not in out
    shown = json.loads(tidegate("inspect", "words.tide", "--json")[1])
    assert shown["criteria"][0]["verdict"] == "pass"


def test_json_says_the_same(tidegate: Run, folder: Path) -> None:
    spec = write(folder, HEAD, VARIANTS + "evaluation_tolerance = 0.9", GOLDEN, JUDGED, criteria=PASSES)
    code, out, _ = tidegate("build", spec, "-o", "words.tide", "--json")
    report = json.loads(out)
    assert (code, report["verdict"], report["failing"], report["problems"]) == (0, "pass", False, [])
    assert report["variants"][1]["parity"]["reference"] == "onnx-fp32"
    assert report["variants"][0]["metrics"]["accuracy"] == pytest.approx(0.9)


def test_the_reference_can_be_another_than_the_first(tidegate: Run, folder: Path) -> None:
    head = HEAD + 'reference = "onnx-small"'
    spec = write(folder, head, VARIANTS, GOLDEN, PLAIN, EVALUATION + "tolerance = 0.9")
    assert tidegate("build", spec, "-o", "words.tide")[0] == 0
    exact, rough = read(folder / "words.tide")[0].variants
    assert exact.parity is not None
    assert exact.parity.reference == "onnx-small"
    assert rough.parity is None


def test_a_baseline_and_a_bench_report_reach_the_criteria(tidegate: Run, folder: Path) -> None:
    asked = (
        '[[criterion]]\nname = "no loss"\nmetric = "accuracy"\nnot_worse_than = "baseline"\n'
        '[[criterion]]\nname = "quick"\nmetric = "latency_p95_ms"\nat_most = 60000.0\n'
    )
    released = write(folder, HEAD.replace("1.0.0", "0.9.0"), ONE)
    assert tidegate("build", released, "-o", "released.tide")[0] == 0
    draft = write(folder, HEAD, PLAIN, ONE)
    assert tidegate("build", draft, "-o", "draft.tide")[0] == 0
    assert tidegate("bench", "draft.tide", "--min-duration-s", "0.05", "--warm-up-s", "0.01", "-o", "b.json")[0] == 0
    calls = len(json.loads((folder / "b.json").read_text())["results"][0]["samples_ns"])
    table = JUDGED + 'baseline = "released.tide"\nbench = "b.json"\n'
    assert tidegate("build", write(folder, HEAD, PLAIN, ONE, table, criteria=asked), "-o", "new.tide")[0] == 0
    manifest, _ = read(folder / "new.tide")
    assert {one.name: one.verdict for one in manifest.criteria} == {"no loss": "pass", "quick": "pass"}
    assert manifest.criteria[1].samples == calls


LATENCY = '[[criterion]]\nname = "quick"\nmetric = "latency_p95_ms"\nat_most = {}\nvariant = "{}"\n'
MEMORY = '[[criterion]]\nname = "lean"\nmetric = "rss_mb"\nat_most = {}\n'


def test_a_build_measures_what_its_criteria_ask_for(tidegate: Run, folder: Path) -> None:
    asked = LATENCY.format("60000.0", "each") + MEMORY.format("60000")
    spec = write(folder, HEAD, PLAIN, VARIANTS, GOLDEN, JUDGED + "tolerance = 10.0\n", criteria=asked)
    code, out, _ = tidegate("build", spec, "-o", "words.tide")
    assert code == 0
    assert "quick (onnx-small): the bound is kept; " in out
    assert f"lean (onnx-fp32): the bound is kept; peak of one process on {this_machine()}" in out
    quick, small, lean = read(folder / "words.tide")[0].criteria
    assert [(one.name, one.variant, one.verdict) for one in (quick, small, lean)] == [
        ("quick", "onnx-fp32", "pass"),
        ("quick", "onnx-small", "pass"),
        ("lean", "onnx-fp32", "pass"),
    ]
    for one in (quick, small):
        assert one.samples >= PLAN.minimum_calls
        assert one.estimate is not None
        assert 0 < one.estimate < 60_000
        assert f"{one.samples} calls on {this_machine()}, onnxruntime " in one.reason
    assert f"peak of one process on {this_machine()}" in lean.reason
    assert lean.estimate is not None
    assert 10 < lean.estimate < 60_000


def test_a_build_that_is_too_slow_is_refused(tidegate: Run, folder: Path) -> None:
    spec = write(folder, HEAD, PLAIN, ONE, JUDGED, criteria=LATENCY.format("1e-6", "onnx-fp32") + MEMORY.format("0.5"))
    code, out, err = tidegate("build", spec, "-o", "words.tide")
    assert (code, (folder / "words.tide").exists()) == (1, False)
    assert "criterion 'quick' on onnx-fp32 (all, at most 1e-06)" in err
    assert "criterion 'lean' on onnx-fp32 (all, at most 0.5)" in err
    assert this_machine() in err
    assert out.count("FAIL") == 2


def test_only_what_is_asked_for_is_measured(tidegate: Run, folder: Path) -> None:
    assert tidegate("build", write(folder, HEAD, PLAIN, VARIANTS, GOLDEN), "-o", "words.tide")[0] == 0
    manifest, _ = read(folder / "words.tide")

    def wanted(*asked: str) -> tuple[str, ...]:
        return variants_to_measure(parse_criteria("".join(asked).encode(), origin="c"), manifest)

    assert variants_to_measure(None, manifest) == ()
    assert wanted(PASSES, '[[criterion]]\nmetric = "size_bytes"\nat_most = 5\nvariant = "each"\n') == ()
    assert wanted(MEMORY.format(1)) == ("onnx-fp32",)
    assert wanted(LATENCY.format("1.0", "onnx-small")) == ("onnx-small",)
    assert wanted(LATENCY.format("1.0", "each"), MEMORY.format(1)) == ("onnx-fp32", "onnx-small")


def test_a_variant_that_cannot_be_measured_is_named(
    tidegate: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    with pytest.raises(ModelError, match=r"variant 'v' could not be measured: no bundle at .*none\.tide"):
        measured_here(folder / "none.tide", ["v"], lambda *step: told.append(step))
    assert told == [("measuring", 0, 1)]
    dying = "import os, signal, sys; sys.stderr.write('no room'); sys.stderr.flush(); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(measuring, "_COMMAND", (sys.executable, "-c", dying))
    with pytest.raises(ModelError, match=r"variant 'v' .* ended with SIGKILL; its last words: no room"):
        measured_here(folder / "none.tide", ["v"], lambda *step: None)


def test_random_input_that_a_model_refuses_asks_for_real_input(tidegate: Run, folder: Path) -> None:
    """A model of categories knows no random word."""
    table = np.array([["at"], ["be"], ["ch"]] * 40, object)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, np.arange(120) % 2)
    convert(model, ["onnx-fp32"], folder, data={"country": table.astype(np.str_)}, name="trees")
    words = ("build", "--model", "trees-onnx-fp32.onnx", "--name", "trees", "--version", "1.0.0", "-o", "t.tide")
    code, _, err = tidegate(*words)
    assert (code, (folder / "t.tide").exists()) == (1, False)
    assert "does not take the random input of a generated fixture: variant " in err
    assert '[golden] file = "golden.npz"' in err
    save(folder / "rows.npz", input__country=table[:4].astype("S"))
    spec = write(folder, HEAD.replace("labels", "# labels"), '[[variant]]\nid = "v"\nfile = "trees-onnx-fp32.onnx"\n',
                 '[golden]\nfile = "rows.npz"\n')  # fmt: skip
    assert tidegate("build", spec, "-o", "t.tide")[0] == 0


def test_few_rows_make_no_profile_and_the_author_is_told(tidegate: Run, folder: Path) -> None:
    save(folder / "eval.npz", input__x=np.eye(3, dtype=np.float32), label=np.arange(3))
    code, _, err = tidegate("build", write(folder, HEAD, ONE, EVALUATION), "-o", "words.tide")
    assert code == 0
    assert "note: no reference profile: the evaluation data has 3 rows, and 50 are needed" in err
    assert read(folder / "words.tide")[0].reference_profile is None


def test_a_profile_can_be_left_out(tidegate: Run, folder: Path) -> None:
    code, _, err = tidegate("build", write(folder, HEAD, ONE, EVALUATION, "[profile]\nmake = false"), "-o", "w.tide")
    assert (code, err) == (0, "")
    assert read(folder / "w.tide")[0].reference_profile is None


def test_a_speech_model_is_judged_by_what_it_hears(
    tidegate: Run, folder: Path, tone_release: tuple[Manifest, dict[str, bytes]], say: Any
) -> None:
    manifest, files = tone_release
    for name in ("tones-a.onnx", "tones-b.onnx"):
        (folder / name).write_bytes(files["variants/tones.onnx"])
    recordings = np.stack([say([("yes", 1.0)], 2.5), say([("up", 1.0)], 2.5), say([], 2.5)])
    save(folder / "eval.npz", input__audio=recordings, text=np.array(["yes", "up", ""]))
    labels = json.dumps(manifest.labels)
    spec = write(
        folder,
        f'[bundle]\nname = "tones"\nversion = "1.0.0"\nlabels = {labels}',
        '[[variant]]\nid = "a"\nfile = "tones-a.onnx"\n[[variant]]\nid = "b"\nfile = "tones-b.onnx"',
        '[front_end]\nkind = "audio"\nsample_rate_hz = 16000\ninside_graph = true\n[decoder]\nkind = "keywords"',
        JUDGED + "minimum_agreement = 1.0",
        criteria='[[criterion]]\nname = "heard"\nmetric = "word_error_rate"\nat_most = 0.99\nminimum_samples = 3\n',
    )
    code, _, err = tidegate("build", spec, "-o", "tones.tide", "--allow-failing")
    assert code == 0, err
    built, _ = read(folder / "tones.tide")
    assert [variant.metrics["word_error_rate"] for variant in built.variants] == [0.0, 0.0]
    parity = built.variants[1].parity
    assert parity is not None
    assert (parity.agreement, parity.maximum_error) == (1.0, None)


# -- from a trained model ----------------------------------------------------------------------------------------------


def test_a_scikit_learn_model_becomes_a_bundle_in_one_step(tidegate: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    model = LogisticRegression().fit(x, y)
    joblib.dump(model, tmp_path / "model.joblib")
    save(tmp_path / "eval.npz", input__features=x, label=y, score_output=np.array("probabilities"))
    spec = write(
        tmp_path,
        '[bundle]\nname = "sums"\nversion = "2.0.0"',
        '[source]\nfile = "model.joblib"\ndata = "eval.npz"',
        '[[variant]]\nid = "onnx-fp32"',
        JUDGED,
        '[provenance]\nsource_commit = "0f3c2a1"',
        criteria='[[criterion]]\nmetric = "accuracy"\nat_least = 0.9\n',
    )
    before = names(tmp_path)
    code, out, err = tidegate("build", spec, "-o", tmp_path / "sums.tide")
    assert code == 0, err
    assert names(tmp_path) == before | {"sums.tide"}
    manifest, _ = read(tmp_path / "sums.tide")
    assert manifest.variants[0].metrics["accuracy"] == pytest.approx(model.score(x, y))
    assert manifest.variants[0].precision == "fp32"
    assert manifest.provenance["source_file"] == "model.joblib"
    assert manifest.provenance["source_sha256"] == digest((tmp_path / "model.joblib").read_bytes())
    assert manifest.provenance["source_commit"] == "0f3c2a1"
    assert manifest.provenance["converted_with"].startswith("scikit-learn ")
    assert str(tmp_path).encode() not in (tmp_path / "sums.tide").read_bytes()
    assert "PASS" in out


def test_a_specification_elsewhere_is_built_from_here(
    tidegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both paths relative, and the specification in a folder of its own: its files start there, the bundle here."""
    folder = tmp_path / "models"
    folder.mkdir()
    make_dense_onnx(folder / "dense.onnx", "rows")
    write(folder, HEAD.replace("labels", "# labels"), '[source]\nfile = "dense.onnx"', '[[variant]]\nid = "onnx-fp16"')
    monkeypatch.chdir(tmp_path)
    code, _, err = tidegate("build", "models/SPEC.toml", "-o", "models/dense.tide")
    assert (code, err) == (0, "")
    assert read(folder / "dense.tide")[0].variants[0].precision == "fp16"


def test_converted_variants_and_ready_files_mix(tidegate: Run, tmp_path: Path) -> None:
    make_dense_onnx(tmp_path / "dense.onnx", "rows")
    x = np.random.default_rng(0).uniform(-1, 1, (120, 64)).astype(np.float32)
    save(tmp_path / "eval.npz", input__x=x, label=(x @ WEIGHTS + BIAS).argmax(axis=1))
    shutil.copyfile(tflite("batch"), tmp_path / "batch.tflite")
    spec = write(
        tmp_path,
        '[bundle]\nname = "dense"\nversion = "1.0.0"\nreference = "onnx-fp32"',
        '[source]\nfile = "dense.onnx"\ndata = "eval.npz"',
        '[[variant]]\nid = "tflite-fp32"\nfile = "batch.tflite"',
        '[[variant]]\nid = "onnx-int8"\ntolerance = 0.5\nminimum_agreement = 0.8',
        '[[variant]]\nid = "onnx-fp32"',
        EVALUATION,
        PLAIN,
    )
    code, _, err = tidegate("build", spec, "-o", tmp_path / "dense.tide")
    assert code == 0, err
    manifest, _ = read(tmp_path / "dense.tide")
    assert [(one.id, one.backend, one.precision) for one in manifest.variants] == [
        ("tflite-fp32", "litert", "fp32"), ("onnx-int8", "onnx", "int8"), ("onnx-fp32", "onnx", "fp32"),
    ]  # fmt: skip
    parity = {one.id: one.parity for one in manifest.variants}
    assert parity["onnx-fp32"] is None
    assert parity["tflite-fp32"] is not None
    assert parity["tflite-fp32"].agreement == 1.0
    assert (parity["tflite-fp32"].maximum_error or 0) < 1e-4
    assert parity["onnx-int8"] is not None
    assert 1e-4 < (parity["onnx-int8"].maximum_error or 0) <= 0.5


def test_a_converted_variant_is_held_against_its_source_even_without_labels(tidegate: Run, tmp_path: Path) -> None:
    make_dense_onnx(tmp_path / "dense.onnx", "rows")
    x = np.random.default_rng(0).uniform(-1, 1, (120, 64)).astype(np.float32)
    save(tmp_path / "rows.npz", input__x=x)
    (tmp_path / "golden.npz").write_bytes(GoldenFixture(inputs={"x": x[:1]}).to_npz())
    spec = write(
        tmp_path,
        '[bundle]\nname = "dense"\nversion = "1.0.0"',
        '[source]\nfile = "dense.onnx"\ndata = "rows.npz"',
        '[[variant]]\nid = "onnx-int8"\nevaluation_tolerance = 1e-4',
        GOLDEN,
    )
    before = names(tmp_path)
    code, _, err = tidegate("build", spec, "-o", tmp_path / "dense.tide")
    assert code == 1
    assert "variant 'onnx-int8' is off by 0." in err
    assert "from its source (120 rows); its tolerance is 0.0001" in err
    assert nothing_written(tmp_path, before)
    assert tidegate("build", spec, "-o", tmp_path / "dense.tide", "--allow-failing")[0] == 0
    assert read(tmp_path / "dense.tide")[0].failing


def test_a_keras_model_becomes_a_bundle_in_one_step(tidegate: Run, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(3)
    x: NDArray[np.float32] = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    image = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(16, activation="relu")(image)
    network = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="y")(hidden), name="toy")
    network.save(tmp_path / "toy.keras")
    save(tmp_path / "eval.npz", input__x=x, label=network.predict(x, verbose=0).argmax(axis=1))
    spec = write(
        tmp_path,
        '[bundle]\nname = "toy"\nversion = "1.0.0"\nlabels = ["a", "b", "c"]\nreference = "tflite-fp32"',
        '[source]\nfile = "toy.keras"\ndata = "eval.npz"',
        '[[variant]]\nid = "tflite-int8"\ntolerance = 0.2',
        '[[variant]]\nid = "tflite-fp32"\n[[variant]]\nid = "onnx-fp32"',
        JUDGED,
        PLAIN,
        criteria='[[criterion]]\nmetric = "accuracy"\nat_least = 0.9\nvariant = "onnx-fp32"\n',
    )
    code, _, err = tidegate("build", spec, "-o", tmp_path / "toy.tide")
    assert code == 0, err
    manifest, _ = read(tmp_path / "toy.tide")
    assert manifest.variants[1].metrics["accuracy"] == manifest.variants[2].metrics["accuracy"] == 1.0
    assert manifest.variants[2].parity is not None
    assert manifest.variants[2].parity.agreement == 1.0
    assert "tensorflow " in manifest.provenance["converted_with"]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "table", "message"),
    [
        ("", "", "variant 'onnx-small' is off by 0."),
        ("", "", "from 'onnx-fp32' on the evaluation data (300 rows); its tolerance is 0.001, and "),
        ("tolerance = 0.01", "", "its tolerance is 0.01,"),
        ("tolerance = 0.01", "tolerance = 0.02", "its tolerance is 0.02,"),
        ("evaluation_tolerance = 0.03", "tolerance = 0.9", "its tolerance is 0.03,"),
        (
            "evaluation_tolerance = 0.9\nminimum_agreement = 1.0",
            "",
            "% of 300 rows; at least 100.00% is demanded, so ",
        ),
        ("", "tolerance = 0.9\nminimum_agreement = 1.0", "variant 'onnx-small' decides like 'onnx-fp32'"),
    ],
)
def test_a_variant_that_is_not_near_enough(tidegate: Run, folder: Path, variant: str, table: str, message: str) -> None:
    linear_model(folder, "rough", EXACT + np.array([[0, 4.2, 0], [0, 0, 0], [0, 0, 0]]))
    spec = write(folder, HEAD, VARIANTS + variant, GOLDEN, EVALUATION + table)
    before = names(folder)
    code, out, err = tidegate("build", spec, "-o", "words.tide")
    assert code == 1
    assert message in err
    assert "onnx-small" in out
    assert nothing_written(folder, before)
    with pytest.raises(BundleError, match="onnx-small"):
        build(read_spec(spec), folder / "words.tide")
    assert nothing_written(folder, before)


@pytest.mark.parametrize(("criteria", "code", "message"), [(FAILS, 1, "fails"), (WAITS, 3, "not enough data to say")])
def test_a_release_that_does_not_pass_is_not_written(
    tidegate: Run, folder: Path, criteria: str, code: int, message: str
) -> None:
    (folder / "words.tide").write_bytes(b"the release before")
    spec = write(folder, HEAD, ONE, PLAIN, JUDGED, criteria=criteria)
    before = names(folder)
    found, out, err = tidegate("build", spec, "-o", "words.tide")
    assert found == code
    assert "not written" in out
    assert message in err
    assert "--allow-failing" in err
    assert nothing_written(folder, before)
    assert (folder / "words.tide").read_bytes() == b"the release before"
    report = json.loads(tidegate("build", spec, "-o", "words.tide", "--json")[1])
    assert (report["path"], report["verdict"]) == (None, {1: "fail", 3: "wait"}[code])
    with pytest.raises(BundleError, match=message):
        build(read_spec(spec), folder / "words.tide")
    assert (folder / "words.tide").read_bytes() == b"the release before"


@pytest.mark.parametrize(("criteria", "verdict"), [(FAILS, "fail"), (WAITS, "wait")])
def test_allow_failing_marks_the_manifest_and_no_channel_takes_it(
    tidegate: Run, folder: Path, criteria: str, verdict: str
) -> None:
    spec = write(folder, HEAD, ONE, PLAIN, JUDGED, criteria=criteria)
    code, out, err = tidegate("build", spec, "-o", "words.tide", "--allow-failing")
    assert code == 0
    assert "FAILING" in out
    assert "criterion" in err
    manifest, _ = read(folder / "words.tide")
    assert manifest.failing
    assert [one.verdict for one in manifest.criteria] == [verdict]
    assert "failing" in tidegate("inspect", "words.tide")[1]
    with pytest.raises(BundleError, match="marked as failing"), read_content(folder / "words.tide"):
        pass


def test_allow_failing_marks_a_variant_that_is_not_near_enough(tidegate: Run, folder: Path) -> None:
    spec = write(folder, HEAD, VARIANTS, GOLDEN, PLAIN, JUDGED, criteria=PASSES)
    assert tidegate("build", spec, "-o", "words.tide", "--allow-failing")[0] == 0
    manifest, _ = read(folder / "words.tide")
    assert manifest.failing
    assert manifest.criteria[0].verdict == "pass"


def test_allow_failing_marks_nothing_that_passes(tidegate: Run, folder: Path) -> None:
    spec = write(folder, HEAD, ONE, PLAIN, JUDGED, criteria=PASSES)
    assert tidegate("build", spec, "-o", "strict.tide")[0] == 0
    assert tidegate("build", spec, "-o", "lenient.tide", "--allow-failing")[0] == 0
    assert (folder / "strict.tide").read_bytes() == (folder / "lenient.tide").read_bytes()


def test_allow_failing_does_not_cover_the_golden_fixture(tidegate: Run, folder: Path) -> None:
    before = names(folder) | {"SPEC.toml", "criteria.toml"}
    code, _, err = tidegate("build", write(folder, HEAD, VARIANTS), "-o", "words.tide", "--allow-failing")
    assert code == 1
    assert "variant 'onnx-small' fails the golden fixture" in err
    assert nothing_written(folder, before)


@pytest.mark.parametrize(
    ("parts", "criteria", "code", "message"),
    [
        (['[[variant]]\nid = "onnx-fp32"'], "", 2, "variant 'onnx-fp32' has no file, and there is no [source]"),
        ([ONE, '[source]\nfile = "exact.onnx"'], "", 2, "nothing is made from [source] 'exact.onnx'"),
        (['[[variant]]\nid = "tflite-fp32"', '[source]\nfile = "exact.onnx"'], "", 2, "a onnx source gives no variant"),
        (['[[variant]]\nid = "onnx-int8"', '[source]\nfile = "exact.onnx"'], "", 2, "needs representative data"),
        (['[[variant]]\nid = "onnx-fp32"', '[source]\nfile = "no.onnx"'], "", 1, "no.onnx"),
        (['reference = "nobody"', ONE], "", 2, "[bundle] reference is 'nobody'; the variants are onnx-fp32"),
        ([ONE + "minimum_agreement = 0.9"], "", 2, "there is no [evaluation] to measure it on"),
        ([ONE + "minimum_agreement = 99", EVALUATION], "", 2, "minimum_agreement is 99"),
        ([ONE + "evaluation_tolerance = -1", EVALUATION], "", 2, "evaluation_tolerance is -1"),
        ([ONE, '[evaluation]\ndata = "no.npz"'], "", 1, "evaluation data: no file at"),
        ([ONE, '[evaluation]\ndata = "exact.onnx"'], "", 1, "exact.onnx"),
        ([ONE, "[evaluation]"], "", 2, "missing required field `data`"),
        ([ONE, EVALUATION + 'criterium = "c.toml"'], "", 2, "did you mean 'evaluation.criteria'?"),
        ([ONE, JUDGED], '[[criterion]]\nmetric = "acuracy"\nat_least = 0.9', 2, "did you mean 'accuracy'?"),
        ([ONE, JUDGED], PASSES + 'slice = "room"\n', 2, "no slice 'room'"),
        ([ONE, JUDGED + 'baseline = "no.tide"'], PASSES, 1, "no.tide"),
        ([ONE, JUDGED + 'bench = "no.json"'], PASSES, 1, "bench report: no file at"),
        ([ONE, JUDGED, '[assets]\ncriteria = "exact.onnx"'], PASSES, 2, "[assets] has 'criteria'"),
        ([ONE, EVALUATION, "[profile]\nfalse_alarm_rate = 0.9"], "", 2, "false_alarm_rate is 0.9"),
        ([ONE, EVALUATION, '[profile.kinds]\nx = "sound"'], "", 2, "sound"),
    ],
)
def test_what_cannot_be_meant_is_said_and_nothing_is_written(
    tidegate: Run, folder: Path, parts: list[str], criteria: str, code: int, message: str
) -> None:
    spec = write(folder, HEAD, *parts, criteria=criteria)
    before = names(folder)
    found, out, err = tidegate("build", spec, "-o", "words.tide")
    assert (found, out) == (code, "")
    assert message in err
    assert nothing_written(folder, before)


def test_a_typing_error_in_the_criteria_is_found_before_the_conversion(folder: Path) -> None:
    (folder / "model.joblib").write_bytes(b"no model at all: reading it would be another error")
    variant, source = '[[variant]]\nid = "onnx-fp32"', '[source]\nfile = "model.joblib"'
    save(folder / "eval.npz", input__x=np.zeros((3, 3), np.float32), lable=np.arange(3))
    with pytest.raises(InputError, match="label"):
        build(read_spec(write(folder, HEAD, variant, source, EVALUATION)), folder / "words.tide")


def test_a_minimum_agreement_of_numbers_cannot_be_meant(tidegate: Run, folder: Path) -> None:
    linear_model(folder, "exact", EXACT, softmax=False)
    linear_model(folder, "rough", ROUGH, softmax=False)
    save(folder / "eval.npz", input__x=np.eye(3, dtype=np.float32), target=np.eye(3) * 4)
    head = HEAD.replace('labels = ["stop", "go", "left"]', "")
    spec = write(folder, head, VARIANTS + "minimum_agreement = 0.9", GOLDEN, EVALUATION)
    code, _, err = tidegate("build", spec, "-o", "words.tide")
    assert code == 2
    assert "the model decides nothing" in err


# -- the same bytes ----------------------------------------------------------------------------------------------------


def test_two_builds_of_ready_files_give_the_same_bytes(tidegate: Run, folder: Path) -> None:
    write(folder, HEAD, VARIANTS + "evaluation_tolerance = 0.9", GOLDEN, JUDGED, criteria=PASSES + WAITS)
    built: list[bytes] = []
    for place, variables in (
        ("first", {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"}),
        ("second/deeper", {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}),
    ):
        where = folder / place
        shutil.copytree(folder, where, ignore=shutil.ignore_patterns("first", "second"))
        for path in where.iterdir():
            os.utime(path, (len(built) + 1, len(built) + 1))
        subprocess.run(
            [sys.executable, "-m", "tidegate.cli", "build", "SPEC.toml", "-o", "out.tide", "--allow-failing"],
            check=True,
            capture_output=True,
            cwd=where,
            env=os.environ | variables,
            timeout=COMMAND_TIMEOUT_S,
        )
        built.append((where / "out.tide").read_bytes())
    assert built[0] == built[1]
