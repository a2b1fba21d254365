"""Pruning a channel: what goes, what stays, and that clients before, in the middle and after notice nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.test_channel_deltas import model, release
from tests.update_site import Site, use

from tidegate.bundle import digest
from tidegate.cli.main import main
from tidegate.edge.update import Updater
from tidegate.edge.update.counters import Counters
from tidegate.errors import ConfigError, IntegrityError, StateError
from tidegate.release.applying import apply
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing
from tidegate.release.moments import utc_now
from tidegate.release.pruning import prune, retire
from tidegate.release.report import report
from tidegate.release.track import delta_target, file_target
from tidegate.testing.channels import PASSPHRASE, PlainDevice, make_channel, open_keys, serve, write_keys

AT_ONCE = timedelta(0)
GOOD = Counters(calls=100, answers=100)


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory)
    return directory


@pytest.fixture(scope="module")
def keys(key_files: Path) -> KeyRing:
    return open_keys(key_files)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, key_files: Path, keys: KeyRing) -> Path:
    """A channel with six releases on stable, and what refreshes leave."""
    home = tmp_path_factory.mktemp("grown")
    channel = make_channel(home / "site", key_files)
    for number in range(1, 7):
        channel.publish(release(home, number), track="stable", keys=keys)
        channel.refresh(keys, renew_targets=True)
    return channel.path


@pytest.fixture
def channel(tmp_path: Path, grown: Path) -> Channel:
    shutil.copytree(grown, tmp_path / "site")
    return Channel(tmp_path / "site")


def client_of(channel: Channel, url: str, directory: Path) -> PlainDevice:
    return PlainDevice(directory, url, (channel.path / "metadata" / "1.root.json").read_bytes())


@pytest.fixture
def device(tmp_path: Path, channel: Channel) -> Iterator[PlainDevice]:
    """python-tuf's own client, as it was before."""
    with serve(channel.path) as server:
        client = client_of(channel, server.url, tmp_path / "device")
        assert client.install("tiny", "stable", "onnx-fp32").manifest.version == "1.6.0"
        yield client


def names(channel: Channel) -> set[str]:
    return {str(path.relative_to(channel.path)) for path in channel.path.rglob("*") if path.is_file()}


def check_whole(channel: Channel) -> None:
    assert report(channel.read(), utc_now(), check_files=True).warnings == ()


def test_without_retiring_only_what_nothing_names_goes(channel: Channel, device: PlainDevice) -> None:
    before, live = names(channel), channel.read()
    found = prune(channel.path, grace=AT_ONCE, dry_run=True)
    assert names(channel) == before
    assert prune(channel.path, grace=AT_ONCE) == found
    after = names(channel)
    assert before - after == set(found.files)
    assert found.size_bytes > 0
    assert {name for name in after if name.startswith("metadata/")} == {
        "metadata/1.root.json",
        "metadata/timestamp.json",
        f"metadata/{live.snapshot.version}.snapshot.json",
        f"metadata/{live.targets.version}.targets.json",
    }
    named = {f"targets/{path}" for file in live.files.values() for path in file.get_prefixed_paths()}
    assert {name for name in after if name.startswith("targets/")} == named
    assert prune(channel.path, grace=AT_ONCE).files == ()
    check_whole(channel)
    assert device.install("tiny", "stable", "onnx-fp32").manifest.version == "1.6.0"


def test_what_clients_saw_lately_stays_and_old_things_go(channel: Channel) -> None:
    assert prune(channel.path).files == ()
    week_ago = (utc_now() - timedelta(days=8)).timestamp()
    live = channel.read().snapshot.version
    for file in channel.path.rglob("*"):
        if file.is_file() and file.name != f"{live}.snapshot.json":
            os.utime(file, (week_ago, week_ago))
    prune(channel.path)
    kept = {name for name in names(channel) if name.endswith(".snapshot.json")}
    assert kept == {f"metadata/{live}.snapshot.json", f"metadata/{live - 1}.snapshot.json"}, (
        "the one before was seen until the live one was written"
    )
    check_whole(channel)


