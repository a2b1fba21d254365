"""A listener that follows a device's active version, on the bundle and the recording that ship."""

import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.slots import activate, install, times, write_model

from tidegate.bundle import Bundle, Manifest, PrefilterSettings, write_bundle
from tidegate.cli.main import main
from tidegate.cloud.server import Server
from tidegate.edge import AudioSource, Listener, SegmentResult, WavSource
from tidegate.edge.update import ActiveModel
from tidegate.edge.update.health import read_health
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import Slot
from tidegate.edge.update.settings import DeviceSettings, write_settings
from tidegate.edge.update.states import State
from tidegate.errors import BundleError, ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"
BUNDLE = EXAMPLE / "voice-commands.tide"
CLOUD_BUNDLE = EXAMPLE / "voice-commands-cloud.tide"
RECORDING = EXAMPLE / "demo.wav"
VARIANT = "tflite-int8"
NO_PAUSE = {"hangover_ms": 1_900, "maximum_segment_ms": 2_000}
"""Every pause of the recording is shorter, so segments end by their length and the next begins at once."""

Span = tuple[float, float, str]


class At:
    """A source that does something as soon as so much has been heard."""

    def __init__(self, moment_s: float, act: Callable[[], None]) -> None:
        self._source: AudioSource = WavSource(RECORDING)
        self._moment_s = moment_s
        self._act = act
        self.sample_rate_hz = self._source.sample_rate_hz

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        heard_s, acted = 0.0, False
        for chunk in self._source.chunks():
            yield chunk
            heard_s += len(chunk) / self.sample_rate_hz
            if not acted and heard_s >= self._moment_s:
                self._act()
                acted = True

    def close(self) -> None:
        self._source.close()


