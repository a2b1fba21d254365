"""Two holders of keys who never meet: drafts signed in turns, carried out, and read by python-tuf's own client."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tidegate.cli.main import main
from tidegate.errors import ConfigError, IntegrityError, NotFoundError, ResourceError, StateError
from tidegate.release.applying import apply
from tidegate.release.channel import Channel
from tidegate.release.disk import exclusive
from tidegate.release.draft import Draft, check_may_sign, read_draft, sign
from tidegate.release.keys import KeyRing, create_key, read_public_key
from tidegate.release.lifetimes import ROLES
from tidegate.release.report import report
from tidegate.release.rotation import draft_rotation, rotate
from tidegate.testing.channels import PlainDevice, open_keys, role_keys, serve, write_keys, write_tiny_bundle

Capture = pytest.CaptureFixture[str]

NAMES = {
    "root": ["root-anna", "root-ben"],
    "targets": ["targets-anna", "targets-ben"],
    "snapshot": ["snapshot"],
    "timestamp": ["timestamp"],
}


@dataclass(frozen=True)
class Holders:
    """Who has which keys; nobody has enough for root or targets."""

    files: Path
    anna: KeyRing
    ben: KeyRing
    online: KeyRing


@pytest.fixture(scope="module")
def holders(tmp_path_factory: pytest.TempPathFactory) -> Holders:
    files = tmp_path_factory.mktemp("keys")
    write_keys(files, [*(name for names in NAMES.values() for name in names), *(f"{role}-new" for role in ROLES)])

    def ring(*names: str) -> KeyRing:
        return open_keys(*(files / f"{name}.pem" for name in names))

    return Holders(
        files,
        anna=ring("root-anna", "targets-anna", "root-new", "targets-new"),
        ben=ring("root-ben", "targets-ben"),
        online=ring("snapshot", "timestamp", "snapshot-new", "timestamp-new"),
    )


def signed_by(draft: Draft, *rings: KeyRing) -> Draft:
    """Carry a draft from one holder to the next, as a file each time."""
    for ring in rings:
        draft = read_draft(draft.to_bytes(), origin="carried.draft")
        check_may_sign(draft, ring)
        sign(draft, ring)
    return read_draft(draft.to_bytes(), origin="carried.draft")


@pytest.fixture
def channel(tmp_path: Path, holders: Holders) -> Channel:
    made = Channel(tmp_path / "site")
    draft = made.draft_creation(role_keys(holders.files, NAMES, root=2, targets=2), holders.anna)
    assert not made.path.exists()
    apply(made.path, signed_by(draft, holders.ben), holders.online)
    return made


def offered(channel: Channel, holders: Holders, tmp_path: Path, version: str) -> Draft:
    bundle = write_tiny_bundle(tmp_path / f"{version}.tide", version=version, weights=version.encode())
    draft = channel.publish(bundle, track="stable", keys=holders.anna, in_turns=True).draft
    assert draft is not None
    return draft


def published(channel: Channel, holders: Holders, tmp_path: Path, version: str) -> None:
    apply(channel.path, signed_by(offered(channel, holders, tmp_path, version), holders.ben), holders.online)


def everything(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_channel_and_a_release_are_made_in_turns(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    root = channel.read().root.signed
    assert [root.roles[role].threshold for role in ROLES] == [2, 2, 1, 1]
    with serve(channel.path) as server:
        shipped = (channel.path / "metadata" / "1.root.json").read_bytes()
        device = PlainDevice(tmp_path / "device", server.url, shipped)
        draft = offered(channel, holders, tmp_path, "1.0.0")
        assert device.track("tiny", "stable") is None, "a draft is not an offer"
        with pytest.raises(
            ConfigError, match=r"2\.targets\.json needs 2 signatures .* in root 1 and has 1; not signed: "
        ):
            apply(channel.path, draft, holders.online)
        assert device.track("tiny", "stable") is None
        apply(channel.path, signed_by(draft, holders.ben), holders.online)
        assert device.install("tiny", "stable", "onnx-fp32").files["models/a.onnx"] == b"1.0.0"


def test_every_change_of_offers_goes_in_turns(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    def take_turns(draft: Draft | None) -> None:
        assert draft is not None
        apply(channel.path, signed_by(draft, holders.ben), holders.online)

    keys = holders.anna
    published(channel, holders, tmp_path, "1.0.0")
    published(channel, holders, tmp_path, "1.1.0")
    take_turns(channel.promote("tiny", source="stable", track="beta", percent=5, keys=keys, in_turns=True).draft)
    take_turns(channel.promote("tiny", track="beta", percent=50, keys=keys, in_turns=True).draft)
    take_turns(channel.roll_back("tiny", track="stable", version="1.0.0", reason="r", keys=keys, in_turns=True).draft)
    take_turns(channel.withdraw("tiny", version="1.1.0", reason="w", keys=keys, in_turns=True).draft)
    before = channel.read().targets.version
    take_turns(channel.draft_refresh(keys))
    assert channel.read().targets.version == before + 1
    again = channel.withdraw("tiny", version="1.1.0", reason="w", keys=keys, in_turns=True)
    assert (again.draft, again.offers) == (None, ())
    with serve(channel.path) as server:
        device = PlainDevice(tmp_path / "device", server.url, (channel.path / "metadata/1.root.json").read_bytes())
        assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"
        beta = device.track("tiny", "beta")
        assert beta is not None
        assert [(offer.rollout.percent, offer.withdrawn is not None) for offer in beta.offers] == [(50, True)]


@pytest.mark.parametrize("role", ROLES)
def test_the_keys_of_every_role_are_rotated_in_turns(
    role: str, channel: Channel, holders: Holders, tmp_path: Path
) -> None:
    published(channel, holders, tmp_path, "1.0.0")
    with serve(channel.path) as server:
        shipped = (channel.path / "metadata" / "1.root.json").read_bytes()
        used = PlainDevice(tmp_path / "used", server.url, shipped)
        used.install("tiny", "stable", "onnx-fp32")
        gone = read_public_key(holders.files / f"{NAMES[role][-1]}.pub").keyid
        new = read_public_key(holders.files / f"{role}-new.pub")
        draft = draft_rotation(channel.path, role, holders.anna, add=[new], remove=[gone])
        before = everything(channel.path)
        with pytest.raises(ConfigError, match=r"2\.root\.json needs 2 signatures"):
            apply(channel.path, draft, holders.online)
        assert everything(channel.path) == before
        complete = signed_by(draft, holders.ben)
        if role == "timestamp":  # the online machine goes on meanwhile
            channel.refresh(holders.online)
        apply(channel.path, complete, holders.online)
        held = channel.read().root.signed.roles[role].keyids
        assert new.keyid in held
        assert gone not in held
        for device in (used, PlainDevice(tmp_path / "new", server.url, shipped)):
            assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"
        standing = everything(channel.path)
        apply(channel.path, complete, holders.online)
        again = everything(channel.path)
        assert {name: again[name] for name in standing if "timestamp" not in name} == {
            name: data for name, data in standing.items() if "timestamp" not in name
        }, "the same draft again writes over nothing"


def test_a_draft_of_a_state_that_is_gone_is_refused(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    published(channel, holders, tmp_path, "1.0.0")
    late = signed_by(offered(channel, holders, tmp_path, "1.1.0"), holders.ben)
    renewal = signed_by(draft_rotation(channel.path, "root", holders.anna), holders.ben)
    published(channel, holders, tmp_path, "1.2.0")
    with pytest.raises(StateError, match=r"another 3\.targets\.json"):
        apply(channel.path, late, holders.online)
    published(channel, holders, tmp_path, "1.3.0")
    with pytest.raises(StateError, match=r"moved on to targets 4 .* which follows 2"):
        apply(channel.path, late, holders.online)
    apply(channel.path, renewal, holders.online)
    first = signed_by(draft_rotation(channel.path, "root", holders.anna), holders.ben)
    second = signed_by(draft_rotation(channel.path, "root", holders.anna, threshold=1), holders.ben)
    apply(channel.path, first, holders.online)
    with pytest.raises(StateError, match=r"another 3\.root\.json"):
        apply(channel.path, second, holders.online)
    with pytest.raises(StateError, match="later than the draft's"):
        apply(channel.path, renewal, holders.online)


def test_a_draft_of_another_channel_is_refused(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    other = Channel(tmp_path / "other", clock=lambda: datetime.now(timezone.utc) + timedelta(hours=1))
    creation = signed_by(
        other.draft_creation(role_keys(holders.files, NAMES, root=2, targets=2), holders.anna), holders.ben
    )
    apply(other.path, creation, holders.online)
    rotation = signed_by(draft_rotation(other.path, "root", holders.anna, threshold=1), holders.ben)
    before = everything(channel.path)
    with pytest.raises(ConfigError, match="is a channel already"):
        apply(channel.path, creation, holders.online)
    with pytest.raises(StateError, match=r"another 1\.root\.json"):
        apply(channel.path, rotation, holders.online)
    assert everything(channel.path) == before
    with pytest.raises(NotFoundError, match="is not a directory"):
        apply(tmp_path / "nowhere", rotation, holders.online)


def test_a_draft_that_was_altered_is_not_carried_out(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    draft = signed_by(offered(channel, holders, tmp_path, "1.0.0"), holders.ben)
    altered = read_draft(draft.to_bytes().replace(b'"percent": 100', b'"percent": 10'), origin="a.draft")
    assert altered.to_bytes() != draft.to_bytes()
    with pytest.raises(ConfigError, match="has 0; not signed"):
        apply(channel.path, altered, holders.online)
    assert channel.read().targets.version == 1


@pytest.mark.parametrize(
    "kept",
    [("root", "root"), ("root", "root", "targets", "snapshot", "timestamp"), ("root", "targets", "snapshot", "root")],
)
def test_a_draft_whose_steps_were_moved_or_taken_out_is_refused_where_clients_would_be_left_behind(
    kept: tuple[str, ...], channel: Channel, holders: Holders
) -> None:
    gone = [read_public_key(holders.files / f"{name}.pub").keyid for name in NAMES["targets"]]
    new = [read_public_key(holders.files / f"{name}.pub") for name in ("targets-new", "root-anna")]
    rotation = draft_rotation(channel.path, "targets", open_keys(holders.files), add=new, remove=gone)
    kinds = [step if isinstance(step, str) else step.signed.type for step in rotation.steps]
    assert kinds == ["root", "targets", "snapshot", "timestamp", "root"]
    bridge, targets, snapshot, timestamp, last = rotation.steps
    order = {"targets": [targets], "snapshot": [snapshot], "timestamp": [timestamp], "root": [bridge, last]}
    moved = replace(rotation, steps=tuple(order[kind].pop(0) for kind in kept))
    before = everything(channel.path)
    with pytest.raises(StateError, match="root 3 in the draft does not accept the targets that clients would have"):
        apply(channel.path, moved, holders.online)
    assert everything(channel.path) == before
    apply(channel.path, rotation, holders.online)


def test_a_draft_waits_for_its_content(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(channel.path, copy)
    draft = signed_by(offered(channel, holders, tmp_path, "1.0.0"), holders.ben)
    with pytest.raises(NotFoundError, match="is not there, or has other content") as told:
        apply(copy, draft, holders.online)
    assert "copy targets/" in (told.value.fix or "")
    assert Channel(copy).read().targets.version == 1
    shutil.copytree(channel.path / "targets", copy / "targets", dirs_exist_ok=True)
    apply(copy, draft, holders.online)
    assert report(Channel(copy).read(), datetime.now(timezone.utc), check_files=True).warnings == ()


def test_a_draft_that_has_expired_is_refused(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    draft = signed_by(offered(channel, holders, tmp_path, "1.0.0"), holders.ben)
    with pytest.raises(StateError, match=r"2\.targets\.json in the draft expired at "):
        apply(channel.path, draft, holders.online, clock=lambda: datetime.now(timezone.utc) + timedelta(days=91))


def test_a_second_publisher_waits_and_a_damaged_channel_is_left_alone(
    channel: Channel, holders: Holders, tmp_path: Path
) -> None:
    draft = signed_by(offered(channel, holders, tmp_path, "1.0.0"), holders.ben)
    with exclusive(channel.path / ".lock"), pytest.raises(ResourceError, match="another publisher"):
        apply(channel.path, draft, holders.online)
    timestamp = channel.path / "metadata" / "timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes()[:100])
    before = everything(channel.path)
    with pytest.raises(IntegrityError, match=r"timestamp\.json: .*; it is damaged, or was altered"):
        apply(channel.path, draft, holders.online)
    assert everything(channel.path) == before


def test_staged_drafts_need_no_online_keys(channel: Channel, holders: Holders, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.tide")
    draft = channel.publish(bundle, track="stable", keys=holders.anna, in_turns=True, staged=True).draft
    assert draft is not None
    assert draft.online == []
    assert apply(channel.path, signed_by(draft, holders.ben), KeyRing([], lambda _: "")).staged
    assert not channel.refresh(holders.online).staged


def test_enough_keys_in_one_place_need_no_turns(channel: Channel, holders: Holders) -> None:
    with pytest.raises(ConfigError, match="role root needs 2 of 2 keys; at hand: 1; missing: ") as told:
        rotate(channel.path, "root", holders.anna)
    assert "--draft" in (told.value.fix or "")
    assert rotate(channel.path, "root", open_keys(holders.files)).root.version == 2


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys of two holders and of the online machine, each with a passphrase of its own."""
    monkeypatch.chdir(tmp_path)
    for who, names in {
        "anna": ["root-anna", "targets-anna"],
        "ben": ["root-ben", "targets-ben"],
        "online": ["snapshot", "timestamp"],
    }.items():
        (tmp_path / who).mkdir()
        for name in names:
            create_key(tmp_path / who / f"{name}.pem", f"passphrase of {who}", rounds=1000)
    write_tiny_bundle(tmp_path / "tiny.tide")
    return tmp_path


