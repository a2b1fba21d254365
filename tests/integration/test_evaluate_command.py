"""`tidegate evaluate` as a user types it, on real bundles and both runtimes."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.evaluated import save, write_linear_bundle
from tests.models import make_dense_onnx, make_onnx, tflite

from tidegate.bundle import Bundle, Manifest, Signature, TensorSpec, Variant, digest, write_bundle
from tidegate.bundle.manifest import decode, encode
from tidegate.cli.main import main
from tidegate.errors import BundleError
from tidegate.evaluate import Options, evaluate, parse_criteria, read_evaluation_set, recorded
from tidegate.evaluate import decode as decode_report
from tidegate.testing.backend_contract import BIAS, WEIGHTS

LABELS = ("stop", "go", "left")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs one command line: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main(["evaluate", *(str(word) for word in words)])
        except SystemExit as stop:  # argparse's own complaint
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Return a bundle of two variants; the second answers a little differently."""
    exact, rough = np.eye(3) * 4, np.eye(3) * 4 + np.array([[0, 0.4, 0], [0, 0, 0], [0.3, 0, 0]])
    return write_linear_bundle(tmp_path, {"onnx-fp32": exact, "onnx-int8": rough}, labels=LABELS, version="1.1.0")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return 300 rows; each tenth is wrong on purpose, and those are all tagged `hard`."""
    truth = np.arange(300) % 3
    shown = np.where(np.arange(300) % 10 == 0, (truth + 1) % 3, truth)
    x = np.eye(3, dtype=np.float32)[shown] + np.random.default_rng(0).normal(0, 0.05, (300, 3)).astype(np.float32)
    return save(
        tmp_path / "eval.npz",
        input__x=x,
        label=np.array(LABELS)[truth],
        tag__hard=np.arange(300) % 5 == 0,
        tag__late=np.arange(300) >= 150,
        slice__room=np.array(["hall", "car"])[np.arange(300) // 2 % 2],
    )


def criteria(tmp_path: Path, *tables: str) -> Path:
    path = tmp_path / "criteria.toml"
    path.write_text("\n".join(f"[[criterion]]\n{table}" for table in tables))
    return path


def report(tidegate: Run, *words: str | Path) -> Any:
    code, out, err = tidegate(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_report_holds_what_can_be_counted_by_hand(tidegate: Run, words: Path, data: Path) -> None:
    found = report(tidegate, words, "--data", data)
    assert (found["name"], found["rows"], found["variant"], found["verdict"]) == ("linear", 300, "onnx-fp32", None)
    first, second = found["variants"]
    assert first["metrics"]["accuracy"]["value"] == pytest.approx(0.9)
    assert first["metrics"]["accuracy"]["lower"] == pytest.approx(0.8669, abs=1e-4)
    assert first["parity"] is None
    assert second["parity"]["reference"] == "onnx-fp32"
    assert second["parity"]["agreement"] == 1.0
    assert 0 < second["parity"]["mean_error"] < second["parity"]["maximum_error"] < 0.1
    assert found["confusion"] == [[90, 10, 0, 0], [0, 90, 10, 0], [10, 0, 90, 0]]
    assert found["no_skill"]["accuracy"] == pytest.approx(1 / 3)
    hard, late = found["tags"]
    assert (hard["tag"], hard["share_of_error"], hard["error_rate"]["value"], hard["error_rate_elsewhere"]) == (
        "hard", 1.0, 0.5, 0.0,
    )  # fmt: skip
    assert (late["share_of_error"], late["error_rate"]["value"]) == (0.5, pytest.approx(0.1))
    assert {row["value"]: row["metrics"]["accuracy"]["samples"] for row in found["slices"]} == {"hall": 150, "car": 150}
    assert [curve["label"] for curve in found["curves"]]
    assert 0 <= found["calibration_error"] < 0.2


def test_the_reference_and_the_variant_can_be_named(tidegate: Run, words: Path, data: Path) -> None:
    found = report(tidegate, words, "--data", data, "--variant", "onnx-fp32", "--reference", "onnx-int8")
    assert [(one["id"], (one["parity"] or {}).get("reference")) for one in found["variants"]] == [
        ("onnx-fp32", "onnx-int8"), ("onnx-int8", None),
    ]  # fmt: skip
    code, _, err = tidegate(words, "--data", data, "--variant", "onnx-fp16")
    assert code == 1
    assert "it has onnx-fp32, onnx-int8" in err


PASSES = 'metric = "accuracy"\nat_least = 0.8'
FAILS = 'name = "hard ones"\nmetric = "accuracy"\ntag = "hard"\nat_least = 0.8'
WAITS = 'metric = "recall"\nclass = "stop"\nat_least = 0.88'


@pytest.mark.parametrize(
    ("tables", "expected"), [([PASSES], 0), ([PASSES, FAILS, WAITS], 1), ([PASSES, WAITS], 3), ([FAILS], 1)]
)
def test_the_exit_code_is_the_verdict(
    tidegate: Run, words: Path, data: Path, tmp_path: Path, tables: list[str], expected: int
) -> None:
    code, out, err = tidegate(words, "--data", data, "--criteria", criteria(tmp_path, *tables))
    assert code == expected, err
    assert {0: "PASS", 1: "FAIL", 3: "WAIT"}[expected] in out
    assert "verdict:" in out


def test_help_names_exit_code_three(tidegate: Run) -> None:
    code, out, _ = tidegate("--help")
    assert code == 0
    assert "3  wait" in out


def test_mistakes_are_told_apart(tidegate: Run, words: Path, data: Path, tmp_path: Path) -> None:
    bad = criteria(tmp_path, 'metric = "acuracy"\nat_least = 0.9')
    assert tidegate(words, "--data", data, "--criteria", bad)[0] == 2
    assert tidegate(words)[0] == 2
    code, _, err = tidegate(words, "--data", "nothing.npz")
    assert (code, "no file nothing.npz" in err) == (1, True)
    assert tidegate(words, "--data", data, "--html", "no/such/place.html")[0] == 2
    wrong = save(tmp_path / "wrong.npz", input__x=np.zeros((2, 3), np.float32), label=["stop", "goo"])
    code, _, err = tidegate(words, "--data", wrong)
    assert code == 1
    assert "row 1 has the unknown label 'goo'; did you mean 'go'" in err
    wide = save(tmp_path / "wide.npz", input__x=np.zeros((2, 4), np.float32), label=["stop", "go"])
    code, _, err = tidegate(words, "--data", wide)
    assert code == 1
    assert "expected [any, 3]" in err
    index = save(tmp_path / "index.npz", input__x=np.zeros((2, 3), np.float32), label=[0, 3])
    assert "label 3; expected 0 to 2" in tidegate(words, "--data", index)[2]
    nan = save(tmp_path / "nan.npz", input__x=np.full((2, 3), np.nan, np.float32), label=[0, 1])
    assert "NaN or an infinity in row 0" in tidegate(words, "--data", nan)[2]


class Page(HTMLParser):
    """What a browser would load, and whether each element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_reports_are_written_as_html_png_and_json(tidegate: Run, words: Path, data: Path, tmp_path: Path) -> None:
    named = criteria(tmp_path, 'name = "<b>bold</b>"\nmetric = "accuracy"\nat_least = 0.8')
    arguments = (words, "--data", data, "--criteria", named, "--html", "r.html", "--png", "r.png", "-o", "r.json")
    code, _, err = tidegate(*arguments)
    assert code == 0, err
    png = (tmp_path / "r.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (768, 576)
    page = Page()
    page.feed((tmp_path / "r.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"]
    for expected in ("<b>bold</b>", "PASS", "Confusion matrix", "Slices", "Tags", "onnx-int8", "no skill"):
        assert expected in page.text, expected
    assert "url(" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert decode_report((tmp_path / "r.json").read_bytes()).verdict == "pass"
    first = (tmp_path / "r.html").read_bytes()
    tidegate(*arguments)
    assert (tmp_path / "r.html").read_bytes() == first, "the same evaluation gives the same page"


def test_a_missing_matplotlib_is_named_with_its_extra(
    tidegate: Run, words: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = tidegate(words, "--data", data, "--png", "r.png")
    assert code == 1
    assert "tidegate[evaluate]" in err


def test_a_baseline_is_compared_row_by_row_whatever_the_order_of_its_labels(
    tidegate: Run, words: Path, data: Path, tmp_path: Path
) -> None:
    turned = np.eye(3)[:, [2, 0, 1]] * 4
    old = write_linear_bundle(tmp_path, {"onnx-fp32": turned}, labels=("left", "stop", "go"), version="1.0.0")
    asked = criteria(tmp_path, 'metric = "accuracy"\nslice = "room"\nnot_worse_than = "baseline"')
    found = report(tidegate, words, "--data", data, "--criteria", asked, "--baseline", old)
    assert found["baseline"]["version"] == "1.0.0"
    assert [(one["verdict"], one["estimate"], one["baseline"]) for one in found["criteria"]] == [
        ("pass", 0.0, pytest.approx(0.9)), ("pass", 0.0, pytest.approx(0.9)),
    ]  # fmt: skip
    worse = write_linear_bundle(tmp_path, {"onnx-fp32": np.eye(3)[:, [1, 0, 2]]}, labels=LABELS, version="1.2.0")
    code, out, _ = tidegate(worse, "--data", data, "--criteria", asked, "--baseline", old)
    assert code == 1
    assert "a loss is shown" in out


def test_bench_reports_give_latency_and_memory(tidegate: Run, words: Path, data: Path, tmp_path: Path) -> None:
    assert main(["bench", str(words), "--min-duration-s", "0.05", "--warm-up-s", "0.01", "-o", "bench.json"]) == 0
    asked = criteria(
        tmp_path,
        'metric = "latency_p95_ms"\nat_most = 1000',
        'metric = "rss_mb"\nvariant = "each"\nat_most = 4000',
        'metric = "size_bytes"\nat_most = 100000',
    )
    found = report(tidegate, words, "--data", data, "--criteria", asked, "--bench", "bench.json")
    assert [one["verdict"] for one in found["criteria"]] == ["pass"] * 4
    assert found["criteria"][0]["sample_unit"] == "calls"
    other = write_linear_bundle(tmp_path, {"onnx-fp32": np.eye(3)}, labels=LABELS, version="9.0.0")
    code, _, err = tidegate(other, "--data", data, "--bench", "bench.json")
    assert code == 1
    assert "expected the bundle linear 9.0.0" in err
    assert tidegate(words, "--data", data, "--bench", criteria(tmp_path, PASSES))[0] == 1


def test_two_runtimes_and_a_fixed_batch_agree(tidegate: Run, tmp_path: Path) -> None:
    dense = make_dense_onnx(tmp_path / "dense.onnx")
    arguments = ["build", "--model", str(dense), "--model", str(tflite("dense")), "--name", "dense"]
    assert main([*arguments, "--version", "1.0.0", "-o", "dense.tide"]) == 0
    x = np.random.default_rng(2).normal(0, 1, (50, 64)).astype(np.float32)
    label = (x @ WEIGHTS + BIAS).argmax(axis=1)
    found = report(tidegate, "dense.tide", "--data", save(tmp_path / "e.npz", input__x=x, label=label))
    assert [one["metrics"]["accuracy"]["value"] for one in found["variants"]] == [1.0, 1.0]
    assert found["variants"][1]["parity"]["maximum_error"] < 1e-4
    assert found["variants"][1]["parity"]["agreement"] == 1.0


def test_numbers_are_held_against_targets(tidegate: Run, tmp_path: Path) -> None:
    bundle = write_linear_bundle(tmp_path, {"onnx-fp32": np.ones((3, 1))}, softmax=False)
    x = np.random.default_rng(3).normal(0, 1, (100, 3)).astype(np.float32)
    target = x.sum(axis=1) + np.where(np.arange(100) % 2, 0.5, -0.5)
    file = save(tmp_path / "e.npz", input__x=x, target=target, tag__odd=np.arange(100) % 2 == 1)
    asked = criteria(tmp_path, 'metric = "mean_error"\nat_most = 0.6')
    found = report(tidegate, bundle, "--data", file, "--criteria", asked)
    assert found["variants"][0]["metrics"]["mean_error"]["value"] == pytest.approx(0.5, abs=1e-5)
    assert found["no_skill"]["mean_error"] == pytest.approx(np.abs(target - np.median(target)).mean())
    assert found["tags"][0]["share_of_error"] == pytest.approx(0.5, abs=1e-5)
    assert (found["confusion"], found["curves"], found["by_class"]) == ([], [], [])


def test_one_score_decides_by_the_threshold_of_the_data(tidegate: Run, tmp_path: Path) -> None:
    bundle = write_linear_bundle(tmp_path, {"onnx-fp32": np.array([[1.0], [0], [0]])}, softmax=False)
    x = np.zeros((4, 3), np.float32)
    x[:, 0] = [0.1, 0.4, 0.35, 0.8]
    file = save(tmp_path / "e.npz", input__x=x, label=[0, 0, 1, 1], threshold=0.3)
    found = report(tidegate, bundle, "--data", file)
    metrics = found["variants"][0]["metrics"]
    assert found["confusion"] == [[1, 1, 0], [0, 2, 0]]
    assert metrics["recall"]["value"] == 1.0
    assert metrics["auc_pr"]["value"] == pytest.approx(5 / 6)
    assert found["positive_class"] == "1"
    turned = save(tmp_path / "t.npz", input__x=x, label=[0, 0, 1, 1], threshold=0.3, positive_class=0)
    assert report(tidegate, bundle, "--data", turned)["confusion"] == [[1, 1, 0], [2, 0, 0]]


def identity_bundle(tmp_path: Path, dtype: str, labels: tuple[str, ...] = ()) -> Path:
    """Write a bundle that hands its input through: classes or words in, the same out."""
    model = make_onnx(
        tmp_path / "m.onnx", [("Identity", ["x"], ["y"])], {"x": (dtype, ["rows"])}, {"y": (dtype, ["rows"])}
    ).read_bytes()
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name="identity",
        version="1.0.0",
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype=dtype, shape=(-1,)),),
            outputs=(TensorSpec(name="y", dtype=dtype, shape=(-1,)),),
        ),
        labels=labels,
        variants=(
            Variant(
                id="onnx", backend="onnx", precision="as-is", file="m.onnx", sha256=digest(model), size_bytes=len(model)
            ),
        ),
    )
    write_bundle(manifest, {"m.onnx": model}, tmp_path / "identity.tide")
    return tmp_path / "identity.tide"