class Device:
    """A device with the shipped bundle; further versions are the same one under other numbers and settings."""

    def __init__(self, directory: Path, work: Path) -> None:
        self.directory = directory
        self._work = work
        with Bundle.open(BUNDLE) as bundle:
            self._manifest = bundle.manifest
            self._files = {file.path: bundle.read(file.path) for file in bundle.files}
        settings = DeviceSettings(device_id="kiosk-1", url="http://localhost", model=self._manifest.name)
        write_settings(Layout(directory).settings, settings)
        self.first = self.version("1.0.0", 1)
        self.activate(self.first)

    def bundle(self, version: str, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> Path:
        manifest = change(msgspec.structs.replace(self._manifest, version=version))
        write_bundle(manifest, self._files, self._work / f"{version}.tide")
        return self._work / f"{version}.tide"

    def version(self, version: str, release: int, change: Callable[[Manifest], Manifest] = lambda m: m) -> Slot:
        return install(self.directory, self.bundle(version, change), VARIANT, release=release)

    def activate(self, slot: Slot, phase: State = State.IDLE) -> None:
        activate(self.directory, slot, factory=self.first, previous=self.first, phase=phase)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    # A file is heard faster than it plays: look at the record before every chunk instead of once a second.
    defaults = {**(ActiveModel.__init__.__kwdefaults__ or {}), "check_interval_s": 0.0}
    monkeypatch.setattr(ActiveModel.__init__, "__kwdefaults__", defaults)
    directory = tmp_path / "device"
    directory.mkdir()
    return Device(directory, tmp_path)


def with_prefilter(**settings: int) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        assert manifest.prefilter is not None
        return msgspec.structs.replace(manifest, prefilter=msgspec.structs.replace(manifest.prefilter, **settings))

    return change


def spans(results: list[SegmentResult]) -> list[Span]:
    return [(result.start_s, result.end_s, result.text) for result in results]


def listen(bundle: Path) -> list[SegmentResult]:
    with Listener.open(bundle, variant=VARIANT) as listener:
        return list(listener.listen(WavSource(RECORDING)))


def follow(device: Device, moment_s: float, act: Callable[[], None]) -> list[SegmentResult]:
    with Listener.open(device=device.directory) as listener:
        return list(listener.listen(At(moment_s, act)))


def middle_of(result: SegmentResult) -> float:
    return (result.start_s + result.end_s) / 2


@pytest.mark.parametrize("place", [2, 5])
def test_a_segment_in_flight_ends_with_its_version_and_the_next_has_the_new_one(device: Device, place: int) -> None:
    alone = listen(BUNDLE)
    second = device.version("1.0.1", 2)
    results = follow(device, middle_of(alone[place]), lambda: device.activate(second))
    assert spans(results) == spans(alone), "nothing is dropped and nothing is heard differently"
    assert [result.version for result in results] == ["1.0.0"] * (place + 1) + ["1.0.1"] * (len(alone) - place - 1)
    assert [result.segment_id for result in results] == list(range(1, len(alone) + 1))


def test_between_segments_the_next_one_has_the_new_version(device: Device) -> None:
    alone = listen(BUNDLE)
    place = max(range(len(alone) - 1), key=lambda index: alone[index + 1].start_s - alone[index].end_s)
    pause_s = (alone[place].end_s + alone[place + 1].start_s) / 2 + 0.1
    second = device.version("1.0.1", 2)
    results = follow(device, pause_s, lambda: device.activate(second))
    assert spans(results) == spans(alone)
    assert [result.version for result in results].count("1.0.0") == place + 1


def test_the_prefilter_changes_with_the_version(device: Device) -> None:
    change = with_prefilter(hangover_ms=150, pre_roll_ms=100)
    before, after = listen(BUNDLE), listen(device.bundle("1.0.1", change))
    assert spans(before) != spans(after)
    place = len(before) // 2
    second = device.version("1.0.1", 2, change)
    results = follow(device, middle_of(before[place]), lambda: device.activate(second))
    old = [result for result in results if result.version == "1.0.0"]
    new = [result for result in results if result.version == "1.0.1"]
    assert results == old + new
    assert spans(old) == spans(before)[: place + 1]
    changed_s = old[-1].end_s
    assert [span for span in spans(new) if span[0] > changed_s] == [
        span for span in spans(after) if span[0] > changed_s
    ]
    assert {result.text for result in results if result.text} == {result.text for result in before if result.text}


def test_the_detector_changes_with_the_version(device: Device) -> None:
    def change(manifest: Manifest) -> Manifest:
        return msgspec.structs.replace(manifest, prefilter=PrefilterSettings(kind="energy"))

    before = listen(BUNDLE)
    second = device.version("1.0.1", 2, change)
    results = follow(device, middle_of(before[3]), lambda: device.activate(second))
    assert spans(results)[:4] == spans(before)[:4]
    assert {result.version for result in results[4:]} == {"1.0.1"}
    heard = {result.text for result in results[4:] if result.text}
    assert heard >= {result.text for result in before[4:8] if result.text}


def test_in_speech_without_a_pause_it_changes_at_a_cut_and_no_sample_is_lost(device: Device) -> None:
    first, second = (device.version(f"1.0.{release}", release, with_prefilter(**NO_PAUSE)) for release in (2, 3))
    device.activate(first)
    alone = follow(device, 0.0, lambda: None)
    cut = [before.end_s == after.start_s for before, after in itertools.pairwise(alone)]
    place = next(index for index in range(1, len(cut) - 2) if all(cut[index : index + 3]))
    device.activate(first)
    results = follow(device, middle_of(alone[place]), lambda: device.activate(second))
    assert spans(results) == spans(alone)
    assert [result.version for result in results[place : place + 2]] == ["1.0.2", "1.0.3"]


def test_a_version_that_cannot_be_listened_with_is_left_and_the_old_one_answers(device: Device) -> None:
    alone = listen(BUNDLE)
    deaf = device.version("2.0.0", 2, lambda manifest: msgspec.structs.replace(manifest, prefilter=None))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = follow(device, middle_of(alone[2]), lambda: device.activate(deaf, State.TRIAL))
    assert spans(results) == spans(alone)
    assert {result.version for result in results} == {"1.0.0"}
    assert "2.0.0 has no prefilter settings" in str(caught[0].message)
    assert read_health(Layout(device.directory).health).of(2).unusable >= 1


def test_at_the_start_it_falls_back_too(device: Device) -> None:
    other = write_model(device.directory / "other.tide", times(2), version="3.0.0")
    device.activate(install(device.directory, other, "only", release=3), State.TRIAL)
    warned: list[str] = []
    with Listener.open(device=device.directory, on_warning=warned.append) as listener:
        assert listener.manifest.version == "1.0.0"
    assert "3.0.0 cannot be listened with" in warned[0]


def test_a_device_with_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    slot = install(tmp_path, write_model(tmp_path / "other.tide", times(2)), "only", release=3)
    activate(tmp_path, slot, factory=slot)
    with pytest.raises(BundleError, match="not a speech model"):
        Listener.open(device=tmp_path, on_warning=lambda message: None)


def test_segments_are_counted_for_the_trial(device: Device) -> None:
    results = follow(device, 0.0, lambda: None)
    counters = read_health(Layout(device.directory).health).of(1)
    assert counters.answers == len(results)
    assert counters.empty == sum(not result.text for result in results)
    assert counters.calls > len(results)
    assert counters.starts == 1
    assert counters.bad_calls == 0


def test_with_a_server_the_version_behind_it_changes_as_well(device: Device) -> None:
    alone = listen(BUNDLE)
    second = device.version("1.0.1", 2)
    with (
        Server([CLOUD_BUNDLE]) as server,
        Listener.open(device=device.directory, cloud=server.address, cloud_timeout_s=30) as listener,
    ):
        results = list(listener.listen(At(middle_of(alone[2]), lambda: device.activate(second))))
        assert listener.manifest.version == "1.0.1"
    assert [span[:2] for span in spans(results)] == [span[:2] for span in spans(alone)]
    assert {result.decided_by for result in results[:3]} == {"cloud"}
    # While the stream is opened anew to report the other version, that version decides.
    assert {result.version for result in results if result.decided_by == "edge"} <= {"1.0.1"}


def test_a_bundle_or_a_device_not_both(device: Device) -> None:
    with pytest.raises(ConfigError, match="neither is given"):
        Listener.open()
    with pytest.raises(ConfigError, match="both are given"):
        Listener.open(BUNDLE, device=device.directory)
    with pytest.raises(ConfigError, match="only the variant that was installed"):
        Listener.open(device=device.directory, variant=VARIANT)


def test_the_command(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.activate(device.version("1.0.7", 7))
    assert main(["listen", "--device", str(device.directory), "--wav", str(RECORDING), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["version"] for line in lines[:-1]} == {"1.0.7"}
    assert len(lines) - 1 == len(listen(BUNDLE))
    assert main(["listen", str(BUNDLE), "--device", str(device.directory), "--wav", str(RECORDING)]) == 2
    assert main(["listen", "--wav", str(RECORDING)]) == 2
    assert "expected a bundle or --device" in capsys.readouterr().err
