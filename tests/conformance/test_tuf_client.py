"""The command line that tuf-conformance drives, over a channel of ours; `make conformance` runs the suite."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fault_server import FaultServer, serve_with_faults

from tidegate.bundle import digest
from tidegate.release.channel import Channel
from tidegate.release.track import file_target
from tidegate.testing.channels import make_channel, open_keys, write_keys, write_tiny_bundle

CLIENT = Path(__file__).with_name("tuf_client.py")
WEIGHTS = b"weights of 1.0.0"
NAME = file_target(digest(WEIGHTS))


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    write_keys(tmp_path / "keys")
    made = make_channel(tmp_path / "site", tmp_path / "keys")
    bundle = write_tiny_bundle(tmp_path / "tiny.tide", weights=WEIGHTS)
    made.publish(bundle, track="stable", keys=open_keys(tmp_path / "keys"))
    return made


@pytest.fixture
def site(channel: Channel) -> Iterator[FaultServer]:
    with serve_with_faults(channel.path) as served:
        yield served


@pytest.fixture
def client(tmp_path: Path, channel: Channel) -> Path:
    """Return the directory of a client that was given its root."""
    for name in ("metadata", "targets"):
        (tmp_path / "client" / name).mkdir(parents=True)
    assert run(tmp_path / "client", "init", str(channel.path / "metadata" / "1.root.json")) == 0
    return tmp_path / "client"


def run(client: Path, *arguments: str) -> int:
    command = [sys.executable, str(CLIENT), "--metadata-dir", str(client / "metadata"), *arguments]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode


def download(client: Path, site: FaultServer, *names: str) -> int:
    wanted = [argument for name in names for argument in ("--target-name", name)]
    places = ["--metadata-url", f"{site.url}/metadata", "--target-base-url", f"{site.url}/targets"]
    return run(client, *places, "--target-dir", str(client / "targets"), *wanted, "download")


def test_refresh_keeps_metadata_and_nothing_else(client: Path, site: FaultServer) -> None:
    assert list((client / "metadata").iterdir()) == []
    assert run(client, "--metadata-url", f"{site.url}/metadata/", "refresh") == 0
    kept = {entry.name for entry in (client / "metadata").iterdir()}
    assert kept == {"root.json", "root_history", "timestamp.json", "snapshot.json", "targets.json"}


def test_a_target_is_downloaded_once(client: Path, site: FaultServer) -> None:
    assert download(client, site, NAME) == 0
    (file,) = (client / "targets").iterdir()
    assert file.read_bytes() == WEIGHTS
    site.requests.clear()
    assert download(client, site, NAME, NAME) == 0
    assert [path for path in site.requests if path.startswith("/targets/")] == []


def test_it_fails_on_what_is_missing_or_altered(client: Path, site: FaultServer, channel: Channel) -> None:
    assert download(client, site, "files/none") == 1
    (stored,) = (channel.path / "targets" / "files").glob(f"*.{digest(WEIGHTS)}")
    stored.write_bytes(WEIGHTS[::-1])
    assert download(client, site, NAME) == 1
    assert [file for file in (client / "targets").iterdir() if file.name != ".partial"] == []
    timestamp = channel.path / "metadata" / "timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes().replace(b'"version":2', b'"version":3'))
    assert run(client, "--metadata-url", f"{site.url}/metadata", "refresh") == 1
