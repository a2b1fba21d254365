"""Listening with real servers: answers, a server that is dead, killed in mid-stream, silent, back again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.client import RecognizeStream
from tidegate.cloud.limits import Safety
from tidegate.cloud.server import Server, ServerSettings
from tidegate.edge import Listener
from tidegate.errors import UnavailableError

RATE_HZ = 16_000
CHUNK = 512
Say = Callable[..., NDArray[np.float32]]

WORDS = ["yes", "no", "up", "down", "yes", "up", "no", "down"]
SPOKEN = [(word, 1.0 + 2.0 * number) for number, word in enumerate(WORDS)]
DURATION_S = 18.0
PATIENT_S = 30.0
"""deadline where an answer is expected however busy the machine is"""


class Recording:
    """A source that tells the test where it stands before it gives each chunk."""

    def __init__(
        self, samples: NDArray[np.float32], before_chunk: Callable[[int], None] = lambda position: None
    ) -> None:
        self.sample_rate_hz = RATE_HZ
        self._samples = samples
        self._before_chunk = before_chunk

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(self._samples), CHUNK):
            self._before_chunk(first)
            yield self._samples[first : first + CHUNK]

    def close(self) -> None:
        pass


class ServerProcess:
    """`tidegate serve` in a process of its own."""

    def __init__(self, bundle: Path, address: str = "127.0.0.1:0") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.cli", "serve", str(bundle), "--listen", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), line
        self.address = line.split()[-1]

    def kill(self) -> None:
        """kill -9, and wait until the kernel has taken it away."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(60)

    def stop(self) -> None:
        """Freeze it: it takes no processor time, its connections stay open."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def server_process(tone_bundle: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tone_bundle)
    yield process
    process.close()


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens: bound, so that nobody else can."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def test_the_server_decides_and_says_the_same_as_the_device(tone_bundle: Path, say: Say) -> None:
    samples = say(SPOKEN, DURATION_S)
    with Listener.open(tone_bundle) as listener:
        on_device = list(listener.listen(Recording(samples)))
    with (
        Server([tone_bundle]) as server,
        Listener.open(tone_bundle, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener,
    ):
        in_cloud = list(listener.listen(Recording(samples)))
        summary = listener.summary
    assert [result.text for result in in_cloud] == WORDS
    assert {result.decided_by for result in in_cloud} == {"cloud"}
    for cloud, edge in zip(in_cloud, on_device, strict=True):
        assert (cloud.start_s, cloud.end_s) == (edge.start_s, edge.end_s)
        assert cloud.words[0].start_s == pytest.approx(edge.words[0].start_s, abs=1e-6)
        assert cloud.search_results == edge.search_results
        assert (cloud.bundle, cloud.version, cloud.variant) == ("tones", "1.2.3", "onnx-fp32")
    assert (summary.segments_cloud, summary.segments_edge) == (8, 0)
    passed_bytes = summary.bytes_total - summary.bytes_held_back
    assert passed_bytes < summary.bytes_sent < passed_bytes * 1.1


def test_a_second_run_opens_a_second_stream(tone_bundle: Path, say: Say) -> None:
    with (
        Server([tone_bundle]) as server,
        Listener.open(tone_bundle, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener,
    ):
        for _ in range(2):
            results = list(listener.listen(Recording(say(SPOKEN, DURATION_S))))
            assert [(result.text, result.decided_by) for result in results] == [(word, "cloud") for word in WORDS]


def test_a_catalogue_of_ones_own_is_searched_whoever_decides(tone_bundle: Path, say: Say, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "mine", "title": "Mine", "keywords": "yes"}\n')
    with (
        Server([tone_bundle]) as server,
        Listener.open(tone_bundle, cloud=server.address, cloud_timeout_s=PATIENT_S, catalogue=path) as listener,
    ):
        (result,) = listener.listen(Recording(say([("yes", 1.0)], 3.0)))
    assert (result.decided_by, [found.id for found in result.search_results]) == ("cloud", ["mine"])


def test_a_server_that_is_not_there(tone_bundle: Path, say: Say, closed_port: str) -> None:
    warnings: list[str] = []
    with Listener.open(tone_bundle, cloud=closed_port, on_warning=warnings.append) as listener:
        results = list(listener.listen(Recording(say(SPOKEN, DURATION_S))))
        assert listener.summary.bytes_sent == 0
    assert [(result.text, result.decided_by) for result in results] == [(word, "edge") for word in WORDS]
    assert len(warnings) == 1
    assert closed_port in warnings[0]
    assert "going on with the model on this device" in warnings[0]


def test_a_warning_is_never_silent(tone_bundle: Path, say: Say, closed_port: str) -> None:
    with Listener.open(tone_bundle, cloud=closed_port) as listener, pytest.warns(RuntimeWarning, match=closed_port):
        assert len(list(listener.listen(Recording(say(SPOKEN, DURATION_S))))) == len(WORDS)


def test_a_model_that_the_server_does_not_have(tone_bundle: Path, say: Say) -> None:
    warnings: list[str] = []
    with (
        Server([tone_bundle]) as server,
        Listener.open(
            tone_bundle,
            cloud=server.address,
            cloud_timeout_s=PATIENT_S,
            cloud_model="absent",
            on_warning=warnings.append,
        ) as listener,
    ):
        results = list(listener.listen(Recording(say(SPOKEN, DURATION_S))))
    assert [(result.text, result.decided_by) for result in results] == [(word, "edge") for word in WORDS]
    assert "absent" in warnings[0]


@pytest.mark.parametrize("word", range(len(WORDS)))
def test_kill_9_inside_any_word_loses_no_segment(
    tone_bundle: Path, say: Say, server_process: ServerProcess, word: int
) -> None:
    middle = int((SPOKEN[word][1] + 0.25) * RATE_HZ)

    def kill_there(position: int) -> None:
        if position <= middle < position + CHUNK:
            server_process.kill()

    warnings: list[str] = []
    with Listener.open(
        tone_bundle, cloud=server_process.address, cloud_timeout_s=PATIENT_S, on_warning=warnings.append
    ) as listener:
        results = list(listener.listen(Recording(say(SPOKEN, DURATION_S), kill_there)))
        summary = listener.summary
    assert [result.text for result in results] == WORDS
    decided = [result.decided_by for result in results]
    assert decided[word:] == ["edge"] * (len(WORDS) - word)
    assert decided == sorted(decided)  # `cloud` first, then `edge` to the end
    assert summary.segments_edge == decided.count("edge")
    assert len(warnings) == 1
    assert server_process.address in warnings[0]


def test_kill_9_after_the_first_answer(tone_bundle: Path, say: Say, server_process: ServerProcess) -> None:
    warnings: list[str] = []
    with Listener.open(
        tone_bundle, cloud=server_process.address, cloud_timeout_s=PATIENT_S, on_warning=warnings.append
    ) as listener:
        results = listener.listen(Recording(say(SPOKEN, DURATION_S)))
        first = next(results)
        server_process.kill()
        rest = list(results)
    assert (first.text, first.decided_by) == ("yes", "cloud")
    assert [result.text for result in rest] == WORDS[1:]
    assert rest[-1].decided_by == "edge"
    assert len(warnings) == 1


@pytest.mark.parametrize("word", [0, 3, 7])
def test_a_server_that_hangs_inside_a_word_is_left_at_the_deadline(
    tone_bundle: Path, say: Say, server_process: ServerProcess, word: int
) -> None:
    """The connection stays open, but nobody reads from it any more."""
    middle = int((SPOKEN[word][1] + 0.25) * RATE_HZ)

    def stop_there(position: int) -> None:
        if position <= middle < position + CHUNK:
            server_process.stop()

    warnings: list[str] = []
    with Listener.open(
        tone_bundle, cloud=server_process.address, cloud_timeout_s=0.5, on_warning=warnings.append
    ) as listener:
        results = list(listener.listen(Recording(say(SPOKEN, DURATION_S), stop_there)))
    assert [result.text for result in results] == WORDS
    assert [result.decided_by for result in results[word:]] == ["edge"] * (len(WORDS) - word)
    assert "going on with the model on this device" in warnings[0]


def test_a_server_that_comes_back_is_used_again(tone_bundle: Path, say: Say, tmp_path: Path) -> None:
    """After the kill the source goes on until the new process has answered.

    At a path: a port that was let go may be anybody's by the time it is wanted again.
    """
    one_word = say([("yes", 1.0)], 2.5)
    killed = ServerProcess(tone_bundle, f"unix:{tmp_path / 'socket'}")
    recovered = threading.Event()

    class Endless(Recording):
        def chunks(self) -> Iterator[NDArray[np.float32]]:
            yield one_word[: RATE_HZ + 4000]
            killed.kill()
            at_the_end.callback(ServerProcess(tone_bundle, killed.address).close)
            yield one_word[RATE_HZ + 4000 :]
            while not recovered.is_set():
                for first in range(0, len(one_word), CHUNK):
                    yield one_word[first : first + CHUNK]

    warnings: list[str] = []
    decided: list[str] = []
    with (
        ExitStack() as at_the_end,
        Listener.open(
            tone_bundle, cloud=killed.address, cloud_timeout_s=PATIENT_S, on_warning=warnings.append
        ) as listener,
    ):
        at_the_end.callback(killed.close)
        for result in listener.listen(Endless(one_word)):
            assert result.text == "yes"
            decided.append(result.decided_by)
            if decided.count("cloud") > 1:
                recovered.set()
    assert decided[0] == "edge"
    assert len(warnings) == 2
    assert warnings[1].endswith("the server answers again; segments go there again")


class RecordingServicer:
    """Accepts streams, notes the audio, and never answers."""

    def __init__(self) -> None:
        import grpc

        from tidegate.v1 import speech_pb2
        from tidegate.wire.services import ACCEPTED_HEADER

        self.received_bytes = 0
        self.ends = 0
        self.changed = threading.Condition()

        def recognize(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            context.send_initial_metadata([(ACCEPTED_HEADER, "recorder 1.0.0")])
            for request in requests:
                with self.changed:
                    self.received_bytes += len(request.audio.content)
                    self.ends += request.voice_activity.event == speech_pb2.VoiceActivity.SEGMENT_END
                    self.changed.notify_all()
            yield from ()

        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "tidegate.v1.Speech",
                    {
                        "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                            recognize,
                            request_deserializer=speech_pb2.StreamingRecognizeRequest.FromString,
                            response_serializer=speech_pb2.StreamingRecognizeResponse.SerializeToString,
                        )
                    },
                )
            ]
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def recorder() -> Iterator[RecordingServicer]:
    servicer = RecordingServicer()
    yield servicer
    servicer.close()


def test_bytes_leave_before_the_segment_ends(tone_bundle: Path, say: Say, recorder: RecordingServicer) -> None:
    """In the middle of the word the source waits until the server has the audio from before the word's onset."""
    middle = int(1.4 * RATE_HZ)
    heard_early: list[bool] = []

    def wait_there(position: int) -> None:
        if position <= middle < position + CHUNK:
            with recorder.changed:
                # At least 0.3 s of pre-roll and 0.2 s of the word have passed the gate by now.
                early = recorder.changed.wait_for(lambda: recorder.received_bytes >= 0.5 * RATE_HZ * 2, timeout=60)
                heard_early.append(early and recorder.ends == 0)

    with Listener.open(
        tone_bundle, cloud=recorder.address, cloud_timeout_s=5, on_warning=lambda message: None
    ) as listener:
        results = list(listener.listen(Recording(say([("yes", 1.0)], 3.0), wait_there)))
    assert heard_early == [True]
    assert [(result.text, result.decided_by) for result in results] == [("yes", "edge")]


