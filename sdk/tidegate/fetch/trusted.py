"""A channel as a device or a server sees it: only what the keys of the trusted root vouch for."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tidegate.errors import BundleError, ConfigError, IntegrityError, NotFoundError, StateError
from tidegate.fetch.error_mapping import mapped, missing
from tidegate.fetch.progress import OnProgress, Progress
from tidegate.fetch.settings import FetchSettings, check_url
from tidegate.fetch.transport import Transport
from tidegate.release.track import Track, from_custom, track_target

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile
    from tuf.ngclient import Updater

_CHUNK_BYTES = 1 << 20
_FETCH_AGAIN = "run the update again; if it stays so, tell the channel's owner"
# What python-tuf keeps beside root_history/, and how it names a file that is not finished.
_METADATA_FILES = ("root.json", "timestamp.json", "snapshot.json", "targets.json")
_UNFINISHED = "tmp*"


@dataclass(frozen=True)
class TargetInfo:
    """A file of the channel as the metadata signs it."""

    path: str
    """its name in the channel"""
    length: int
    """bytes"""
    hashes: Mapping[str, str]
    """digests in lower-case hexadecimal, by algorithm"""
    url: str
    """where it lies"""

    @property
    def sha256(self) -> str:
        """Its SHA-256.

        Raises:
            BundleError: the channel signed it with other digests only.
        """
        found = self.hashes.get("sha256")
        if found is None:
            raise BundleError(
                f"{self.path} is signed with {', '.join(sorted(self.hashes))}; expected a SHA-256",
                fix="the channel's owner publishes with `tidegate publish`",
            )
        return found

    def check(self, file: Path) -> None:
        """Hold a file against every digest that is signed.

        Raises:
            IntegrityError: other length or digest, or a digest of a kind that is not known here.
            ResourceError: the disk refuses.
        """
        with mapped(str(file)):
            size = file.stat().st_size
            if size != self.length:
                raise IntegrityError(f"{self.path} has {size} bytes; expected {self.length}", fix=_FETCH_AGAIN)
            for algorithm, expected in self.hashes.items():
                found = _hash(file, algorithm)
                if found != expected:
                    raise IntegrityError(
                        f"{self.path} has {algorithm} {found}; expected {expected} as signed", fix=_FETCH_AGAIN
                    )


class ChannelReader:
    """The verified client of one channel. One at a time may use a metadata directory; its targets may be fetched from
    several threads.

    Everything that it returns was signed as the trusted root demands and is not out of date. An error changes nothing
    that is installed. A context manager.
    """

    def __init__(
        self,
        metadata_dir: Path,
        url: str,
        trusted_root: bytes,
        settings: FetchSettings | None = None,
        on_progress: OnProgress | None = None,
        *,
        targets_url: str | None = None,
    ) -> None:
        """Prepare; asks nothing of the network yet.

        Args:
            metadata_dir: keeps the metadata of the last check; made when missing. Holds nothing else.
            url: the channel, with `metadata/` and `targets/` below it.
            trusted_root: the `N.root.json` that was shipped with the device; given at each start, so that nothing on
                the disk can replace it.
            settings: default `FetchSettings()`.
            on_progress: hears of each metadata file, and of target files unless `fetch` has a listener of its own.
            targets_url: where the files lie, when that is not `url`/targets; `url` is then the metadata itself.

        Raises:
            ConfigError: `url` is no address of a web server, or has a password or a query in it.
            DependencyError: tuf or urllib3 is not installed; the message names the extra.
        """
        _check_channel(url)
        base = url.rstrip("/")
        self._metadata_url = f"{base}/metadata" if targets_url is None else base
        self._targets_url = f"{base}/targets" if targets_url is None else targets_url.rstrip("/")
        self._metadata_dir = metadata_dir
        self._trusted_root = trusted_root
        self._transport = Transport(settings or FetchSettings())
        self._client: Updater | None = None
        self._consistent: bool | None = None
        self.on_progress = on_progress

    @property
    def settings(self) -> FetchSettings:
        """How it fetches."""
        return self._transport.settings

    @property
    def requests(self) -> int:
        """Requests sent so far, with redirects and further attempts."""
        return self._transport.requests

    @property
    def received_bytes(self) -> int:
        """Bytes of bodies received so far; headers are not counted."""
        return self._transport.received_bytes

    def refresh(self) -> None:
        """Learn the newest state of the channel. Without news that is two requests: the next root, and the timestamp.

        What is damaged on the disk is fetched again; the trust in it begins at the trusted root each time.

        Raises:
            UnavailableError: no server, or metadata out of date: a clock that is wrong, or a channel not kept fresh.
            DeadlineError: the server is too slow.
            IntegrityError, BundleError: altered, replayed, mixed or not signed as it must be.
            ConfigError: the trusted root is none.
            ResourceError: the disk refuses.
        """
        self._client = self._consistent = None
        _make_ready(self._metadata_dir)
        client = self._make_client()
        with mapped(f"the channel {self._metadata_url}"):
            client.refresh()
        self._client = client

    def track(self, model: str, track: str) -> Track:
        """Return the track document of a model.

        Raises:
            NotFoundError: the channel has no such track.
            BundleError: it has another schema, or breaks a rule.
            StateError: no `refresh` has succeeded yet.
        """
        path = track_target(model, track)
        found = self._find(path)
        if found is None:
            raise NotFoundError(
                f"the channel {self._metadata_url} has no track {track!r} of model {model!r}",
                fix="check model and track in the device's settings, or publish to the track first",
            )
        return from_custom(found.custom, origin=path)

    def target(self, path: str) -> TargetInfo | None:
        """Return what is signed of a file, or None when the channel has none of that name.

        Raises:
            StateError: no `refresh` has succeeded yet.
            IntegrityError, BundleError, UnavailableError: the channel delegates, and that metadata is fetched now.
        """
        found = self._find(path)
        if found is None:
            return None
        return TargetInfo(found.path, found.length, dict(found.hashes), f"{self._targets_url}/{self._place(found)}")

    def receive(
        self,
        target: TargetInfo,
        partial: Path,
        *,
        on_bytes: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Fetch a file, going on after what `partial` holds already. Whoever uses it checks it first: see `TargetInfo`.

        Raises:
            IntegrityError, UnavailableError, DeadlineError, ResourceError: as `Transport.resume`.
        """
        self._transport.resume(target.url, partial, target.length, on_bytes=on_bytes, stop=stop)

    def close(self) -> None:
        """Close every idle connection."""
        self._transport.close()

    def __enter__(self) -> ChannelReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_client(self) -> Updater:
        try:
            from tuf.api.exceptions import RepositoryError

            from tidegate.fetch.tuf_fetcher import Updater, UpdaterConfig, VerifiedFetcher
        except ImportError as error:
            raise missing(error) from error
        with mapped(str(self._metadata_dir)):
            try:
                return Updater(
                    str(self._metadata_dir),
                    self._metadata_url,
                    fetcher=VerifiedFetcher(self._transport, self._heard),
                    config=UpdaterConfig(),
                    bootstrap=self._trusted_root,
                )
            except RepositoryError as error:
                raise ConfigError(
                    f"the trusted root cannot be used: {error}", fix="ship the channel's metadata/1.root.json"
                ) from error

    def _find(self, path: str) -> TargetFile | None:
        if self._client is None:
            raise StateError("the channel was not read yet", fix="call refresh() first")
        with mapped(f"the channel {self._metadata_url}"):
            return self._client.get_targetinfo(path)

    def _place(self, target: TargetFile) -> str:
        """Return the path below the targets: with consistent snapshots the digest stands in front of the name."""
        if not self._has_consistent_snapshots():
            return target.path
        directory, slash, name = target.path.rpartition("/")
        return f"{directory}{slash}{next(iter(target.hashes.values()))}.{name}"

    def _has_consistent_snapshots(self) -> bool:
        """Read it from the root that `refresh` has just verified and written."""
        if self._consistent is None:
            from tuf.api.metadata import Metadata, Root

            with mapped(str(self._metadata_dir)):
                root: Metadata[Root] = Metadata.from_file(str(self._metadata_dir / "root.json"))
            self._consistent = bool(root.signed.consistent_snapshot)
        return self._consistent

    def _heard(self, file: str, size_bytes: int) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(file, size_bytes, size_bytes))


