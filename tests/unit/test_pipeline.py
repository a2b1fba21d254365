"""The listener on the device: steps, order, account, failures of the source. The model is a real ONNX graph."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import write_bundle
from tidegate.bundle.manifest import Manifest
from tidegate.edge import Listener, PacedSource
from tidegate.errors import (
    BundleError,
    ConfigError,
    InputError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
)

RATE_HZ = 16_000
Say = Callable[..., NDArray[np.float32]]


class ArraySource:
    """Samples in memory, in chunks of one size; may fail at a sample."""

    def __init__(self, samples: NDArray[np.float32], *, chunk: int = 512, error: TidegateError | None = None) -> None:
        self.sample_rate_hz = RATE_HZ
        self.closed = False
        self._samples = samples
        self._chunk = chunk
        self._error = error

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(self._samples), self._chunk):
            yield self._samples[first : first + self._chunk]
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def listener(tone_bundle: Path) -> Iterator[Listener]:
    with Listener.open(tone_bundle) as opened:
        yield opened


SPOKEN = [("yes", 1.0), ("no", 3.5), ("unknown", 6.0), ("up", 8.5)]


def test_segments_come_in_order_with_their_times(listener: Listener, say: Say) -> None:
    results = list(listener.listen(ArraySource(say(SPOKEN, 11.0))))
    assert [result.text or result.label for result in results] == ["yes", "no", "unknown", "up"]
    assert [result.segment_id for result in results] == [1, 2, 3, 4]
    for result, (_, start_s) in zip(results, SPOKEN, strict=True):
        assert result.start_s < start_s
        assert start_s + 0.5 < result.end_s < start_s + 2.5
        assert all(abs(word.start_s - start_s) < 0.2 for word in result.words)
        assert (result.bundle, result.version, result.variant) == ("tones", "1.2.3", "onnx-fp32")
        assert result.decided_by == "edge"
        assert 0 <= result.latency_ms < 60_000
    assert [found.title for found in results[0].search_results] == ["Say yes"]
    assert results[2].search_results == ()


def test_results_come_while_the_source_goes_on(listener: Listener, say: Say) -> None:
    source = ArraySource(say(SPOKEN, 11.0))
    results = listener.listen(source)
    assert next(results).text == "yes"
    assert not source.closed
    assert [result.text for result in results] == ["no", "", "up"]
    assert source.closed


@pytest.mark.parametrize("chunk", [1, 160, 4096, 1_000_000])
def test_the_length_of_chunks_changes_nothing(listener: Listener, say: Say, chunk: int) -> None:
    samples = say([("yes", 0.6)], 2.0)
    expected = [(r.start_s, r.end_s, r.text, r.words) for r in listener.listen(ArraySource(samples))]
    found = [(r.start_s, r.end_s, r.text, r.words) for r in listener.listen(ArraySource(samples, chunk=chunk))]
    assert found == expected


def test_a_word_cut_by_the_end_of_the_stream_is_still_a_segment(listener: Listener, say: Say) -> None:
    (result,) = listener.listen(ArraySource(say([("down", 1.0)], 1.5)))
    assert (result.text, result.end_s) == ("down", 1.5)


def test_the_summary_adds_up(listener: Listener, say: Say) -> None:
    results = list(listener.listen(ArraySource(say(SPOKEN, 11.0))))
    summary = listener.summary
    assert summary.duration_s == 11.0
    assert (summary.segments, summary.segments_edge, summary.segments_cloud, summary.segments_rejected) == (4, 4, 0, 1)
    assert summary.bytes_total == 11 * RATE_HZ * 2
    passed_s = sum(result.end_s - result.start_s for result in results)
    assert summary.bytes_total - summary.bytes_held_back == pytest.approx(passed_s * RATE_HZ * 2)
    assert summary.held_back_share == pytest.approx(summary.bytes_held_back / summary.bytes_total)
    assert 0 < summary.frames_held_back < summary.frames_total
    assert summary.bytes_sent == 0
    assert summary.real_time_factor == pytest.approx(summary.wall_s / 11.0)
    assert set(summary.cpu_s) == {
        "source",
        "resample",
        "detector",
        "endpointer",
        "model",
        "search",
        "other_threads",
    }
    assert summary.cpu_s["detector"] > 0
    assert summary.cpu_s["model"] > 0
    for part in ("4 decided on the device", "1 without a word", f"{summary.bytes_held_back} of"):
        assert part in summary.describe()
    assert str(summary) == summary.describe()


def test_silence_gives_no_segment(listener: Listener, say: Say) -> None:
    assert list(listener.listen(ArraySource(say([], 5.0)))) == []
    assert listener.summary.held_back_share == 1.0


def test_a_source_without_a_chunk(listener: Listener) -> None:
    assert list(listener.listen(ArraySource(np.zeros(0, np.float32)))) == []
    assert (listener.summary.duration_s, listener.summary.real_time_factor) == (0.0, 0.0)


def test_what_was_heard_before_the_source_failed_is_not_lost(listener: Listener, say: Say) -> None:
    source = ArraySource(say([("yes", 0.6), ("no", 3.0)], 3.5), error=ResourceError("the device went away"))
    results = listener.listen(source)
    assert next(results).text == "yes"
    assert next(results).text == "no"
    with pytest.raises(ResourceError, match="went away"):
        next(results)
    assert source.closed
    assert listener.summary.segments == 2


def test_samples_that_are_no_numbers(listener: Listener) -> None:
    source = ArraySource(np.array([0.0, np.nan], np.float32))
    with pytest.raises(InputError, match="nan"):
        list(listener.listen(source))
    assert source.closed
    assert list(listener.listen(ArraySource(np.zeros(100, np.float32)))) == []


def test_leaving_early_closes_the_source_and_keeps_a_summary(listener: Listener, say: Say) -> None:
    source = ArraySource(say(SPOKEN, 11.0))
    results = listener.listen(source)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert source.closed
    assert listener.summary.segments == 1
    assert listener.summary.duration_s < 11.0


def test_one_source_at_a_time(listener: Listener, say: Say) -> None:
    first = listener.listen(ArraySource(say(SPOKEN, 11.0)))
    next(first)
    with pytest.raises(StateError, match="already"):
        next(listener.listen(ArraySource(say(SPOKEN, 11.0))))
    assert len(list(first)) == 3


def test_no_summary_before_listening_and_no_listening_after_close(tone_bundle: Path) -> None:
    listener = Listener.open(tone_bundle)
    with pytest.raises(StateError, match="no summary"):
        _ = listener.summary
    listener.close()
    listener.close()
    with pytest.raises(StateError, match="closed"):
        next(listener.listen(ArraySource(np.zeros(100, np.float32))))


def test_a_catalogue_of_ones_own(tone_bundle: Path, say: Say, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "mine", "title": "Mine", "keywords": ["yes"]}\n')
    with Listener.open(tone_bundle, catalogue=path) as listener:
        (result,) = listener.listen(ArraySource(say([("yes", 0.6)], 2.0)))
    assert [found.id for found in result.search_results] == ["mine"]


def test_no_results_wanted(tone_bundle: Path, say: Say) -> None:
    with Listener.open(tone_bundle, maximum_results=0) as listener:
        (result,) = listener.listen(ArraySource(say([("yes", 0.6)], 2.0)))
    assert (result.text, result.search_results) == ("yes", ())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"maximum_results": -1}, ConfigError, "maximum_results is -1"),
        ({"cloud_timeout_s": 0}, ConfigError, "cloud_timeout_s is 0"),
        ({"cloud": "nowhere"}, ConfigError, "HOST:PORT"),
        ({"variant": "tflite-int8"}, NotFoundError, "onnx-fp32"),
        ({"catalogue": "missing.jsonl"}, NotFoundError, "missing.jsonl"),
        ({"catalogue": "."}, InputError, "directory"),
    ],
)
def test_settings_that_cannot_be_meant(
    tone_bundle: Path, arguments: dict[str, Any], error: type[TidegateError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Listener.open(tone_bundle, **arguments)


def test_a_bundle_without_a_prefilter(tmp_path: Path, tone_release: tuple[Manifest, dict[str, bytes]]) -> None:
    manifest, files = tone_release
    path = tmp_path / "deaf.tide"
    write_bundle(msgspec.structs.replace(manifest, prefilter=None), files, path)
    with pytest.raises(BundleError, match="no prefilter settings"):
        Listener.open(path)


def test_a_paced_source_waits_until_the_audio_would_have_been_recorded() -> None:
    now_s, waits = [50.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now_s[0] += seconds

    source = PacedSource(ArraySource(np.zeros(RATE_HZ, np.float32), chunk=4096), clock=lambda: now_s[0], sleep=sleep)
    pieces = []
    for piece in source.chunks():
        pieces.append(len(piece))
        assert now_s[0] == pytest.approx(50.0 + sum(pieces) / RATE_HZ)
        if len(pieces) == 3:
            now_s[0] += 0.01  # a reader that takes its time is not made to wait for longer
    assert max(pieces) <= RATE_HZ * 32 // 1000
    assert sum(waits) == pytest.approx(1.0 - 0.01)


def test_importing_the_edge_loads_nothing_heavy() -> None:
    heavy = ["tensorflow", "onnxruntime", "ai_edge_litert", "grpc", "soxr", "webrtcvad", "sounddevice"]
    code = f"import sys, tidegate.edge; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )
    assert found.stdout.strip() == "[]"
