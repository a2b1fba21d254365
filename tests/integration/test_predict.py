"""Batch prediction on real models: every format in and out, bad rows, shapes, audio, resume, Ray's mapper."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.models import tflite
from tests.served import identity_bundle, linear_bundle, simple_bundle, slow_bundle

from tidegate.bundle import Manifest, Signature, TensorSpec, Variant, digest, write_bundle
from tidegate.bundle.arrays import unpack_arrays
from tidegate.errors import ConfigError, InputError, StateError
from tidegate.predict import BundleMapper, PredictSettings, errors_path, predict
from tidegate.predict.parts import Parts

EXAMPLES = Path(__file__).parents[2] / "examples" / "voice_commands"
ROWS = 300
FORMATS = ("parquet", "csv", "jsonl", "npz")

Read = Callable[[Path], dict[str, list[Any]]]


def numbers(rows: int = ROWS) -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(rows, 4)).astype(np.float32)


def write_input(path: Path, x: NDArray[np.float32]) -> Path:
    ids = [f"k{row}" for row in range(len(x))]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "x": x.tolist()}), path, row_group_size=77)
    elif path.suffix == ".npz":
        np.savez(path, id=np.array(ids), x=x)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": i, "x": r}) + "\n" for i, r in zip(ids, x.tolist(), strict=True)))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [("id", "x"), *((i, json.dumps(r)) for i, r in zip(ids, x.tolist(), strict=True))]
            )
    return path


def read_output(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".parquet":
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return columns
    if path.suffix == ".npz":
        arrays = unpack_arrays(path.read_bytes(), origin=str(path))
        return {
            name: [item.decode() for item in array.tolist()] if array.dtype.kind == "O" else array.tolist()
            for name, array in arrays.items()
            if array.ndim
        }
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {name: [row[name] for row in rows] for name in rows[0]}
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return {name: [json.loads(row[name]) if row[name][:1] == "[" else row[name] for row in found] for name in found[0]}


def facts_of(path: Path) -> dict[str, str]:
    if path.suffix == ".parquet":
        raw: bytes = pq.read_schema(path).metadata[b"tidegate"]
    elif path.suffix == ".npz":
        raw = unpack_arrays(path.read_bytes(), origin=str(path))["tidegate"].item()
    else:
        raw = path.with_name(f"{path.name}.meta.json").read_bytes()
    facts: dict[str, str] = json.loads(raw)
    return facts


@pytest.mark.parametrize("read", FORMATS)
@pytest.mark.parametrize("written", FORMATS)
def test_every_format_in_and_out_gives_the_models_answers(tmp_path: Path, read: str, written: str) -> None:
    x = numbers()
    bundle = linear_bundle(tmp_path, factor=2.0)
    source, output = write_input(tmp_path / f"in.{read}", x), tmp_path / f"out.{written}"
    summary = predict(bundle, source, output, PredictSettings(keys=("id",)))
    assert (summary.rows, summary.answered, summary.failed, summary.errors) == (ROWS, ROWS, 0, None)
    found = read_output(output)
    assert found["id"] == [f"k{row}" for row in range(ROWS)]
    np.testing.assert_array_equal(np.array(found["y"], np.float32), x * 2)
    assert list(found) == ["id", "y", "total"]
    facts = facts_of(output)
    assert facts == summary.model
    assert (facts["bundle"], facts["version"], facts["variant"]) == ("linear", "1.0.0", "onnx-as-is")
    assert len(facts["manifest_sha256"]) == 64
    assert not (tmp_path / f"out.{written}.parts").exists()


def test_without_a_key_the_rows_number_is_carried(tmp_path: Path) -> None:
    predict(linear_bundle(tmp_path), write_input(tmp_path / "in.npz", numbers(5)), tmp_path / "out.jsonl")
    assert read_output(tmp_path / "out.jsonl")["row"] == [0, 1, 2, 3, 4]


def test_columns_of_numbers_make_a_vector_and_text_feeds_bytes(tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("a,b,c,d,word\n1,2,3,4,tide\n5,6,7,8,gate\n")
    settings = PredictSettings(columns={"x": ("a", "b", "c", "d")}, keys=("word",))
    predict(linear_bundle(tmp_path), table, tmp_path / "out.csv", settings)
    assert read_output(tmp_path / "out.csv")["y"] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    settings = PredictSettings(columns={"x": ("word",)}, whole_inputs=False)
    text = identity_bundle(tmp_path, "BYTES")
    (tmp_path / "words.jsonl").write_text('{"word": ["tide", "gate"]}\n{"word": ["\u00e9"]}\n')
    predict(text, tmp_path / "words.jsonl", tmp_path / "out.parquet", settings)
    assert read_output(tmp_path / "out.parquet")["y"] == [["tide", "gate"], ["\u00e9"]]


def test_several_inputs_and_rows_of_different_lengths_keep_their_order(tmp_path: Path) -> None:
    lengths = [3, 1, 2, 3, 1, 5] * 20
    rows = [list(range(length)) for length in lengths]
    pq.write_table(pa.table({"x": pa.array(rows, pa.list_(pa.int64()))}), tmp_path / "in.parquet")
    bundle = identity_bundle(tmp_path, "INT64")
    settings = PredictSettings(batch_rows=7, checkpoint_rows=1)
    for written in ("parquet", "jsonl"):
        predict(bundle, tmp_path / "in.parquet", tmp_path / f"out.{written}", settings)
        assert read_output(tmp_path / f"out.{written}")["y"] == rows
    with pytest.raises(InputError, match="changes its shape from row to row"):
        predict(bundle, tmp_path / "in.parquet", tmp_path / "out.npz", settings)

    a, b = np.ones((3, 16), np.int32), np.full((3, 16), 2, np.int32)
    np.savez(tmp_path / "two.npz", INPUT0=a, INPUT1=b)
    predict(simple_bundle(tmp_path), tmp_path / "two.npz", tmp_path / "two-out.npz")
    assert read_output(tmp_path / "two-out.npz")["OUTPUT0"] == (a + b).tolist()


def test_models_with_a_fixed_batch_or_none_answer_each_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "turns.npz", turns=np.array([3, 5, 8]))
    predict(slow_bundle(tmp_path), tmp_path / "turns.npz", tmp_path / "out.jsonl")
    assert read_output(tmp_path / "out.jsonl")["sum"] == [3.0, 5.0, 8.0]
    np.savez(tmp_path / "whole.npz", turns=np.array([[3], [5]]))
    settings = PredictSettings(whole_inputs=True)
    predict(slow_bundle(tmp_path), tmp_path / "whole.npz", tmp_path / "whole.jsonl", settings)
    assert read_output(tmp_path / "whole.jsonl")["sum"] == [[3.0], [5.0]]


def test_a_tflite_model_answers_as_well(tmp_path: Path) -> None:
    bundle = dense_tflite(tmp_path)
    x = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    summary = predict(bundle, tmp_path / "in.npz", tmp_path / "out.npz", PredictSettings(backend="litert"))
    assert "litert" in summary.model["runtime"]
    assert np.array(read_output(tmp_path / "out.npz")["y"]).shape == (40, 10)


def bad_table(path: Path) -> Path:
    lines = ['{"id": 1, "x": [1, 2, 3, 4]}', '{"id": 2, "x": [1, 2]}', "not json", '{"id": 4}',
             '{"id": "five", "x": [1, 2, 3, 4]}', '{"id": 6, "x": [4, 3, 2, 1]}']  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def test_bad_rows_are_left_out_and_told(tmp_path: Path) -> None:
    source, output = bad_table(tmp_path / "in.jsonl"), tmp_path / "out.parquet"
    summary = predict(linear_bundle(tmp_path), source, output, PredictSettings(keys=("id",), on_error="skip"))
    assert (summary.rows, summary.answered, summary.failed) == (6, 2, 4)
    assert read_output(output)["id"] == [1, 6]
    assert summary.errors == str(errors_path(output))
    told = [json.loads(line) for line in errors_path(output).read_text().splitlines()]
    assert [(fault["row"], fault["keys"]) for fault in told] == [(1, {"id": 2}), (2, {}), (3, {"id": 4}), (4, {})]
    for fault, reason in zip(told, ("has shape [2]", "is not JSON", "column 'x' is empty", "column 'id'"), strict=True):
        assert reason in fault["reason"]
    # A later run without a bad row leaves no stale side file.
    predict(linear_bundle(tmp_path), write_input(tmp_path / "good.jsonl", numbers(3)), output)
    assert not errors_path(output).exists()


def test_a_bad_row_stops_the_run_and_the_work_before_it_is_kept(tmp_path: Path) -> None:
    x = numbers(3000)
    bundle, source, output = linear_bundle(tmp_path), tmp_path / "in.npz", tmp_path / "out.npz"
    rows = x.astype(np.str_)
    rows[2500, 1] = "?"
    np.savez(source, x=rows)
    with pytest.raises(InputError, match="row 2500: column 'x' holds text; expected a number"):
        predict(bundle, source, output)
    assert not output.exists()
    summary = predict(bundle, source, output, PredictSettings(on_error="skip"))
    assert (summary.resumed, summary.failed, summary.answered) == (2048, 1, 2999)


def test_a_model_that_fails_for_one_row_costs_that_row_only(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [10.0, 20.0, 30.0])],
    )
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    bundle = one_variant(tmp_path / "lookup.tide", "onnx", raw, ("INT64", (-1,)), ("FP32", (-1,)))
    np.savez(tmp_path / "in.npz", x=np.array([0, 2, 9, 1]))
    summary = predict(bundle, tmp_path / "in.npz", tmp_path / "out.jsonl", PredictSettings(on_error="skip"))
    assert read_output(tmp_path / "out.jsonl") == {"row": [0, 1, 3], "y": [10.0, 30.0, 20.0]}
    assert summary.failed == 1


def test_a_directory_of_arrays_is_a_row_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    (folder / "sub").mkdir(parents=True)
    for name, fill in (("a.npy", 1.0), ("sub/b.npy", 2.0)):
        np.save(folder / name, np.full(4, fill, np.float32))
    (folder / "c.npy").write_bytes(b"no array")
    settings = PredictSettings(on_error="skip")
    summary = predict(linear_bundle(tmp_path), folder, tmp_path / "out.jsonl", settings)
    assert read_output(tmp_path / "out.jsonl")["file"] == ["a.npy", "sub/b.npy"]
    assert summary.failed == 1
    (folder / "d.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds \.npy and \.wav files"):
        predict(linear_bundle(tmp_path), folder, tmp_path / "out.jsonl")


def test_a_speech_bundle_answers_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "demo.wav").write_bytes((EXAMPLES / "demo.wav").read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF")
    settings = PredictSettings(on_error="skip")
    summary = predict(EXAMPLES / "voice-commands.tide", folder, tmp_path / "out.jsonl", settings)
    assert (summary.answered, summary.failed) == (1, 1)
    found = {name: values[0] for name, values in read_output(tmp_path / "out.jsonl").items()}
    truth = json.loads((EXAMPLES / "demo_truth.json").read_text())
    assert found["file"] == "demo.wav"
    assert len(found["segment_text"]) == len(found["segment_start_s"]) > 0
    assert found["text"] == " ".join(text for text in found["segment_text"] if text)
    assert any(word in json.dumps(truth) for word in found["text"].split())
    assert found["duration_s"] >= found["segment_end_s"][-1] - 0.1


def test_an_unfinished_run_of_another_job_is_not_mixed_in(tmp_path: Path) -> None:
    bundle, output = linear_bundle(tmp_path), tmp_path / "out.jsonl"
    source = bad_table(tmp_path / "in.jsonl")
    with pytest.raises(InputError, match="row 1"):
        predict(bundle, source, output)
    with pytest.raises(ConfigError, match="belongs to another run: batch_rows was 32, is 8"):
        predict(bundle, source, output, PredictSettings(batch_rows=8, on_error="skip"))
    summary = predict(bundle, source, output, PredictSettings(batch_rows=8, on_error="skip", restart=True))
    assert summary.resumed == 0


def test_two_runs_cannot_work_on_one_output(tmp_path: Path) -> None:
    bundle, output = linear_bundle(tmp_path), tmp_path / "out.jsonl"
    source = write_input(tmp_path / "in.jsonl", numbers(3))
    with Parts(output, ()).opened({}, restart=False), pytest.raises(StateError, match="is at work on"):
        predict(bundle, source, output)


@pytest.mark.parametrize("written", FORMATS)
def test_a_run_cut_anywhere_gives_the_same_bytes(tmp_path: Path, written: str) -> None:
    bundle, x = linear_bundle(tmp_path, factor=3.0), numbers(9000)
    source = write_input(tmp_path / "in.jsonl", x)
    whole, cut = tmp_path / f"whole.{written}", tmp_path / f"cut.{written}"
    predict(bundle, source, whole)

    class CutError(Exception):
        pass

    stops = 0

    def stop(label: str, done: int, steps: int) -> None:
        nonlocal stops
        stops += 1
        if stops in (3, 4, 9, 14):
            raise CutError

    resumed: list[int] = []
    settings = PredictSettings(checkpoint_s=0)
    while not resumed:
        try:
            resumed.append(predict(bundle, source, cut, settings, on_progress=stop).resumed)
        except CutError:
            assert not cut.exists()
    assert resumed == [9000]
    assert cut.read_bytes() == whole.read_bytes()


def test_the_mapper_answers_batches_as_the_command_does(tmp_path: Path) -> None:
    bundle, x = linear_bundle(tmp_path, factor=2.0), numbers(10)
    mapper = BundleMapper(bundle, PredictSettings(keys=("id",)))
    answers = mapper({"id": np.arange(10), "x": x})
    assert answers["id"].tolist() == list(range(10))
    np.testing.assert_array_equal(answers["y"], x * 2)
    with pytest.raises(InputError, match=r"row 1 of a batch, \{'id': 7\}"):
        mapper({"id": np.array([6, 7]), "x": np.array([[1, 2, 3, 4], [1, 2, 3, None]], object)})
    with pytest.raises(ConfigError, match="errors names no directory"):
        BundleMapper(bundle, PredictSettings(on_error="skip"))


def dense_tflite(folder: Path) -> Path:
    raw = tflite("dense").read_bytes()
    return one_variant(folder / "dense.tide", "litert", raw, ("FP32", (1, 64)), ("FP32", (1, 10)))


def one_variant(
    path: Path,
    backend: Literal["litert", "onnx"],
    raw: bytes,
    x: tuple[str, tuple[int, ...]],
    y: tuple[str, tuple[int, ...]],
) -> Path:
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=path.stem,
        version="1.0.0",
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype=x[0], shape=x[1]),),
            outputs=(TensorSpec(name="y", dtype=y[0], shape=y[1]),),
        ),
        variants=(
            Variant(
                id="only",
                backend=backend,
                precision="as-is",
                file="variants/model",
                sha256=digest(raw),
                size_bytes=len(raw),
            ),
        ),
    )
    write_bundle(manifest, {"variants/model": raw}, path)
    return path


def test_an_npz_output_is_readable_by_numpy_and_as_an_input(tmp_path: Path) -> None:
    bundle, x = linear_bundle(tmp_path), numbers(6)
    predict(bundle, write_input(tmp_path / "in.npz", x), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["y"], x)
    settings = PredictSettings(columns={"x": ("y",)})
    assert predict(bundle, tmp_path / "out.npz", tmp_path / "again.npz", settings).answered == 6
    with zipfile.ZipFile(tmp_path / "again.npz") as archive:
        assert archive.testzip() is None
