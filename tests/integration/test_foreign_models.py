"""Models that other people's tools made: into a bundle, verified and run, with the answers that they gave before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.models import make_dense_onnx, tflite

from tidegate.bundle import Asset, Bundle, GoldenFixture, digest, write_bundle
from tidegate.bundle.arrays import Array
from tidegate.convert.build import build
from tidegate.convert.spec import BuildSpec, BundleTable, GoldenTable, VariantTable, spec_for_models
from tidegate.errors import BundleError, ConfigError, ModelError, NotFoundError
from tidegate.runtime import load
from tidegate.runtime.verify import verify_bundle
from tidegate.testing.backend_contract import BIAS, WEIGHTS

X = np.linspace(-1, 1, 64, dtype=np.float32)[None]
Y = X @ WEIGHTS + BIAS

MODELS: dict[str, tuple[dict[str, Array], dict[str, Array], float]] = {
    "no_signature": ({"serving_x:0": X}, {"PartitionedCall:0": Y}, 1e-4),
    "dense_int8": ({"x": X}, {"y": Y}, 0.1),
    "dense_uint8": ({"x": X}, {"y": Y}, 0.1),
    "dense_int16": ({"x": X}, {"y": Y}, 0.01),
    "signatures": ({"x": np.array([1, 2, 3], np.float32)}, {"y": np.array([2, 4, 6], np.float32)}, 0),
    "branches": ({"x": np.array([-1, -2, 3.5], np.float32)}, {"y": np.array([-2, -4, 7], np.float32)}, 0),
    "text": (
        {"words": np.array([b"tide", b"", b"gate"], object), "lengths": np.array([2, 0], np.int32)},
        {"joined": np.array([b"gate", b"tide"], object), "lengths": np.array([3, 1], np.int32)},
        0,
    ),
}


def names_of(path: Path, arrays: tuple[dict[str, Array], dict[str, Array]]) -> tuple[dict[str, Array], ...]:
    """Return the arrays under the file's own names where it has one input and one output: converters choose those."""
    with load(path) as model:
        sides = (model.signature.inputs, model.signature.outputs)
    if len(sides[0]) > 1:
        return arrays
    return tuple({specs[0].name: next(iter(side.values()))} for specs, side in zip(sides, arrays, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_tflite_file_goes_in_and_computes_what_it_did(name: str, tmp_path: Path) -> None:
    inputs, outputs, tolerance = MODELS[name]
    given, expected = names_of(tflite(name), (inputs, outputs))
    (tmp_path / "golden.npz").write_bytes(GoldenFixture(given, expected).to_npz())
    spec = BuildSpec(
        bundle=BundleTable(name="foreign", version="1.0.0"),
        variant=(VariantTable(id="v", file=str(tflite(name))),),
        golden=GoldenTable(file="golden.npz", tolerance=tolerance),
        directory=tmp_path,
    )
    build(spec, tmp_path / "foreign.tide")
    with Bundle.open(tmp_path / "foreign.tide") as bundle:
        assert [report.status for report in verify_bundle(bundle)] == ["passed"]
        with load(bundle) as model, load(tflite(name)) as bare:
            found, before = model.run(given), bare.run(given)
    for output, value in before.items():
        assert found[output].tolist() == value.tolist()


# -- ONNX weights beside the model -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "author").mkdir()
    return tmp_path / "author"


def external(folder: Path, location: str = "weights.bin", length: int | None = None) -> Path:
    """Write a model whose weights are said to lie at `location`; that file is written beside it as `weights.bin`."""
    model = onnx.load_from_string(make_dense_onnx(folder / "plain.onnx").read_bytes())
    (tensor,) = (item for item in model.graph.initializer if item.name == "weights")
    raw = numpy_helper.to_array(tensor).tobytes()
    (folder / "weights.bin").write_bytes(raw)
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(len(raw) if length is None else length))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def spec_of(path: Path) -> BuildSpec:
    return spec_for_models({"onnx": path}, name="outside", version="1.0.0")


def test_onnx_weights_beside_the_model_are_taken_in(folder: Path, tmp_path: Path) -> None:
    build(spec_of(external(folder)), tmp_path / "outside.tide")
    (folder / "weights.bin").unlink()
    with load(tmp_path / "outside.tide") as model:
        np.testing.assert_allclose(model(X), Y, atol=1e-4)


def test_onnx_weights_in_a_folder_below_are_taken_in(folder: Path, tmp_path: Path) -> None:
    path = external(folder, "data/w.bin")
    (folder / "data").mkdir()
    (folder / "weights.bin").rename(folder / "data/w.bin")
    build(spec_of(path), tmp_path / "outside.tide")
    with load(tmp_path / "outside.tide") as model:
        np.testing.assert_allclose(model(X), Y, atol=1e-4)


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("../weights.bin", "outside the model's own folder"),
        ("data/../../weights.bin", "outside the model's own folder"),
        ("..\\weights.bin", "outside the model's own folder"),
        ("C:weights.bin", "outside the model's own folder"),
        ("/etc/passwd", "expected a relative path"),
        ("\\\\server\\share\\w.bin", "expected a relative path"),
        ("", "expected a relative path"),
        ("*/_ORT_MEM_ADDR_/*", "cannot be read"),
        ("link.bin", "is a link"),
        ("linked/weights.bin", "is a link"),
        ("folder", "no regular file"),
    ],
)
def test_onnx_weights_elsewhere_are_refused(folder: Path, tmp_path: Path, location: str, complaint: str) -> None:
    path = external(folder, location)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    (folder / "folder").mkdir()
    with pytest.raises((BundleError, NotFoundError), match=complaint) as caught:
        build(spec_of(path), tmp_path / "outside.tide")
    assert "weights" in caught.value.message
    assert not (tmp_path / "outside.tide").exists()


