"""A channel over a real web server, read by python-tuf's own client: every command, and attacks."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root

from tidegate.bundle import (
    Bundle,
    Golden,
    GoldenFixture,
    Manifest,
    Signature,
    TensorSpec,
    Variant,
    digest,
    write_bundle,
)
from tidegate.errors import (
    BundleError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    ResourceError,
    StateError,
)
from tidegate.release import in_cohort
from tidegate.release.channel import Channel
from tidegate.release.disk import Disk
from tidegate.release.keys import KeyRing, read_public_key
from tidegate.release.lifetimes import ROLES, Lifetimes
from tidegate.release.moments import utc_now
from tidegate.release.report import report
from tidegate.release.rotation import rotate
from tidegate.testing.channels import (
    PlainDevice,
    StaticServer,
    make_channel,
    open_keys,
    role_keys,
    serve,
    write_keys,
    write_tiny_bundle,
)

SHARED = {"labels": b"yes\nno\n"}


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory, [*ROLES, *(f"{role}-2" for role in ROLES)])
    return directory


@pytest.fixture(scope="session")
def keys(key_files: Path) -> KeyRing:
    return open_keys(key_files)


@pytest.fixture(scope="session")
def online(key_files: Path) -> KeyRing:
    return open_keys(key_files / "snapshot.pem", key_files / "timestamp.pem")


@pytest.fixture
def channel(tmp_path: Path, key_files: Path) -> Channel:
    return make_channel(tmp_path / "site", key_files)


@pytest.fixture
def server(channel: Channel) -> Iterator[StaticServer]:
    with serve(channel.path) as served:
        yield served


@pytest.fixture
def device(tmp_path: Path, channel: Channel, server: StaticServer) -> PlainDevice:
    return new_device(tmp_path / "device", channel, server)


def new_device(directory: Path, channel: Channel, server: StaticServer) -> PlainDevice:
    return PlainDevice(directory, server.url, (channel.path / "metadata" / "1.root.json").read_bytes())


def bundle(directory: Path, version: str, **options: object) -> Path:
    path = directory / f"tiny-{version}.tide"
    weights = f"weights of {version}".encode()
    return write_tiny_bundle(path, version=version, **{"weights": weights, "assets": SHARED, **options})  # type: ignore[arg-type]


def everything(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def fetched_files(server: StaticServer) -> list[str]:
    return [path for path, _ in server.requests if path.startswith("/targets/files/")]


def test_a_published_bundle_reaches_a_device_with_only_what_it_runs(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice, server: StaticServer
) -> None:
    change = channel.publish(bundle(tmp_path, "1.0.0", hardware=["pi4"]), track="stable", keys=keys)
    assert change.live
    assert change.written.files == 5  # two variants, an asset, the manifest, the track

    installed = device.install("tiny", "stable", "onnx-fp32")
    assert installed.files == {"models/a.onnx": b"weights of 1.0.0", "assets/labels": SHARED["labels"]}
    assert len(fetched_files(server)) == 3

    offer = installed.offer
    assert (offer.release, offer.version, offer.rollout.percent, offer.rss_mb) == (1, "1.0.0", 100, 21)
    assert [(one.id, one.minimum_runtime, one.hardware) for one in offer.variants] == [
        ("onnx-fp32", "1.2", ("pi4",)),
        ("tflite-int8", "1.2", ("pi4",)),
    ]


def test_a_check_without_news_costs_two_requests(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice, server: StaticServer
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    device.refresh()
    server.requests.clear()
    device.refresh()
    assert server.requests == [("/metadata/2.root.json", 404), ("/metadata/timestamp.json", 200)]


def test_equal_content_is_stored_and_fetched_once(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice, server: StaticServer
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    device.install("tiny", "stable", "onnx-fp32")
    server.requests.clear()
    change = channel.publish(bundle(tmp_path, "1.1.0", weights=b"weights of 1.0.0"), track="stable", keys=keys)
    assert change.written.reused == 3

    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"
    assert len(fetched_files(server)) == 1, "the manifest alone is new"


def test_the_standard_librarys_web_server_serves_it(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(channel.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split(" port ")[1].split()[0]
        try:
            plain = PlainDevice(
                tmp_path / "device",
                f"http://127.0.0.1:{port}",
                (channel.path / "metadata" / "1.root.json").read_bytes(),
            )
            assert plain.install("tiny", "stable", "tflite-int8").files["models/b.tflite"] == b"0.0.1 fo sthgiew"
        finally:
            process.terminate()


def test_the_tracks_file_is_the_same_document_as_its_custom_metadata(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys, percent=30)
    client = device.refresh()
    target = client.get_targetinfo("tracks/tiny/stable.json")
    assert target is not None
    assert json.loads(Path(client.download_target(target)).read_bytes()) == target.custom


def test_a_ramp_keeps_counter_and_salt_and_so_its_first_devices(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys, percent=5)
    before = device.track("tiny", "stable")
    channel.promote("tiny", track="stable", keys=keys, percent=20)
    after = device.track("tiny", "stable")
    assert before is not None
    assert after is not None
    (first,), (second,) = before.offers, after.offers
    assert (first.release, first.rollout.salt) == (second.release, second.rollout.salt)
    assert (first.rollout.percent, second.rollout.percent) == (5, 20)
    fleet = [f"device-{number}" for number in range(2000)]
    reached = [{one for one in fleet if in_cohort(one, o.rollout.salt, o.rollout.percent)} for o in (first, second)]
    assert reached[0] < reached[1]

    with pytest.raises(StateError, match="at 20 %"):
        channel.promote("tiny", track="stable", keys=keys, percent=10)


def test_promotion_offers_the_same_content_on_another_track_under_a_new_counter(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice, server: StaticServer
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="beta", keys=keys)
    device.install("tiny", "beta", "onnx-fp32")
    server.requests.clear()
    change = channel.promote("tiny", source="beta", track="stable", keys=keys, percent=50)
    assert [(track, offer.release, offer.rollout.percent) for track, offer in change.offers] == [("stable", 2, 50)]
    assert device.install("tiny", "stable", "onnx-fp32").offer.release == 2
    assert fetched_files(server) == []
    assert channel.promote("tiny", source="beta", track="stable", keys=keys).offers[0][1].rollout.percent == 100


def test_an_authorised_rollback_raises_the_counter_while_the_content_is_older(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    for version in ("1.0.0", "1.1.0"):
        channel.publish(bundle(tmp_path, version), track="stable", keys=keys)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"

    channel.roll_back("tiny", track="stable", version="1.0.0", reason="misses words", keys=keys)
    installed = device.install("tiny", "stable", "onnx-fp32")
    assert installed.files["models/a.onnx"] == b"weights of 1.0.0"
    assert (installed.offer.release, installed.offer.rollback_of, installed.offer.reason) == (3, 2, "misses words")
    track = device.track("tiny", "stable")
    assert track is not None
    assert [offer.withdrawn is not None for offer in track.offers] == [False, True, False]

    assert channel.roll_back("tiny", track="stable", version="1.0.0", reason="again", keys=keys).offers == ()
    with pytest.raises(StateError, match="was withdrawn"):
        channel.publish(tmp_path / "tiny-1.1.0.tide", track="stable", keys=keys)


def test_a_withdrawn_version_is_offered_to_nobody(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    channel.publish(bundle(tmp_path, "1.1.0"), track="stable", keys=keys)
    channel.promote("tiny", source="stable", track="beta", keys=keys)
    change = channel.withdraw("tiny", version="1.1.0", reason="wrong labels", keys=keys)
    assert sorted(track for track, _ in change.offers) == ["beta", "stable"]
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"
    beta = device.track("tiny", "beta")
    assert beta is not None
    assert beta.standing == ()
    assert beta.offers[0].withdrawn is not None
    assert beta.offers[0].withdrawn.reason == "wrong labels"
    with pytest.raises(NotFoundError, match="does not offer version"):
        channel.promote("tiny", source="beta", track="stable", version="1.1.0", keys=keys)
    with pytest.raises(StateError, match="was withdrawn: wrong labels"):
        channel.roll_back("tiny", track="stable", version="1.1.0", reason="no", keys=keys)


def test_a_version_never_changes(tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice) -> None:
    path = bundle(tmp_path, "1.0.0")
    channel.publish(path, track="stable", keys=keys)
    standing = everything(channel.path)
    assert channel.publish(path, track="stable", keys=keys).offers == ()
    assert everything(channel.path) == standing, "the same again changes nothing"
    other = write_tiny_bundle(tmp_path / "other.tide", version="1.0.0", weights=b"others")
    with pytest.raises(StateError, match="published with manifest"):
        channel.publish(other, track="stable", keys=keys)
    with pytest.raises(StateError, match=r"0\.9\.0 is not newer"):
        channel.publish(bundle(tmp_path, "0.9.0"), track="stable", keys=keys)
    with pytest.raises(StateError, match="at 100 %, not 50 %"):
        channel.publish(path, track="stable", keys=keys, percent=50)
    assert {name: data for name, data in everything(channel.path).items() if "timestamp" in name} == {
        name: data for name, data in standing.items() if "timestamp" in name
    }
    assert device.install("tiny", "stable", "onnx-fp32").offer.release == 1


def test_the_manifests_own_counter_is_a_floor(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    assert channel.publish(bundle(tmp_path, "1.0.0", release=40), track="beta", keys=keys).offers[0][1].release == 40
    assert channel.publish(bundle(tmp_path, "1.1.0", release=3), track="stable", keys=keys).offers[0][1].release == 41


def test_offline_and_online_keys_may_lie_on_different_machines(
    tmp_path: Path, channel: Channel, key_files: Path, online: KeyRing, device: PlainDevice
) -> None:
    device.refresh()
    author = open_keys(key_files / "targets.pem")
    change = channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=author, staged=True)
    assert not change.live
    assert device.track("tiny", "stable") is None, "signed is not live"
    assert any("not live" in warning for warning in report(channel.read(), utc_now()).warnings)
    with pytest.raises(ConfigError, match="role snapshot needs 1 of 1 keys"):
        channel.publish(tmp_path / "tiny-1.0.0.tide", track="beta", keys=author)
    channel.refresh(online)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"


def test_what_is_not_signed_by_the_targets_keys_is_never_made_live(
    tmp_path: Path, channel: Channel, keys: KeyRing, online: KeyRing, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    forged = json.loads((channel.path / "metadata" / "2.targets.json").read_bytes())
    forged["signed"] |= {"version": 3, "targets": {}}
    (channel.path / "metadata" / "3.targets.json").write_text(json.dumps(forged))
    (channel.path / "metadata" / "999999999999999999.targets.json").write_text("{}")
    channel.refresh(online)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"
    channel.publish(bundle(tmp_path, "1.1.0"), track="stable", keys=keys)
    assert channel.read().targets.version == 4, "no name is used twice"
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_key_is_rotated_without_the_old_private_key_and_no_client_is_left_behind(
    role: str,
    tmp_path: Path,
    channel: Channel,
    keys: KeyRing,
    key_files: Path,
    device: PlainDevice,
    server: StaticServer,
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    device.install("tiny", "stable", "onnx-fp32")
    old = read_public_key(key_files / f"{role}.pub")
    new = read_public_key(key_files / f"{role}-2.pub")
    needed = {*ROLES, f"{role}-2"} - (set() if role == "root" else {role})
    at_hand = open_keys(*(key_files / f"{name}.pem" for name in needed))

    after = rotate(channel.path, role, at_hand, add=[new], remove=[old.keyid[:8]])
    assert after.root.signed.roles[role].keyids == [new.keyid]
    assert old.keyid not in after.root.signed.keys

    fresh = new_device(tmp_path / "fresh", channel, server)
    for one in (device, fresh):
        assert one.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"

    without_new = open_keys(*(key_files / f"{name}.pem" for name in ROLES))
    sign_again: Callable[[KeyRing], object] = (
        partial(rotate, channel.path, "root") if role == "root" else partial(channel.refresh, renew_targets=True)
    )
    with pytest.raises(ConfigError, match=f"role {role} needs 1 of 1 keys"):
        sign_again(without_new)
    channel.publish(bundle(tmp_path, "1.1.0"), track="stable", keys=open_keys(key_files))
    for one in (device, fresh):
        assert one.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_what_a_removed_key_signs_is_refused(
    role: str, tmp_path: Path, channel: Channel, keys: KeyRing, key_files: Path, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    stolen = tmp_path / "stolen"
    shutil.copytree(channel.path, stolen)
    old = read_public_key(key_files / f"{role}.pub").keyid
    rotate(channel.path, role, keys, add=[read_public_key(key_files / f"{role}-2.pub")], remove=[old])
    device.refresh()

    # The thief signs on with what he has: the channel as it was, and all its old keys.
    thief = Channel(stolen)
    for version in ("6.6.6", "6.6.7"):
        thief.publish(bundle(tmp_path, version), track="stable", keys=keys)
    for file in ("timestamp.json", *(path.name for path in (stolen / "metadata").glob("[3-9].*.json"))):
        shutil.copy(stolen / "metadata" / file, channel.path / "metadata" / file)
    with pytest.raises(tuf_errors.RepositoryError):
        device.refresh()


def test_a_threshold_of_two_root_keys(tmp_path: Path, keys: KeyRing, key_files: Path) -> None:
    channel = Channel(tmp_path / "site")
    channel.create(role_keys(key_files, {"root": ["root", "root-2"]}, root=2), keys)
    one_holder = open_keys(*(key_files / f"{name}.pem" for name in ROLES))
    with pytest.raises(ConfigError, match="role root needs 2 of 2 keys; at hand: 1"):
        rotate(channel.path, "root", one_holder)
    with serve(channel.path) as server:
        device = new_device(tmp_path / "device", channel, server)
        device.refresh()
        rotate(channel.path, "root", keys)
        device.refresh()

        # A root that one holder signs alone is refused.
        forged: Metadata[Root] = Metadata.from_file(str(channel.path / "metadata" / "2.root.json"))
        forged.signed.version = 3
        forged.signed.roles["root"].threshold = 1
        forged.sign(one_holder.signer(read_public_key(key_files / "root.pub").keyid))
        (channel.path / "metadata" / "3.root.json").write_bytes(forged.to_bytes())
        with pytest.raises(tuf_errors.UnsignedMetadataError):
            device.refresh()
        with pytest.raises(IntegrityError):
            channel.read()


def test_a_threshold_is_raised_and_lowered(
    tmp_path: Path, channel: Channel, keys: KeyRing, key_files: Path, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    rotate(channel.path, "targets", keys, add=[read_public_key(key_files / "targets-2.pub")], threshold=2)
    device.refresh()
    one_holder = open_keys(*(key_files / f"{name}.pem" for name in ROLES))
    with pytest.raises(ConfigError, match="role targets needs 2 of 2 keys"):
        channel.publish(bundle(tmp_path, "1.1.0"), track="stable", keys=one_holder)
    channel.publish(bundle(tmp_path, "1.1.0"), track="stable", keys=keys)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"
    rotate(channel.path, "targets", keys, threshold=1)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"
    with pytest.raises(ConfigError, match="would need 3 of 2 keys"):
        rotate(channel.path, "targets", keys, threshold=3)
    with pytest.raises(NotFoundError, match="has no key"):
        rotate(channel.path, "targets", keys, remove=["0123"])


@pytest.mark.parametrize(
    ("days", "online_enough"), [(2, True), (8, True), (100, False)], ids=["timestamp", "snapshot", "targets"]
)
def test_what_has_expired_is_refused_and_a_refresh_repairs_it(
    days: int, online_enough: bool, tmp_path: Path, key_files: Path, keys: KeyRing, online: KeyRing
) -> None:
    then = datetime.now(timezone.utc) - timedelta(days=days)
    past = make_channel(tmp_path / "site", key_files, clock=lambda: then)
    past.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    channel = Channel(past.path)
    with serve(channel.path) as server:
        device = new_device(tmp_path / "device", channel, server)
        with pytest.raises(tuf_errors.ExpiredMetadataError):
            device.refresh()
        assert any("expired" in warning for warning in report(channel.read(), utc_now()).warnings)
        channel.refresh(online)
        if not online_enough:
            with pytest.raises(tuf_errors.ExpiredMetadataError):
                device.refresh()
            channel.refresh(keys, renew_targets=True)
        assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"
        assert report(channel.read(), utc_now()).warnings == ()


def test_a_channel_that_nobody_touched_for_years_is_revived(
    tmp_path: Path, key_files: Path, keys: KeyRing, online: KeyRing
) -> None:
    then = datetime.now(timezone.utc) - timedelta(days=800)
    past = make_channel(tmp_path / "site", key_files, clock=lambda: then)
    past.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    channel = Channel(past.path)
    assert [role.state for role in report(channel.read(), utc_now()).roles] == ["expired"] * 4
    with serve(channel.path) as server:
        device = new_device(tmp_path / "device", channel, server)
        with pytest.raises(tuf_errors.ExpiredMetadataError):
            device.refresh()
        rotate(channel.path, "root", keys)
        channel.refresh(keys, renew_targets=True)
        assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"


def test_making_a_channel_leaves_the_directorys_other_files_alone(
    tmp_path: Path, key_files: Path, keys: KeyRing
) -> None:
    others = [tmp_path / name for name in ("index.html", ".0123456789abcdef.part", ".film.part")]
    for path in others:
        path.write_bytes(b"mine")
    Channel(tmp_path).create(role_keys(key_files), keys)
    (tmp_path / "targets" / ".0123456789abcdef.part").write_bytes(b"left by a dead publisher")
    Channel(tmp_path).refresh(keys)
    assert [path.read_bytes() for path in others] == [b"mine"] * 3
    assert not (tmp_path / "targets" / ".0123456789abcdef.part").exists()


def test_lifetimes_are_signed_into_the_root_and_every_signer_keeps_to_them(
    tmp_path: Path, key_files: Path, keys: KeyRing, online: KeyRing
) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    channel = Channel(tmp_path / "site", clock=lambda: now)
    channel.create(role_keys(key_files), keys, Lifetimes(timestamp_s=3600))
    assert channel.refresh(online).timestamp.signed.expires == now + timedelta(hours=1)
    rotate(channel.path, "root", keys, lifetimes=Lifetimes(timestamp_s=7200), clock=lambda: now)
    assert channel.refresh(online).timestamp.signed.expires == now + timedelta(hours=2)
    assert channel.read().root.signed.expires == now + timedelta(days=365)


def test_a_replayed_timestamp_is_refused(tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    old = (channel.path / "metadata" / "timestamp.json").read_bytes()
    channel.publish(bundle(tmp_path, "1.1.0"), track="stable", keys=keys)
    device.refresh()
    (channel.path / "metadata" / "timestamp.json").write_bytes(old)
    with pytest.raises(tuf_errors.BadVersionNumberError):
        device.refresh()


def test_an_altered_target_is_refused_and_told_and_mended(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    path = bundle(tmp_path, "1.0.0")
    channel.publish(path, track="stable", keys=keys)
    sha256 = digest(b"weights of 1.0.0")
    stored = channel.path / "targets" / "files" / f"{sha256}.{sha256}"
    stored.write_bytes(b"weightz of 1.0.0")
    with pytest.raises(tuf_errors.LengthOrHashMismatchError):
        device.install("tiny", "stable", "onnx-fp32")
    assert sha256 in report(channel.read(), utc_now(), check_files=True).warnings[0]
    channel.publish(path, track="stable", keys=keys)
    assert device.install("tiny", "stable", "onnx-fp32").files["models/a.onnx"] == b"weights of 1.0.0"
    assert report(channel.read(), utc_now(), check_files=True).warnings == ()


@pytest.mark.parametrize(
    ("mixed", "into"), [("2.snapshot.json", "3.snapshot.json"), ("2.targets.json", "3.targets.json")]
)
def test_mixed_metadata_is_refused(
    mixed: str, into: str, tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    for version in ("1.0.0", "1.1.0"):
        channel.publish(bundle(tmp_path, version), track="stable", keys=keys)
    shutil.copy(channel.path / "metadata" / mixed, channel.path / "metadata" / into)
    with pytest.raises(tuf_errors.RepositoryError):
        device.refresh()
    with pytest.raises(IntegrityError):
        channel.publish(bundle(tmp_path, "1.2.0"), track="stable", keys=keys)


@pytest.mark.parametrize("name", ["1.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"])
@pytest.mark.parametrize("how", ["altered", "truncated", "gone"])
def test_a_publisher_does_not_build_on_damaged_metadata(
    name: str, how: str, tmp_path: Path, channel: Channel, keys: KeyRing, online: KeyRing
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    victim = channel.path / "metadata" / name
    raw = victim.read_bytes()
    if how == "altered":
        victim.write_bytes(raw.replace(b'"version":', b'"versiom":'))
    elif how == "truncated":
        victim.write_bytes(raw[: len(raw) // 2])
    else:
        victim.unlink()
    damaged = everything(channel.path)
    with pytest.raises((IntegrityError, NotFoundError)):
        channel.refresh(online)
    assert everything(channel.path) == damaged


def test_a_bundle_that_fails_its_golden_fixture_is_not_published(
    tmp_path: Path, channel: Channel, keys: KeyRing
) -> None:
    good, bad = real_bundle(tmp_path, "1.0.0", expected=3.0), real_bundle(tmp_path, "1.1.0", expected=4.0)
    assert "passed by onnx-fp32" in channel.publish(good, track="stable", keys=keys).note
    standing = everything(channel.path)
    with pytest.raises(BundleError, match="does not reproduce the golden fixture"):
        channel.publish(bad, track="stable", keys=keys)
    assert everything(channel.path) == standing


def test_a_bundle_that_failed_its_criteria_is_not_published(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    with Bundle.open(bundle(tmp_path, "1.0.0")) as passed:
        files = {listed.path: passed.read(listed.path) for listed in passed.files}
        failing = msgspec.structs.replace(passed.manifest, failing=True)
    write_bundle(failing, files, tmp_path / "failing.tide")
    with pytest.raises(BundleError, match="marked as failing"):
        channel.publish(tmp_path / "failing.tide", track="stable", keys=keys)


def test_a_damaged_bundle_is_not_published(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    path = bundle(tmp_path, "1.0.0")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"weights of", b"weightz of"))
    standing = everything(channel.path)
    with pytest.raises(IntegrityError):
        channel.publish(path, track="stable", keys=keys)
    assert everything(channel.path) == standing


def test_two_publishers_exclude_each_other_and_a_dead_one_is_no_obstacle(
    tmp_path: Path, channel: Channel, keys: KeyRing
) -> None:
    path = bundle(tmp_path, "1.0.0")
    code = (
        "import sys, pathlib\n"
        "from tidegate.release.disk import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]) / '.lock'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(channel.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ResourceError, match="another publisher"):
            channel.publish(path, track="stable", keys=keys)
        other.send_signal(signal.SIGKILL)
        other.wait()
    channel.publish(path, track="stable", keys=keys)


def test_a_channel_is_made_once(tmp_path: Path, channel: Channel, key_files: Path, keys: KeyRing) -> None:
    with pytest.raises(ConfigError, match="is a channel already"):
        channel.create(role_keys(key_files), keys)
    with pytest.raises(NotFoundError, match="holds no channel"):
        Channel(tmp_path).refresh(keys)
    with pytest.raises(NotFoundError, match="no model 'other'; it has none"):
        channel.promote("other", track="stable", keys=keys)
    with pytest.raises(ConfigError, match="track 'St able'"):
        channel.publish(bundle(tmp_path, "1.0.0"), track="St able", keys=keys)


def test_an_unreachable_server_leaves_the_device_as_it_was(tmp_path: Path, channel: Channel, keys: KeyRing) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    with serve(channel.path) as server:
        device = new_device(tmp_path / "device", channel, server)
        device.install("tiny", "stable", "onnx-fp32")
        with urllib.request.urlopen(f"{server.url}/metadata/timestamp.json") as answer:
            assert answer.status == 200
        port = int(server.url.rpartition(":")[2])
    held = everything(tmp_path / "device")
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("127.0.0.1", port))  # bound and not listening: refused, and nobody else gets the port
        with pytest.raises(tuf_errors.DownloadError):
            device.refresh()
    assert everything(tmp_path / "device") == held


def test_devices_that_refresh_in_the_middle_of_a_publish_see_the_old_release_or_the_new(
    tmp_path: Path, channel: Channel, keys: KeyRing, server: StaticServer
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    versions = [f"1.{minor}.0" for minor in range(1, 9)]
    bundles = [bundle(tmp_path, version) for version in versions]

    def publish_all() -> None:
        for path in bundles:
            channel.publish(path, track="stable", keys=keys)

    device = new_device(tmp_path / "device", channel, server)
    seen = []
    with ThreadPoolExecutor(1) as publisher:
        publishing = publisher.submit(publish_all)
        while not publishing.done():
            seen.append(device.install("tiny", "stable", "onnx-fp32").offer.release)
        publishing.result()
    assert seen == sorted(seen)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == versions[-1]


def test_a_file_that_the_system_refuses_to_write_leaves_the_channel_as_it_was(
    tmp_path: Path, channel: Channel, keys: KeyRing, device: PlainDevice
) -> None:
    channel.publish(bundle(tmp_path, "1.0.0"), track="stable", keys=keys)
    big = bundle(tmp_path, "1.1.0", weights=bytes(200_000))
    standing = everything(channel.path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(ResourceError, match="could not be written"):
            channel.publish(big, track="stable", keys=keys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    left = everything(channel.path)
    assert {name: left[name] for name in standing} == standing
    assert not any(name.endswith(".part") for name in left)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.0.0"
    channel.publish(big, track="stable", keys=keys)
    assert device.install("tiny", "stable", "onnx-fp32").offer.version == "1.1.0"


class RecordingDisk(Disk):
    """Does what it is told and keeps the order, as (operation, path)."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Path]] = []
        self._open: dict[int, Path] = {}

    def create(self, path: Path, mode: int) -> int:
        descriptor = super().create(path, mode)
        self._open[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        self.done.append(("write", self._open[descriptor]))
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.done.append(("sync", self._open[descriptor]))
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self.done += [("from", source), ("rename over" if target.exists() else "rename", target)]
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self.done.append(("sync directory", path))
        super().sync_directory(path)


def test_every_byte_is_synced_before_it_has_a_name_and_every_name_before_the_timestamp(
    tmp_path: Path, key_files: Path, keys: KeyRing
) -> None:
    disk = RecordingDisk()
    channel = make_channel(tmp_path / "site", key_files, disk=disk)
    channel.publish(bundle(tmp_path, "1.0.0"), track="beta", keys=keys)
    channel.promote("tiny", source="beta", track="stable", keys=keys)
    channel.withdraw("tiny", version="1.0.0", reason="test", keys=keys)
    rotate(channel.path, "targets", keys, add=[read_public_key(key_files / "targets-2.pub")], disk=disk)
    channel.refresh(keys)

    synced: set[Path] = set()
    unsynced_names: set[Path] = set()
    named = 0
    for what, path in disk.done:
        if what == "write":
            synced.discard(path)
        elif what == "sync":
            synced.add(path)
        elif what == "from":
            assert path in synced, path
        elif what == "sync directory":
            unsynced_names = {name for name in unsynced_names if name.parent != path}
        else:
            named += 1
            assert what == "rename" or path.name == "timestamp.json", "nothing that has a name is written again"
            assert path.name != "timestamp.json" or not unsynced_names
            unsynced_names.add(path)
    assert unsynced_names == set()
    assert named > 25


def real_bundle(directory: Path, version: str, *, expected: float) -> Path:
    """A model that adds its input to itself, and a fixture that expects `expected` of 1.5."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    weights = model.SerializeToString()
    golden = GoldenFixture(
        inputs={"x": np.array([1.5], np.float32)}, outputs={"y": np.array([expected], np.float32)}
    ).to_npz()

    def tensor(name: str) -> TensorSpec:
        return TensorSpec(name=name, dtype="FP32", shape=(1,))

    manifest = Manifest(
        schema="tidegate.bundle/1",
        name="twice",
        version=version,
        signature=Signature(inputs=(tensor("x"),), outputs=(tensor("y"),)),
        variants=(
            Variant(
                id="onnx-fp32",
                backend="onnx",
                precision="fp32",
                file="a.onnx",
                sha256=digest(weights),
                size_bytes=len(weights),
            ),
        ),
        golden=Golden(file="golden.npz", sha256=digest(golden), size_bytes=len(golden), tolerance=1e-6),
    )
    path = directory / f"twice-{version}.tide"
    write_bundle(manifest, {"a.onnx": weights, "golden.npz": golden}, path)
    return path