def test_a_server_that_never_answers(tone_bundle: Path, say: Say, recorder: RecordingServicer) -> None:
    warnings: list[str] = []
    with Listener.open(
        tone_bundle, cloud=recorder.address, cloud_timeout_s=0.2, on_warning=warnings.append
    ) as listener:
        results = list(listener.listen(Recording(say(SPOKEN, DURATION_S))))
    assert [(result.text, result.decided_by) for result in results] == [(word, "edge") for word in WORDS]
    assert "no answer" in warnings[0]


def test_without_a_runtime_the_server_decides_and_its_death_is_an_error(
    tone_bundle: Path, say: Say, server_process: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with Listener.open(tone_bundle, cloud=server_process.address, cloud_timeout_s=PATIENT_S) as listener:
        assert listener.variant_id == ""
        results = listener.listen(Recording(say(SPOKEN, DURATION_S)))
        assert next(results).decided_by == "cloud"
        server_process.kill()
        with pytest.raises(UnavailableError, match=r"this device cannot go on alone: .*onnx"):
            list(results)


def test_a_server_that_ends_idle_streams_loses_nothing_and_says_nothing_twice(tone_bundle: Path, say: Say) -> None:
    """As after half an hour of silence, with a limit of a second and a half, twice."""
    opened: list[RecognizeStream] = []
    warned: list[str] = []
    pauses = [round((start_s - 0.6) * RATE_HZ) // CHUNK * CHUNK for _, start_s in (SPOKEN[2], SPOKEN[4])]
    another = threading.Condition()

    def await_end_of_the_stream(position: int) -> None:
        if position in pauses:
            with another:
                assert another.wait_for(lambda: len(opened) > pauses.index(position), PATIENT_S)
            stream = opened[-1]._stream
            with stream.changed:
                assert stream.changed.wait_for(lambda: not stream.is_open, PATIENT_S), "the server did not end it"

    with (
        Server([tone_bundle], settings=ServerSettings(safety=Safety(idle_stream_s=1.5))) as server,
        Listener.open(
            tone_bundle, cloud=server.address, cloud_timeout_s=PATIENT_S, on_warning=warned.append
        ) as listener,
    ):
        client = listener._parts.client
        assert client is not None
        recognize = client.recognize

        def noted(**settings: Any) -> RecognizeStream:
            stream = recognize(**settings)
            with another:
                opened.append(stream)
                another.notify_all()
            return stream

        with patch.object(client, "recognize", noted):
            results = list(listener.listen(Recording(say(SPOKEN, DURATION_S), await_end_of_the_stream)))
    assert [result.text for result in results] == WORDS
    assert [result.segment_id for result in results] == list(range(1, len(WORDS) + 1))
    # While another stream is opened, the device may decide.
    assert [result.decided_by for result in results[:2]] == ["cloud", "cloud"]
    assert len(opened) >= 2
    assert warned == []