def test_onnx_weights_shorter_than_stated_are_refused(folder: Path, tmp_path: Path) -> None:
    path = external(folder)
    (folder / "weights.bin").write_bytes(b"\0" * 8)
    with pytest.raises(BundleError, match="do not fit what it says of them"):
        build(spec_of(path), tmp_path / "outside.tide")


def test_onnx_weights_too_large_for_one_file_are_refused_before_they_are_read(folder: Path, tmp_path: Path) -> None:
    path = external(folder)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(ConfigError, match="one ONNX file holds at most"):
        build(spec_of(path), tmp_path / "outside.tide")


def test_a_bundle_whose_model_keeps_weights_elsewhere_is_refused_at_load(folder: Path, tmp_path: Path) -> None:
    """Also when the file is an asset of the same bundle, and lies in the working directory too."""
    build(spec_of(external(folder)), tmp_path / "good.tide")
    content, weights = (folder / "model.onnx").read_bytes(), (folder / "weights.bin").read_bytes()
    with Bundle.open(tmp_path / "good.tide") as bundle:
        manifest = bundle.manifest
    variant = msgspec.structs.replace(manifest.variants[0], sha256=digest(content), size_bytes=len(content))
    asset = Asset(file="weights.bin", sha256=digest(weights), size_bytes=len(weights))
    bad = msgspec.structs.replace(manifest, variants=(variant,), golden=None, assets={"weights": asset})
    write_bundle(bad, {variant.file: content, "weights.bin": weights}, tmp_path / "bad.tide")
    with pytest.raises(ModelError, match=r"keeps its data in another file, 'weights\.bin'"):
        load(tmp_path / "bad.tide")


def test_a_model_without_inputs_goes_in(tmp_path: Path) -> None:
    value: Any = numpy_helper.from_array(np.arange(3, dtype=np.float32))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=value)],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "constant.onnx"))
    build(spec_of(tmp_path / "constant.onnx"), tmp_path / "constant.tide")
    with load(tmp_path / "constant.tide") as loaded:
        assert loaded.run({})["y"].tolist() == [0, 1, 2]
