"""What leaves the author's machine: the same bytes everywhere, read by plain tools, refused when one byte differs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from tests.models import make_dense_onnx, tflite
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Bundle, Manifest, digest, write_bundle
from tidegate.bundle.difference import differences
from tidegate.bundle.manifest import Asset, Budgets, CriterionResult, DecoderSettings, FrontEnd, PrefilterSettings
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud import Server
from tidegate.convert.build import build
from tidegate.convert.mirroring import read
from tidegate.convert.mirrors import mlflow, oip, tflite_file
from tidegate.convert.mirrors.facts import facts_of
from tidegate.convert.mirrors.tflite_metadata import ModelText
from tidegate.convert.mirrors.tflite_metadata import build as build_metadata
from tidegate.convert.spec import BuildSpec, spec_for_models
from tidegate.errors import BundleError, InputError
from tidegate.runtime.pyfunc import _load_pyfunc
from tidegate.testing.backend_contract import BIAS, WEIGHTS

Tidegate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Tidegate:
    def typed(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return typed


def dense_spec(folder: Path, version: str = "1.0.0", **changes: Any) -> BuildSpec:
    onnx = make_dense_onnx(folder / "dense.onnx")
    spec = spec_for_models({"onnx-fp32": onnx, "tflite-fp32": tflite("dense")}, name="dense", version=version)
    described = msgspec.structs.replace(
        spec.bundle, licence="Apache-2.0", labels=tuple("abcdefghij"), description="ten letters", **changes
    )
    return msgspec.structs.replace(spec, bundle=described, provenance={"source_commit": "0f3c2a1"})


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    build(dense_spec(folder), folder / "dense.tide")
    return folder / "dense.tide"


# -- the same bytes ----------------------------------------------------------------------------------------------------

BUILD = """
import os, sys
os.umask(int(sys.argv[3], 8))
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud import Server
models = ["--model", sys.argv[1] + "/dense.onnx", "--model", sys.argv[1] + "/dense.tflite"]
sys.exit(main(["build", *models, "--name", "dense", "--version", "1.0.0", "-o", sys.argv[2]]))
"""


def test_two_builds_give_the_same_bytes_whatever_the_process_is_like(tmp_path: Path) -> None:
    surroundings = [
        ("first", "0022", {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1"}),
        ("second/deeper", "0077", {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": "/"}),
    ]
    built: list[bytes] = []
    for name, umask, variables in surroundings:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        make_dense_onnx(folder / "dense.onnx")
        shutil.copyfile(tflite("dense"), folder / "dense.tflite")
        os.utime(folder / "dense.tflite", (len(built), len(built)))
        subprocess.run(
            [sys.executable, "-c", BUILD, str(folder), "out.tide", umask],
            check=True,
            capture_output=True,
            cwd=folder,
            env=os.environ | variables,
            timeout=COMMAND_TIMEOUT_S,
        )
        built.append((folder / "out.tide").read_bytes())
    assert built[0] == built[1]


# -- plain tools -------------------------------------------------------------------------------------------------------


def test_python_zipfile_lists_and_tests_the_archive(dense: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(dense)],
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "manifest.json",
        "golden.npz",
        "variants/onnx-fp32.onnx",
        "variants/tflite-fp32.tflite",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "zipfile", "-t", str(dense)],
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert "Done testing" in done.stdout


def unpacked_by_zipfile(archive: Path, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(archive), str(folder)], check=True, timeout=COMMAND_TIMEOUT_S
    )


def unpacked_by_unzip(archive: Path, folder: Path) -> None:
    subprocess.run(["unzip", "-q", str(archive), "-d", str(folder)], check=True, timeout=COMMAND_TIMEOUT_S)


TOOLS = [unpacked_by_zipfile, *([unpacked_by_unzip] if shutil.which("unzip") else [])]


@pytest.mark.parametrize("unpack", TOOLS)
def test_what_a_plain_tool_unpacks_is_the_same_bundle(
    unpack: Callable[[Path, Path], None], dense: Path, tmp_path: Path
) -> None:
    unpack(dense, tmp_path / "unpacked")
    with Bundle.open(dense) as archive, Bundle.open(tmp_path / "unpacked") as folder:
        assert folder.manifest == archive.manifest
        folder.verify_files()


# -- one byte differs --------------------------------------------------------------------------------------------------


def places(path: Path) -> list[int]:
    """Return every byte of headers, directory and manifest, and of each file its ends and one in 97."""
    raw = path.read_bytes()
    found = set(range(len(raw)))
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name_length, extra_length = (
                raw[info.header_offset + at] + 256 * raw[info.header_offset + at + 1] for at in (26, 28)
            )
            start = info.header_offset + 30 + name_length + extra_length
            inside = set(range(start + 4, start + info.file_size - 4))
            found -= {at for at in inside if at % (7 if info.filename == "manifest.json" else 97)}
    return sorted(found)


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_a_changed_byte_in_any_region_is_refused_or_changes_nothing(dense: Path, tmp_path: Path, flip: int) -> None:
    raw = dense.read_bytes()
    with Bundle.open(dense) as bundle:
        manifest, files = bundle.manifest, {file.path: bundle.read(file.path) for file in bundle.files}
    harmless, refused, path = [], 0, tmp_path / "changed.tide"
    for at in places(dense):
        changed = bytearray(raw)
        changed[at] ^= flip
        path.write_bytes(changed)
        try:
            with Bundle.open(path) as bundle:
                assert {file.path: bundle.read(file.path) for file in bundle.files} == files
                assert bundle.manifest == manifest
                harmless.append(at)
        except BundleError:
            refused += 1
    assert refused > 3 * len(harmless)
    # What may differ says nothing that a bundle means: versions of ZIP, times, padding, attributes beside the type.
    kinds = {_region(raw, at) for at in harmless}
    assert kinds <= {
        "header: versions",
        "header: time",
        "header: padding",
        "directory: versions",
        "directory: time",
        "directory: attributes",
        "header: flags",
        "directory: flags",
        "end: versions",
    }


def _region(raw: bytes, at: int) -> str:
    """Name the place of a byte by APPNOTE's record layouts; a model may hold an archive of its own, so no searching."""
    end = len(raw) - 98
    (directory,) = struct.unpack_from("<Q", raw, end + 48)
    if at >= end:
        return "end: versions" if 12 <= at - end < 16 else f"end: byte {at - end}"
    start = 0
    if at < directory:
        while at >= (after := _after_entry(raw, start)):
            start = after
        fields = {(4, 6): "versions", (6, 8): "flags", (10, 14): "time"}
        fields[30 + raw[start + 26] + 20, 30 + raw[start + 26] + raw[start + 28]] = "padding"
        return "header: " + _field(fields, at - start)
    start = directory
    while at >= (after := start + 46 + raw[start + 28] + raw[start + 30]):
        start = after
    fields = {(4, 8): "versions", (8, 10): "flags", (12, 16): "time", (36, 42): "attributes"}
    return "directory: " + _field(fields, at - start)


