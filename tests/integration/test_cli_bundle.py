"""`tidegate build`, `inspect`, `verify` and `run` as a user types them, on real models and both runtimes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.models import make_contract_onnx, make_dense_onnx, make_onnx, tflite
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Bundle, digest, write_bundle
from tidegate.bundle.arrays import pack_arrays, unpack_arrays
from tidegate.cli.main import main
from tidegate.convert.mirroring import read
from tidegate.convert.mirrors.facts import facts_of
from tidegate.convert.mirrors.tflite_file import original
from tidegate.testing.backend_contract import BIAS, WEIGHTS

BUILD_DENSE: list[str | Path] = ["build", "--model", "dense.onnx", "--model", tflite("dense"), "--name", "dense"]
BUILD_DENSE += ["--version", "1.0.0", "-o"]


class Typed:
    """One command line, run in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        self._capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's own complaint
            code = int(stop.code or 0)
        out, err = self._capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def json(self, *words: str | Path) -> Any:
        """Return what a command that works prints with --json."""
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    return Typed(capfd)


@pytest.fixture
def dense(tidegate: Typed, tmp_path: Path) -> Path:
    """Return a bundle of the same model for both runtimes."""
    make_dense_onnx(tmp_path / "dense.onnx")
    code, _, err = tidegate(*BUILD_DENSE, tmp_path / "dense.tide")
    assert code == 0, err
    return tmp_path / "dense.tide"