def test_a_client_in_the_middle_of_an_update_ends_it(
    channel: Channel, keys: KeyRing, device: PlainDevice, tmp_path: Path
) -> None:
    with serve(channel.path) as server:
        slow = client_of(channel, server.url, tmp_path / "slow")
        client = slow.refresh()
        retire(channel.path, 1, keys)
        prune(channel.path)
        oldest = client.get_targetinfo(file_target(digest(model(1))))
        assert oldest is not None
        assert Path(client.download_target(oldest)).read_bytes() == model(1)


def test_retired_releases_go_and_every_client_goes_on(
    channel: Channel, keys: KeyRing, device: PlainDevice, tmp_path: Path
) -> None:
    size = sum(file.stat().st_size for file in channel.path.rglob("*") if file.is_file())
    told = retire(channel.path, 2, keys, dry_run=True)
    change = retire(channel.path, 2, keys)
    assert [offer.release for _, offer in told.offers] == [offer.release for _, offer in change.offers]
    assert [offer.version for _, offer in change.offers] == ["1.1.0", "1.2.0", "1.3.0", "1.4.0"]
    assert change.live
    prune(channel.path, grace=AT_ONCE)
    check_whole(channel)
    assert sum(file.stat().st_size for file in channel.path.rglob("*") if file.is_file()) < size
    kept = {digest(content) for number in (5, 6) for content in (model(number), model(number)[::-1])}
    # 1.3.0 and 1.4.0 are what live deltas lead from.
    bases = {digest(content) for number in (3, 4) for content in (model(number), model(number)[::-1])}
    files = set(channel.read().files)
    assert {file_target(sha256) for sha256 in kept | bases} <= files
    assert file_target(digest(model(2))) not in files
    assert delta_target(digest(model(3)), digest(model(6))) in files
    with serve(channel.path) as server:
        for client in (device, client_of(channel, server.url, tmp_path / "new")):
            assert client.install("tiny", "stable", "onnx-fp32").manifest.version == "1.6.0"
        assert retire(channel.path, 2, keys).offers == ()
        channel.publish(release(tmp_path, 7), track="stable", keys=keys)
        assert device.install("tiny", "stable", "onnx-fp32").manifest.version == "1.7.0"
    made = {path for path in channel.read().files if path.startswith("deltas/") and path.endswith(digest(model(7)))}
    assert made == {delta_target(digest(model(old)), digest(model(7))) for old in (4, 5, 6)}
    with pytest.raises(StateError, match="was withdrawn: not among the newest 2"):
        channel.roll_back("tiny", track="stable", version="1.1.0", reason="x", keys=keys)
    with pytest.raises(StateError, match="was withdrawn"):
        channel.publish(release(tmp_path, 1), track="beta", keys=keys)
    channel.roll_back("tiny", track="stable", version="1.5.0", reason="x", keys=keys)
    check_whole(channel)


def test_deltas_are_not_asked_of_releases_that_are_gone(channel: Channel, keys: KeyRing, tmp_path: Path) -> None:
    retire(channel.path, 1, keys)
    prune(channel.path, grace=AT_ONCE)
    channel.publish(release(tmp_path, 7), track="stable", keys=keys)
    retire(channel.path, 1, keys)
    prune(channel.path, grace=AT_ONCE)
    channel.publish(release(tmp_path, 8), track="stable", keys=keys, delta_bases=9)
    check_whole(channel)


def test_what_is_signed_and_not_live_stays(channel: Channel, keys: KeyRing, tmp_path: Path) -> None:
    channel.publish(release(tmp_path, 7), track="stable", keys=keys, staged=True)
    prune(channel.path, grace=AT_ONCE)
    channel.refresh(keys)
    check_whole(channel)
    assert channel.read().tracks()[0].offers[-1].version == "1.7.0"


