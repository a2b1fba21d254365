"""A model that fails on a segment: it counts as failed, listening goes on, and ends only when nothing else comes.

The model is a real ONNX graph that fails at run time when it hears one word; see tests/failing.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.failing import failing_on
from tests.listening import write_wav
from tests.slots import activate, install
from tests.unit.test_pipeline import ArraySource

from tidegate.bundle import digest, write_bundle
from tidegate.cli.main import main
from tidegate.edge import Listener, SegmentResult
from tidegate.edge.failures import MOST_IN_A_ROW, Failures
from tidegate.edge.update.health import read_health
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.settings import DeviceSettings, write_settings
from tidegate.edge.update.states import State
from tidegate.errors import ModelError

Say = Callable[..., NDArray[np.float32]]


def write_failing(path: Path, release: tuple[Any, dict[str, bytes]], *, version: str = "1.2.3") -> Path:
    """Write the bundle of tones with a model that fails on `no`."""
    manifest, files = release
    model = failing_on(files["variants/tones.onnx"], manifest.labels.index("no"))
    variant = msgspec.structs.replace(manifest.variants[0], sha256=digest(model), size_bytes=len(model))
    manifest = msgspec.structs.replace(manifest, version=version, variants=(variant,))
    write_bundle(manifest, {**files, "variants/tones.onnx": model}, path)
    return path


@pytest.fixture(scope="module")
def failing_bundle(tone_release: tuple[Any, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_failing(tmp_path_factory.mktemp("failing") / "failing.tide", tone_release)


def spoken(*words: str) -> list[tuple[str, float]]:
    return [(word, 1.0 + 2.0 * place) for place, word in enumerate(words)]


def test_a_segment_that_fails_is_told_once_and_the_next_is_heard(failing_bundle: Path, say: Say) -> None:
    warned: list[str] = []
    words = ["yes", "no", "up", "no", "down"]
    with Listener.open(failing_bundle, on_warning=warned.append) as listener:
        results = list(listener.listen(ArraySource(say(spoken(*words), 12.0))))
        summary = listener.summary
    assert [result.text for result in results] == ["yes", "", "up", "", "down"]
    assert [bool(result.problem) for result in results] == [False, True, False, True, False]
    assert all(result.search_results == () for result in results if result.problem)
    assert len(warned) == 1
    assert warned[0].startswith("tones 1.2.3 (onnx-fp32) failed on the segment at ")
    assert "listening goes on" in warned[0]
    assert (summary.segments, summary.segments_edge, summary.segments_rejected, summary.segments_failed) == (5, 3, 0, 2)
    assert "0 without a word; 2 failed" in summary.describe()


def test_it_ends_when_every_segment_fails_for_so_long(failing_bundle: Path, say: Say) -> None:
    heard: list[SegmentResult] = []
    words = ["yes"] + ["no"] * (MOST_IN_A_ROW + 3)
    source = ArraySource(say(spoken(*words), 2.0 * len(words) + 2))
    with Listener.open(failing_bundle, on_warning=lambda message: None) as listener:
        with pytest.raises(
            ModelError, match=rf"tones 1\.2\.3 .* failed on {MOST_IN_A_ROW} segments in a row; the last"
        ):
            heard.extend(listener.listen(source))
        assert listener.summary.segments_failed == MOST_IN_A_ROW
    assert len(heard) == MOST_IN_A_ROW + 1, "every result came before the error"
    assert source.closed


def test_on_a_device_failed_segments_end_the_trial_and_the_version_before_listens_on(
    tone_bundle: Path, tone_release: tuple[Any, dict[str, bytes]], say: Say, tmp_path: Path
) -> None:
    directory = tmp_path / "device"
    directory.mkdir()
    settings = DeviceSettings(device_id="kiosk-1", url="http://localhost", model="tones")
    write_settings(Layout(directory).settings, settings)
    good = install(directory, tone_bundle, "onnx-fp32", release=1)
    bundle = write_failing(tmp_path / "failing.tide", tone_release, version="1.3.0")
    bad = install(directory, bundle, "onnx-fp32", release=2)
    activate(directory, bad, factory=good, previous=good, phase=State.TRIAL)

    words = ["no"] * 8
    with Listener.open(device=directory, on_warning=lambda message: None) as listener:
        results = list(listener.listen(ArraySource(say(spoken(*words), 18.0))))
        assert listener.manifest.version == "1.2.3"
    failed = [result for result in results if result.problem]
    assert {result.version for result in failed} == {"1.3.0"}
    assert [result.text for result in results[len(failed) :]] == ["no"] * (8 - len(failed))
    assert 0 < len(failed) < 8
    assert read_health(Layout(directory).health).of(2).failed == len(failed)


def test_the_command_says_what_failed(
    failing_bundle: Path, say: Say, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def command(words: list[str], *more: str) -> int:
        recording = tmp_path / "spoken.wav"
        write_wav(recording, say(spoken(*words), 2.0 * len(words) + 2))
        return main(["listen", str(failing_bundle), "--wav", str(recording), *more])

    assert command(["yes", "no"]) == 0
    told = capsys.readouterr()
    assert "(failed)" in told.out
    assert "failed on the segment at" in told.err
    assert command(["yes", "no"], "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "problem" not in lines[0]
    assert lines[1]["problem"]
    assert lines[2]["summary"]["segments_failed"] == 1
    assert command(["no", "no"]) == 1


EMPTY = SegmentResult(1, 0.0, 1.0, "", "", 0.0, "edge", 1.0, "tones", "1.0.0", "onnx-fp32")


@given(st.lists(st.sampled_from(["", "a 1", "a 2", "b"]), max_size=40))
def test_a_run_is_broken_by_any_segment_that_went_well_and_each_kind_is_told_once(problems: list[str]) -> None:
    told: list[str] = []
    failures = Failures(told.append)
    in_a_row = 0
    for problem in problems:
        in_a_row = in_a_row + 1 if problem else 0
        failures.note([dataclasses.replace(EMPTY, problem=problem)])
        if in_a_row >= MOST_IN_A_ROW:
            with pytest.raises(ModelError, match=f"failed on {in_a_row} segments"):
                failures.raise_if_nothing_else_comes()
        else:
            failures.raise_if_nothing_else_comes()
    assert len(told) == len({problem[0] for problem in problems if problem})


def test_another_version_begins_a_new_run() -> None:
    failures = Failures(lambda message: None)
    failures.note([dataclasses.replace(EMPTY, problem="a")] * (MOST_IN_A_ROW - 1))
    failures.note([dataclasses.replace(EMPTY, problem="a", version="1.0.1")])
    failures.raise_if_nothing_else_comes()
