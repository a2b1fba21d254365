"""Drafts as files: round trip, and what is not one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import BundleError, TidegateError
from tidegate.release.channel import Channel
from tidegate.release.draft import Draft, check_signed, name_of, read_draft
from tidegate.release.draft_report import describe
from tidegate.release.lifetimes import ROLES
from tidegate.release.rotation import draft_rotation
from tidegate.testing.channels import make_channel, open_keys, role_keys, write_keys, write_tiny_bundle


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Draft]:
    home = tmp_path_factory.mktemp("drafts")
    write_keys(home / "keys", ROLES)
    keys = open_keys(home / "keys")
    site = make_channel(home / "site", home / "keys")
    bundle = write_tiny_bundle(home / "tiny.tide")
    published = site.publish(bundle, track="stable", keys=keys, in_turns=True).draft
    assert published is not None
    return {
        "new channel": Channel(home / "other").draft_creation(role_keys(home / "keys"), keys),
        "publish": published,
        "rotation": draft_rotation(site.path, "root", keys),
    }


@pytest.mark.parametrize("which", ["new channel", "publish", "rotation"])
def test_a_draft_reads_back_as_it_was_written(which: str, drafts: dict[str, Draft]) -> None:
    draft = drafts[which]
    again = read_draft(draft.to_bytes(), origin="a.draft")
    assert again.to_bytes() == draft.to_bytes()
    assert describe(again) == describe(draft)
    assert describe(again).complete
    check_signed(again)


def test_a_draft_says_what_it_would_change(drafts: dict[str, Draft]) -> None:
    made = describe(drafts["new channel"])
    assert made.builds_on == "a new channel"
    assert [document.name for document in made.documents] == ["1.root.json", "1.targets.json"]
    assert made.documents[0].content[0].startswith("root: 1 of ")
    assert made.documents[0].content[-1].startswith("lifetimes: root 31,536,000 s, ")
    assert made.documents[1].content == ("no offers",)
    assert made.online == ("snapshot", "timestamp")

    published = describe(drafts["publish"])
    assert published.builds_on == "root 1, targets 1"
    (line,) = published.documents[0].content
    assert line.startswith("tiny stable: version 1.0.0, release 1, 100 %, manifest ")

    assert describe(drafts["rotation"]).online == ()
    assert [name_of(document) for document in drafts["rotation"].documents] == ["2.root.json"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "truncated"),
        (b"PK\x03\x04", "malformed"),
        (b"\xff\xfe", "a.draft"),
        (b"[]", "schema None"),
        (b'{"schema":"tidegate.draft/2"}', "schema 'tidegate.draft/2'"),
        (b'{"schema":"tidegate.draft/1"}', "it lacks 'base'"),
        (b'{"schema":"tidegate.draft/1","base":{"root":null,"targets_version":0},"steps":[]}', "changes nothing"),
        (b'{"schema":"tidegate.draft/1","base":{"root":null,"targets_version":0},"steps":["root"]}', "step 'root'"),
    ],
)
def test_what_is_not_a_draft_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says) as refused:
        read_draft(raw, origin="a.draft")
    assert "a.draft" in refused.value.message
    assert refused.value.fix


def test_steps_that_do_not_follow_each_other_are_refused(drafts: dict[str, Draft]) -> None:
    value = json.loads(drafts["rotation"].to_bytes())
    value["steps"][0]["signed"]["version"] = 5
    with pytest.raises(BundleError, match=r"versions \[1, 5\]"):
        read_draft(json.dumps(value).encode(), origin="a.draft")
    value = json.loads(drafts["publish"].to_bytes())
    value["base"]["root"] = None
    with pytest.raises(BundleError, match="it has no root"):
        read_draft(json.dumps(value).encode(), origin="a.draft")
    value["steps"] = ["timestamp"]
    with pytest.raises(BundleError, match="changes nothing"):
        read_draft(json.dumps(value).encode(), origin="a.draft")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8), st.just([]), st.just({}), st.just({"keyids": ["ff"], "threshold": 1}),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_draft_with_any_part_replaced_is_refused_or_still_a_draft(
    drafts: dict[str, Draft], data: st.DataObject
) -> None:
    value = json.loads(drafts[data.draw(st.sampled_from(sorted(drafts)))].to_bytes())
    *above, last = data.draw(st.sampled_from(list(places(value))))
    holder = value
    for key in above:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[last] = copy.deepcopy(data.draw(ODD))
    else:
        del holder[last]
    with suppress(TidegateError):  # and nothing else may leave it
        draft = read_draft(json.dumps(value).encode(), origin="a.draft")
        described = describe(draft)
        check_signed(draft)
        assert described.complete


def test_no_draft_leaves_a_trace_in_the_channel(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", ROLES)
    keys = open_keys(tmp_path / "keys")
    site = make_channel(tmp_path / "site", tmp_path / "keys")
    before = sorted((site.path / "metadata").iterdir())
    draft_rotation(site.path, "targets", keys, threshold=1)
    site.draft_refresh(keys)
    assert sorted((site.path / "metadata").iterdir()) == before
