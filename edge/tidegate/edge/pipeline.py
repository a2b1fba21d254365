"""The listener: source → gate → recogniser → results.

with Listener.open("voice-commands.tide") as listener:
    for segment in listener.listen(WavSource("demo.wav")):
        print(segment.start_s, segment.text)
    print(listener.summary.describe())
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tidegate.bundle import Bundle
from tidegate.bundle.manifest import Manifest, PrefilterSettings
from tidegate.edge.cloud_route import CloudRecogniser, CloudSettings
from tidegate.edge.device import DeviceModel
from tidegate.edge.gate import Gate
from tidegate.edge.meter import Meter
from tidegate.edge.parts import connect, load_catalogue, load_model
from tidegate.edge.results import SegmentResult, Summary
from tidegate.edge.route import EdgeRecogniser, Recogniser
from tidegate.edge.sources.protocol import AudioSource
from tidegate.edge.update.report import Reporter, Running
from tidegate.errors import BundleError, ConfigError, StateError
from tidegate.speech import Catalogue, Transcriber
from tidegate.wire.pairing import SignalPath

if TYPE_CHECKING:
    from tidegate.client import Client
    from tidegate.runtime import Model
    from tidegate.wire.report import Latest


class Listener:
    """A bundle made ready to listen, on the device or with a server behind it. One thread at a time."""

    def __init__(
        self,
        manifest: Manifest,
        model: Model | None,
        catalogue: Catalogue | None,
        client: Client | None,
        *,
        reporter: Reporter,
        why_no_model: str = "",
        own_catalogue: bool = False,
        maximum_results: int = 3,
        cloud_model: str = "",
        cloud_settings: CloudSettings,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        """Use `Listener.open`. The listener closes what it is given."""
        self._manifest = manifest
        self._model = model
        self._transcriber = None if model is None else Transcriber(model)
        self._catalogue = catalogue
        self._client = client
        self._reporter = reporter
        self._why_no_model = why_no_model
        self._own_catalogue = own_catalogue
        self._maximum_results = maximum_results
        self._cloud_model = cloud_model
        self._cloud_settings = cloud_settings
        self._on_warning = on_warning or _warn
        self._prefilter = _prefilter(manifest)
        self._summary: Summary | None = None
        self._listening = False
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        cloud: str | None = None,
        cloud_model: str = "",
        variant: str | None = None,
        threads: int | None = None,
        catalogue: str | Path | None = None,
        maximum_results: int = 3,
        cloud_timeout_s: float = 2.0,
        on_warning: Callable[[str], None] | None = None,
    ) -> Listener:
        """Load a speech bundle.

        Args:
            bundle: `.tide` file or directory.
            cloud: HOST:PORT of a server that decides instead; the device's model stands by.
            cloud_model: the model wanted there; empty for the server's choice.
            variant: of the device's model; None for the first whose runtime is installed.
            threads: of the device's model; None for the runtime's default.
            catalogue: JSON Lines file to search in place of the bundle's own and of the server's.
            maximum_results: search results a segment; 0 for none.
            cloud_timeout_s: longest wait for the server after the end of a segment.
            on_warning: told when the device takes over from the server and back; default: `warnings.warn`.

        Raises:
            BundleError: it is not a speech bundle, or broken.
            ConfigError: a setting that cannot be meant.
            DependencyError: no runtime is installed and there is no server, or a package is missing.
            InputError, NotFoundError: the catalogue or the bundle is missing or malformed.
        """
        _check_results(maximum_results)
        cloud_settings = CloudSettings(target=cloud or "", timeout_s=cloud_timeout_s)
        opened: list[Model | Client | Catalogue] = []
        try:
            with Bundle.open(bundle) as release:
                model, why_no_model = load_model(release, variant, threads, required=cloud is None)
                opened += [model] if model else []
                entries = load_catalogue(release, catalogue)
                opened += [entries] if entries else []
                reporter = Reporter(partial(_running, release.manifest, model))
                client = connect(cloud, cloud_timeout_s, reporter)
                opened += [client] if client else []
                return cls(
                    release.manifest,
                    model,
                    entries,
                    client,
                    reporter=reporter,
                    why_no_model=why_no_model,
                    own_catalogue=catalogue is not None,
                    maximum_results=maximum_results,
                    cloud_model=cloud_model,
                    cloud_settings=cloud_settings,
                    on_warning=on_warning,
                )
        except BaseException:
            for part in opened:
                part.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """Of the bundle on this device."""
        return self._manifest

    @property
    def variant_id(self) -> str:
        """The variant that runs on this device; empty when none can."""
        return self._model.variant_id if self._model else ""

    @property
    def latest(self) -> Latest | None:
        """The newest release for this device that the server named last, for `Updater.note_latest`."""
        return None if self._client is None else self._client.latest

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

        What was heard before the source failed is recognised and yielded before its error is raised.

        Raises:
            InputError, ResourceError: the source failed.
            ModelError: the runtime failed.
            UnavailableError: the server failed and this device has no model that runs.
            StateError: the listener is closed or listens already.
        """
        self._start()
        meter = Meter()
        try:
            gate = Gate(self._prefilter, source.sample_rate_hz)
            device = self._device_model(gate.sample_rate_hz)
            recogniser = self._recogniser(device, gate.sample_rate_hz)
            try:
                for chunk in meter.chunks(source):
                    with meter.stage("gate"):
                        events = gate.push(chunk)
                    for event in events:
                        recogniser.handle(event)
                    yield from meter.counted(recogniser.ready())
                with meter.stage("gate"):
                    events = gate.flush()
                for event in events:
                    recogniser.handle(event)
                yield from meter.counted(recogniser.finish())
            finally:
                recogniser.close()
                self._summary = meter.summary(gate.account, device, recogniser.bytes_sent)
            meter.raise_failure_of_the_source()
        finally:
            source.close()
            self._listening = False

    def close(self) -> None:
        """Free the model, the catalogue and the connection. Closing again does nothing."""
        self._closed = True
        for part in (self._client, self._model, self._catalogue):
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

    def _device_model(self, sample_rate_hz: int) -> DeviceModel | None:
        if self._transcriber is None:
            return None
        return DeviceModel(
            self._manifest,
            self.variant_id,
            self._transcriber,
            self._catalogue,
            maximum_results=self._maximum_results,
            sample_rate_hz=sample_rate_hz,
        )

    def _recogniser(self, device: DeviceModel | None, sample_rate_hz: int) -> Recogniser:
        if self._client is None:
            assert device is not None
            return EdgeRecogniser(device)
        client = self._client
        return CloudRecogniser(
            lambda: client.recognize(
                sample_rate_hz=sample_rate_hz,
                model=self._cloud_model,
                maximum_search_results=0 if self._own_catalogue else self._maximum_results,
                device_bundle=f"{self._manifest.name} {self._manifest.version}",
                signal_path=SignalPath.of(self._manifest),
            ),
            device,
            self._cloud_settings,
            sample_rate_hz=sample_rate_hz,
            on_warning=self._on_warning,
            why_no_device=self._why_no_model,
            after_answer=self._with_own_results,
            renew=self._reporter.changed,
        )

    def _with_own_results(self, result: SegmentResult) -> SegmentResult:
        """A catalogue that was asked for by name is searched whoever decides."""
        if not self._own_catalogue or self._catalogue is None:
            return result
        return replace(result, search_results=self._catalogue.search(result.text, self._maximum_results))


def _running(manifest: Manifest, model: Model | None) -> Running:
    return Running.of(manifest) if model is None else Running.of(manifest, model.variant_id, model.runtime)


def _prefilter(manifest: Manifest) -> PrefilterSettings:
    if manifest.prefilter is None:
        raise BundleError(
            f"{manifest.name} {manifest.version} has no prefilter settings, so it cannot listen",
            fix="add [prefilter] to the specification and build the bundle again",
        )
    return manifest.prefilter


def _check_results(maximum_results: int) -> None:
    if maximum_results < 0:
        raise ConfigError(f"maximum_results is {maximum_results}; expected 0 or more", fix="give 0 for no results")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
