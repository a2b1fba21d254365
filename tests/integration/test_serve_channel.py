"""A server that follows a channel: a real one, signed, on loopback; real models; releases that break."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from tests.fault_server import FaultServer, serve_with_faults
from tests.served import PROCESS_TIMEOUT_S, linear_bundle, server_process, wide_bundle, with_golden
from tests.waiting import wait_until

from tidegate.bundle import GoldenFixture
from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.channel_record import read_record
from tidegate.cloud.channel_source import ChannelSettings, ChannelSource
from tidegate.cloud.repository import Repository
from tidegate.cloud.version_status import ReloadReport
from tidegate.errors import ConfigError, ModelError, NotFoundError, UnavailableError
from tidegate.fetch.settings import FetchSettings
from tidegate.release import cohort
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ROLES
from tidegate.runtime.verify import VariantReport
from tidegate.testing.channels import make_channel, open_keys, write_keys

ONES = np.ones((1, 4), np.float32)
QUICK = FetchSettings(attempts=1, backoff_s=0.0, read_timeout_s=5.0, proxy="")


@dataclass
class Site:
    """A channel with the model `linear` and its web server; the model's factor is its version's minor number."""

    channel: Channel
    keys: KeyRing
    web: FaultServer
    scratch: Path

    @property
    def root(self) -> Path:
        return self.channel.path / "metadata" / "1.root.json"

    def publish(self, minor: int, *, promised: float | None = None, percent: int = 100) -> None:
        directory = self.scratch / str(minor)
        directory.mkdir(parents=True)
        expected = float(minor if promised is None else promised)
        golden = GoldenFixture({"x": ONES}, {"y": expected * ONES, "total": np.full((1, 1), 4 * expected, np.float32)})
        plain = linear_bundle(directory, version=f"1.{minor}.0", factor=float(minor))
        self.offer(with_golden(plain, golden, 1e-6), percent)

    def publish_broken(self, minor: int) -> None:
        """Publish as an author does whose machine has no runtime for the model, so that nothing is proven there."""
        unproven = VariantReport("onnx-as-is", "not runnable", problem="there is no runtime")
        with patch("tidegate.runtime.verify.verify_bundle", return_value=[unproven]):
            self.publish(minor, promised=99.0)

    def offer(self, bundle: Path, percent: int = 100) -> None:
        self.channel.publish(bundle, track="stable", keys=self.keys, percent=percent)

    def roll_back(self, minor: int) -> None:
        self.channel.roll_back("linear", track="stable", version=f"1.{minor}.0", reason="worse", keys=self.keys)

    def settings(self, *, model: str = "linear", server_id: str = "server") -> ChannelSettings:
        return ChannelSettings(
            self.web.url,
            self.root.read_bytes(),
            (model,),
            self.scratch / "server",
            server_id=server_id,
            fetch=QUICK,
        )

    def repository(self, **options: str) -> Repository:
        """Return a server's repository as after a start."""
        return Repository(ChannelSource(self.settings(**options)))

    def cut_off(self) -> None:
        """Let the web server refuse everything."""
        self.web.rules["/"] = lambda request: request.send_status(503) or True  # type: ignore[func-returns-value]

    def connect(self) -> None:
        del self.web.rules["/"]


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory, ROLES)
    return directory


@pytest.fixture
def site(tmp_path: Path, key_files: Path) -> Iterator[Site]:
    channel = make_channel(tmp_path / "site", key_files)
    with serve_with_faults(channel.path) as web:
        yield Site(channel, open_keys(key_files), web, tmp_path / "scratch")


@contextmanager
def started(repository: Repository) -> Iterator[Repository]:
    """Load as a server does when it starts."""
    report = repository.reload()
    assert report.failed == ()
    try:
        yield repository
    finally:
        repository.close()


def factor(repository: Repository) -> float:
    served = repository.find("linear")
    (output, _) = served.model.run({"x": ONES}).values()
    return float(output[0, 0])