def test_content_of_a_draft_stays_for_its_holders(channel: Channel, keys: KeyRing, tmp_path: Path) -> None:
    change = channel.publish(release(tmp_path, 7), track="stable", keys=keys, in_turns=True)
    prune(channel.path)
    assert change.draft is not None
    apply(channel.path, change.draft, keys)
    check_whole(channel)


def test_holders_retire_in_turns(channel: Channel, keys: KeyRing) -> None:
    change = retire(channel.path, 2, keys, in_turns=True)
    assert not change.live
    assert change.draft is not None
    apply(channel.path, change.draft, keys)
    assert len(channel.read().tracks()[0].standing) == 2


def test_nothing_is_removed_from_a_channel_that_is_damaged(channel: Channel) -> None:
    live = channel.path / "metadata" / f"{channel.read().targets.version}.targets.json"
    live.write_bytes(live.read_bytes()[:-9])
    before = names(channel)
    with pytest.raises(IntegrityError):
        prune(channel.path, grace=AT_ONCE)
    assert names(channel) == before
    with pytest.raises(ConfigError, match="expected 0 or more"):
        prune(channel.path, grace=timedelta(seconds=-1))


def test_strangers_and_torn_files_are_left_alone(channel: Channel) -> None:
    strangers = [channel.path / name for name in ("metadata/notes.txt", "targets/files/readme", "index.html")]
    for stranger in strangers:
        stranger.write_bytes(b"mine")
    torn = channel.path / "metadata" / "99.targets.json"
    torn.write_bytes(b"{")
    prune(channel.path, grace=AT_ONCE)
    assert all(path.read_bytes() for path in (*strangers, torn))
    check_whole(channel)


def test_a_device_updates_over_a_channel_that_is_pruned_each_time(tmp_path: Path, key_files: Path) -> None:
    site_channel = make_channel(tmp_path / "site", key_files)
    with serve(site_channel.path) as server:
        site = Site(tmp_path, site_channel, open_keys(key_files), server)
        site.publish("1.0.0")
        device = site.device()
        for number, version in enumerate(("1.1.0", "1.2.0", "1.3.0"), start=1):
            site.publish(version, shift=float(number))
            retire(site_channel.path, 1, site.keys)
            prune(site_channel.path, grace=AT_ONCE)
            result = Updater(device).update()
            assert (result.outcome, result.version) == ("activated", version)
            use(device, GOOD)
            assert Updater(device).settle().outcome == "committed"
        late = site.device("late")
        assert Updater(late).update().version == "1.3.0"


def test_the_command(
    channel: Channel, key_files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_PASSPHRASE", PASSPHRASE)
    words = ["channel", "prune", "--channel", str(channel.path)]

    def said(*more: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert main([*words, *more]) == code
        told = capsys.readouterr()
        return told.out, told.err

    before = names(channel)
    out, err = said("--releases", "2", "--dry-run")
    assert "stable: version 1.1.0, release 1 would be retired" in out
    assert "0 files (0 bytes) would be removed" in err
    assert names(channel) == before
    assert "no key is named" in said("--releases", "2", code=2)[1]
    assert "leave --draft and --staged out" in said("--staged", code=2)[1]
    assert "'soon' is not a time" in said("--grace", "soon", code=2)[1]
    out, err = said("--releases", "2", "--keys", str(key_files))
    assert "stable: version 1.4.0, release 4 retired" in out
    assert "are needed by no release that is kept" in err
    assert "(0 bytes) are" not in err
    assert "run `tidegate channel prune` then" in err
    found = json.loads(said("--grace", "0s", "--json")[0])
    assert (found["dry_run"], found["retired"], found["live"], found["draft"]) == (False, [], True, None)
    assert set(found["files"]) == before - names(channel)
    draft = channel.path.parent / "retire.draft"
    assert "retired" in said("--releases", "1", "--keys", str(key_files), "--draft", str(draft))[0]
    assert draft.exists()
    check_whole(channel)
