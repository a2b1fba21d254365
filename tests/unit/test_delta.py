"""Deltas: what comes out is bit for bit the new file, whatever the two files are; what lies is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.models import TFLITE, tflite
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Bundle
from tidegate.delta import METHODS, Identity, Limits, Method, apply, apply_file, choose, make, read_header
from tidegate.delta.differences import from_planes, to_planes
from tidegate.delta.format import HEADER, MAGIC, Header, encode_section
from tidegate.delta.frames import compress, compress_patch
from tidegate.delta.pairing import pair
from tidegate.delta.plan import Plan, Region, decode_plan
from tidegate.delta.weights import find_weights
from tidegate.errors import ConfigError, InputError, IntegrityError, NotFoundError

SHIPPED = ("tflite-int8", "tflite-fp32", "onnx-int8", "onnx-fp32")
"""Variants of the bundle that ships: trained networks of some hundred kilobytes."""

WITH_WEIGHTS = ("dense", "dense_int8", "batch", "no_signature")
MODELS = (*sorted(path.stem for path in TFLITE.glob("*.tflite")), *SHIPPED)


@cache
def read(name: str) -> bytes:
    """Return a checked-in model, or a variant of the bundle that ships."""
    if name not in SHIPPED:
        return tflite(name).read_bytes()
    with Bundle.open(Path(__file__).parents[2] / "examples" / "voice_commands" / "voice-commands.tide") as bundle:
        return bundle.variant_bytes(name)


def fine_tuned(model: bytes, seed: int, step: int = 3) -> bytes:
    """Return the model with every weight moved by a few units in its last place."""
    rng = np.random.default_rng(seed)
    changed = bytearray(model)
    for weights in find_weights(model):
        values = np.frombuffer(model, f"<u{weights.width}", weights.size_bytes // weights.width, weights.offset).copy()
        values += rng.integers(-step, step + 1, values.size).astype(values.dtype)
        changed[weights.offset : weights.offset + weights.size_bytes] = values.tobytes()
    return bytes(changed)


def onnx_model(**arrays: np.ndarray) -> bytes:
    """Return an ONNX model that holds these arrays, in this order."""
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(value, name) for name, value in arrays.items()])
    return bytes(helper.make_model(graph).SerializeToString())


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Round trips


@given(st.binary(max_size=4000), st.binary(max_size=4000))
def test_any_two_files_go_through_a_patch(base: bytes, full: bytes) -> None:
    delta = make(base, full, "zstd-patch")
    assert apply(base, delta.data) == full
    assert delta.header == read_header(delta.data) == Header("zstd-patch", Identity.of(base), Identity.of(full))


@given(st.sampled_from(MODELS), st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_of_a_real_model_comes_out(name: str, data: st.DataObject) -> None:
    """The new file need not be a model any more: bytes changed, cut out, put in, anywhere."""
    base = read(name)
    start = data.draw(st.integers(0, len(base)))
    cut = data.draw(st.integers(0, 3000))
    full = base[:start] + data.draw(st.binary(max_size=3000)) + base[start + cut :]
    delta = choose(base, full, maximum_percent=10**9)
    if full:
        assert delta is not None
        assert apply(base, delta.data) == full
    else:
        assert delta is None, "nothing is smaller than an empty file"


@given(st.sampled_from(WITH_WEIGHTS), st.integers(0, 2**32), st.sampled_from([1, 3, 40, 127]))
@settings(deadline=None)
def test_moved_weights_come_out(name: str, seed: int, step: int) -> None:
    base = read(name)
    full = fine_tuned(base, seed, step)
    assert apply(base, make(base, full, "typed").data) == full


@pytest.mark.parametrize("name", SHIPPED)
def test_typed_is_smallest_when_all_weights_moved(name: str) -> None:
    base = read(name)
    full = fine_tuned(base, seed=1)
    patch, typed = make(base, full, "zstd-patch"), make(base, full, "typed")
    assert len(typed.data) < len(patch.data) / 2
    assert choose(base, full) == typed


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@given(data=st.data())
def test_planes_are_exact(width: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 50)) * width
    old, new = (
        data.draw(st.binary(min_size=count, max_size=count)),
        data.draw(st.binary(min_size=count, max_size=count)),
    )
    assert from_planes(old, [plane.tobytes() for plane in to_planes(old, new, width)]) == new


def test_planes_are_the_zigzag_codes_lowest_byte_first() -> None:
    old = np.array([0, 0, 0, 65535, 0], "<u2").tobytes()
    new = np.array([0, 65535, 1, 0, 256], "<u2").tobytes()  # 0, -1, +1, +1 modulo 2^16, +256
    low, high = to_planes(old, new, 2)
    assert low.tolist() == [0, 1, 2, 2, 0]
    assert high.tolist() == [0, 0, 0, 0, 2]


@pytest.mark.parametrize("method", METHODS)
def test_identical_files_make_a_tiny_delta(method: Method) -> None:
    base = read("tflite-int8")
    delta = make(base, base, method)
    assert len(delta.data) < 0.01 * len(base)
    assert apply(base, delta.data) == base


@pytest.mark.parametrize("method", METHODS)
def test_the_same_inputs_give_the_same_bytes(method: Method) -> None:
    base = read("dense")
    full = fine_tuned(base, 3)
    assert make(base, full, method) == make(base, full, method)


def test_unrelated_files_get_no_delta() -> None:
    rng = np.random.default_rng(5)
    base, full = rng.bytes(20_000), rng.bytes(20_000)
    assert choose(base, full) is None
    assert choose(base, b"") is None
    assert choose(base, full, maximum_percent=101) is not None


def test_typed_refuses_what_is_no_model() -> None:
    model = read("dense")
    for base, full in ((model, b"text"), (b"", model), (model, model[: len(model) // 2])):
        with pytest.raises(InputError, match="not a TFLite or ONNX model"):
            make(base, full, "typed")
    with pytest.raises(InputError, match="no weights in common"):
        make(model, read("two"), "typed")


def test_a_patch_is_what_the_zstd_format_says() -> None:
    """Without our header and length it is a frame that any zstd reads with the old file as its prefix."""
    base, full = os.urandom(5000), os.urandom(100)
    frame = make(base, full + base[100:4000], "zstd-patch").data[HEADER.size + 8 :]
    prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    assert zstandard.ZstdDecompressor(dict_data=prefix).decompress(frame) == full + base[100:4000]


# Finding and pairing weights


def test_tflite_weights_are_those_of_the_interpreter() -> None:
    from ai_edge_litert.interpreter import Interpreter

    model = read("tflite-int8")
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    details = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
    found = [weights for weights in find_weights(model) if weights.dtype != "scale"]
    assert len(found) > 10
    for weights in found:
        expected = interpreter.get_tensor(details[weights.name]["index"])
        assert model[weights.offset : weights.offset + weights.size_bytes] == expected.tobytes()
        assert weights.shape == expected.shape
        assert weights.width == expected.itemsize


def test_onnx_weights_are_those_of_the_onnx_package() -> None:
    model = read("onnx-int8")
    # Those in int32_data are written as numbers of varying length, which have no place of their own.
    stored = [
        tensor for tensor in onnx.load_from_string(model).graph.initializer if tensor.raw_data or tensor.float_data
    ]
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}
    found = find_weights(model)
    assert {weights.name for weights in found} >= {name for name, array in arrays.items() if array.nbytes >= 32}
    for weights in found:
        if weights.name in arrays:
            assert model[weights.offset : weights.offset + weights.size_bytes] == arrays[weights.name].tobytes()
            assert weights.shape == arrays[weights.name].shape


def test_onnx_weights_in_typed_fields_constants_and_subgraphs_are_found() -> None:
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [10], np.arange(10.0))
    doubles = helper.make_tensor("doubles", TensorProto.DOUBLE, [10], np.arange(10.0))
    constant = helper.make_node("Constant", [], ["made"], value=numpy_helper.from_array(normal(10)))
    branch = helper.make_graph([], "b", [], [], [numpy_helper.from_array(normal(12), "deep")])
    branching = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([constant, branching], "g", [], [], [floats, doubles])
    found = find_weights(helper.make_model(graph).SerializeToString())
    sizes = {weights.name: (weights.width, weights.size_bytes) for weights in found}
    assert sizes == {"floats": (4, 40), "doubles": (8, 80), "made": (4, 40), "deep": (4, 48)}


def test_reordered_and_renamed_tensors_find_each_other() -> None:
    a, b, c = normal(50, 40), normal(2000, seed=1), normal(40, 50, seed=2)
    base = onnx_model(a=a, b=b, c=c)
    reordered = onnx_model(c=np.nextafter(c, 9), b=np.nextafter(b, 9), a=np.nextafter(a, 9))
    renamed = onnx_model(x=np.nextafter(a, 9), y=np.nextafter(b, 9), z=np.nextafter(c, 9))
    for full in (reordered, renamed):
        delta = make(base, full, "typed")
        assert apply(base, delta.data) == full
        assert delta.percent < 10


def test_a_layer_that_grew_is_paired_as_far_as_it_goes() -> None:
    old = normal(100, 30)
    base, full = onnx_model(table=old), onnx_model(table=np.concatenate([np.nextafter(old, 9), normal(5, 30, seed=4)]))
    plan = pair(find_weights(base), find_weights(full))
    assert [(region.count, region.width) for region in plan.regions] == [(3000, 4)]
    for one, other in ((base, full), (full, base)):
        assert apply(one, make(one, other, "typed").data) == other


@given(st.sampled_from(MODELS), st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_model_is_read_or_refused(name: str, data: st.DataObject) -> None:
    model = bytearray(read(name))
    for _ in range(data.draw(st.integers(1, 8))):
        model[data.draw(st.integers(0, min(len(model), 5000) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(model)))
    for candidate in (bytes(model), bytes(model[:end])):
        try:
            found = find_weights(candidate)
        except InputError:
            continue
        assert all(w.offset >= 0 and w.offset + w.size_bytes <= len(candidate) for w in found)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from([1, 2, 4, 8])), max_size=20))
def test_plans_survive_their_encoding(parts: list[tuple[int, int, int]]) -> None:
    position, regions = 0, []
    for gap, count, width in parts:
        regions.append(Region(position + gap, position + gap, count, width))
        position += gap + count * width
    swapped = Plan(
        tuple(Region(position - r.old_offset - r.size_bytes, r.new_offset, r.count, r.width) for r in regions)
    )
    assert decode_plan(swapped.encode(), old_bytes=position, new_bytes=position) == swapped


# Hostile files


BASE = read("dense")
FULL = fine_tuned(BASE, 11)
PATCH, TYPED = (make(BASE, FULL, method).data for method in METHODS)


def repacked(sections: list[bytes], method: Method = "typed", full: bytes = FULL) -> bytes:
    return Header(method, Identity.of(BASE), Identity.of(full)).encode() + b"".join(map(encode_section, sections))


def sections_of(delta: bytes) -> list[bytes]:
    found, position = [], HEADER.size
    while position < len(delta):
        (size,) = struct.unpack_from("<Q", delta, position)
        found.append(delta[position + 8 : position + 8 + size])
        position += 8 + size
    return found


def with_plan(*regions: tuple[int, int, int, int]) -> bytes:
    """Return the typed delta with another plan: gap, shift, count, width of each region."""
    table = np.array(regions, "<u8").T
    return repacked([compress(table.tobytes(), 20), *sections_of(TYPED)[1:]])


def at(offset: int, value: bytes, delta: bytes = TYPED) -> bytes:
    return delta[:offset] + value + delta[offset + len(value) :]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "begins with"),
    "text": (lambda: b"<html>404</html>" * 20, "begins with"),
    "magic only": (lambda: MAGIC, "ends after 8 bytes"),
    "newer version": (lambda: at(8, b"\x02"), "format version 2"),
    "unknown method": (lambda: at(9, b"\x07"), "method is 7"),
    "reserved bytes": (lambda: at(12, b"\x01"), "reserved"),
    "header only": (lambda: TYPED[: HEADER.size], "ends before its section 'plan'"),
    "huge section": (lambda: at(HEADER.size, b"\xff" * 8), "claims 18446744073709551615 bytes"),
    "something behind": (lambda: TYPED + b"x", "1 bytes follow"),
    "no frame": (lambda: repacked([b"not a frame at all......"], "zstd-patch"), "not a zstd frame"),
    "no section content": (lambda: repacked([b""], "zstd-patch"), "not a zstd frame"),
    "bomb": (lambda: repacked([compress(bytes(1 << 26), 27)], "zstd-patch"), "holds 67108864 bytes"),
    "bomb as plan": (lambda: repacked([compress(bytes(1 << 26), 27)]), "wants 67108864 bytes of memory"),
    "bomb without a size": (
        lambda: repacked([zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))], "zstd-patch"),
        "holds",
    ),
    "wide window": (
        lambda: repacked(
            [*sections_of(TYPED)[:2], *(compress(bytes(1 << 22), 27) for _ in range(4))],
        ),
        "holds 4194304 bytes",
    ),
    "frame too short": (lambda: repacked([sections_of(PATCH)[0][:-5]], "zstd-patch"), "damaged|early"),
    "frame too long": (lambda: repacked([compress_patch(BASE, FULL + b"x")], "zstd-patch"), "holds 3545 bytes"),
    "another result": (lambda: repacked([compress_patch(BASE, FULL[::-1])], "zstd-patch"), "led to SHA-256"),
    "odd plan": (lambda: repacked([compress(b"123", 20), *sections_of(TYPED)[1:]]), "no multiple"),
    "width 3": (lambda: with_plan((0, 0, 1, 3)), "element width of 3"),
    "width 0": (lambda: with_plan((0, 0, 1, 0)), "element width of 0"),
    "outside of the new file": (lambda: with_plan((len(FULL), 0, 1, 4)), "outside of the files"),
    "outside of the old file": (lambda: with_plan((0, len(BASE) - 3, 1, 4)), "outside of the files"),
    "before the old file": (lambda: with_plan((0, 2**64 - 1, 1, 4)), "outside of the files"),
    "numbers that overflow": (
        lambda: with_plan((2**63, 2**63, 2**61, 8), (2**64 - 1, 1, 1, 1)),
        "outside of the files",
    ),
    "overlap in the old file": (lambda: with_plan((0, 0, 10, 4), (0, 2**64 - 40, 10, 4)), "overlap"),
    "fewer weights than planes": (lambda: with_plan((0, 0, 1, 4)), "holds"),
    "no planes": (lambda: repacked(sections_of(TYPED)[:2]), "ends before its section 'plane 0 of 4-byte elements'"),
    "a plane too many": (lambda: TYPED + encode_section(compress(b"x", 20)), "follow its last section"),
    "planes swapped": (lambda: repacked([*sections_of(TYPED)[:2], *sections_of(TYPED)[:1:-1]]), "led to SHA-256"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_deltas_are_refused(name: str, tmp_path: Path) -> None:
    make_it, told = HOSTILE[name]
    with pytest.raises(IntegrityError, match=told) as refusal:
        apply(BASE, make_it())
    assert refusal.value.fix
    base, delta, out = tmp_path / "base", tmp_path / "delta", tmp_path / "out"
    base.write_bytes(BASE)
    delta.write_bytes(make_it())
    out.write_bytes(b"what runs now")
    with pytest.raises(IntegrityError, match=told):
        apply_file(base, delta, out)
    assert out.read_bytes() == b"what runs now"
    assert {path.name for path in tmp_path.iterdir()} == {"base", "delta", "out"}


@pytest.mark.parametrize("delta", [PATCH, TYPED], ids=METHODS)
def test_every_truncation_is_refused(delta: bytes) -> None:
    for size in range(len(delta)):
        with pytest.raises(IntegrityError):
            apply(BASE, delta[:size])


@pytest.mark.parametrize("delta", [PATCH, TYPED], ids=METHODS)
def test_every_changed_byte_is_refused_or_harmless(delta: bytes) -> None:
    for position in range(len(delta)):
        changed = at(position, bytes([delta[position] ^ 0x55]), delta)
        try:
            result = apply(BASE, changed)
        except (IntegrityError, InputError):
            continue
        assert result == FULL


def test_a_bomb_that_the_sizes_allow_stops_at_its_digest() -> None:
    """A header may promise a large file of zeros; the limit is the caller's."""
    zeros = bytes(1 << 24)
    bomb = Header("zstd-patch", Identity.of(BASE), Identity("0" * 64, len(zeros))).encode()
    bomb += encode_section(compress_patch(BASE, zeros))
    with pytest.raises(InputError, match="at most 1000000 are allowed"):
        apply(BASE, bomb, limits=Limits(full_bytes=1_000_000))
    with pytest.raises(IntegrityError, match="led to SHA-256"):
        apply(BASE, bomb)