def test_releases_are_followed_and_a_roll_back_too(site: Site) -> None:
    site.publish(1)
    with started(site.repository()) as repository:
        assert (repository.versions("linear"), factor(repository)) == (("1.1.0",), 1)
        site.publish(2)
        report = repository.reload()
        assert (report.loaded, report.unloaded) == ((("linear", "1.2.0"),), (("linear", "1.1.0"),))
        asked = len(site.web.requests)
        assert repository.reload() == ReloadReport()
        assert len(site.web.requests) - asked == 2, "no news"
        fetched = len([path for path in site.web.requests if path.startswith("/targets/")])
        site.roll_back(1)
        assert repository.reload().loaded == (("linear", "1.1.0"),)
        assert factor(repository) == 1
        assert len([path for path in site.web.requests if path.startswith("/targets/")]) == fetched, "it was still here"


def test_a_withdrawn_release_goes_on_serving_and_reaches_no_new_server(site: Site) -> None:
    site.publish(1)
    site.publish(2)
    with started(site.repository()) as repository:
        site.channel.withdraw("linear", version="1.2.0", reason="wrong", keys=site.keys)
        assert repository.reload() == ReloadReport()
        assert factor(repository) == 2
    elsewhere = ChannelSettings(site.web.url, site.root.read_bytes(), ("linear",), site.scratch / "new", fetch=QUICK)
    with started(Repository(ChannelSource(elsewhere))) as repository:
        assert factor(repository) == 1


def test_a_broken_release_never_replaces_a_good_one_nor_keeps_the_server_from_starting(site: Site) -> None:
    site.publish(1)
    with started(site.repository()) as repository:
        site.publish_broken(2)
        report = repository.reload()
        assert [(place, type(error)) for place, error in report.failed] == [("linear 1.2.0", ModelError)]
        assert (report.loaded, report.unloaded, factor(repository)) == ((), (), 1)
        assert repository.reload() == ReloadReport(), "in quarantine, so not tried again"
    with started(site.repository()) as repository:
        assert factor(repository) == 1
        assert repository.reload() == ReloadReport()
        site.publish(3)
        assert repository.reload().loaded == (("linear", "1.3.0"),)
    assert read_record(site.scratch / "server" / "releases.json")["linear"].quarantined == ()


def test_a_start_without_the_channel_serves_what_is_in_the_store(site: Site) -> None:
    site.publish(1)
    site.cut_off()
    with pytest.raises(UnavailableError):
        site.repository().reload()
    site.connect()
    with started(site.repository()):
        pass
    site.cut_off()
    with started(site.repository()) as repository:
        assert factor(repository) == 1
        report = repository.reload()
        assert (report.failed, [type(error) for _, error in report.notes]) == ((), [UnavailableError])
        assert factor(repository) == 1
        site.connect()
        site.publish(2)
        assert repository.reload().loaded == (("linear", "1.2.0"),)


def test_what_the_disk_has_spoilt_is_fetched_again(site: Site) -> None:
    site.publish(1)
    with started(site.repository()):
        pass
    for file in (site.scratch / "server" / "store" / "files").iterdir():
        file.chmod(0o644)
        file.write_bytes(b"spoilt")
    with started(site.repository()) as repository:
        assert factor(repository) == 1


def test_a_roll_out_reaches_servers_by_their_ids(site: Site) -> None:
    site.publish(1)
    site.publish(2, percent=50)
    salt = site.channel.read().tracks_of("linear")["stable"].offers[-1].rollout.salt
    ids = [f"server-{number}" for number in range(40)]
    for wanted, version in ((True, "1.2.0"), (False, "1.1.0")):
        chosen = next(name for name in ids if (cohort(name, salt) < 50) is wanted)
        settings = ChannelSettings(
            site.web.url,
            site.root.read_bytes(),
            ("linear",),
            site.scratch / chosen,
            server_id=chosen,
            fetch=QUICK,
        )
        with started(Repository(ChannelSource(settings))) as repository:
            assert repository.versions("linear") == (version,)