def test_class_outputs_without_scores_are_enough(tidegate: Run, tmp_path: Path) -> None:
    said = np.array([2, 10, 2, 10], np.int64)
    file = save(tmp_path / "e.npz", input__x=said, label=np.array([2, 10, 10, 10]))
    found = report(tidegate, identity_bundle(tmp_path, "INT64"), "--data", file, "--png", "r.png")
    assert found["classes"] == ["2", "10"], "numbers in the order of numbers"
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0]]
    assert found["curves"] == []
    assert not (tmp_path / "r.png").exists()
    file = save(tmp_path / "e.npz", input__x=["ham", "spam", "ham"], label=["ham", "spam", "spam"])
    found = report(tidegate, identity_bundle(tmp_path, "BYTES"), "--data", file)
    assert (found["classes"], found["confusion"]) == (["ham", "spam"], [[1, 0, 0], [1, 1, 0]])


def test_texts_are_held_against_references(tidegate: Run, tmp_path: Path) -> None:
    file = save(tmp_path / "e.npz", input__x=["go left", "stop", "go"], text=["go left", "stop now", "go"])
    found = report(tidegate, identity_bundle(tmp_path, "BYTES"), "--data", file)
    assert found["task"] == "transcription"
    assert found["variants"][0]["metrics"]["word_error_rate"]["value"] == pytest.approx(1 / 5)
    assert found["no_skill"] == {"word_error_rate": 1.0}


