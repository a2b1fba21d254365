"""The manifest: one canonical form, strict on what it knows, tolerant of what a later minor version adds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bundle import Manifest
from tidegate.bundle.manifest import decode, encode, json_schema
from tidegate.bundle.paths import path_problem
from tidegate.convert.spec import BuildSpec, read_spec
from tidegate.errors import BundleError

Release = tuple[Manifest, dict[str, bytes]]
PUBLISHED_SCHEMA = Path(__file__).parents[2] / "docs" / "bundle-schema.json"


def changed(manifest: Manifest, where: str, value: Any) -> bytes:
    """Return the manifest's JSON with the value at `a.b.0.c` replaced; `...` removes it."""
    tree = json.loads(encode(manifest))
    *path, last = where.split(".")
    node = tree
    for key in path:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    if value is ...:
        del node[last]
    elif isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return json.dumps(tree).encode()


def test_encoding_is_canonical_and_comes_back(release: Release) -> None:
    raw = encode(release[0])
    assert decode(raw) == release[0]
    assert encode(decode(raw)) == raw
    assert encode(decode(json.dumps(json.loads(raw), sort_keys=True).encode())) == raw


@pytest.mark.parametrize("where", ["future", "variants.0.future", "signature.inputs.0.future", "golden.future"])
def test_unknown_fields_are_tolerated(release: Release, where: str) -> None:
    assert decode(changed(release[0], where, {"new": [1]})) == release[0]


GOLDEN_TOLERANCES = "golden.tolerance_by_variant"


@pytest.mark.parametrize(
    ("where", "value", "complaint"),
    [
        ("name", "Upper", "name 'Upper' is not lower-case"),
        ("name", "x" * 65, "at most 64"),
        ("name", "../x", "name '../x'"),
        ("name", ..., "missing required field `name`"),
        ("version", "1.2", "'1.2' is not a semantic version"),
        ("version", "01.2.3", "not a semantic version"),
        ("version", "1.2.3\n", "not a semantic version"),
        ("version", "٣.0.0", "not a semantic version"),
        ("version", 1, "Expected `str`"),
        ("release", -1, "release -1 is negative"),
        ("release", 1.5, "Expected `int`"),
        ("variants", [], "there are no variants"),
        ("variants.0.id", "a b", "variant id 'a b'"),
        ("variants.0.backend", "torch", "Invalid enum value 'torch'"),
        ("variants.0.sha256", "ABC", "expected 64 lower-case hexadecimal digits"),
        ("variants.0.size_bytes", -1, "expected 0 or more"),
        ("variants.0.file", "manifest.json", "cannot list itself"),
        ("variants.0.file", "golden.npz", "listed twice with different digests"),
        ("variants.0.tensor_names", {"nope": "x"}, "tensor_names has 'nope'; expected one of x, y"),
        ("signature.outputs", [], "has no outputs"),
        ("signature.inputs.0.dtype", "float32", "not one of BF16, BOOL"),
        ("signature.inputs.0.shape", [-2], "expected sizes of -1 or more"),
        ("signature.inputs.0.name", "", "an input has an empty name"),
        ("labels", ["a", "a", "b"], "label 'a' occurs more than once"),
        ("labels", ["a", "b"], "there are 2 labels; expected 3"),
        ("golden.tolerance", -0.5, "golden tolerance is -0.5"),
        (GOLDEN_TOLERANCES, {"onnx-int8": 1.0}, "there is no such variant; expected one of onnx-fp32"),
        ("front_end", {"kind": "audio", "sample_rate_hz": 0, "inside_graph": True}, "front_end.sample_rate_hz is 0"),
        ("front_end", {"kind": "video", "sample_rate_hz": 1, "inside_graph": True}, "Invalid enum value 'video'"),
        ("prefilter", {"kind": "energy", "hangover_ms": -1}, "prefilter.hangover_ms is -1"),
        ("decoder", {"kind": "keywords", "threshold": 1.5}, "expected a probability"),
        ("decoder", {"kind": "keywords", "hop_ms": 0}, "decoder.hop_ms is 0"),
        ("budgets", {"rss_mb": -1}, "budgets.rss_mb is -1"),
        ("trial", {"maximum_failure_rate": 1.5}, "trial.maximum_failure_rate is 1.5; expected a share"),
        ("trial", {"minimum_calls": -1}, "trial.minimum_calls is -1"),
        ("trial", {"minimum_s": 60, "deadline_s": 59}, "trial.deadline_s is 59"),
        ("assets", {"": {"file": "a", "sha256": "0" * 64, "size_bytes": 0}}, "an asset has an empty name"),
    ],
)
def test_what_breaks_a_rule_is_named(release: Release, where: str, value: Any, complaint: str) -> None:
    with pytest.raises(BundleError) as caught:
        decode(changed(release[0], where, value))
    assert complaint in caught.value.message


def test_repeated_variants_are_refused(release: Release) -> None:
    manifest = release[0]
    raw = encode(msgspec.structs.replace(manifest, variants=manifest.variants * 2))
    with pytest.raises(BundleError, match="variant 'onnx-fp32' occurs more than once"):
        decode(raw)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_a_manifest_or_a_bundle_error(value: Any) -> None:
    with pytest.raises(BundleError):
        decode(json.dumps(value).encode())
    with pytest.raises(BundleError):
        decode(json.dumps({"schema": "tidegate.bundle/1", "variants": value, "name": value}).encode())


@given(st.text(max_size=300))
def test_a_path_that_is_allowed_stays_inside(path: str) -> None:
    if path_problem(path) is None:
        root = Path("/bundle")
        resolved = (root / path).parts
        assert resolved[:2] == root.parts
        assert ".." not in resolved
        assert "/".join(resolved[2:]) == path


def test_published_schema_is_up_to_date() -> None:
    assert json.loads(PUBLISHED_SCHEMA.read_text()) == json.loads(json.dumps(json_schema())), (
        "run: tidegate inspect --schema > docs/bundle-schema.json"
    )


FORMAT = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [*json_schema()["$defs"].items()], ids=lambda table: str(table[0]))
def test_the_format_document_names_every_field(table: tuple[str, Any]) -> None:
    missing = [field for field in table[1]["properties"] if not re.search(rf"`([a-z]+\.)?{field}`", FORMAT)]
    assert missing == []


def test_the_specification_in_the_format_document_is_one(tmp_path: Path) -> None:
    match = re.search(r"^```toml\n(.*?)^```$", FORMAT, re.MULTILINE | re.DOTALL)
    assert match is not None
    (tmp_path / "spec.toml").write_text(match[1], encoding="utf-8")
    spec = read_spec(tmp_path / "spec.toml")
    assert {key for key in BuildSpec.__struct_fields__ if f"[{key}" not in match[1]} == {"directory"}
    assert spec.inputs["audio"].finite
