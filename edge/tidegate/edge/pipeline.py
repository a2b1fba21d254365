"""The listener: source → gate → recogniser → results.

with Listener.open("voice-commands.tide") as listener:
    for segment in listener.listen(WavSource("demo.wav")):
        print(segment.start_s, segment.text)
    print(listener.summary.describe())
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tidegate.bundle.manifest import Manifest
from tidegate.edge.cloud_settings import CloudSettings
from tidegate.edge.news import ReleaseNews
from tidegate.edge.parts import connect, follow, load_version, read_catalogue
from tidegate.edge.results import SegmentResult, Summary
from tidegate.edge.run import Parts, Run
from tidegate.edge.sources.protocol import AudioSource
from tidegate.edge.update.report import Reporter
from tidegate.edge.versions import OneVersion, Versions, prefilter_of
from tidegate.errors import ConfigError, StateError

if TYPE_CHECKING:
    from tidegate.client import TlsSettings
    from tidegate.wire.report import Latest


class Listener:
    """A bundle made ready to listen, on the device or with a server behind it. One thread at a time."""

    def __init__(self, parts: Parts) -> None:
        """Use `Listener.open`. The listener closes what it is given."""
        self._parts = parts
        prefilter_of(parts.versions.in_use.manifest)
        self._summary: Summary | None = None
        self._listening = False
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path | None = None,
        *,
        device: str | Path | None = None,
        cloud: str | None = None,
        cloud_model: str = "",
        cloud_tls: TlsSettings | None = None,
        cloud_token: str | Callable[[], str] | None = None,
        variant: str | None = None,
        threads: int | None = None,
        catalogue: str | Path | None = None,
        maximum_results: int = 3,
        cloud_timeout_s: float = 2.0,
        on_warning: Callable[[str], None] | None = None,
        on_newer: Callable[[Latest], None] | None = None,
    ) -> Listener:
        """Load a speech bundle, or follow the active version of a device.

        Args:
            bundle: `.tide` file or directory.
            device: instead of a bundle, the directory of a device that an updater keeps. Another version that becomes
                active takes over, prefilter and all, with the first segment that starts after that.
            cloud: HOST:PORT of a server that decides instead; the device's model stands by.
            cloud_model: the model wanted there; empty for the server's choice.
            cloud_tls: how to encrypt, as `tidegate.client.TlsSettings`; None for plaintext.
            cloud_token: bearer token of this device there, or a function that gives one for each stream.
            variant: of the device's model; None for the first whose runtime is installed.
            threads: of the device's model; None for the runtime's default.
            catalogue: JSON Lines file to search in place of the bundle's own and of the server's.
            maximum_results: search results a segment; 0 for none.
            cloud_timeout_s: longest wait for the server after the end of a segment.
            on_warning: told when the device takes over from the server and back, of a version that cannot be listened
                with, and of each kind of failure of the model; default: `warnings.warn`.
            on_newer: with a device and a server: told once of each newer release that the server names. Nothing signed
                that word; `Updater.update` finds out what is true of it.

        Raises:
            BundleError: it is not a speech bundle, or broken.
            ConfigError: a setting that cannot be meant.
            DependencyError: no runtime is installed and there is no server, or a package is missing.
            InputError, NotFoundError: the catalogue, the bundle or the device is missing or malformed.
            ModelError: no version of the device loads.
        """
        _check_choice(bundle, device, variant)
        _check_results(maximum_results)
        cloud_settings = CloudSettings(target=cloud or "", timeout_s=cloud_timeout_s)
        warn = on_warning or _warn
        with ExitStack() as opened:
            entries = None if catalogue is None else opened.enter_context(closing(read_catalogue(catalogue)))
            why_no_model = ""
            versions: Versions
            if device is not None:
                versions = follow(device, threads, entries, warn)
            else:
                assert bundle is not None
                version, why_no_model = load_version(bundle, variant, threads, entries, required=cloud is None)
                versions = OneVersion(version)
            opened.enter_context(closing(versions))
            reporter = Reporter(
                lambda: versions.in_use.running, Path(device) if device is not None and cloud is not None else None
            )
            client = connect(cloud, cloud_timeout_s, reporter, cloud_tls, cloud_token)
            if client is not None:
                opened.enter_context(closing(client))
            listener = cls(
                Parts(
                    versions=versions,
                    client=client,
                    own_catalogue=entries,
                    reporter=reporter,
                    why_no_model=why_no_model,
                    maximum_results=maximum_results,
                    cloud_model=cloud_model,
                    cloud_settings=cloud_settings,
                    on_warning=warn,
                    news=None if device is None or on_newer is None else ReleaseNews(Path(device), on_newer),
                )
            )
            opened.pop_all()
            return listener

    @property
    def manifest(self) -> Manifest:
        """Of the version that takes the next segment."""
        return self._parts.versions.in_use.manifest

    @property
    def variant_id(self) -> str:
        """The variant that runs on this device; empty when none can."""
        return self._parts.versions.in_use.variant_id

    @property
    def latest(self) -> Latest | None:
        """The newest release for this device that the server named last, for `Updater.note_latest`."""
        return None if self._parts.client is None else self._parts.client.latest

    @property
    def summary(self) -> Summary:
        """What the last `listen` took, complete once it has ended.

        Raises:
            StateError: nothing was listened to yet.
        """
        if self._summary is None:
            raise StateError("there is no summary yet", fix="iterate over listen() first")
        return self._summary

    def listen(self, source: AudioSource) -> Iterator[SegmentResult]:
        """Yield one result for each segment of speech, in order. Closes the source.

        What was heard before the source failed is recognised and yielded before its error is raised. A segment on which
        the device's model fails has a result with a `problem`; `on_warning` is told the first of each kind.

        Raises:
            InputError, ResourceError: the source failed.
            ModelError: the device's model failed on `failures.MOST_IN_A_ROW` segments after one another.
            UnavailableError: the server failed and this device has no model that runs.
            StateError: the listener is closed or listens already.
        """
        self._start()
        try:
            run = Run(self._parts, source)
            try:
                yield from run.results()
            finally:
                self._summary = run.summary()
        finally:
            source.close()
            self._listening = False

    def close(self) -> None:
        """Free the model, the catalogue and the connection. Closing again does nothing."""
        self._closed = True
        for part in (self._parts.client, self._parts.versions, self._parts.own_catalogue):
            if part is not None:
                part.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._closed:
            raise StateError("the listener is closed", fix="open it again with Listener.open")
        if self._listening:
            raise StateError("the listener listens already", fix="open a second one for a second source")
        self._listening = True


def _check_choice(bundle: str | Path | None, device: str | Path | None, variant: str | None) -> None:
    if (bundle is None) == (device is None):
        raise ConfigError(
            "a listener has a bundle or a device's directory; "
            + ("neither is given" if bundle is None else "both are given"),
            fix="give one of them",
        )
    if device is not None and variant is not None:
        raise ConfigError(
            f"variant {variant!r} is given, but a device has only the variant that was installed",
            fix="leave the variant out",
        )


def _check_results(maximum_results: int) -> None:
    if maximum_results < 0:
        raise ConfigError(f"maximum_results is {maximum_results}; expected 0 or more", fix="give 0 for no results")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
