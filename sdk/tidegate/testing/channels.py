"""Small real channels for tests: keys on disk, a bundle of a few bytes, a static web server that keeps its log.

Nothing here is a fake: the keys sign, the bundle opens, the server is the standard library's.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidegate.bundle import (
    Asset,
    Budgets,
    Bundle,
    Golden,
    Manifest,
    Signature,
    TensorSpec,
    Variant,
    digest,
    write_bundle,
)
from tidegate.bundle.manifest import decode
from tidegate.release.lifetimes import ROLES
from tidegate.release.track import Offer, Track, file_target, from_custom, track_target

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from tidegate.release.channel import Channel
    from tidegate.release.creation import RoleKeys
    from tidegate.release.keys import KeyRing

PASSPHRASE = "for tests only"  # noqa: S105


def write_keys(directory: Path, names: Sequence[str] = ROLES) -> None:
    """Make a key pair for each name, such as `root` or `root-2`."""
    from tidegate.release.keys import create_key

    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        create_key(directory / f"{name}.pem", PASSPHRASE, rounds=1000)


def open_keys(*places: Path) -> KeyRing:
    """Return the keys of directories or files that `write_keys` made."""
    from tidegate.release.keys import KeyRing

    return KeyRing(places, lambda _: PASSPHRASE)


def role_keys(
    directory: Path, names: Mapping[str, Sequence[str]] | None = None, **thresholds: int
) -> dict[str, RoleKeys]:
    """Return who may sign for each role: the key of the role's name, unless `names` says otherwise."""
    from tidegate.release.creation import RoleKeys
    from tidegate.release.keys import read_public_key

    chosen = {role: (names or {}).get(role, [role]) for role in ROLES}
    return {
        role: RoleKeys([read_public_key(directory / f"{name}.pub") for name in files], thresholds.get(role, 1))
        for role, files in chosen.items()
    }


def write_tiny_bundle(
    path: Path,
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    weights: bytes = b"weights",
    assets: Mapping[str, bytes] | None = None,
    release: int = 0,
    hardware: Sequence[str] = (),
) -> Path:
    """Write a bundle of two variants that no runtime could load, without a golden fixture, and return its path.

    The first variant, `onnx-fp32`, has the given weights; the second, `tflite-int8`, the same ones reversed.
    """
    contents = {"models/a.onnx": weights, "models/b.tflite": weights[::-1]}
    contents |= {f"assets/{key}": data for key, data in (assets or {}).items()}

    def variant(id: str, backend: Any, file: str) -> Variant:
        return Variant(
            id=id,
            backend=backend,
            precision=id.rpartition("-")[2],
            file=file,
            sha256=digest(contents[file]),
            size_bytes=len(contents[file]),
            minimum_runtime="1.2",
            hardware=tuple(hardware),
        )

    tensor = TensorSpec(name="x", dtype="FP32", shape=(-1, 2))
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=name,
        version=version,
        release=release,
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        variants=(variant("onnx-fp32", "onnx", "models/a.onnx"), variant("tflite-int8", "litert", "models/b.tflite")),
        assets={
            key: Asset(file=f"assets/{key}", sha256=digest(data), size_bytes=len(data))
            for key, data in (assets or {}).items()
        },
        budgets=Budgets(latency_p95_ms=5.0, rss_mb=20.5),
    )
    write_bundle(manifest, contents, path)
    Bundle.open(path).close()
    return path


def make_channel(path: Path, keys: Path, **options: Any) -> Channel:
    """Make an empty channel whose roles have the keys of their names in the directory `keys`."""
    from tidegate.release.channel import Channel

    channel = Channel(path, **options)
    channel.create(role_keys(keys), open_keys(keys))
    return channel


@dataclass
class StaticServer:
    """A web server for one directory, on loopback."""

    url: str
    """without a slash at the end"""
    requests: list[tuple[str, int]] = field(default_factory=list)
    """path and status of each answer, oldest first"""


@contextmanager
def serve(directory: Path) -> Iterator[StaticServer]:
    """Serve a directory until the block ends."""
    log = StaticServer(url="")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            log.requests.append((self.path, int(code)))

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on standard error."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        log.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class PlainDevice:
    """A device that knows nothing of Tidegate's updater: python-tuf's own client, and the track document."""

    def __init__(self, directory: Path, url: str, trusted_root: bytes) -> None:
        """Keep its state in `directory`; trust the root that was shipped with it."""
        for part in ("metadata", "targets"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._url = url
        self._trusted_root = trusted_root

    def refresh(self) -> Updater:
        """Check the channel; return the client, whose metadata is then fresh. Raises what python-tuf raises."""
        from tuf.ngclient import Updater

        client = Updater(
            str(self._directory / "metadata"),
            f"{self._url}/metadata",
            str(self._directory / "targets"),
            f"{self._url}/targets",
            bootstrap=self._trusted_root,
        )
        client.refresh()
        return client

    def track(self, model: str, track: str) -> Track | None:
        """Return the signed track document, or None when the channel has no such track."""
        target = self.refresh().get_targetinfo(track_target(model, track))
        return None if target is None else from_custom(target.custom, origin=target.path)

    def install(self, model: str, track: str, variant: str) -> Installed:
        """Fetch the newest standing offer: its manifest, one variant, the assets, the golden fixture."""
        client = self.refresh()
        target = client.get_targetinfo(track_target(model, track))
        assert target is not None
        offer = from_custom(target.custom, origin=target.path).standing[0]
        manifest = decode(self._fetch(client, offer.manifest.sha256))
        wanted: list[Variant | Asset | Golden] = [one for one in manifest.variants if one.id == variant]
        wanted += manifest.assets.values()
        wanted += [manifest.golden] if manifest.golden else []
        return Installed(offer, manifest, {one.file: self._fetch(client, one.sha256) for one in wanted})

    def _fetch(self, client: Updater, sha256: str) -> bytes:
        target = client.get_targetinfo(file_target(sha256))
        assert target is not None
        path = client.find_cached_target(target) or client.download_target(target)
        return Path(path).read_bytes()


@dataclass(frozen=True)
class Installed:
    """What a device fetched."""

    offer: Offer
    manifest: Manifest
    files: dict[str, bytes]
    """by path inside the bundle; checked by digest"""