def test_a_speech_bundle_is_heard_through_its_decoder(
    tidegate: Run, tmp_path: Path, tone_bundle: Path, say: Callable[..., Any]
) -> None:
    spoken = [say([("yes", 0.5)], 2.0), say([("no", 0.5)], 2.0), say([("up", 0.3)], 1.5)]
    padded = np.stack([np.pad(audio, (0, 32_000 - len(audio))) for audio in spoken])
    file = save(
        tmp_path / "e.npz", input__audio=padded, text=["yes", "down", "up"], length__audio=[len(one) for one in spoken]
    )
    found = report(tidegate, tone_bundle, "--data", file)
    assert found["variants"][0]["metrics"]["word_error_rate"]["value"] == pytest.approx(1 / 3)


def test_a_variant_that_fails_is_named_and_the_others_go_on(tidegate: Run, tmp_path: Path, data: Path) -> None:
    good = write_linear_bundle(tmp_path, {"onnx-fp32": np.eye(3), "onnx-int8": np.eye(3)}, labels=LABELS)
    with Bundle.open(good) as bundle:
        files = {variant.file: bundle.variant_bytes(variant.id) for variant in bundle.manifest.variants}
        manifest = bundle.manifest
    broken = b"no model"
    files["variants/onnx-int8.onnx"] = broken
    first, second = manifest.variants
    second = msgspec.structs.replace(second, sha256=digest(broken), size_bytes=len(broken))
    write_bundle(msgspec.structs.replace(manifest, variants=(first, second)), files, tmp_path / "broken.tide")
    code, out, _ = tidegate("broken.tide", "--data", data)
    assert code == 1
    assert "failed:" in out
    code, out, _ = tidegate("broken.tide", "--data", data, "--json")
    assert [one["status"] for one in json.loads(out)["variants"]] == ["evaluated", "failed"]