def test_bare_models_become_a_bundle_that_verifies_and_runs(tidegate: Typed, dense: Path, tmp_path: Path) -> None:
    manifest = tidegate.json("inspect", dense)
    assert [variant["id"] for variant in manifest["variants"]] == ["onnx-fp32", "tflite-fp32"]
    assert manifest["signature"] == {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [1, 64], "finite": False}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": [1, 10], "finite": False}],
    }
    report = tidegate.json("verify", dense)
    assert report["ok"] is True
    assert {variant["status"] for variant in report["variants"]} == {"passed"}
    assert all(variant["maximum_error"] < 1e-5 for variant in report["variants"])
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
    np.savez(tmp_path / "in.npz", x=x)
    for variant in ("onnx-fp32", "tflite-fp32"):
        done = tidegate.json("run", dense, "--input", "in.npz", "--output", "out.npz", "--variant", variant)
        assert done["variant"] == variant
        assert done["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 10]}]
        np.testing.assert_allclose(np.load(tmp_path / "out.npz")["y"], x @ WEIGHTS + BIAS, atol=1e-5)


def test_the_same_inputs_give_the_same_bytes_in_another_process(dense: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again.tide"
    again.parent.mkdir()
    subprocess.run(
        [sys.executable, "-c", "import sys; from tidegate.cli.main import main; sys.exit(main())", *BUILD_DENSE, again],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "99", "TZ": "Asia/Tokyo"},
        timeout=COMMAND_TIMEOUT_S,
    )
    assert again.read_bytes() == dense.read_bytes()


def test_tables_for_people(tidegate: Typed, dense: Path) -> None:
    code, out, _ = tidegate("inspect", dense)
    assert code == 0
    for word in ("dense", "1.0.0", "onnx-fp32", "tflite-fp32", "[1, 64]", "golden.npz"):
        assert word in out
    code, out, _ = tidegate("verify", dense)
    assert (code, out.splitlines()[-1]) == (0, "verified")


def test_a_free_axis_is_minus_one_and_a_fixed_one_wins(tidegate: Typed, tmp_path: Path) -> None:
    make_dense_onnx(tmp_path / "free.onnx", "rows")
    build = ("build", "--name", "d", "--version", "1.0.0", "-o", "d.tide", "--model", tmp_path / "free.onnx", "--model")
    assert tidegate(*build, tflite("batch"))[0] == 0
    assert tidegate.json("inspect", "d.tide")["signature"]["inputs"][0]["shape"] == [-1, 64]
    code, _, err = tidegate(*build, tflite("dense"))
    assert code == 0
    assert "note: input 'x' is [-1, 64] in variant 'onnx-fp32' and [1, 64] in 'tflite-fp32'" in err
    assert tidegate.json("inspect", "d.tide")["signature"]["inputs"][0]["shape"] == [1, 64]
    assert tidegate("verify", "d.tide")[0] == 0


def test_an_int8_variant_needs_its_tolerance_stated(tidegate: Typed, tmp_path: Path) -> None:
    make_dense_onnx(tmp_path / "dense.onnx")
    models = ("--model", "dense.onnx", "--model", tflite("dense_int8"))
    build = ("build", *models, "--name", "d", "--version", "1.0.0", "-o", "d.tide")
    code, _, err = tidegate(*build, "--tolerance", "1e-6")
    assert code == 1
    assert "variant 'tflite-int8' fails the golden fixture: output 'y' is off by" in err
    assert not (tmp_path / "d.tide").exists()
    assert tidegate(*build, "--tolerance", "2.5")[0] == 0
    assert tidegate("verify", "d.tide", "--variant", "tflite-int8")[0] == 0


def test_the_advice_about_an_int8_variant_works_as_it_is_given(tidegate: Typed, tmp_path: Path) -> None:
    make_dense_onnx(tmp_path / "dense.onnx")
    models = ("--model", "dense.onnx", "--model", tflite("dense_int8"))
    build = ("build", *models, "--name", "d", "--version", "1.0.0", "-o", "d.tide")
    code, _, err = tidegate(*build)
    assert code == 1
    (advised,) = re.findall(r"--tolerance (tflite-int8=[0-9.e-]+)", err)
    assert tidegate(*build, "--tolerance", advised)[0] == 0
    golden = tidegate.json("inspect", "d.tide")["golden"]
    assert (golden["tolerance"], list(golden["tolerance_by_variant"])) == (1e-3, ["tflite-int8"])
    for wrong, complaint in (("int8=1", "the variants are onnx-fp32, tflite-int8"), ("much", "is no number")):
        code, _, err = tidegate(*build, "--tolerance", wrong)
        assert (code, complaint in err) == (2, True)


SPEC = """
[bundle]
name = "words"
version = "2.1.0"
release = 4
description = "ten words"
licence = "Apache-2.0"
labels_file = "labels.txt"

[[variant]]
id = "tflite-fp32"
file = "models/dense.tflite"
metrics = { accuracy = 0.97 }

[[variant]]
id = "onnx-fp32"
file = "models/other-names.onnx"
tolerance = 1e-4
[variant.tensor_names]
x = "input_1"
y = "Identity:0"

[front_end]
kind = "audio"
sample_rate_hz = 16000
inside_graph = true

[prefilter]
kind = "energy"
hangover_ms = 300
[prefilter.options]
threshold_db = -45

[decoder]
kind = "keywords"
threshold = 0.6

[golden]
file = "golden.npz"
tolerance = 1e-5

[assets]
catalogue = "catalogue.jsonl"

[budgets]
latency_p95_ms = 20

[inputs.x]
finite = true

[provenance]
source_commit = "0123456"
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Return a specification that uses every table, with its files beside it."""
    home = tmp_path / "author"
    (home / "models").mkdir(parents=True)
    (home / "models/dense.tflite").write_bytes(tflite("dense").read_bytes())
    make_onnx(
        home / "models/other-names.onnx",
        [("Gemm", ["input_1", "w", "b"], ["Identity:0"])],
        {"input_1": ("FP32", [1, 64])},
        {"Identity:0": ("FP32", [1, 10])},
        {"w": WEIGHTS, "b": BIAS},
    )
    x = np.full((1, 64), 0.5, np.float32)
    (home / "golden.npz").write_bytes(pack_arrays({"input/x": x, "output/y": (x @ WEIGHTS + BIAS).astype(np.float32)}))
    (home / "labels.txt").write_text("\n".join(f"word{n}" for n in range(10)) + "\n")
    (home / "catalogue.jsonl").write_text('{"id": "1", "title": "One", "text": "one"}\n')
    (home / "spec.toml").write_text(SPEC)
    return home / "spec.toml"


def test_a_specification_with_everything(tidegate: Typed, spec: Path, tmp_path: Path) -> None:
    code, _, err = tidegate("build", spec)
    assert code == 0, err
    with Bundle.open(tmp_path / "words-2.1.0.tide") as bundle:
        manifest = bundle.manifest
        assert manifest.labels == tuple(f"word{n}" for n in range(10))
        assert manifest.front_end is not None
        assert manifest.front_end.sample_rate_hz == 16000
        assert manifest.prefilter is not None
        assert manifest.prefilter.options == {"threshold_db": -45.0}
        assert manifest.decoder is not None
        assert manifest.decoder.threshold == 0.6
        assert manifest.golden is not None
        assert manifest.golden.tolerance_by_variant == {"onnx-fp32": 1e-4}
        assert manifest.signature.inputs[0].finite
        assert bundle.asset("catalogue") == (spec.parent / "catalogue.jsonl").read_bytes()
        assert original(bundle.variant_bytes("tflite-fp32")) == tflite("dense").read_bytes()
        for variant in manifest.variants:
            assert read(variant, bundle.variant_bytes(variant.id)) == facts_of(manifest, variant)
    assert tidegate("verify", "words-2.1.0.tide")[0] == 0
    np.savez("in.npz", x=np.zeros((1, 64), np.float32))
    done = tidegate.json(
        "run", "words-2.1.0.tide", "--input", "in.npz", "--output", "out.npz", "--variant", "onnx-fp32"
    )
    assert done["outputs"][0]["name"] == "y"
    out = tidegate("inspect", "words-2.1.0.tide")[1]
    for words in ("prefilter", "kind=energy", "threshold=0.6", "latency_p95_ms=20", "source_commit", "asset catalogue"):
        assert words in out


@pytest.mark.parametrize(
    ("old", "new", "code", "complaint"),
    [
        ("licence", "license", 2, "unknown key 'bundle.license'; did you mean 'bundle.licence'?"),
        ("[prefilter]", "[prefliter]", 2, "unknown key 'prefliter'; did you mean 'prefilter'?"),
        ("hangover_ms", "hang_over_ms", 2, "'prefilter.hang_over_ms'; did you mean 'prefilter.hangover_ms'?"),
        ("tolerance = 1e-4", "tolerence = 1", 2, "'variant[1].tolerence'; did you mean 'variant[1].tolerance'?"),
        ("finite = true", "finit = true", 2, "'inputs.x.finit'; did you mean 'inputs.x.finite'?"),
        ("[inputs.x]", "[inputs.z]", 2, "[inputs.z]: the model has no such input; it has x"),
        ('"keywords"', '"ctc"', 2, "Invalid enum value 'ctc' - at `$.decoder.kind`"),
        ("-45", '"loud"', 2, "Expected `float`, got `str`"),
        ("-45", "nan", 2, "prefilter.options.threshold_db is nan"),
        ("[bundle]", "[bundle", 2, "is not TOML"),
        ('version = "2.1.0"', 'version = "2"', 2, "'2' is not a semantic version"),
        ('id = "onnx-fp32"', 'id = "tflite-fp32"', 2, "variant id 'tflite-fp32' occurs twice"),
        (
            'x = "input_1"',
            'x = "input_2"',
            1,
            "maps 'x' to 'input_2', which the file lacks; it has input_1, Identity:0",
        ),
        ('x = "input_1"', "", 1, "name their inputs differently: 'x' in 'tflite-fp32', 'input_1' in 'onnx-fp32'"),
        ("catalogue.jsonl", "none.jsonl", 1, "asset 'catalogue': no file at"),
        ("labels.txt", "golden.npz", 2, "not UTF-8"),
        ("labels.txt", "catalogue.jsonl", 2, "there are 1 labels; expected 10"),
        ("models/dense.tflite", "models/none.tflite", 1, "variant 'tflite-fp32': no file at"),
        ("models/dense.tflite", "models/dense.bin", 2, "is neither .tflite nor .onnx"),
        ('"golden.npz"', '"labels.txt"', 1, "is not a readable .npz"),
        ("tolerance = 1e-5", "tolerance = -1", 2, "golden tolerance is -1"),
    ],
)
def test_a_wrong_specification(
    tidegate: Typed, spec: Path, tmp_path: Path, old: str, new: str, code: int, complaint: str
) -> None:
    assert old in SPEC
    spec.write_text(SPEC.replace(old, new, 1))
    found, out, err = tidegate("build", spec, "-o", "words.tide")
    assert (found, out) == (code, "")
    assert complaint in err
    assert "what to do:" in err
    assert not (tmp_path / "words.tide").exists()


def test_a_wrong_golden_fixture_stops_the_build(tidegate: Typed, spec: Path) -> None:
    x = np.zeros((1, 64), np.float32)
    (spec.parent / "golden.npz").write_bytes(pack_arrays({"input/x": x, "output/y": np.ones((1, 10), np.float32)}))
    code, _, err = tidegate("build", spec)
    assert code == 1
    assert "variant 'tflite-fp32' fails the golden fixture: output 'y' is off by" in err


def test_a_fixture_without_outputs_gets_them_from_the_first_variant(
    tidegate: Typed, spec: Path, tmp_path: Path
) -> None:
    (spec.parent / "golden.npz").write_bytes(pack_arrays({"input/x": np.ones((1, 64), np.float32)}))
    assert tidegate("build", spec)[0] == 0
    with Bundle.open(tmp_path / "words-2.1.0.tide") as bundle:
        golden = bundle.golden()
    assert golden is not None
    np.testing.assert_allclose(golden.outputs["y"], np.ones((1, 64)) @ WEIGHTS + BIAS, atol=1e-5)


def test_variants_that_disagree_are_named(tidegate: Typed, tmp_path: Path) -> None:
    make_dense_onnx(tmp_path / "dense.onnx")
    make_contract_onnx(tmp_path, "two")
    code, _, err = tidegate(
        "build", "--model", "dense.onnx", "--model", "b=two.onnx", "--name", "n", "--version", "1.0.0"
    )
    assert code == 1
    assert "variants 'onnx-fp32' and 'b' name their inputs differently: 'x' in 'onnx-fp32', 'a', 'b' in 'b'" in err


def test_a_model_with_strings_and_integers(tidegate: Typed, tmp_path: Path) -> None:
    make_contract_onnx(tmp_path, "column_BYTES")
    build = ("build", "--model", "column_BYTES.onnx", "--name", "text", "--version", "1.0.0", "-o", "text.tide")
    assert tidegate(*build)[0] == 0
    assert tidegate("verify", "text.tide")[0] == 0
    np.savez("in.npz", x=np.array([b"go", b"", "stöp".encode()]))
    assert tidegate("run", "text.tide", "--input", "in.npz", "--output", "out.npz")[0] == 0
    found = unpack_arrays(Path("out.npz").read_bytes(), origin="out.npz")
    assert found["y"].tolist() == [[b"go"], [b""], ["stöp".encode()]]


def test_an_enormous_input_is_not_generated(tidegate: Typed, tmp_path: Path) -> None:
    size = 1 << 40
    make_onnx(tmp_path / "huge.onnx", [("Shape", ["x"], ["y"])], {"x": ("FP32", [size])}, {"y": ("INT64", [1])})
    code, _, err = tidegate("build", "--model", "huge.onnx", "--name", "huge", "--version", "1.0.0")
    assert code == 2
    assert f"would take {4 * size} bytes in a generated fixture" in err


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["build"], 2, "there is nothing to build"),
        (["build", "none.toml"], 1, "no file at none.toml"),
        (["build", "--model", "dense.onnx"], 2, "--model needs --name and --version too"),
        (["build", "--model", "none.onnx", "--name", "n", "--version", "1.0.0"], 1, "no file at none.onnx"),
        (["build", "--model", "in.npz", "--name", "n", "--version", "1.0.0"], 2, "neither .onnx nor .tflite"),
        (["build", "--model", "dense.onnx", "--model", "dense.onnx", "--name", "n", "--version", "1.0.0"], 2, "would"),
        (["build", "--model", "dense.onnx", "--name", "N", "--version", "1.0.0"], 2, "name 'N' is not lower-case"),
        (["build", "dense.onnx"], 2, "dense.onnx is not TOML"),
        (["build", "--model", "broken.onnx", "--name", "n", "--version", "1.0.0"], 1, "cannot load this as an ONNX"),
        (["build", "--model", "dense.onnx", "--name", "n", "--version", "1.0.0", "-o", "no/n.tide"], 1, "directory"),
        (["build", "--model", "dense.onnx", "--name", "n", "--version", "1.0.0", "-o", "."], 2, "is a directory"),
        (["inspect"], 2, "nothing to inspect"),
        (["inspect", "none.tide"], 1, "no bundle at none.tide"),
        (["inspect", "dense.onnx"], 1, "is not a .tide archive"),
        (["inspect", "."], 1, "has no manifest.json"),
        (["verify"], 2, "required: BUNDLE"),
        (["verify", "dense.tide", "--variant", "none"], 1, "it has onnx-fp32, tflite-fp32"),
        (["run", "dense.tide", "--input", "in.npz"], 2, "required: --output"),
        (["run", "dense.tide", "--input", "none.npz", "--output", "o.npz"], 1, "no input file at none.npz"),
        (["run", "dense.tide", "--input", "dense.tide", "--output", "o.npz"], 1, "is not an .npy file"),
        (["run", "dense.tide", "--input", "in.npz", "--output", "o.npz"], 1, "input 'x' is missing"),
        (["run", "dense.tide", "--input", "flat.npz", "--output", "o.npz"], 1, "has shape [64]; expected [1, 64]"),
        (["run", "dense.tide", "--input", "x.npz", "--output", "no/o.npz"], 1, "no is not a directory"),
        (["run", "dense.tide", "--input", "x.npz", "--output", "o.npz", "--variant", "z"], 1, "no variant 'z'"),
    ],
)  # fmt: skip
def test_wrong_uses(tidegate: Typed, dense: Path, words: list[str], code: int, complaint: str) -> None:
    np.savez("in.npz", z=np.zeros(1, np.float32))
    np.savez("flat.npz", x=np.zeros(64, np.float32))
    np.savez("x.npz", x=np.zeros((1, 64), np.float32))
    Path("broken.onnx").write_bytes(Path("dense.onnx").read_bytes()[:100])
    found, out, err = tidegate(*words)
    assert (found, out) == (code, "")
    assert complaint in err
    assert not Path("o.npz").exists()