def _after_entry(raw: bytes, start: int) -> int:
    name, extra = struct.unpack_from("<HH", raw, start + 26)
    return int(start + 30 + name + extra + struct.unpack_from("<Q", raw, start + 30 + name + 4)[0])


def _field(fields: dict[tuple[int, int], str], offset: int) -> str:
    return next((name for (first, last), name in fields.items() if first <= offset < last), f"byte {offset}")


def test_verify_of_a_damaged_archive_answers_in_json_too(tidegate: Tidegate, dense: Path, tmp_path: Path) -> None:
    raw = bytearray(dense.read_bytes())
    raw[raw.index(b"TFL3")] ^= 1
    (tmp_path / "bad.tide").write_bytes(raw)
    code, out, err = tidegate("verify", tmp_path / "bad.tide", "--json")
    answer = json.loads(out)
    assert (code, answer["ok"], answer["kind"]) == (1, False, "IntegrityError")
    assert "tflite-fp32.tflite" in answer["problem"]
    assert answer["what_to_do"]
    assert answer["problem"] in err
    (tmp_path / "cut.tide").write_bytes(dense.read_bytes()[:500])
    code, out, _ = tidegate("verify", tmp_path / "cut.tide", "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert json.loads(tidegate("verify", dense, "--json")[1])["problem"] == ""


# -- mirrors in a build ------------------------------------------------------------------------------------------------


def test_mirrors_can_be_left_out(tmp_path: Path) -> None:
    build(dense_spec(tmp_path, mirrors=False), tmp_path / "plain.tide")
    with Bundle.open(tmp_path / "plain.tide") as bundle:
        assert bundle.variant_bytes("tflite-fp32") == tflite("dense").read_bytes()
        assert bundle.variant_bytes("onnx-fp32") == (tmp_path / "dense.onnx").read_bytes()
        assert [read(variant, bundle.variant_bytes(variant.id)) for variant in bundle.manifest.variants] == [None] * 2


def test_a_model_with_metadata_of_its_own_is_packed_as_it_is(tidegate: Tidegate, tmp_path: Path) -> None:
    text = build_metadata(ModelText(name="somebody else's", version="7"))
    content = tflite_file.with_metadata(tflite("dense").read_bytes(), {"TFLITE_METADATA": text})
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(content.replace(tflite_file.ORIGINAL.encode(), b"A_FOREIGN_ENTRY__"))
    words = ("build", "--model", foreign, "--name", "dense", "--version", "1.0.0", "-o", tmp_path / "dense.tide")
    code, _, err = tidegate(*words)
    assert code == 0
    assert "without a mirror of the manifest: it carries TFLite metadata of its own" in err
    with Bundle.open(tmp_path / "dense.tide") as bundle:
        assert bundle.variant_bytes("tflite-fp32") == foreign.read_bytes()


def test_a_mirrored_variant_may_be_built_again(dense: Path, tmp_path: Path) -> None:
    with Bundle.open(dense) as bundle:
        (tmp_path / "again.tflite").write_bytes(bundle.variant_bytes("tflite-fp32"))
    spec = spec_for_models({"v": tmp_path / "again.tflite"}, name="other", version="2.0.0")
    build(spec, tmp_path / "other.tide")
    with Bundle.open(tmp_path / "other.tide") as bundle:
        facts = read(bundle.manifest.variants[0], bundle.variant_bytes("v"))
    assert facts is not None
    assert (facts.name, facts.version, facts.labels) == ("other", "2.0.0", ())


def test_a_stray_model_file_says_where_it_comes_from(tidegate: Tidegate, dense: Path, tmp_path: Path) -> None:
    with Bundle.open(dense) as bundle:
        for variant in bundle.manifest.variants:
            path = tmp_path / Path(variant.file).name
            path.write_bytes(bundle.variant_bytes(variant.id))
            answer = json.loads(tidegate("inspect", path, "--json")[1])
            assert (answer["name"], answer["version"], answer["variant"]) == ("dense", "1.0.0", variant.id)
            assert "licence: Apache-2.0" in tidegate("inspect", path)[1]
    code, _, err = tidegate("inspect", tflite("dense"))
    assert (code, "carries no mirror" in err) == (1, True)


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud import Server
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
sys.exit(main(["build", "--model", sys.argv[1], "--name", "dense", "--version", "1.0.0", "-o", sys.argv[2]]))
"""
    out = tmp_path / "dense.tide"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tflite("dense")), str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 1
    assert f"tidegate: {out} could not be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


# -- OCI ---------------------------------------------------------------------------------------------------------------

MEDIA_TYPE = re.compile(r"application/vnd\.cncf\.model\.(weight|weight\.config|doc|code|dataset)\.v1\.raw\Z")
REFERENCE = re.compile(r"[A-Za-z0-9]+(([-._:@+]|--)[A-Za-z0-9]+)*(/[A-Za-z0-9]+(([-._:@+]|--)[A-Za-z0-9]+)*)*\Z")
PRECISIONS = {"float64", "float32", "float16", "bfloat16", "int8"}
MODALITIES = {"text", "image", "audio", "video", "embedding", "other"}
DESCRIPTOR_KEYS = {"createdAt", "authors", "vendor", "family", "name", "version", "title", "description", "docURL"}
DESCRIPTOR_KEYS |= {"sourceURL", "datasetsURL", "revision", "licenses"}
CONFIG_KEYS = {"architecture", "format", "paramSize", "precision", "quantization", "capabilities"}


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """Return what a descriptor refers to, held against its digest and size (OCI descriptor.md)."""
    algorithm, _, value = str(descriptor["digest"]).partition(":")
    content = (layout / "blobs" / algorithm / value).read_bytes()
    assert algorithm == "sha256"
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (value, descriptor["size"])
    return content


def checked_layout(layout: Path) -> dict[str, bytes]:
    """Hold a layout against the rules of the OCI image specification and of ModelPack; return its files by path."""
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    (entry,) = index["manifests"]
    assert REFERENCE.match(entry["annotations"]["org.opencontainers.image.ref.name"])
    manifest = json.loads(blob(layout, entry))
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == entry["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert all(isinstance(value, str) for value in manifest["annotations"].values())
    config = json.loads(blob(layout, manifest["config"]))
    assert config.keys() == {"descriptor", "config", "modelfs"}
    assert config["descriptor"].keys() <= DESCRIPTOR_KEYS
    assert config["config"].keys() <= CONFIG_KEYS
    assert set(config["config"]["precision"].split(",")) <= PRECISIONS
    assert set(config["config"]["capabilities"]["inputTypes"]) <= MODALITIES
    assert set(config["config"]["capabilities"]["outputTypes"]) <= MODALITIES
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}
    files = {}
    for layer in manifest["layers"]:
        assert MEDIA_TYPE.match(layer["mediaType"])
        content = blob(layout, layer)
        attributes = json.loads(layer["annotations"]["org.cncf.model.file.metadata+json"])
        assert attributes.keys() == {"name", "mode", "uid", "gid", "size", "mtime", "typeflag"}
        assert attributes["size"] == len(content)
        assert attributes["name"] == layer["annotations"]["org.cncf.model.filepath"]
        files[attributes["name"]] = content
    blobs = {descriptor["digest"].removeprefix("sha256:") for descriptor in (entry, manifest["config"])}
    blobs |= {layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]}
    assert {path.name for path in (layout / "blobs/sha256").iterdir()} == blobs
    return files


def test_an_oci_layout_keeps_the_rules_and_gives_the_bundle_back(
    tidegate: Tidegate, dense: Path, tmp_path: Path
) -> None:
    assert tidegate("export", dense, "--oci", tmp_path / "oci")[0] == 0
    for path, content in checked_layout(tmp_path / "oci").items():
        (tmp_path / "back" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "back" / path).write_bytes(content)
    with Bundle.open(tmp_path / "back") as back, Bundle.open(dense) as bundle:
        assert back.manifest_bytes == bundle.manifest_bytes
        back.verify_files()


def test_an_oci_layout_names_each_kind_of_file(
    tone_release: tuple[Manifest, dict[str, bytes]], tmp_path: Path, tidegate: Tidegate
) -> None:
    manifest, files = tone_release
    extra = {"assets/README.md": b"# words", "assets/rules.py": b"pass", "profile.json": b"{}"}
    assets = {name: Asset(file=name, sha256=digest(raw), size_bytes=len(raw)) for name, raw in extra.items()}
    profile = assets.pop("profile.json")
    whole = msgspec.structs.replace(manifest, assets=manifest.assets | assets, reference_profile=profile)
    write_bundle(whole, files | extra, tmp_path / "tones.tide")
    assert tidegate("export", tmp_path / "tones.tide", "--oci", tmp_path / "oci")[0] == 0
    checked_layout(tmp_path / "oci")
    index = json.loads((tmp_path / "oci/index.json").read_bytes())
    layers = json.loads(blob(tmp_path / "oci", index["manifests"][0]))["layers"]
    kinds = {
        layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"].split("model.")[1].split(".v1")[0]
        for layer in layers
    }
    assert kinds == {
        "variants/tones.onnx": "weight",
        "manifest.json": "weight.config",
        "assets/README.md": "doc",
        "assets/catalogue.jsonl": "weight.config",
        "assets/rules.py": "code",
        "profile.json": "weight.config",
    }


def test_two_exports_give_the_same_bytes(tidegate: Tidegate, dense: Path, tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        assert tidegate("export", dense, "--oci", tmp_path / name, "--mlflow", tmp_path / f"{name}-mlflow")[0] == 0
        folders = (tmp_path / name, tmp_path / f"{name}-mlflow")
        trees.append(
            {
                str(path.relative_to(folder)): path.read_bytes()
                for folder in folders
                for path in folder.rglob("*")
                if path.is_file()
            }
        )
    assert trees[0] == trees[1]


def test_an_export_replaces_nothing_and_leaves_nothing_half(tidegate: Tidegate, dense: Path, tmp_path: Path) -> None:
    (tmp_path / "oci").mkdir()
    assert tidegate("export", dense, "--oci", tmp_path / "oci")[0] == 0, "an empty folder is as good as none"
    code, _, err = tidegate("export", dense, "--oci", tmp_path / "oci")
    assert (code, "is there already and not empty" in err) == (2, True)
    code, _, err = tidegate("export", dense, "--oci", tmp_path / "none" / "oci")
    assert (code, "is not a directory" in err) == (1, True)
    assert tidegate("export", dense)[0] == 2
    raw = bytearray(dense.read_bytes())
    raw[raw.index(b"TFL3")] ^= 1
    (tmp_path / "bad.tide").write_bytes(raw)
    assert tidegate("export", tmp_path / "bad.tide", "--oci", tmp_path / "half")[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tide", "oci"]


# -- MLflow ------------------------------------------------------------------------------------------------------------


def test_an_mlflow_model_runs_as_mlflow_runs_it(tidegate: Tidegate, dense: Path, tmp_path: Path) -> None:
    assert tidegate("export", dense, "--mlflow", tmp_path / "mlflow")[0] == 0
    table = yaml.safe_load((tmp_path / "mlflow/MLmodel").read_text(encoding="utf-8"))
    facts = mlflow.read(table)
    assert facts is not None
    assert (facts.name, facts.labels) == ("dense", tuple("abcdefghij"))
    flavour = table["flavors"]["python_function"]
    assert (tmp_path / "mlflow" / flavour["data"]).read_bytes() == dense.read_bytes()
    assert table["model_size_bytes"] == dense.stat().st_size
    loaded = _load_pyfunc(str(tmp_path / "mlflow" / flavour["data"]))
    x = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    for given in ({"x": x}, x):
        np.testing.assert_allclose(loaded.predict(given)["y"], x @ WEIGHTS + BIAS, atol=1e-4)
    with pytest.raises(InputError, match="'z'"):
        loaded.predict({"x": x, "z": x})
    loaded.model.close()


# -- what changed ------------------------------------------------------------------------------------------------------


def test_only_the_version_differs(tidegate: Tidegate, dense: Path, tmp_path: Path) -> None:
    build(dense_spec(tmp_path, version="1.1.0", release=3), tmp_path / "next.tide")
    code, out, _ = tidegate("inspect", "--diff", dense, tmp_path / "next.tide")
    assert (code, out.splitlines()) == (0, ["dense 1.0.0 -> dense 1.1.0", "nothing changed but the version"])
    answer = json.loads(tidegate("inspect", "--json", "--diff", dense, tmp_path / "next.tide")[1])
    assert answer["only_the_version"] is True
    assert [change["what"] for change in answer["changes"]] == ["version", "release"]
    code, out, _ = tidegate("inspect", "--diff", dense, dense)
    assert (code, out.splitlines()[1:]) == (0, ["nothing changed"])


def test_other_weights_are_a_change_although_the_size_is_the_same(
    dense: Path, tmp_path: Path, tidegate: Tidegate
) -> None:
    spec = dense_spec(tmp_path, version="1.1.0")
    raw = bytearray((tmp_path / "dense.onnx").read_bytes())
    at = raw.index(BIAS.tobytes())
    raw[at : at + 4] = np.float32(1e-4).tobytes()
    (tmp_path / "dense.onnx").write_bytes(raw)
    build(spec, tmp_path / "next.tide")
    out = tidegate("inspect", "--diff", dense, tmp_path / "next.tide")[1]
    assert "variant 'onnx-fp32': file: other content, still" in out
    assert "tflite-fp32" not in out


def replace(old: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(old, **changes)


CHANGES: dict[str, tuple[Callable[[Manifest], Manifest], str, str]] = {
    "licence": (lambda m: replace(m, licence="MIT"), "identity", "licence: new, MIT"),
    "failing": (lambda m: replace(m, failing=True), "identity", "failing: was no, is yes"),
    "input": (
        lambda m: replace(m, signature=replace(m.signature, inputs=(replace(m.signature.inputs[0], shape=(1, 8000)),))),
        "signature",
        "input 'audio': was FP32 [any, 16000] (finite only), is FP32 [1, 8000] (finite only)",
    ),
    "output renamed": (
        lambda m: replace(m, signature=replace(m.signature, outputs=(replace(m.signature.outputs[0], name="p"),))),
        "signature",
        "output 'p': new, FP32 [any, 6]",
    ),
    "label added": (lambda m: replace(m, labels=(*m.labels, "left")), "labels", "labels added: left"),
    "label removed": (lambda m: replace(m, labels=m.labels[:-1]), "labels", "labels removed: down"),
    "label moved": (
        lambda m: replace(m, labels=(m.labels[1], m.labels[0], *m.labels[2:])),
        "labels",
        "labels stand for other outputs than before: unknown, silence",
    ),
    "front end": (
        lambda m: replace(m, front_end=FrontEnd(kind="audio", sample_rate_hz=8000, inside_graph=True)),
        "front end",
        "sample_rate_hz: was 16000, is 8000",
    ),
    "front end gone": (lambda m: replace(m, front_end=None), "front end", "front end removed: kind audio"),
    "prefilter": (
        lambda m: replace(m, prefilter=PrefilterSettings(kind="energy", options={"threshold_db": -40})),
        "prefilter",
        "options.threshold_db: new, -40",
    ),
    "decoder": (
        lambda m: replace(m, decoder=DecoderSettings(kind="keywords", threshold=0.75)),
        "decoder",
        "threshold: was 0.5, is 0.75",
    ),
    "budgets": (lambda m: replace(m, budgets=Budgets(rss_mb=64)), "budgets", "budgets added: rss_mb 64"),
    "metric": (
        lambda m: replace(m, variants=(replace(m.variants[0], metrics={"accuracy": 0.97}),)),
        "metrics",
        "variant 'onnx-fp32': accuracy: new, 0.97",
    ),
    "size": (
        lambda m: replace(m, variants=(replace(m.variants[0], sha256="1" * 64, size_bytes=10),)),
        "variants",
        "variant 'onnx-fp32': file: other content, ",
    ),
    "variant renamed": (
        lambda m: replace(m, variants=(replace(m.variants[0], id="other"),)),
        "variants",
        "variant 'onnx-fp32': gone, was onnx fp32",
    ),
    "asset": (lambda m: replace(m, assets={}), "assets", "asset 'catalogue': gone"),
    "criterion": (
        lambda m: replace(
            m,
            criteria=(
                CriterionResult(
                    name="accuracy",
                    metric="accuracy",
                    scope="all",
                    variant="onnx-fp32",
                    demand="at least 0.9",
                    verdict="pass",
                    confidence=0.95,
                    samples=500,
                ),
            ),
        ),
        "criteria",
        "'accuracy' on 'onnx-fp32': new, pass",
    ),
    "provenance": (
        lambda m: replace(m, provenance={"source_commit": "abc"}),
        "provenance",
        "source_commit: new, abc",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_said_in_words(name: str, tone_manifest: Manifest) -> None:
    change, section, sentence = CHANGES[name]
    found = differences(tone_manifest, change(tone_manifest))
    assert any(one.section == section and one.sentence.startswith(sentence) for one in found), found
    assert {one.section for one in found} == {section}
    assert differences(change(tone_manifest), tone_manifest), "and back"


def test_a_wrong_use_of_diff(tidegate: Tidegate, dense: Path) -> None:
    assert tidegate("inspect", dense, "--diff", dense, dense)[0] == 2


# -- Open Inference Protocol -------------------------------------------------------------------------------------------


def test_a_server_says_what_the_mirror_says(dense: Path) -> None:
    with Server([dense]) as server, Client(server.address) as client, Bundle.open(dense) as bundle:
        answer = client.model_metadata("dense")
        variant = bundle.variant(answer.properties["variant"])
        mirror, facts = oip.metadata(bundle.manifest, variant), facts_of(bundle.manifest, variant)
    assert (answer.name, list(answer.versions), answer.platform) == (
        mirror["name"],
        mirror["versions"],
        mirror["platform"],
    )
    told = [{"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)} for spec in answer.signature.inputs]
    assert told == mirror["inputs"]
    own = {name: value for name, value in answer.properties.items() if name not in ("runtime", "provider")}
    assert own == mirror["properties"]
    assert oip.read({**mirror, "inputs": told, "properties": answer.properties}) == facts