def _check_channel(url: str) -> None:
    check_url(url, "the channel's address")
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"the channel's address at {parts.hostname} has a name, a query or a fragment; expected host and path only",
            fix="leave them out: a channel is protected by its signatures and needs no password",
        )


def _make_ready(metadata_dir: Path) -> None:
    """Make the directory; remove what a crash left, and whatever stands where python-tuf wants to write.

    A file of its own that is torn needs nothing: it is not signed then, and python-tuf fetches it again.
    """
    with mapped(str(metadata_dir)):
        metadata_dir.mkdir(parents=True, exist_ok=True)
        for unfinished in metadata_dir.glob(_UNFINISHED):
            if unfinished.is_file():
                unfinished.unlink()
        history = metadata_dir / "root_history"
        if history.is_symlink() or not history.is_dir():
            history.unlink(missing_ok=True)
        for file in [*(metadata_dir / name for name in _METADATA_FILES), *history.glob("*.root.json")]:
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)


def _hash(file: Path, algorithm: str) -> str:
    try:
        digest = hashlib.new(algorithm)
    except ValueError as error:
        raise IntegrityError(
            f"a digest of the kind {algorithm!r} cannot be checked", fix="install the Tidegate that wrote the channel"
        ) from error
    with contextlib.closing(file.open("rb")) as source:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