def test_a_delta_brings_the_next_release(site: Site, tmp_path: Path) -> None:
    site.offer(wide_bundle(tmp_path, version="1.0.0", steps=0))
    told: list[str] = []
    source = ChannelSource(site.settings(model="wide"), told.append)
    with started(Repository(source)) as repository:
        site.offer(wide_bundle(tmp_path, version="1.1.0", steps=3))
        assert repository.reload().loaded == (("wide", "1.1.0"),)
    assert "1 files by delta" in told[1]
    assert int(told[1].split()[3]) < 30_000, "of 128 kB"


def test_a_release_that_ends_the_process_is_given_up(site: Site) -> None:
    site.publish(1)
    with started(site.repository()) as repository:
        site.publish(2)
        program = (
            "import os, sys, pickle\n"
            "from tidegate.cloud.channel_source import ChannelSource\n"
            "source = ChannelSource(pickle.loads(bytes.fromhex(sys.argv[1])))\n"
            "source.list()\n"
            "offer, = source.list().offers\n"
            "source.open(offer)\n"
            "os._exit(9)\n"
        )
        settings = pickle.dumps(site.settings()).hex()
        for _ in range(2):
            ended = subprocess.run([sys.executable, "-c", program, settings], check=False, timeout=PROCESS_TIMEOUT_S)
            assert ended.returncode == 9
        report = repository.reload()
        assert "ended 2 times" in str(report.failed[0][1])
        assert repository.reload() == ReloadReport()
        assert factor(repository) == 1


def test_a_track_without_a_release_that_fits_says_why(site: Site) -> None:
    site.publish(1, percent=0)
    with pytest.raises(NotFoundError, match="rolled out to 0 %"):
        site.repository().reload()
    with pytest.raises(ConfigError, match="each one once"):
        ChannelSettings(site.web.url, b"", (), site.scratch)


def test_a_running_server_follows_while_it_serves(site: Site) -> None:
    site.publish(1)
    changed = threading.Event()
    server = Server(
        [],
        settings=ServerSettings(watch_interval_s=0.05),
        source=ChannelSource(site.settings()),
        on_reload=lambda report: changed.set(),
    )
    with server, Client(server.address) as client:
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 1
        site.publish(2)
        assert changed.wait(PROCESS_TIMEOUT_S)
        assert client.infer("linear", {"x": ONES})["y"][0, 0] == 2


def test_workers_share_one_directory_and_start_without_the_channel(site: Site) -> None:
    site.publish(1)
    options = ["--channel", site.web.url, "--channel-root", str(site.root), "--channel-model", "linear"]
    options += ["--channel-dir", str(site.scratch / "server"), "--workers", "2"]
    options += ["--channel-track", "stable", "--server-id", "east"]

    def answers(address: str) -> set[float]:
        found = set()
        for _ in range(10):
            with Client(address, timeout_s=PROCESS_TIMEOUT_S) as client:
                found.add(float(client.infer("linear", {"x": ONES})["y"][0, 0]))
        return found

    with server_process([], *options, "--watch-s", "0.2") as server:
        assert answers(server.address) == {1}
        site.publish(2)
        wait_until(lambda: sum("loaded linear 1.2.0" in line for line in server.diagnostics) == 2)
        assert answers(server.address) == {2}
    site.cut_off()
    file = site.scratch / "serve.toml"
    file.write_text(
        f'[channel]\nurl = "{site.web.url}"\nroot = "{site.root}"\nmodels = ["linear"]\n'
        'track = "stable"\nserver_id = "east"\n'
        'directory = "server"  # beside this file\n'
    )
    with server_process([], "--config", str(file)) as server:
        assert answers(server.address) == {2}
