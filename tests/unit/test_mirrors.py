"""Mirrors of the manifest in model files and in other systems' metadata: written, read back, and of no effect."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from flatbuffers.table import Table
from hypothesis import given
from hypothesis import strategies as st
from tests.models import make_dense_onnx, tflite

from tidegate.bundle import Manifest, Variant
from tidegate.bundle.manifest import Budgets, DecoderSettings, FrontEnd, PrefilterSettings, Signature, TensorSpec
from tidegate.convert.mirrors import mlflow, oip, tflite_file
from tidegate.convert.mirrors import onnx as onnx_mirror
from tidegate.convert.mirrors import tflite as tflite_mirror
from tidegate.convert.mirrors.facts import Facts, facts_of, from_json, from_strings, to_json, to_strings
from tidegate.convert.mirrors.tflite_metadata import ModelText, TensorText, build, parse
from tidegate.convert.mirrors.yaml_text import document
from tidegate.errors import BundleError
from tidegate.runtime import load
from tidegate.runtime.onnx_file import external_tensors

FACTS = Facts(
    schema="tidegate.bundle/1",
    name="words",
    version="1.2.0-rc.1+5",
    release=7,
    description='ten "wörds",\nover two lines \N{WATER WAVE}',
    licence="Apache-2.0",
    variant="v",
    precision="fp32",
    signature=Signature(
        inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 64), finite=True),),
        outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 10)),),
    ),
    labels=(*"abcdefghi", "two\nlines"),
    front_end=FrontEnd(kind="audio", sample_rate_hz=16000, inside_graph=True),
    prefilter=PrefilterSettings(kind="energy", options={"threshold_db": -45.5}),
    decoder=DecoderSettings(kind="keywords", threshold=0.25),
    budgets=Budgets(latency_p95_ms=20),
    provenance={"source_commit": "0f3c2a1"},
)
NEXT = msgspec.structs.replace(FACTS, version="1.3.0", release=8, labels=())

TEXTS = st.text(max_size=20)


def manifest() -> Manifest:
    return Manifest(
        schema=FACTS.schema,
        name=FACTS.name,
        version=FACTS.version,
        release=FACTS.release,
        description=FACTS.description,
        licence=FACTS.licence,
        provenance=FACTS.provenance,
        signature=FACTS.signature,
        labels=FACTS.labels,
        front_end=FACTS.front_end,
        prefilter=FACTS.prefilter,
        decoder=FACTS.decoder,
        budgets=FACTS.budgets,
        variants=(
            Variant(id="v", backend="onnx", precision="fp32", file="variants/v.onnx", sha256="0" * 64, size_bytes=1),
        ),
    )


def test_facts_say_what_the_manifest_says() -> None:
    whole = manifest()
    assert facts_of(whole, whole.variants[0]) == FACTS
    # `trial` is about how a device tries the release, not about the model.
    unsaid = {"variants", "golden", "assets", "reference_profile", "evaluation", "criteria", "failing", "trial"}
    assert {field.name for field in msgspec.structs.fields(Manifest)} - unsaid <= set(Facts.__struct_fields__)


@given(
    st.builds(
        Facts,
        schema=TEXTS,
        name=TEXTS,
        version=TEXTS,
        description=TEXTS,
        signature=st.just(FACTS.signature),
        labels=st.lists(TEXTS).map(tuple),
        provenance=st.dictionaries(TEXTS, TEXTS),
    )
)
def test_any_facts_come_back(facts: Facts) -> None:
    assert from_strings(to_strings(facts), origin="test") == facts
    assert from_json(to_json(facts), origin="test") == facts


@pytest.mark.parametrize("damage", [{"release": "many"}, {"labels": "["}, {"signature": "{}"}])
def test_damaged_facts_are_refused(damage: dict[str, str]) -> None:
    with pytest.raises(BundleError, match="mirror of the manifest is damaged"):
        from_strings(to_strings(FACTS) | damage, origin="test")


# -- ONNX --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dense_onnx(tmp_path: Path) -> bytes:
    return make_dense_onnx(tmp_path / "dense.onnx").read_bytes()


def test_onnx_facts_are_metadata_props_that_onnx_reads(dense_onnx: bytes) -> None:
    written = onnx_mirror.write(dense_onnx, FACTS)
    model = onnx.load_from_string(written)
    onnx.checker.check_model(model)
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["tidegate.name"] == "words"
    assert json.loads(props["tidegate.labels"]) == list(FACTS.labels)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == props
    assert onnx_mirror.read(written) == FACTS
    assert onnx_mirror.read(dense_onnx) is None


def test_onnx_bytes_of_the_author_stay_and_come_back(dense_onnx: bytes) -> None:
    written = onnx_mirror.write(dense_onnx, FACTS)
    assert written.startswith(dense_onnx)
    assert onnx_mirror.write(written, NEXT) == onnx_mirror.write(dense_onnx, NEXT)
    assert onnx_mirror.without(written) == dense_onnx


def test_onnx_metadata_of_others_stays(dense_onnx: bytes) -> None:
    model = onnx.load_from_string(dense_onnx)
    model.metadata_props.add(key="author", value="somebody")
    written = onnx_mirror.write(model.SerializeToString(), FACTS)
    props = {prop.key: prop.value for prop in onnx.load_from_string(written).metadata_props}
    assert props["author"] == "somebody"
    assert onnx_mirror.without(written) == model.SerializeToString()


def test_onnx_facts_survive_quantisation(dense_onnx: bytes, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    (tmp_path / "mirrored.onnx").write_bytes(onnx_mirror.write(dense_onnx, FACTS))
    quantize_dynamic(tmp_path / "mirrored.onnx", tmp_path / "int8.onnx")
    assert onnx_mirror.read((tmp_path / "int8.onnx").read_bytes()) == FACTS


def test_onnx_facts_are_written_again_where_a_tool_dropped_them(dense_onnx: bytes, tmp_path: Path) -> None:
    (tmp_path / "mirrored.onnx").write_bytes(onnx_mirror.write(dense_onnx, FACTS))
    onnx.utils.extract_model(str(tmp_path / "mirrored.onnx"), str(tmp_path / "part.onnx"), ["x"], ["y"])
    part = (tmp_path / "part.onnx").read_bytes()
    assert onnx_mirror.read(part) is None, "extract_model keeps metadata now: say so in the research notes"
    assert onnx_mirror.read(onnx_mirror.write(part, FACTS)) == FACTS


@pytest.mark.parametrize("raw", [b"\xff", b"\x3a\xff\x01", b"not protobuf at all"])
def test_what_is_no_onnx_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError, match="damaged"):
        onnx_mirror.write(raw, FACTS)


# -- TFLite ------------------------------------------------------------------------------------------------------------

TFLITE_MODELS = ("dense", "dense_int8", "batch", "two", "scalar", "no_signature", "column_BYTES", "column_INT64")


@pytest.mark.parametrize("name", TFLITE_MODELS)
def test_tflite_facts_come_back_and_the_model_computes_the_same(name: str, tmp_path: Path) -> None:
    plain = tflite(name).read_bytes()
    assert tflite_mirror.obstacle(plain) == ""
    written = tflite_mirror.write(plain, FACTS)
    (tmp_path / "mirrored.tflite").write_bytes(written)
    assert tflite_mirror.read(written) == FACTS
    assert tflite_mirror.read(plain) is None
    with load(tflite(name)) as before, load(tmp_path / "mirrored.tflite") as after:
        assert after.signature == before.signature
        assert after.provider == before.provider
        feeds = {spec.name: example(spec) for spec in before.signature.inputs}
        expected, found = before.run(feeds), after.run(feeds)
        assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in expected.items()}


def example(spec: TensorSpec) -> Any:
    shape = [2 if size == -1 else size for size in spec.shape]
    if spec.dtype == "BYTES":
        return np.full(shape, b"word", object)
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape).astype({"FP32": "f4"}.get(spec.dtype, "i8"))


@pytest.mark.parametrize("name", TFLITE_MODELS)
def test_tflite_bytes_of_the_author_stay_and_come_back(name: str) -> None:
    plain = tflite(name).read_bytes()
    written = tflite_mirror.write(plain, FACTS)
    assert plain in written
    assert written.index(plain) % 64 == 0, "weights would lose their alignment"
    assert tflite_mirror.without(written) == plain
    assert tflite_mirror.write(written, NEXT) == tflite_mirror.write(plain, NEXT)


def test_tflite_labels_are_a_file_in_an_archive_behind_the_model() -> None:
    written = tflite_mirror.write(tflite("dense").read_bytes(), FACTS)
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == [*"abcdefghi", "two lines"]
    without_labels = tflite_mirror.write(tflite("dense").read_bytes(), NEXT)
    assert not zipfile.is_zipfile(io.BytesIO(without_labels))


def test_tflite_metadata_has_the_fields_of_schema_1_5_0() -> None:
    """The numbers are those of metadata_schema.fbs; the package flatbuffers reads them, not our own reader."""
    raw = tflite_file.metadata(tflite_mirror.write(tflite("dense").read_bytes(), FACTS))["TFLITE_METADATA"]
    assert raw[4:8] == b"M001"
    model = Table(raw, struct.unpack_from("<I", raw)[0])
    assert [text(model, field) for field in (0, 2, 5, 7)] == ["words", "1.2.0-rc.1+5", "Apache-2.0", "1.5.0"]
    (graph,) = tables(model, 3)
    (given_tensor,), (made_tensor,) = tables(graph, 2), tables(graph, 3)
    assert [text(given_tensor, 0), text(given_tensor, 1)] == ["x", "FP32 [-1, 64]"]
    content = table(given_tensor, 3)
    assert scalar(content, 0, "<B") == 4, "ContentProperties.AudioProperties"
    assert [scalar(table(content, 1), field, "<I") for field in (0, 1)] == [16000, 1]
    (file,) = tables(made_tensor, 6)
    assert (text(file, 0), scalar(file, 2, "<B")) == ("labels.txt", 2)
    (custom,) = tables(graph, 9)
    assert text(custom, 0) == "tidegate"


def place(of: Table, field: int) -> int:
    offset = of.Offset(4 + 2 * field)
    assert offset, f"field {field} is absent"
    return int(of.Pos + offset)


def text(of: Table, field: int) -> str:
    return str(of.String(place(of, field)).decode())


def scalar(of: Table, field: int, form: str) -> int:
    return int(struct.unpack_from(form, of.Bytes, place(of, field))[0])


def table(of: Table, field: int) -> Table:
    return Table(of.Bytes, of.Indirect(place(of, field)))


def tables(of: Table, field: int) -> list[Table]:
    offset = of.Offset(4 + 2 * field)
    start = of.Vector(offset)
    return [Table(of.Bytes, of.Indirect(start + 4 * index)) for index in range(of.VectorLen(offset))]


def test_tflite_metadata_of_others_is_left_alone() -> None:
    foreign = tflite_file.with_metadata(tflite("dense").read_bytes(), {"TFLITE_METADATA": build(ModelText("a", "1"))})
    # What the author's tool wrote is not ours, even if it stands where ours would.
    foreign = foreign.replace(b"TIDEGATE_ORIGINAL", b"SOMETHING_FOREIGN")
    assert tflite_mirror.obstacle(foreign) == "it carries TFLite metadata of its own"
    assert tflite_mirror.read(foreign) is None


def test_a_tflite_file_with_an_archive_of_its_own_is_left_alone() -> None:
    appended = tflite_file.with_files(tflite("dense").read_bytes(), {"metadata.json": b"{}"})
    assert tflite_mirror.obstacle(appended) == "a ZIP archive is appended to it already"


@given(
    st.builds(
        ModelText,
        name=TEXTS,
        version=TEXTS,
        description=TEXTS,
        licence=TEXTS,
        inputs=st.lists(
            st.builds(
                TensorText,
                name=TEXTS,
                description=TEXTS,
                sample_rate_hz=st.integers(0, 2**32 - 1),
                labels_file=TEXTS,
            ),
            max_size=3,
        ).map(tuple),
        custom=st.lists(st.tuples(TEXTS, st.binary(max_size=40)), max_size=3).map(tuple),
    )
)
def test_any_tflite_metadata_comes_back(model: ModelText) -> None:
    assert parse(build(model)) == model


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_tflite_file_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(tflite_mirror.write(tflite("dense_int8").read_bytes(), FACTS))
    for at, value in changes:
        raw[at % len(raw)] = value
    for action in (tflite_mirror.read, tflite_mirror.obstacle, tflite_mirror.without):
        try:
            action(bytes(raw))
        except BundleError:
            continue


# -- OIP and MLflow ----------------------------------------------------------------------------------------------------


def test_oip_metadata_comes_back() -> None:
    whole = manifest()
    answer = oip.metadata(whole, whole.variants[0])
    assert oip.read(json.loads(json.dumps(answer))) == FACTS
    assert all(isinstance(value, str) for value in answer["properties"].values())
    assert answer["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert oip.read({"properties": {"version": "1"}}) is None
    with pytest.raises(BundleError, match="disagree"):
        oip.read(answer | {"inputs": []})


def test_mlmodel_comes_back_from_yaml() -> None:
    files = mlflow.files(manifest(), b"archive", "0.1.0")
    table = yaml.safe_load(files["MLmodel"])
    assert mlflow.read(table) == msgspec.structs.replace(FACTS, variant="", precision="")
    assert json.loads(table["signature"]["inputs"]) == [
        {"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}
    ]
    assert table["flavors"]["python_function"] == {"loader_module": "tidegate.runtime.pyfunc", "data": "bundle.tide"}
    assert files["requirements.txt"] == b"tidegate[onnx]>=0.1.0\n"
    assert mlflow.read({"flavors": {}}) is None
    table["signature"]["outputs"] = "[]"
    with pytest.raises(BundleError, match="disagree"):
        mlflow.read(table)


@given(st.recursive(st.one_of(TEXTS, st.booleans(), st.integers()), lambda inner: st.dictionaries(TEXTS, inner)))
def test_any_table_comes_back_from_yaml(value: Any) -> None:
    assert yaml.safe_load(document({"key": value})) == {"key": value}


# -- weights outside ---------------------------------------------------------------------------------------------------


def test_tensors_that_lie_outside_are_found_wherever_they_hide(dense_onnx: bytes) -> None:
    def outside(name: str) -> Any:
        tensor = onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    branch = onnx.helper.make_graph([], "branch", [], [], initializer=[outside("deep")])
    model = onnx.load_from_string(dense_onnx)
    model.graph.initializer.append(outside("plain"))
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=outside("constant")))
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside("sparse")))
    model.functions.append(
        onnx.FunctionProto(name="f", node=[onnx.helper.make_node("Constant", [], ["e"], value=outside("inner"))])
    )
    found = {tensor.tensor: tensor.location for tensor in external_tensors(model.SerializeToString())}
    names = ("plain", "constant", "deep", "sparse", "inner")
    assert found == {name: f"{name}.bin" for name in names}
    assert external_tensors(dense_onnx) == ()