def test_in_turns_on_the_command_line(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def as_holder(who: str, *words: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setenv("TIDEGATE_PASSPHRASE", f"passphrase of {who}")
        capsys.readouterr()
        assert main(words) == code, capsys.readouterr().err
        told = capsys.readouterr()
        return told.out, told.err

    roles = [f"{role}={who}/{role}-{who}.pub" for role in ("root", "targets") for who in ("anna", "ben")]
    roles += [f"{role}=online/{role}.pub" for role in ("snapshot", "timestamp")]
    options = [word for role in roles for word in ("--role", role)]
    init = ["channel", "init", "--channel", "site", *options, "--threshold", "root=2", "--threshold", "targets=2"]
    out, err = as_holder("anna", *init, "--keys", "anna", "--draft", "site.draft")
    assert "1.root.json, as root 1 asks: needs 2, has 1 by " in out
    assert "next: `tidegate keys sign site.draft --keys …` by another holder" in err
    assert "is there already" in as_holder("anna", *init, "--keys", "anna", "--draft", "site.draft", code=2)[1]
    assert not Path("site").exists()
    assert "needs 2 signatures" in as_holder("online", "keys", "apply", "site.draft", "--channel", "site", code=2)[1]
    before = Path("site.draft").read_bytes()
    assert json.loads(as_holder("ben", "keys", "sign", "site.draft", "--json")[0])["complete"] is False
    assert Path("site.draft").read_bytes() == before, "without --keys it is only shown"
    assert "none of the 2 keys" in as_holder("online", "keys", "sign", "site.draft", "--keys", "online", code=2)[1]
    out, err = as_holder("ben", "keys", "sign", "site.draft", "--keys", "ben")
    assert "needs 2, has 2 by " in out
    assert "next: `tidegate keys apply site.draft --channel DIR --keys … of snapshot and timestamp`" in err
    assert "role snapshot needs 1" in as_holder("ben", "keys", "apply", "site.draft", "--channel", "site", code=2)[1]
    as_holder("online", "keys", "apply", "site.draft", "--channel", "site", "--keys", "online")

    at = ("--channel", "site", "--keys", "anna")
    steps: list[tuple[str, ...]] = [
        ("publish", "tiny.tide", "--track", "beta"),
        ("channel", "promote", "tiny", "--from", "beta", "--track", "stable", "--percent", "5"),
        ("channel", "withdraw", "tiny", "--version", "1.0.0", "--reason", "test"),
        ("channel", "refresh", "--targets"),
        ("keys", "rotate", "--role", "root", "--lifetime", "timestamp=12h"),
    ]
    for number, words in enumerate(steps):
        file = f"{number}.draft"
        made: dict[str, Any] = json.loads(as_holder("anna", *words, *at, "--draft", file, "--json")[0])
        assert made["draft"] == file
        as_holder("ben", "keys", "sign", file, "--keys", "ben")
        applied = as_holder("online", "keys", "apply", file, "--channel", "site", "--keys", "online", "--json")[0]
        assert json.loads(applied)["warnings"] == []
    assert "timestamp 43,200 s" in as_holder("ben", "keys", "sign", "4.draft")[0]
    assert "add --targets" in as_holder("online", "channel", "refresh", *at, "--draft", "x.draft", code=2)[1]
    assert "is not a draft" in as_holder("ben", "keys", "sign", "tiny.tide", code=1)[1]
    assert "no file gone.draft" in as_holder("ben", "keys", "apply", "gone.draft", "--channel", "site", code=1)[1]
    assert "withdrawn: test" in as_holder("ben", "channel", "show", "--channel", "site", "--check")[0]
