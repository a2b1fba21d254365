"""One run of a listener over one source: gate → recogniser → results, and what of them is told and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.cloud_route import CloudRecogniser
from tidegate.edge.cloud_settings import CloudSettings
from tidegate.edge.device import Costs, DeviceModel
from tidegate.edge.failures import Failures
from tidegate.edge.gate import Gate
from tidegate.edge.meter import Meter
from tidegate.edge.news import ReleaseNews
from tidegate.edge.results import SegmentResult, Summary
from tidegate.edge.route import EdgeRecogniser, Recogniser
from tidegate.edge.sources.protocol import AudioSource
from tidegate.edge.update.report import Reporter
from tidegate.edge.versions import Versions
from tidegate.speech import Catalogue
from tidegate.wire.pairing import SignalPath

if TYPE_CHECKING:
    from tidegate.client import Client, RecognizeStream


@dataclass(frozen=True)
class Parts:
    """What every run of a listener has in common."""

    versions: Versions
    client: Client | None
    own_catalogue: Catalogue | None
    """searched instead of the versions' own"""
    reporter: Reporter
    why_no_model: str
    """why nothing can run here; empty when something can"""
    maximum_results: int
    cloud_model: str
    cloud_settings: CloudSettings
    on_warning: Callable[[str], None]
    news: ReleaseNews | None
    """hears of newer releases; None without a device that an updater keeps"""


class Run:
    """From the first chunk of a source to its end. One thread."""

    def __init__(self, parts: Parts, source: AudioSource) -> None:
        """Make gate and recogniser for the version that is active now.

        Raises:
            UnavailableError: the server fails and no model runs here.
        """
        self._parts = parts
        self._versions = parts.versions
        self._meter = Meter()
        self._costs = Costs()
        self._failures = Failures(parts.on_warning)
        self._source = source
        self._versions.take(self._versions.news())
        self._gate = Gate(self._versions.in_use.prefilter, source.sample_rate_hz)
        self._recogniser = self._make_recogniser(self._gate.sample_rate_hz)

    def results(self) -> Iterator[SegmentResult]:
        """Yield one result for each segment, in order. Raises as `Listener.listen`."""
        try:
            for chunk in self._meter.chunks(self._source):
                self._hear(chunk)
                yield from self._told(self._recogniser.ready())
                self._failures.raise_if_nothing_else_comes()
            with self._meter.stage("gate"):
                events = self._gate.flush()
            for event in events:
                self._recogniser.handle(event)
            yield from self._told(self._recogniser.finish())
        finally:
            self._recogniser.close()
        self._meter.raise_failure_of_the_source()

    def summary(self) -> Summary:
        """Return what the run has taken so far."""
        return self._meter.summary(self._gate.account, self._costs, self._recogniser.bytes_sent)

    def _hear(self, chunk: NDArray[np.float32]) -> None:
        for piece in self._pieces(chunk):
            with self._meter.stage("gate"):
                events = self._gate.push(piece)
            for event in events:
                self._recogniser.handle(event)

    def _told(self, results: list[SegmentResult]) -> list[SegmentResult]:
        """Count results, tell of failures and of news, and pass the results on."""
        self._failures.note(results)
        if self._parts.news is not None and self._parts.client is not None:
            self._parts.news.note(self._parts.client.latest)
        return self._meter.counted(results)

    def _pieces(self, chunk: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield the chunk, and change to another version before it, if one is active and no segment is open.

        While one waits for the end of a segment, pieces of less than a frame come instead: in speech without a pause, a
        segment that is cut by its length leaves only the moment between two frames.
        """
        gate, first = self._gate, 0
        while first < len(chunk):
            is_waiting = not self._follow()
            half_frame = max(gate.frame_samples * gate.source_rate_hz // gate.sample_rate_hz // 2, 1)
            piece = chunk[first : first + half_frame] if is_waiting else chunk[first:]
            yield piece
            first += len(piece)

    def _follow(self) -> bool:
        """Change to the version that should be in use, between segments only; return whether it is in use."""
        version = self._versions.news()
        if version is self._versions.in_use:
            if self._recogniser.is_idle:
                self._versions.free_old()
            return True
        if not self._gate.is_between_segments:
            return False
        self._gate.change(version.prefilter)
        self._versions.take(version)
        self._recogniser.change(self._device_model(self._gate.sample_rate_hz))
        return True

    def _device_model(self, sample_rate_hz: int) -> DeviceModel | None:
        version = self._versions.in_use
        if version.transcriber is None:
            return None
        return DeviceModel(
            version.manifest,
            version.variant_id,
            version.transcriber,
            version.catalogue,
            maximum_results=self._parts.maximum_results,
            sample_rate_hz=sample_rate_hz,
            costs=self._costs,
        )

    def _make_recogniser(self, sample_rate_hz: int) -> Recogniser:
        parts, device = self._parts, self._device_model(sample_rate_hz)
        if parts.client is None:
            assert device is not None
            return EdgeRecogniser(device)
        client = parts.client

        def open_stream() -> RecognizeStream:
            manifest = self._versions.in_use.manifest
            return client.recognize(
                sample_rate_hz=sample_rate_hz,
                model=parts.cloud_model,
                maximum_search_results=parts.maximum_results if parts.own_catalogue is None else 0,
                device_bundle=f"{manifest.name} {manifest.version}",
                signal_path=SignalPath.of(manifest),
            )

        return CloudRecogniser(
            open_stream,
            device,
            parts.cloud_settings,
            sample_rate_hz=sample_rate_hz,
            on_warning=parts.on_warning,
            why_no_device=parts.why_no_model,
            after_answer=self._with_own_results,
            renew=parts.reporter.changed,
        )

    def _with_own_results(self, result: SegmentResult) -> SegmentResult:
        """A catalogue that was asked for by name is searched whoever decides."""
        own = self._parts.own_catalogue
        if own is None:
            return result
        return replace(result, search_results=own.search(result.text, self._parts.maximum_results))
