"""Requests kept by a real server, read back with pyarrow: sampled, withheld, bounded, and whole after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.served import linear_bundle, slow_bundle
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.core import LOCAL, Request
from tidegate.cloud.request_log import RequestLog
from tidegate.cloud.request_log_record import LoggedRequest, LoggedSegment, Record
from tidegate.cloud.request_log_settings import RequestLogSettings
from tidegate.errors import ConfigError, InputError, ModelError, NotFoundError, ResourceError
from tidegate.speech.pcm import int16_from_float32

Say = Callable[..., NDArray[np.float32]]

RATE_HZ = 16_000
WAIT_S = 60.0
X = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_bundle(tmp_path_factory.mktemp("b"))


def serving(bundles: list[Path], settings: RequestLogSettings, **more: Any) -> Server:
    return Server(bundles, settings=ServerSettings(request_log=settings, **more))


def rows_in(directory: Path) -> list[dict[str, Any]]:
    """Return every row of every file."""
    return [row for path in sorted(directory.rglob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def test_requests_are_kept_with_inputs_outputs_and_what_answered(linear: Path, kept: Path) -> None:
    with serving([linear], RequestLogSettings(kept, share=1)) as server, Client(server.address) as client:
        server.repository.set_label("linear", "stable", "1.0.0")
        client.infer("linear", {"x": X})
        client.infer("linear", {"x": np.concatenate([X, 2 * X])}, version="stable")
    (path,) = kept.rglob("*.parquet")
    assert path.parent == kept / "linear" / "1.0.0"
    one, two, three = rows_in(kept)
    assert [row["x"] for row in (one, two, three)] == [[1, 2, 3, 4], [1, 2, 3, 4], [2, 4, 6, 8]]
    assert [row["output.total"] for row in (one, two, three)] == [[10], [10], [20]]
    assert [row["log.label"] for row in (one, two, three)] == ["", "stable", "stable"]
    assert (two["log.row"], three["log.row"]) == (0, 1)
    assert one["log.model"], one["log.version"] == ("linear", "1.0.0")
    assert (one["log.variant"], one["log.reasons"], one["log.share"]) == ("onnx-as-is", ["random"], 1.0)
    assert one["log.took_ms"] > 0


def test_predict_reads_what_was_kept(linear: Path, kept: Path, tmp_path: Path) -> None:
    with serving([linear], RequestLogSettings(kept, share=1)) as server, Client(server.address) as client:
        for factor in range(5):
            client.infer("linear", {"x": X * factor})
    (path,) = kept.rglob("*.parquet")
    output = tmp_path / "again.parquet"
    command = [sys.executable, "-m", "tidegate.cli", "predict", linear, "--input", path, "--output", output]
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=WAIT_S)
    again = pq.read_table(output).to_pylist()
    assert [row["total"] for row in again] == [row["output.total"] for row in rows_in(kept)]


def test_off_unless_asked_for(linear: Path) -> None:
    with Server([linear]) as server:
        assert server.request_log is None


def test_a_share_is_drawn_at_random(linear: Path, kept: Path) -> None:
    with serving([linear], RequestLogSettings(kept, share=0.2)) as server:
        for _ in range(1000):
            server.core.infer("linear", "", {"x": X})
    # Binomial, n 1000, p .2: below 120 or above 280 once in 10^9 runs.
    assert 120 < len(rows_in(kept)) < 280


def test_nothing_random_but_what_is_uncertain_or_failed(tone_bundle: Path, kept: Path, say: Say) -> None:
    settings = RequestLogSettings(kept, share=0, uncertain_below=0.6, errors=True)
    sure = say([("yes", 0.2)], 1.0)[np.newaxis]
    # Half of two tones each: neither is certain.
    unsure = (say([("yes", 0.2)], 1.0) / 2 + say([("no", 0.2)], 1.0) / 2)[np.newaxis].astype(np.float32)
    with serving([tone_bundle], settings) as server, Client(server.address) as client:
        for audio in (sure, unsure):
            client.infer("tones", {"audio": audio})
        with pytest.raises(InputError):
            server.core.infer("tones", "", {"audio": np.zeros((1, 3), np.float32)})
        with pytest.raises(NotFoundError):
            server.core.infer("../../somewhere", "", {"audio": sure})
    rows = rows_in(kept)
    assert [row["log.reasons"] for row in rows] == [["uncertain"], ["error"]]
    assert rows[0]["log.confidence"] < 0.6
    assert rows[0]["audio"] == unsure[0].tolist()
    assert "audio" not in rows[1]
    assert rows[1]["log.error_kind"] == "InputError"
    assert sorted(path.name for path in kept.iterdir()) == ["tones"]


def test_the_inputs_of_a_model_that_failed_are_kept(kept: Path) -> None:
    with RequestLog(RequestLogSettings(kept, share=0, errors=True)) as log:
        log.finished(LOCAL, Request("m", {"x": X}, "9.9.9"), None, ModelError("broke", fix="look"), 5)
    (row,) = rows_in(kept / "m" / "errors")
    assert (row["x"], row["log.version"], row["log.error"]) == (X.tolist(), "9.9.9", "broke")


def test_one_model_and_not_all_inputs(linear: Path, tone_bundle: Path, kept: Path) -> None:
    settings = RequestLogSettings(kept, share=1, models=frozenset({"linear"}), never=frozenset({"linear/x", "total"}))
    with serving([linear, tone_bundle], settings) as server:
        server.core.infer("linear", "", {"x": X})
        server.core.infer("tones", "", {"audio": np.zeros((1, RATE_HZ), np.float32)})
    (row,) = rows_in(kept)
    assert row["output.y"] == X[0].tolist()
    assert not {"x", "input.x", "output.total"} & row.keys()


# Speech


def speak(server: Server, audio: NDArray[np.float32]) -> NDArray[np.int16]:
    samples = int16_from_float32(audio)
    with Client(server.address) as client, client.recognize(sample_rate_hz=RATE_HZ) as stream:
        stream.begin(1, 0)
        stream.send(0, samples)
        stream.end(1, len(samples))
        stream.wait(1, WAIT_S)
    return samples


def test_speech_is_only_kept_when_asked_for(tone_bundle: Path, kept: Path, say: Say) -> None:
    with serving([tone_bundle], RequestLogSettings(kept, share=1)) as server:
        speak(server, say([("yes", 0.3)], 1.5))
    assert rows_in(kept) == []


def test_segments_of_speech(tone_bundle: Path, kept: Path, say: Say) -> None:
    with serving([tone_bundle], RequestLogSettings(kept, share=1, speech=True)) as server:
        samples = speak(server, say([("yes", 0.3)], 1.5))
    (row,) = rows_in(kept / "tones" / "1.2.3")
    np.testing.assert_array_equal(np.frombuffer(row["audio"], "<i2"), samples)
    assert (row["sample_rate_hz"], row["output.transcript"], row["log.segment_id"]) == (RATE_HZ, "yes", 1)
    assert (row["log.start_s"], row["log.end_s"], row["log.variant"]) == (0.0, 1.5, "onnx-fp32")


# The privacy hook


def only_positive(record: Record) -> Record | None:
    """The privacy hook of the tests: withholds, changes, fails."""
    if isinstance(record, LoggedSegment):
        return replace(record, audio=b"")
    assert isinstance(record, LoggedRequest)
    first = record.inputs["x"][0, 0]
    if first < 0:
        return None
    if first == 0:
        raise ValueError(f"secret {first}")
    if first == 99:
        return 99  # type: ignore[return-value]
    return replace(record, inputs={"x": np.zeros_like(record.inputs["x"])})


HOOK = f"{__name__}:only_positive"


def test_a_hook_changes_withholds_and_may_fail(linear: Path, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving([linear], RequestLogSettings(kept, share=1, hook=HOOK)) as server:
        for value in (1, -1, 0, 99, 2):
            server.core.infer("linear", "", {"x": np.full((1, 4), value, np.float32)})
    (one, two) = rows_in(kept)
    assert (one["x"], two["x"]) == ([0] * 4, [0] * 4)
    assert (one["output.y"], two["output.y"]) == ([1] * 4, [2] * 4)
    assert server.request_log is not None
    counts = server.request_log.counts
    assert (counts.written, counts.withheld, counts.failed) == (2, 1, 2)
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("hook", ["no_such_module:f", f"{__name__}:nobody", f"{__name__}:HOOK"])
def test_a_hook_that_is_not_there_ends_the_start(kept: Path, hook: str) -> None:
    with pytest.raises(ConfigError, match="privacy hook"):
        RequestLog(RequestLogSettings(kept, hook=hook))


# Bounds


class Held:
    """A hook that waits, as a slow disk would."""

    entered = threading.Event()
    release = threading.Event()


def wait_for_release(record: Record) -> Record:
    Held.entered.set()
    Held.release.wait(WAIT_S)
    return record


def test_a_full_queue_drops_and_counts_and_never_blocks(linear: Path, kept: Path) -> None:
    Held.entered.clear()
    Held.release.clear()
    settings = RequestLogSettings(kept, share=1, hook=f"{__name__}:wait_for_release", maximum_queue_records=10)
    with serving([linear], settings) as server:
        server.core.infer("linear", "", {"x": X})
        assert Held.entered.wait(WAIT_S)
        for _ in range(100):
            server.core.infer("linear", "", {"x": X})
        Held.release.set()
    assert server.request_log is not None
    counts = server.request_log.counts
    assert (counts.written, counts.dropped_queue) == (11, 90)
    assert len(rows_in(kept)) == 11


def test_a_request_larger_than_the_queue_is_dropped(linear: Path, kept: Path) -> None:
    with serving([linear], RequestLogSettings(kept, share=1, maximum_queue_bytes=5000)) as server:
        server.core.infer("linear", "", {"x": np.zeros((1000, 4), np.float32)})
        server.core.infer("linear", "", {"x": X})
    assert server.request_log is not None
    assert server.request_log.counts.dropped_queue == 1
    assert len(rows_in(kept)) == 1


def test_files_are_cut_by_size_and_the_disk_is_bounded(
    linear: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    settings = RequestLogSettings(kept, share=1, maximum_file_bytes=20_000, maximum_disk_bytes=120_000)
    with serving([linear], settings) as server:
        for _ in range(60):
            server.core.infer("linear", "", {"x": noise * np.random.default_rng().normal()})
    assert server.request_log is not None
    counts = server.request_log.counts
    assert counts.files > 1
    assert counts.dropped_disk > 0
    assert counts.written + counts.dropped_disk == 60
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) <= 120_000
    assert len(rows_in(kept)) == counts.written * 200
    assert caplog.text.count("records are dropped until this is mended") == 1


def test_files_are_cut_by_age(linear: Path, kept: Path) -> None:
    with serving([linear], RequestLogSettings(kept, share=1, maximum_age_s=0.05)) as server:
        server.core.infer("linear", "", {"x": X})
        assert server.request_log is not None
        request_log = server.request_log
        wait_until(lambda: request_log.counts.files)
        assert len(rows_in(kept)) == 1


def test_a_directory_that_cannot_be_used_ends_the_start(kept: Path) -> None:
    kept.write_text("a file")
    with pytest.raises(ResourceError, match="cannot be used for the request log"):
        RequestLog(RequestLogSettings(kept))


def test_a_disk_that_takes_nothing_any_more_loses_records_and_no_request(linear: Path, kept: Path) -> None:
    with serving([linear], RequestLogSettings(kept, share=1, maximum_age_s=0.05)) as server:
        (kept / "linear").write_text("in the way of the directory")
        server.core.infer("linear", "", {"x": X})
        assert server.request_log is not None
        request_log = server.request_log
        wait_until(lambda: request_log.counts.dropped_disk)
        (kept / "linear").unlink()
        server.core.infer("linear", "", {"x": X})
    assert len(rows_in(kept)) == 1


def test_what_a_dead_process_left_is_removed(kept: Path) -> None:
    kept.mkdir()
    old, new = kept / ".a.parquet.1.part", kept / ".b.parquet.2.part"
    for path in (old, new):
        path.write_bytes(b"torn")
    os.utime(old, (0, 0))
    RequestLog(RequestLogSettings(kept))
    assert (old.exists(), new.exists()) == (False, True)


# The command


@pytest.fixture
def process(linear: Path, kept: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    options = ["--keep-requests", str(kept), "--keep-share", "1", "--keep-age-s", "0.05", "--keep-reason", "error"]
    command = [sys.executable, "-m", "tidegate.cli", "serve", str(linear), "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().split()[-1]
        finally:
            running.kill()


def test_a_killed_server_leaves_no_torn_file(process: tuple[subprocess.Popen[str], str], kept: Path) -> None:
    running, address = process
    with Client(address, timeout_s=WAIT_S) as client:

        def there_are_files() -> bool:
            client.infer("linear", {"x": np.random.default_rng().normal(size=(20, 4)).astype(np.float32)})
            return len(list(kept.rglob("*.parquet"))) >= 3

        wait_until(there_are_files)
        running.send_signal(signal.SIGKILL)
        running.wait(WAIT_S)
    rows = rows_in(kept)
    assert rows
    assert all(row["output.y"] == row["x"] for row in rows)


def test_a_stopped_server_writes_what_it_has(process: tuple[subprocess.Popen[str], str], kept: Path) -> None:
    running, address = process
    with Client(address, timeout_s=WAIT_S) as client:
        for _ in range(7):
            client.infer("linear", {"x": X})
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_S) == 0
    assert len(rows_in(kept)) == 7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--keep-share", "0.5"], "--keep-share needs --keep-requests"),
        (["--keep-requests", "kept", "--keep-share", "2"], "share is 2"),
        (["--keep-requests", "kept", "--keep-reason", "whatever"], "there is no reason 'whatever'"),
        (["--keep-requests", "kept", "--keep-hook", "no_such_module:f"], "privacy hook"),
    ],
)
def test_options_are_checked(linear: Path, tmp_path: Path, options: list[str], text: str) -> None:
    command = [sys.executable, "-m", "tidegate.cli", "serve", str(linear), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=WAIT_S)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_in_a_loop_is_not_waited_for(tmp_path: Path, kept: Path) -> None:
    with serving([slow_bundle(tmp_path)], RequestLogSettings(kept, share=1)) as server:
        server.core.infer("slow", "", {"turns": np.array([3], np.int64)})
    (row,) = rows_in(kept)
    assert (row["turns"], row["output.sum"]) == ([3], [3.0])
