"""Attacks on a device's channel: each is refused with one class of error, changes nothing that is installed, and leaves
the device able to update when the honest channel is back.

The names are those of the TUF specification's list.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fault_server import Request
from tests.fetching import IMPATIENT, QUICK, World, world
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from tidegate.bundle import digest
from tidegate.errors import (
    BundleError,
    DeadlineError,
    IntegrityError,
    TidegateError,
    UnavailableError,
)
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing, read_public_key
from tidegate.release.lifetimes import ROLES
from tidegate.release.rotation import rotate
from tidegate.testing.channels import make_channel, open_keys, role_keys, write_keys

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)
FAR_AHEAD = 2_000_000_000
CHUNK = bytes(1 << 16)


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory, [*ROLES, *(f"{role}-2" for role in ROLES), "thief"])
    return directory


@pytest.fixture(scope="module")
def keys(key_files: Path) -> KeyRing:
    return open_keys(key_files)


@pytest.fixture
def here(tmp_path: Path, key_files: Path, keys: KeyRing) -> Iterator[World]:
    """Return a device that runs 1.0.0, of a channel that now has 1.1.0 too."""
    channel = Channel(tmp_path / "site")
    channel.create(role_keys(key_files, {"root": ["root", "root-2"]}, root=2), keys)
    with world(channel, keys, tmp_path) as made:
        made.publish("1.0.0")
        made.install()
        made.publish("1.1.0")
        yield made


def attacked(here: World, error: type[TidegateError], match: str | None = None) -> None:
    """Try to update: it must end in exactly this error and touch nothing that is installed."""
    before = here.installed()
    with pytest.raises(TidegateError, match=match) as raised:
        here.install()
    assert type(raised.value) is error, raised.value
    assert raised.value.fix
    after = here.installed()
    assert before.items() <= after.items()
    assert all(digest(data) == name for name, data in after.items()), "nothing has a name that it does not deserve"


def recovers(here: World, version: str = "1.1.0") -> None:
    """Update from the honest channel."""
    here.settings = QUICK
    here.site.rules.clear()
    here.site.directory = here.channel.path
    here.install()
    assert here.store.has(digest(f"weights of {version}".encode()))


def metadata(here: World) -> Path:
    return here.channel.path / "metadata"


def replaced(here: World, name: str, data: bytes) -> None:
    """Let the server show something else under a name, as who sits on the line would."""

    def rule(request: Request) -> bool:
        request.send_status(200, data)
        return True

    here.site.rules[name] = rule


def signed_by(here: World, document: Metadata[S], names: list[str], key_files: Path) -> bytes:
    """Sign with stolen keys."""
    document.signatures.clear()
    for name in names:
        key = read_public_key(key_files / f"{name}.pub")
        document.sign(here.keys.signer(key.keyid), append=True)
    return document.to_bytes()


# Replay, freeze, mix-and-match


def test_replay_of_an_older_state(here: World) -> None:
    older = (metadata(here) / "timestamp.json").read_bytes()
    here.publish("1.2.0")
    here.refreshed()
    replaced(here, "timestamp.json", older)
    attacked(here, IntegrityError)
    recovers(here, "1.2.0")


@pytest.mark.parametrize(("days", "what"), [(2, "timestamp"), (8, "timestamp"), (400, "root")])
def test_freeze_on_a_state_that_has_expired(
    days: int, what: str, tmp_path: Path, key_files: Path, keys: KeyRing, here: World
) -> None:
    then = datetime.now(timezone.utc) - timedelta(days=days)
    past = make_channel(tmp_path / "past", key_files, clock=lambda: then)
    with world(past, keys, tmp_path / "device-2") as frozen:
        frozen.publish("1.0.0")
        with pytest.raises(UnavailableError, match=f"{what}.*is expired") as raised:
            frozen.install()
        assert raised.value.fix is not None
        assert "clock" in raised.value.fix
        assert "refresh" in raised.value.fix
        assert frozen.installed() == {}


@pytest.mark.parametrize("name", ["3.snapshot.json", "3.targets.json"])
def test_mix_and_match_of_two_states(name: str, here: World) -> None:
    other = "2" + name[1:]
    replaced(here, name, (metadata(here) / other).read_bytes())
    attacked(here, IntegrityError)
    recovers(here)


def test_a_snapshot_of_another_channel_with_the_same_keys(
    tmp_path: Path, here: World, key_files: Path, keys: KeyRing
) -> None:
    other = Channel(tmp_path / "other")
    other.create(role_keys(key_files, {"root": ["root", "root-2"]}, root=2), keys)
    other.refresh(keys, renew_targets=True)
    other.refresh(keys, renew_targets=True)
    replaced(here, "3.snapshot.json", (other.path / "metadata" / "3.snapshot.json").read_bytes())
    attacked(here, IntegrityError)
    recovers(here)


# Endless data, slow retrieval


def endless(request: Request) -> bool:
    request.begin_body(length=None)
    while not request.site.over.is_set():
        request.wfile.write(CHUNK)
    return True


def drip(request: Request) -> bool:
    request.begin_body(length=1000)
    while not request.site.over.wait(0.02):
        request.wfile.write(b"{")
    return True


PARTS = ["2.root.json", "timestamp.json", "snapshot.json", "targets.json", "/targets/"]


@pytest.mark.parametrize("part", PARTS)
def test_endless_data(part: str, here: World) -> None:
    here.site.rules[part] = endless
    attacked(here, IntegrityError)
    here.site.rules.clear()
    recovers(here)


@pytest.mark.parametrize("part", [part for part in PARTS if part != "/targets/"])
def test_slow_retrieval_of_metadata(part: str, here: World) -> None:
    here.settings = IMPATIENT
    here.site.rules[part] = drip
    attacked(here, DeadlineError)
    recovers(here)


def test_slow_retrieval_of_a_file(here: World) -> None:
    def slowly(request: Request) -> bool:
        data = request.content() or b""
        request.begin_body(length=len(data))
        for byte in data:
            if request.site.over.wait(0.05):
                break
            request.wfile.write(bytes([byte]))
        return True

    here.settings = IMPATIENT
    here.site.rules["/targets/"] = slowly
    attacked(here, DeadlineError)
    recovers(here)


# Altered files


def altered(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def shorter(data: bytes) -> bytes:
    return data[:-1]


def longer(data: bytes) -> bytes:
    return data + b" "


@pytest.mark.parametrize("change", [altered, shorter, longer])
@pytest.mark.parametrize("which", ["weights", "manifest", "asset"])
def test_altered_target(which: str, change: Callable[[bytes], bytes], here: World) -> None:
    offer = here.publish("1.2.0", assets={"labels": b"other labels"})
    sha256 = {
        "weights": digest(b"weights of 1.2.0"),
        "manifest": offer.manifest.sha256,
        "asset": digest(b"other labels"),
    }[which]
    path = here.channel.path / "targets" / "files" / f"{sha256}.{sha256}"
    replaced(here, sha256, change(path.read_bytes()))
    attacked(here, IntegrityError)
    recovers(here, "1.2.0")


def test_another_target_under_the_name_of_the_wanted_one(here: World) -> None:
    old = digest(b"weights of 1.0.0")
    replaced(here, digest(b"weights of 1.1.0"), (here.channel.path / "targets" / "files" / f"{old}.{old}").read_bytes())
    attacked(here, IntegrityError)
    recovers(here)


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json"])
def test_altered_metadata(name: str, here: World) -> None:
    document = json.loads((metadata(here) / name).read_bytes())
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    replaced(here, name, json.dumps(document).encode())
    attacked(here, IntegrityError)
    recovers(here)


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json", "2.root.json"])
@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b"<html>not found</html>", b'{"signed": {}, "signatures": []}'],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_metadata(name: str, data: bytes, here: World) -> None:
    replaced(here, name, data)
    before = here.installed()
    with pytest.raises(BundleError):
        here.install()
    assert here.installed() == before
    recovers(here)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_of_the_metadata_leads_elsewhere(data: st.DataObject, here: World) -> None:
    name = data.draw(st.sampled_from(["timestamp.json", "3.snapshot.json", "3.targets.json"]))
    raw = bytearray((metadata(here) / name).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    replaced(here, name, bytes(raw))
    reader = here.reader()
    try:
        reader.refresh()
    except BundleError:
        pass
    else:
        # A flip in what no signature covers, such as the case of a hexadecimal digit.
        assert [offer.version for offer in reader.track("tiny", "stable").offers] == ["1.0.0", "1.1.0"]
    here.site.rules.clear()
    shutil.rmtree(here.metadata)


# Stolen keys


def test_a_stolen_root_key_below_the_threshold_is_worth_nothing(here: World, key_files: Path) -> None:
    forged: Metadata[Root] = Metadata.from_file(str(metadata(here) / "1.root.json"))
    forged.signed.version = 2
    thief = read_public_key(key_files / "thief.pub")
    for role in ROLES:
        forged.signed.roles[role].keyids = [thief.keyid]
        forged.signed.roles[role].threshold = 1
    forged.signed.keys[thief.keyid] = thief
    replaced(here, "2.root.json", signed_by(here, forged, ["root", "thief"], key_files))
    attacked(here, IntegrityError, match="signed by 1/2 keys")
    recovers(here)


def test_the_same_stolen_root_key_twice_is_still_one(here: World, key_files: Path) -> None:
    forged: Metadata[Root] = Metadata.from_file(str(metadata(here) / "1.root.json"))
    forged.signed.version = 2
    document = json.loads(signed_by(here, forged, ["root"], key_files))
    document["signatures"] *= 2
    replaced(here, "2.root.json", json.dumps(document).encode())
    attacked(here, IntegrityError)
    recovers(here)


def test_keys_of_the_online_roles_cannot_make_an_offer(here: World, key_files: Path) -> None:
    """Whoever has them may hold back news; the targets that they name must be signed by another key."""
    stolen = Channel(here.channel.path.parent / "stolen")
    shutil.copytree(here.channel.path, stolen.path)
    forged = json.loads((stolen.path / "metadata" / "3.targets.json").read_bytes())
    forged["signed"]["version"] = 4
    raw = json.dumps(forged).encode()
    (stolen.path / "metadata" / "4.targets.json").write_bytes(raw)
    snapshot: Metadata[Snapshot] = Metadata.from_file(str(stolen.path / "metadata" / "3.snapshot.json"))
    snapshot.signed.version = 4
    about = snapshot.signed.meta["targets.json"]
    about.version, about.length, about.hashes = 4, len(raw), {"sha256": digest(raw)}
    put_live(here, stolen.path, snapshot, key_files)
    here.site.directory = stolen.path
    attacked(here, IntegrityError)


def put_live(
    here: World, site: Path, snapshot: Metadata[Snapshot], key_files: Path, *, timestamp_version: int = 100
) -> None:
    """Sign a snapshot and a timestamp that names it, with both online keys."""
    raw = signed_by(here, snapshot, ["snapshot"], key_files)
    (site / "metadata" / f"{snapshot.signed.version}.snapshot.json").write_bytes(raw)
    timestamp: Metadata[Timestamp] = Metadata.from_file(str(site / "metadata" / "timestamp.json"))
    timestamp.signed.version = timestamp_version
    about = timestamp.signed.snapshot_meta
    about.version, about.length, about.hashes = snapshot.signed.version, len(raw), {"sha256": digest(raw)}
    (site / "metadata" / "timestamp.json").write_bytes(signed_by(here, timestamp, ["timestamp"], key_files))


def test_rollback_of_targets_by_stolen_online_keys(here: World, key_files: Path) -> None:
    here.refreshed()
    stolen = here.channel.path.parent / "stolen"
    shutil.copytree(here.channel.path, stolen)
    older: Metadata[Snapshot] = Metadata.from_file(str(stolen / "metadata" / "2.snapshot.json"))
    older.signed.version = 4
    put_live(here, stolen, older, key_files)
    here.site.directory = stolen
    attacked(here, IntegrityError, match="targets.json version")


def test_rollback_of_the_snapshot_by_a_stolen_timestamp_key(here: World, key_files: Path) -> None:
    here.refreshed()
    stolen = here.channel.path.parent / "stolen"
    shutil.copytree(here.channel.path, stolen)
    older: Metadata[Snapshot] = Metadata.from_file(str(stolen / "metadata" / "2.snapshot.json"))
    put_live(here, stolen, older, key_files)
    here.site.directory = stolen
    attacked(here, IntegrityError)


def test_fast_forward_is_recovered_from_by_new_keys(here: World, key_files: Path) -> None:
    stolen = here.channel.path.parent / "stolen"
    shutil.copytree(here.channel.path, stolen)
    ahead: Metadata[Snapshot] = Metadata.from_file(str(stolen / "metadata" / "3.snapshot.json"))
    ahead.signed.version = FAR_AHEAD
    put_live(here, stolen, ahead, key_files, timestamp_version=FAR_AHEAD)
    here.site.directory = stolen
    here.refreshed()

    here.site.directory = here.channel.path
    attacked(here, IntegrityError)  # the honest channel now looks like a rollback
    for role in ("snapshot", "timestamp"):
        old = read_public_key(key_files / f"{role}.pub").keyid
        rotate(here.channel.path, role, here.keys, add=[read_public_key(key_files / f"{role}-2.pub")], remove=[old])
    recovers(here)
    here.publish("1.2.0")
    recovers(here, "1.2.0")


def test_a_channel_of_other_keys_at_the_same_address(here: World, tmp_path: Path) -> None:
    write_keys(tmp_path / "others")
    other = make_channel(tmp_path / "other", tmp_path / "others")
    here.site.directory = other.path
    attacked(here, IntegrityError)
    recovers(here)


def test_a_server_that_hides_the_next_root_only_holds_back_news(here: World) -> None:
    rotate(here.channel.path, "root", here.keys)
    here.publish("1.2.0")

    def hidden(request: Request) -> bool:
        request.send_status(404)
        return True

    here.site.rules["2.root.json"] = hidden
    here.install()
    recovers(here, "1.2.0")
    assert json.loads((here.metadata / "root.json").read_bytes())["signed"]["version"] == 2


@pytest.mark.parametrize("status", [403, 404, 500, 503])
@pytest.mark.parametrize("part", ["timestamp.json", "snapshot.json", "targets.json", "/targets/"])
def test_a_server_that_refuses(part: str, status: int, here: World) -> None:
    def refuse(request: Request) -> bool:
        request.send_status(status, b"no")
        return True

    here.site.rules[part] = refuse
    attacked(here, UnavailableError, match=str(status))
    recovers(here)