def test_the_manifest_records_what_was_measured(words: Path, data: Path) -> None:
    promises = parse_criteria(
        b'[[criterion]]\nname = "all"\nmetric = "accuracy"\nat_least = 0.8\n'
        b'[[criterion]]\nname = "hard"\nmetric = "accuracy"\ntag = "hard"\nat_least = 0.8\n',
        origin="criteria.toml",
    )
    seen: list[tuple[str, int, int]] = []
    with Bundle.open(words) as bundle:
        found = evaluate(
            bundle,
            read_evaluation_set(data.read_bytes(), origin="eval.npz"),
            Options(criteria=promises),
            lambda *step: seen.append(step),
        )
        manifest = recorded(bundle.manifest, found)
    assert seen[-1] == ("onnx-int8", 300, 300)
    assert manifest.failing
    assert [(one.name, one.scope, one.verdict) for one in manifest.criteria] == [
        ("all", "all", "pass"), ("hard", "tag hard", "fail"),
    ]  # fmt: skip
    assert manifest.variants[0].metrics["accuracy"] == pytest.approx(0.9)
    assert manifest.variants[1].parity is not None
    assert manifest.variants[1].parity.agreement == 1.0
    assert manifest.evaluation is not None
    assert manifest.evaluation.rows == 300
    assert decode(encode(manifest)) == manifest
    with pytest.raises(BundleError, match="criterion 'hard' failed, but the release is not marked as failing"):
        decode(encode(msgspec.structs.replace(manifest, failing=False)))
