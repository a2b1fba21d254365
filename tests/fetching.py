"""A channel, its web server and one device's side of it, for the tests of `tidegate.fetch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault_server import FaultServer, serve_with_faults

from tidegate.fetch.download import FetchReport, Plan, fetch, plan
from tidegate.fetch.settings import FetchSettings
from tidegate.fetch.store import Store
from tidegate.fetch.trusted import ChannelReader
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing
from tidegate.release.track import Offer
from tidegate.testing.channels import write_tiny_bundle

QUICK = FetchSettings(attempts=1, backoff_s=0.0, connect_timeout_s=30.0, read_timeout_s=30.0, proxy="")
# A window of a fifth of a second that must bring a thousand bytes.
IMPATIENT = FetchSettings(attempts=1, read_timeout_s=0.2, minimum_bytes_per_s=5000.0, proxy="")
ASSETS = {"labels": b"yes\nno\n", "catalogue": b'{"id": 1}\n'}


@dataclass
class World:
    """All that a test touches. The model is `tiny`, the track `stable`, the variant `onnx-fp32`."""

    channel: Channel
    keys: KeyRing
    site: FaultServer
    device: Path
    scratch: Path
    settings: FetchSettings = QUICK
    readers: list[ChannelReader] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.device / "store")

    @property
    def metadata(self) -> Path:
        return self.device / "metadata"

    def publish(self, version: str, **options: object) -> Offer:
        weights = f"weights of {version}".encode()
        path = write_tiny_bundle(
            self.scratch / f"{version}.tide",
            version=version,
            **{"weights": weights, "assets": ASSETS, **options},  # type: ignore[arg-type]
        )
        return self.channel.publish(path, track="stable", keys=self.keys).offers[0][1]

    def reader(self, settings: FetchSettings | None = None) -> ChannelReader:
        """Return a client that starts as after a restart: with the shipped root and what is on the disk."""
        shipped = (self.channel.path / "metadata" / "1.root.json").read_bytes()
        reader = ChannelReader(self.metadata, self.site.url, shipped, settings or self.settings)
        self.readers.append(reader)
        return reader

    def refreshed(self, settings: FetchSettings | None = None) -> ChannelReader:
        reader = self.reader(settings)
        reader.refresh()
        return reader

    def planned(self, reader: ChannelReader, variant: str = "onnx-fp32", bases: tuple[str, ...] = ()) -> Plan:
        return plan(reader, self.store, reader.track("tiny", "stable").standing[0], variant, bases)

    def install(self, bases: tuple[str, ...] = ()) -> FetchReport:
        reader = self.refreshed()
        return fetch(reader, self.store, self.planned(reader, bases=bases))

    def installed(self) -> dict[str, bytes]:
        """Return every stored file: what no attack may change."""
        files = self.device / "store" / "files"
        return {file.name: file.read_bytes() for file in files.iterdir()} if files.exists() else {}

    def target_requests(self) -> list[str]:
        return [path for path in self.site.requests if path.startswith("/targets/")]


@contextmanager
def world(channel: Channel, keys: KeyRing, directory: Path) -> Iterator[World]:
    """Serve the channel until the block ends."""
    scratch = directory / "scratch"
    scratch.mkdir(parents=True)
    with serve_with_faults(channel.path) as site:
        made = World(channel, keys, site, directory / "device", scratch)
        try:
            yield made
        finally:
            for reader in made.readers:
                reader.close()


Change = Callable[[World], None]
"""What an attacker or an accident does to a world."""
