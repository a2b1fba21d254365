"""The profile as a file: deterministic, strict, published."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidegate.errors import BundleError
from tidegate.profile import Options, Profile, decode, encode, json_schema, profile_from

DOCS = Path(__file__).parents[2] / "docs"
OPTIONS = Options(replicates=1000, window_rows=(100, 400))


@pytest.fixture(scope="module")
def profile() -> Profile:
    return make()


def make() -> Profile:
    rng = np.random.default_rng(5)
    inputs = {
        "amount": np.where(rng.random(400) < 0.1, np.nan, rng.normal(size=400)),
        "code": rng.integers(0, 3, 400),
    }
    scores = rng.dirichlet([3, 2, 1], 400)
    return profile_from(inputs, {"scores": scores}, options=OPTIONS, data_sha256="0" * 64)


def test_the_same_data_give_the_same_bytes(profile: Profile) -> None:
    assert encode(make()) == encode(profile)


def test_reading_gives_back_what_was_written(profile: Profile) -> None:
    assert decode(encode(profile)) == profile


def test_an_unknown_field_is_tolerated(profile: Profile) -> None:
    document = json.loads(encode(profile))
    document["later"] = 1
    document["features"][0]["later"] = 1
    assert decode(json.dumps(document).encode()) == profile


CHANGES: list[tuple[str, Callable[[Any], object], str]] = [
    ("another schema", lambda d: d.update(schema="tidegate.profile/9"), "tidegate.profile/9"),
    ("no features", lambda d: d.pop("features"), "features"),
    ("rate", lambda d: d.update(false_alarm_rate=0.7), "false_alarm_rate"),
    ("sizes", lambda d: d.update(window_rows=[400, 100]), "ascending"),
    ("no sizes", lambda d: d.update(window_rows=[]), "window_rows"),
    ("twice", lambda d: d["features"].append(d["features"][0]), "occurs twice"),
    ("tensor twice", lambda d: d["tensors"].append(d["tensors"][0]), "occurs twice"),
    ("no tensor", lambda d: d.update(tensors=[]), "not listed"),
    ("kind", lambda d: d["features"][0].update(kind="colour"), "colour"),
    ("edges", lambda d: d["features"][0]["edges"].reverse(), "ascend"),
    ("bins", lambda d: d["features"][0]["edges"].pop(), "bins"),
    ("negative", lambda d: d["features"][0].update(missing=-1), "negative"),
    ("sum", lambda d: d["features"][0].update(rows=401), "add up"),
    ("scale", lambda d: d["features"][0].update(scale=0.0), "scale"),
    ("variance", lambda d: d["features"][0].update(variance=-1.0), "variance"),
    ("moments", lambda d: d["features"][0].update(mean=None), "exactly when"),
    ("no alarm", lambda d: d["features"][0]["alarms"].pop(), "alarms"),
    (
        "threshold",
        lambda d: d["features"][0]["alarms"][0]["statistics"]["ks"].update(threshold=-1.0),
        "threshold of ks",
    ),
    ("tail", lambda d: d["features"][0]["alarms"][0]["statistics"]["ks"].update(scale=-1.0), "scale of ks"),
    ("statistic", lambda d: d["features"][0]["alarms"][0]["statistics"].update(x={}), "Invalid enum value 'x'"),
    ("tests", lambda d: d["features"][0]["alarms"][0].update(tests=0), "tests"),
    ("others", lambda d: d["features"][1]["other"].append(0), "12"),
    (
        "top twice",
        lambda d: d["features"][1]["top"][1].update(value=d["features"][1]["top"][0]["value"]),
        "top category",
    ),
    ("labels", lambda d: d["tensors"][2].update(labels=["a"]), "labels"),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_broken_profile_is_refused(profile: Profile, change: Callable[[Any], object], words: str) -> None:
    document = json.loads(encode(profile))
    change(document)
    with pytest.raises(BundleError, match=words) as error:
        decode(json.dumps(document).encode(), origin="here.json")
    assert "here.json" in error.value.message
    assert error.value.fix


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError, match="not a reference profile"):
        decode(raw)


def test_published_schema_is_up_to_date() -> None:
    published = json.loads((DOCS / "profile-schema.json").read_text(encoding="utf-8"))
    assert published == json.loads(json.dumps(json_schema())), "run: tidegate profile schema > docs/profile-schema.json"


@pytest.mark.parametrize("table", [*json_schema()["$defs"].items()], ids=lambda table: str(table[0]))
def test_the_document_names_every_field(table: tuple[str, Any]) -> None:
    text = (DOCS / "reference-profile.md").read_text(encoding="utf-8")
    assert [field for field in table[1]["properties"] if not re.search(rf"`([a-z]+\.)?{field}`", text)] == []
