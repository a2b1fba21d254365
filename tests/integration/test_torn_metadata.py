"""A power cut tears the metadata on a device: it recovers by itself, and an old channel still brings no old version.

python-tuf's client writes its files without a sync, so any of them may be empty or cut short afterwards. What it then
no longer knows, that it has seen newer metadata, the device's own counter does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.update_site import Site, use

from tidegate.edge.update import State, Updater
from tidegate.edge.update.counters import Counters
from tidegate.edge.update.layout import Layout
from tidegate.errors import IntegrityError
from tidegate.release.keys import read_public_key
from tidegate.release.rotation import rotate
from tidegate.testing.channels import make_channel, open_keys, serve, write_keys

Tear = Callable[[bytes], bytes]
FILES = {"root.json", "timestamp.json", "snapshot.json", "targets.json", "root_history/1.root.json"}
TEARS: dict[str, Tear] = {
    "empty": lambda raw: b"",
    "half": lambda raw: raw[: len(raw) // 2],
    "zeros": lambda raw: bytes(len(raw)),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A channel with two roots; `old` beside it is what it was before 1.1.0, still in date."""
    home = tmp_path_factory.mktemp("torn")
    write_keys(home / "keys", ["root", "targets", "snapshot", "timestamp", "root-2"])
    (home / "web").mkdir()
    channel = make_channel(home / "web" / "site", home / "keys")
    keys = open_keys(home / "keys")
    rotate(channel.path, "root", keys, add=[read_public_key(home / "keys" / "root-2.pub")])
    with serve(home / "web") as server:
        server.url += "/site"
        site = Site(home, channel, keys, server)
        site.publish("1.0.0")
        shutil.copytree(channel.path, home / "web" / "old")
        yield site


@pytest.fixture(scope="module")
def device(site: Site) -> Path:
    """Runs 1.1.0, which it has kept."""
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    assert Updater(device).update().outcome == "activated"
    use(device, Counters(calls=100, answers=100))
    assert Updater(device).settle().outcome == "committed"
    return device


def replay(site: Site) -> None:
    """Serve the old channel, as somebody between device and server can."""
    (site.home / "web" / "site").rename(site.home / "web" / "new")
    (site.home / "web" / "old").rename(site.home / "web" / "site")


def end_replay(site: Site) -> None:
    (site.home / "web" / "site").rename(site.home / "web" / "old")
    (site.home / "web" / "new").rename(site.home / "web" / "site")


def torn(device: Path, to: Path, tear: Tear, *names: str) -> Path:
    shutil.copytree(device, to)
    metadata = Layout(to).metadata
    for name in names:
        # `root.json` may be a link into the history; what it leads to is torn then.
        file = metadata / name
        file.write_bytes(tear(file.read_bytes()))
    return to


def metadata_files(device: Path) -> set[str]:
    metadata = Layout(device).metadata
    return {str(path.relative_to(metadata)) for path in metadata.rglob("*") if path.is_file()}


def check_settled(device: Path) -> None:
    status = Updater(device).status()
    assert (status.phase, status.active.version, status.counters["stable"]) == (State.IDLE, "1.1.0", 2)
    assert status.quarantined == ()


@pytest.mark.parametrize("tear", TEARS)
def test_torn_metadata_is_fetched_again_and_a_replayed_channel_brings_nothing(
    site: Site, device: Path, tear: str, tmp_path: Path
) -> None:
    names = metadata_files(device)
    assert names >= FILES - {"root_history/1.root.json"}
    cases = [*((name,) for name in sorted(names)), tuple(sorted(names))]
    before = {
        str(case): torn(device, tmp_path / f"before-{index}", TEARS[tear], *case) for index, case in enumerate(cases)
    }
    after = {
        str(case): torn(device, tmp_path / f"after-{index}", TEARS[tear], *case) for index, case in enumerate(cases)
    }

    for case, copy in before.items():
        found = Updater(copy).check()
        assert not found.news, case
        assert Updater(copy).update().outcome == "up to date", case
        check_settled(copy)
        assert all((Layout(copy).metadata / name).stat().st_size for name in FILES & names), case

    replay(site)
    try:
        for case, copy in after.items():
            try:
                assert Updater(copy).update().outcome == "up to date", case
            except IntegrityError:  # What is left of the metadata is enough to refuse it.
                assert "timestamp" not in case or "snapshot" not in case or "targets" not in case
            check_settled(copy)
    finally:
        end_replay(site)

    for case, copy in after.items():
        assert not Updater(copy).check().news, case
        check_settled(copy)


def test_whole_metadata_refuses_the_same_replay(site: Site, device: Path, tmp_path: Path) -> None:
    copy = torn(device, tmp_path / "whole", TEARS["empty"])
    replay(site)
    try:
        with pytest.raises(IntegrityError, match="version"):
            Updater(copy).update()
    finally:
        end_replay(site)
    check_settled(copy)