def test_a_frame_that_goes_on_is_stopped() -> None:
    """Its header tells the right size; its blocks hold more."""
    frame = bytearray(zstandard.ZstdCompressor().compress(os.urandom(300)))
    honest = zstandard.get_frame_parameters(bytes(frame)).content_size
    assert honest == 300
    frame[5:7] = struct.pack("<H", 299 - 256)  # RFC 8878: two-byte Frame_Content_Size is stored less 256
    lie = Header("zstd-patch", Identity.of(BASE), Identity.of(bytes(299))).encode() + encode_section(bytes(frame))
    with pytest.raises(IntegrityError, match=r"goes on|damaged"):
        apply(BASE, lie)


def test_the_wrong_old_file_is_refused_before_any_work() -> None:
    broken = TYPED[: HEADER.size] + b"garbage"
    with pytest.raises(InputError, match="for an old file with SHA-256"):
        apply(FULL, broken)
    with pytest.raises(InputError, match="this one has 4 bytes"):
        apply(b"text", broken)


def test_another_result_than_the_signed_one_is_refused() -> None:
    assert apply(BASE, TYPED, full=Identity.of(FULL)) == FULL
    with pytest.raises(IntegrityError, match="leads to SHA-256"):
        apply(BASE, TYPED, full=Identity.of(BASE))


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="full_bytes is -1"):
        Limits(full_bytes=-1)


# Files


@pytest.mark.parametrize("method", METHODS)
def test_files_are_written_whole(method: Method, tmp_path: Path) -> None:
    base = read("onnx-fp32")
    full = fine_tuned(base, 2)
    (tmp_path / "base").write_bytes(base)
    (tmp_path / "delta").write_bytes(make(base, full, method).data)
    apply_file(tmp_path / "base", tmp_path / "delta", tmp_path / "base", full=Identity.of(full))
    assert (tmp_path / "base").read_bytes() == full


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(BASE)
    with pytest.raises(NotFoundError, match=r"no file .*delta"):
        apply_file(tmp_path / "base", tmp_path / "delta", tmp_path / "out")


def test_the_room_is_light_and_says_what_it_needs() -> None:
    """Devices import it without zstandard; only use needs that."""
    code = """
import sys
sys.modules["zstandard"] = None
from tidegate.delta import make
from tidegate.errors import DependencyError
assert "tuf" not in sys.modules
try:
    make(b"a", b"b", "zstd-patch")
except DependencyError as error:
    print(error.fix)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout == 'pip install "tidegate[delta]"\n'
