"""Which version a listener runs: always the same one, or whichever is active on a device.

A version is one thing: model, decoder, labels, catalogue and prefilter belong together and change together.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Bundle
from tidegate.bundle.manifest import Manifest, PrefilterSettings
from tidegate.edge.device import SegmentTranscriber
from tidegate.edge.gate import Gate
from tidegate.edge.prefilter.protocol import SAMPLE_RATE_HZ
from tidegate.edge.update.report import Running
from tidegate.errors import BundleError, InputError, ModelError, ResourceError, TidegateError
from tidegate.speech import Catalogue, Transcriber, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidegate.edge.update.active import ActiveModel
    from tidegate.edge.update.loaded import LoadedVersion

CATALOGUE_ASSET = "catalogue"
ATTEMPTS = 3
"""Versions that a listener tries when it opens: active, previous, factory."""


@dataclass(frozen=True, eq=False)
class SpeechVersion:
    """One version, ready to listen with."""

    manifest: Manifest
    transcriber: SegmentTranscriber | None
    """None: it cannot run here, and a server decides"""
    catalogue: Catalogue | None
    variant_id: str = ""
    runtime: str = ""
    held: ExitStack = field(default_factory=ExitStack)
    """what goes when this version is not needed any more"""

    @property
    def prefilter(self) -> PrefilterSettings:
        """The stage in front of the model."""
        return prefilter_of(self.manifest)

    @property
    def running(self) -> Running:
        """The same for reports."""
        return Running.of(self.manifest, self.variant_id, self.runtime)


class Versions(Protocol):
    """Where a listener's versions come from."""

    in_use: SpeechVersion
    """the one that takes the next segment"""

    def news(self) -> SpeechVersion:
        """Return the version that should be in use; the one that is stays usable."""

    def take(self, version: SpeechVersion) -> None:
        """Use it from the next segment on."""

    def free_old(self) -> None:
        """Let go of versions that are not in use; no segment waits for them any more."""

    def close(self) -> None:
        """Let go of everything."""


class OneVersion:
    """A bundle's."""

    def __init__(self, version: SpeechVersion) -> None:
        self.in_use = version

    def news(self) -> SpeechVersion:
        """Return the same one for ever."""
        return self.in_use

    def take(self, version: SpeechVersion) -> None:
        """There is no other."""

    def free_old(self) -> None:
        """There is no other."""

    def close(self) -> None:
        """Free the model and the catalogue."""
        self.in_use.held.close()


class ActiveVersions:
    """A device's, as its updater changes them."""

    def __init__(self, active: ActiveModel, own_catalogue: Catalogue | None, on_warning: Callable[[str], None]) -> None:
        """Take the version that is active, or the one behind it that can listen.

        Args:
            active: closed with this object.
            own_catalogue: searched instead of the versions' own; the caller closes it.
            on_warning: told of a version that cannot be listened with.

        Raises:
            BundleError, ConfigError, DependencyError, InputError: none can.
        """
        self._active = active
        self._own_catalogue = own_catalogue
        self._on_warning = on_warning
        self._old: list[SpeechVersion] = []
        self._refused: LoadedVersion | None = None
        self._loaded, self.in_use = self._first()
        self._newest = self.in_use

    def news(self) -> SpeechVersion:
        """Return the active version; one that cannot be listened with is reported, and changes nothing."""
        with ExitStack() as held:
            loaded = held.enter_context(self._active.hold())
            if loaded is self._loaded or loaded is self._refused:
                return self._newest
            try:
                version = self._speech(loaded, held)
            except TidegateError as error:
                self._refused = loaded
                self._refuse(loaded, error)
                return self._newest
            if self._newest is not self.in_use:
                self._old.append(self._newest)
            self._loaded, self._newest = loaded, version
            return version

    def take(self, version: SpeechVersion) -> None:
        """Use it from the next segment on."""
        if version is self.in_use:
            return
        self._old.append(self.in_use)
        self.in_use = version

    def free_old(self) -> None:
        """Let go of the versions before."""
        while self._old:
            self._old.pop().held.close()

    def close(self) -> None:
        """Let go of all versions and of the handle."""
        self.free_old()
        for version in {self._newest, self.in_use}:
            version.held.close()
        self._active.close()

    def _first(self) -> tuple[LoadedVersion, SpeechVersion]:
        for attempt in range(1, ATTEMPTS + 1):
            with ExitStack() as held:
                loaded = held.enter_context(self._active.hold())
                try:
                    return loaded, self._speech(loaded, held)
                except TidegateError as error:
                    self._refuse(loaded, error)
                    if attempt == ATTEMPTS or loaded.slot == self._active.slot:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _refuse(self, loaded: LoadedVersion, error: TidegateError) -> None:
        self._on_warning(f"version {loaded.slot.version} cannot be listened with: {error.message}")
        loaded.report_unusable(error.message)
        self._active.refresh()

    def _speech(self, loaded: LoadedVersion, held: ExitStack) -> SpeechVersion:
        """Make the parts of a version; on success they keep what `held` holds."""
        transcriber = CountedTranscriber(loaded, self._active.refresh)
        Gate(prefilter_of(loaded.manifest), SAMPLE_RATE_HZ)  # Refuses settings that this device cannot follow.
        catalogue = self._own_catalogue
        if catalogue is None:
            with loaded.open_bundle() as bundle:
                catalogue = load_catalogue(bundle)
            if catalogue is not None:
                held.callback(catalogue.close)
        return SpeechVersion(
            loaded.manifest, transcriber, catalogue, loaded.variant_id, loaded.model.runtime, held.pop_all()
        )


class CountedTranscriber:
    """A version's transcriber that reports segments without a word, and answers that are no probabilities."""

    def __init__(self, loaded: LoadedVersion, on_failure: Callable[[], None]) -> None:
        """Count for `loaded`; `on_failure` is called after each failure that was counted."""
        self._loaded = loaded
        self._on_failure = on_failure
        self._transcriber = Transcriber(loaded)

    @property
    def sample_rate_hz(self) -> int:
        """Of the model."""
        return self._transcriber.sample_rate_hz

    def transcribe(self, samples: NDArray[np.float32]) -> Transcript:
        """Recognise one segment, as `Transcriber` does."""
        errors_before = self._loaded.errors
        try:
            transcript = self._transcriber.transcribe(samples)
        except (ModelError, InputError, ResourceError) as error:
            if self._loaded.errors == errors_before:  # The runtime's own are counted already.
                self._loaded.report_failure(error.message)
            # So that a version on trial is left before the listener gives up on it.
            self._on_failure()
            raise
        self._loaded.report_answer(is_empty=not transcript.text)
        return transcript


def prefilter_of(manifest: Manifest) -> PrefilterSettings:
    """Return the settings of the stage in front of the model.

    Raises:
        BundleError: there are none.
    """
    if manifest.prefilter is None:
        raise BundleError(
            f"{manifest.name} {manifest.version} has no prefilter settings, so it cannot listen",
            fix="add [prefilter] to the specification and build the bundle again",
        )
    return manifest.prefilter


def load_catalogue(release: Bundle) -> Catalogue | None:
    """Return the bundle's own catalogue, or None when it has none."""
    asset = release.asset(CATALOGUE_ASSET)
    return None if asset is None else Catalogue.from_jsonl(asset, origin=f"{release.path}: catalogue")
