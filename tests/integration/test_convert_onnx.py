"""Ready models, a PyTorch export, and quantising ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.models import make_dense_onnx, make_onnx, tflite

from tidegate.bundle.arrays import pack_arrays, unpack_arrays
from tidegate.convert import convert
from tidegate.convert.routes import CALIBRATED_STEPS, ROUTES, routes_for, variants_from
from tidegate.convert.rows import read_rows
from tidegate.errors import BundleError, ConfigError, ModelError, NotFoundError
from tidegate.runtime import load

DATA = Path(__file__).parents[1] / "data"
TORCH, TORCH_GOLDEN = DATA / "torch_net.onnx", DATA / "torch_net_golden.npz"


def test_a_pytorch_export_answers_as_pytorch_did_in_every_variant(tmp_path: Path) -> None:
    golden = unpack_arrays(TORCH_GOLDEN.read_bytes(), origin="golden")
    made = convert(TORCH, variants_from("onnx"), tmp_path, data=TORCH_GOLDEN)
    tolerance = {"onnx": 1e-6, "onnx-fp32": 1e-6, "onnx-fp16": 2e-3, "onnx-dynamic-int8": 0.02, "onnx-int8": 0.05}
    for variant in made.variants:
        with load(variant.path) as model:
            assert [(spec.name, spec.shape) for spec in model.signature.inputs] == [("image", (-1, 1, 8, 8))]
            found = model.run({"image": golden["input/image"]})
        np.testing.assert_allclose(found["probabilities"], golden["output/probabilities"], atol=tolerance[variant.id])
    assert {variant.id: variant.precision for variant in made.variants} == {
        "onnx": "fp32",
        "onnx-fp32": "fp32",
        "onnx-fp16": "fp16",
        "onnx-dynamic-int8": "dynamic-int8",
        "onnx-int8": "int8",
    }


def test_what_pytorch_notes_for_its_own_debugging_stays_at_home(tmp_path: Path) -> None:
    """The checked-in file is PyTorch's own export: entries in the graph, in values and weights are still in it."""
    assert b"pkg.torch" in TORCH.read_bytes()
    (made,) = convert(TORCH, ["onnx"], tmp_path).variants
    content = made.path.read_bytes()
    assert b"pkg.torch" not in content
    assert len(content) < len(TORCH.read_bytes())
    assert made.parity.maximum_error == 0.0
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)


def test_ready_files_are_copied_byte_by_byte(tmp_path: Path) -> None:
    dense = make_dense_onnx(tmp_path / "dense.onnx", "rows")
    for path, variants in ((dense, ["onnx", "onnx-fp32"]), (tflite("dense"), ["tflite", "tflite-fp32"])):
        for made in convert(path, variants, tmp_path / "out").variants:
            assert made.path.read_bytes() == path.read_bytes()
            assert made.parity.maximum_error == 0.0
    with pytest.raises(ConfigError, match=r"dense_int8\.tflite is int8; expected fp32"):
        convert(tflite("dense_int8"), ["tflite-fp32"], tmp_path)


def test_weights_beside_an_onnx_model_are_taken_in(tmp_path: Path) -> None:
    model = onnx.load(make_dense_onnx(tmp_path / "dense.onnx", "rows"))
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 1000
    out = tmp_path / "out"
    made = convert(tmp_path / "outside.onnx", ["onnx", "onnx-dynamic-int8"], out)
    (tmp_path / "weights.bin").unlink()
    for variant in made.variants:
        with load(variant.path) as loaded:
            assert loaded.run({"x": np.ones((2, 64), np.float32)})["y"].shape == (2, 10)
    with pytest.raises(NotFoundError, match=r"weights\.bin"):
        convert(tmp_path / "outside.onnx", ["onnx"], out)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    model = onnx.load(make_dense_onnx(tmp_path / "dense.onnx"))
    (tmp_path / "inner").mkdir()
    onnx.save(model, tmp_path / "inner/m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    content = (tmp_path / "inner/m.onnx").read_bytes()
    (tmp_path / "inner/m.onnx").write_bytes(content.replace(b"w.bin", b"../wb"))
    with pytest.raises(BundleError, match="outside the model's own folder"):
        convert(tmp_path / "inner/m.onnx", ["onnx"], tmp_path)


def test_an_old_operator_set_is_raised_before_it_is_quantised(tmp_path: Path) -> None:
    model = onnx.load(make_dense_onnx(tmp_path / "dense.onnx", "rows"))
    model.opset_import[0].version = 11
    onnx.save(model, tmp_path / "old.onnx")
    rows = {"x": np.random.default_rng(0).uniform(-1, 1, (20, 64))}
    (made,) = convert(tmp_path / "old.onnx", ["onnx-int8"], tmp_path, data=rows).variants
    assert made.precision == "int8"
    assert made.parity.maximum_error is not None
    assert made.parity.maximum_error < 0.3  # outputs span 0 to 10


def test_a_damaged_model_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(TORCH.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"onnxruntime cannot load this"):
        convert(tmp_path / "bad.onnx", ["onnx"], tmp_path / "out")
    make_onnx(tmp_path / "odd.onnx", [("NoSuchOperator", ["x"], ["y"])], {"x": ("FP32", [1])}, {"y": ("FP32", [1])})
    with pytest.raises(ModelError, match="NoSuchOperator"):
        convert(tmp_path / "odd.onnx", ["onnx"], tmp_path / "out")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([], "no variant was asked for"),
        (["onnx", "onnx"], "asked for twice"),
        (["onnx-int4"], "gives no variant 'onnx-int4'; it gives onnx, onnx-fp32"),
    ],
)
def test_variants_that_cannot_be_meant(variants: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        routes_for("onnx", variants)


def test_every_step_of_the_table_exists() -> None:
    import importlib

    steps = {step for route in ROUTES.values() for step in route}
    assert steps >= CALIBRATED_STEPS
    for step in steps:
        module, function = step.split(":")
        assert callable(getattr(importlib.import_module(f"tidegate.convert.{module}"), function))


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model at"):
        convert(tmp_path / "absent.onnx", ["onnx"], tmp_path)
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"'\.pt' tells no kind of model") as caught:
        convert(tmp_path / "net.pt", ["onnx"], tmp_path)
    assert "torch.onnx.export" in (caught.value.fix or "")
    with pytest.raises(ConfigError, match=r"without saved_model\.pb"):
        convert(tmp_path, ["onnx-fp32"], tmp_path)
    with pytest.raises(ConfigError, match=r"a builtins\.int cannot be converted"):
        convert(3, ["onnx"], tmp_path)


def test_data_is_read_with_or_without_prefix_and_held_to_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(pack_arrays({"input/a": np.zeros((3, 2)), "output/y": np.zeros((3, 1)), "label": np.zeros(3)}))
    assert list(read_rows(path)) == ["a"]
    np.savez(path, a=np.zeros((3, 2)), b=np.zeros(3))
    assert list(read_rows(path)) == ["a", "b"]
    np.savez(path, a=np.zeros((3, 2)), b=np.zeros(4))
    with pytest.raises(ConfigError, match="a: 3, b: 4 rows"):
        read_rows(path)
    path.write_bytes(pack_arrays({"output/y": np.zeros(3)}))
    with pytest.raises(ConfigError, match="holds no inputs"):
        read_rows(path)