def test_verify_finds_changed_weights(tidegate: Typed, dense: Path) -> None:
    """One bit in a weight: the digest differs, and nothing is run."""
    raw = bytearray(dense.read_bytes())
    with Bundle.open(dense) as bundle:
        at = raw.index(bundle.variant_bytes("onnx-fp32")) + 200
    raw[at] ^= 1
    dense.write_bytes(raw)
    code, out, err = tidegate("verify", dense)
    assert (code, out) == (1, "")
    assert "'variants/onnx-fp32.onnx' has SHA-256" in err


def test_verify_finds_a_model_that_lies(tidegate: Typed, dense: Path, tmp_path: Path) -> None:
    """Other weights under a digest that fits: only the golden fixture can tell."""
    with Bundle.open(dense) as bundle:
        manifest = bundle.manifest
        files = {file.path: bundle.read(file.path) for file in bundle.files}
    make_onnx(
        tmp_path / "other.onnx",
        [("Gemm", ["x", "w", "b"], ["y"])],
        {"x": ("FP32", [1, 64])},
        {"y": ("FP32", [1, 10])},
        {"w": WEIGHTS * np.float32(1.5), "b": BIAS},
    )
    content = (tmp_path / "other.onnx").read_bytes()
    variants = [
        msgspec.structs.replace(v, sha256=digest(content), size_bytes=len(content)) if v.id == "onnx-fp32" else v
        for v in manifest.variants
    ]
    files["variants/onnx-fp32.onnx"] = content
    write_bundle(msgspec.structs.replace(manifest, variants=tuple(variants)), files, dense)
    code, out, _ = tidegate("verify", dense)
    assert code == 1
    assert out.splitlines()[-1] == "FAILED: onnx-fp32"
    assert "output 'y' is off by" in out
    code, out, _ = tidegate("verify", dense, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    assert [variant["status"] for variant in report["variants"]] == ["failed", "passed"]
    assert tidegate("verify", dense, "--variant", "tflite-fp32")[0] == 0


def test_variants_that_cannot_run_here_are_named(tidegate: Typed, dense: Path) -> None:
    with Bundle.open(dense) as bundle:
        manifest = bundle.manifest
        files = {file.path: bundle.read(file.path) for file in bundle.files}
    future = [msgspec.structs.replace(variant, minimum_runtime="999.0") for variant in manifest.variants]
    write_bundle(msgspec.structs.replace(manifest, variants=(future[0], manifest.variants[1])), files, dense)
    code, out, _ = tidegate("verify", dense)
    assert code == 0
    assert out.splitlines()[-1] == "verified, except what cannot run here: onnx-fp32"
    assert "needs version 999.0" in out
    write_bundle(msgspec.structs.replace(manifest, variants=tuple(future)), files, dense)
    code, out, _ = tidegate("verify", dense)
    assert code == 1
    assert out.splitlines()[-1] == "FAILED: no variant can run here"


def test_a_bundle_cannot_steer_the_terminal(tidegate: Typed, dense: Path) -> None:
    with Bundle.open(dense) as bundle:
        manifest = msgspec.structs.replace(bundle.manifest, description="red \x1b[31m", provenance={"a\x07": "b\r"})
        files = {file.path: bundle.read(file.path) for file in bundle.files}
    write_bundle(manifest, files, dense)
    code, out, _ = tidegate("inspect", dense)
    assert code == 0
    assert not set(out) & {"\x1b", "\x07", "\r"}


def test_run_leaves_the_old_output_when_it_fails(tidegate: Typed, dense: Path) -> None:
    Path("out.npz").write_bytes(b"old")
    np.savez("in.npz", x=np.zeros((2, 64), np.float32))
    assert tidegate("run", dense, "--input", "in.npz", "--output", "out.npz")[0] == 1
    assert Path("out.npz").read_bytes() == b"old"


@pytest.mark.parametrize("command", ["build", "inspect", "verify", "run"])
def test_help_shows_an_example(tidegate: Typed, command: str) -> None:
    code, out, _ = tidegate(command, "--help")
    assert code == 0
    assert f"example:\n  tidegate {command} " in out
