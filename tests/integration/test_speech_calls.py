"""Interim results, time-outs, recordings alone and in batches: as a foreign client calls them, on a real server."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.core import Caller
from tidegate.cloud.speech_segment import agreement
from tidegate.cloud.speech_settings import SpeechSettings
from tidegate.errors import AccessError, ConfigError
from tidegate.speech import Transcript, Word
from tidegate.speech.pcm import int16_from_float32
from tidegate.v1 import speech_pb2 as pb
from tidegate.wire.services import SPEECH

Say = Callable[..., NDArray[np.float32]]

RATE_HZ = 16_000
WAIT_S = 60.0
MAXIMUM_SEGMENT_S = 8.0

Invalid = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def server(tone_bundle: Path) -> Iterator[Server]:
    with Server([tone_bundle], settings=ServerSettings(maximum_segment_s=MAXIMUM_SEGMENT_S)) as running:
        yield running


@pytest.fixture
def call(server: Server) -> Iterator[Callable[[str], Any]]:
    with calls(server) as opened:
        yield opened


class calls:  # noqa: N801
    """The three methods as grpc has them."""

    def __init__(self, server: Server) -> None:
        self._channel = grpc.insecure_channel(server.address)

    def __enter__(self) -> Callable[[str], Any]:
        return self._method

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def _method(self, name: str) -> Any:
        method = SPEECH.method(name)
        make = self._channel.stream_stream if method.streaming else self._channel.unary_unary
        return make(
            SPEECH.path(method),
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )


class Outbox:
    """Requests of an open stream: what is put goes out, `close` half-closes."""

    def __init__(self, *messages: Any) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for message in messages:
            self.put(message)

    def put(self, message: Any) -> None:
        self._queue.put(message)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def config(**fields: Any) -> pb.StreamingConfig:
    return pb.StreamingConfig(**({"encoding": pb.LINEAR16, "sample_rate_hz": RATE_HZ} | fields))


def opening(**fields: Any) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(config=config(**fields))


def activity(event: Any, segment_id: int, sample: int) -> pb.StreamingRecognizeRequest:
    what = pb.VoiceActivity(event=event, segment_id=segment_id, sample_offset=sample)
    return pb.StreamingRecognizeRequest(voice_activity=what)


def spoken(samples: NDArray[np.float32], segment_id: int = 1, start: int = 0, chunk: int = 1600) -> list[Any]:
    raw = int16_from_float32(samples)
    return [
        activity(pb.VoiceActivity.SEGMENT_START, segment_id, start),
        *[
            pb.StreamingRecognizeRequest(
                audio=pb.AudioChunk(sample_offset=start + first, content=raw[first : first + chunk].tobytes())
            )
            for first in range(0, len(raw), chunk)
        ],
        activity(pb.VoiceActivity.SEGMENT_END, segment_id, start + len(raw)),
    ]


# Interim results


def test_interim_results_come_before_the_segment_ends(call: Callable[[str], Any], say: Say) -> None:
    *before_end, end = spoken(say([("yes", 0.3)], 2.5), start=RATE_HZ)
    outbox = Outbox(opening(interim_results=True), *before_end)
    answers = call("StreamingRecognize")(iter(outbox), timeout=WAIT_S)
    first = next(answers)
    assert not first.is_final
    assert (first.transcript, first.stability, list(first.search_results)) == ("yes", 0.0, [])
    assert 1.0 <= first.words[0].start_s < first.words[0].end_s <= first.end_s < 3.5
    assert 0 < first.received_bytes < 2 * 2.5 * RATE_HZ
    outbox.put(end)
    outbox.close()
    *interim, last = answers
    assert [answer.stability for answer in interim] == [1.0]
    assert (last.is_final, last.transcript, last.stability) == (True, "yes", 1.0)


def test_words_are_added_as_they_are_understood(call: Callable[[str], Any], say: Say) -> None:
    samples = say([("yes", 0.3), ("down", 1.8), ("no", 3.2)], 4.5)
    requests = [opening(interim_results=True, interim_interval_ms=100, maximum_search_results=5), *spoken(samples)]
    *interim, last = call("StreamingRecognize")(iter(requests), timeout=WAIT_S)
    assert not any(answer.is_final for answer in interim)
    assert list(dict.fromkeys(answer.transcript for answer in interim)) == ["yes", "yes down", "yes down no"]
    assert len(interim) <= 45
    assert all(0 <= answer.stability <= 1 for answer in interim)
    assert last.transcript == "yes down no"
    assert len(last.search_results) == 3


def test_interim_results_keep_their_distance(call: Callable[[str], Any], say: Say) -> None:
    samples = say([("yes", 0.3), ("down", 1.8), ("no", 3.2)], 5.0)
    requests = [opening(interim_results=True, interim_interval_ms=1000), *spoken(samples)]
    *interim, _ = call("StreamingRecognize")(iter(requests), timeout=WAIT_S)
    ends_s = [answer.end_s for answer in interim]
    assert ends_s
    assert all(later - earlier >= 1.0 - 1e-6 for earlier, later in itertools.pairwise(ends_s))


def test_nothing_interim_unless_asked_for(call: Callable[[str], Any], say: Say) -> None:
    requests = [opening(), *spoken(say([("yes", 0.3)], 2.0))]
    assert [answer.is_final for answer in call("StreamingRecognize")(iter(requests), timeout=WAIT_S)] == [True]


def test_the_final_answer_is_the_same_with_and_without_interim_results(call: Callable[[str], Any], say: Say) -> None:
    samples = say([("up", 0.4), ("no", 1.6)], 3.1)
    finals = []
    for interim in (False, True):
        *_, last = call("StreamingRecognize")(iter([opening(interim_results=interim), *spoken(samples)]))
        last.compute_ms = 0
        finals.append(last)
    assert finals[0] == finals[1]


def words(*texts: str) -> Transcript:
    return Transcript(" ".join(texts), 1.0, tuple(Word(text, 0.0, 1.0, 1.0) for text in texts))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, words("a"), 0.0),
        (words("a"), words("a"), 1.0),
        (words("a"), words("a", "b"), 0.5),
        (words("x", "b"), words("a", "b"), 0.0),
        (words("a", "b"), words("a"), 1.0),
        (words("a"), words(), 0.0),
    ],
)
def test_stability(before: Transcript | None, now: Transcript, expected: float) -> None:
    assert agreement(before, now) == expected


# Time-outs


@pytest.mark.parametrize(
    ("limits", "fields", "sent", "code", "text"),
    [
        (SpeechSettings(), {"speech_start_timeout_ms": 50}, 1, "DEADLINE_EXCEEDED", "nobody spoke for 0.05 s"),
        (SpeechSettings(), {"idle_timeout_ms": 50}, 1, "DEADLINE_EXCEEDED", "no message came for 0.05 s"),
        (SpeechSettings(idle_s=0.05), {}, 1, "DEADLINE_EXCEEDED", "no message came for 0.05 s"),
        (SpeechSettings(idle_s=0.05), {}, 0, "DEADLINE_EXCEEDED", "no message came for 0.05 s"),
        (SpeechSettings(maximum_stream_s=0.05), {}, 1, "UNAVAILABLE", "the stream is 0.05 s old"),
        (SpeechSettings(segment_pause_s=0.05), {}, 3, "DEADLINE_EXCEEDED", "for 0.05 s inside a segment"),
    ],
)
def test_a_stream_that_waits_too_long_is_told_why(
    tone_bundle: Path, say: Say, limits: SpeechSettings, fields: dict[str, int], sent: int, code: str, text: str
) -> None:
    messages = [opening(**fields), *spoken(say([], 1.0))][:sent]
    with Server([tone_bundle], settings=ServerSettings(speech=limits)) as server, calls(server) as call:
        with pytest.raises(grpc.RpcError) as caught:
            list(call("StreamingRecognize")(iter(Outbox(*messages)), timeout=WAIT_S))
        assert caught.value.code() is grpc.StatusCode[code]
        assert text in caught.value.details()
        assert "What to do: " in caught.value.details()
        # The thread of the stream is free again: a drain has nothing to wait for.
        assert server.stop(grace_s=WAIT_S)


def test_the_wait_for_speech_ends_with_the_first_segment(call: Callable[[str], Any], say: Say) -> None:
    # Long enough for the first segment to begin in time on a busy machine too.
    outbox = Outbox(opening(speech_start_timeout_ms=2000), *spoken(say([("yes", 0.3)], 1.5)))
    answers = call("StreamingRecognize")(iter(outbox), timeout=WAIT_S)
    assert next(answers).transcript == "yes"
    assert not threading.Event().wait(2.2)
    for message in spoken(say([("no", 0.3)], 1.5), 2, 10 * RATE_HZ):
        outbox.put(message)
    outbox.close()
    assert next(answers).transcript == "no"


def test_an_old_stream_finishes_its_segment(tone_bundle: Path, say: Say) -> None:
    # Long enough for the segment to begin in time on a busy machine too.
    limits = SpeechSettings(maximum_stream_s=2.0)
    *before_end, end = spoken(say([("yes", 0.3)], 1.5))
    with Server([tone_bundle], settings=ServerSettings(speech=limits)) as server, calls(server) as call:
        outbox = Outbox(opening(), *before_end)
        answers = call("StreamingRecognize")(iter(outbox), timeout=WAIT_S)
        answers.initial_metadata()
        assert not threading.Event().wait(2.2)
        outbox.put(end)
        assert next(answers).transcript == "yes"
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_many_streams_run_out_of_time_at_once(tone_bundle: Path) -> None:
    with Server([tone_bundle]) as server, calls(server) as call:
        streams = [
            call("StreamingRecognize")(iter(Outbox(opening(idle_timeout_ms=300 + number))), timeout=WAIT_S)
            for number in range(40)
        ]
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("name", ["interim_interval_ms", "speech_start_timeout_ms", "idle_timeout_ms"])
def test_times_are_checked(call: Callable[[str], Any], name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(call("StreamingRecognize")(iter([opening(**{name: -1})]), timeout=WAIT_S))
    assert caught.value.code() is Invalid
    assert f"{name} is -1" in caught.value.details()


@pytest.mark.parametrize(
    "fields", [{"idle_s": -1}, {"segment_pause_s": float("nan")}, {"turns": 0}, {"interim_interval_ms": 0}]
)
def test_limits_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        SpeechSettings(**fields)


# Recognize


def test_a_recording_without_decisions_is_one_segment(call: Callable[[str], Any], say: Say) -> None:
    content = int16_from_float32(say([("yes", 0.5), ("down", 2.0)], 3.0)).tobytes()
    request = pb.RecognizeRequest(config=config(maximum_search_results=3), content=content)
    answer, inner = call("Recognize").with_call(request, timeout=WAIT_S)
    (result,) = answer.results
    assert (result.segment_id, result.is_final, result.transcript) == (0, True, "yes down")
    assert (result.start_s, result.end_s, result.received_bytes) == (0.0, 3.0, len(content))
    assert {found.id for found in result.search_results} == {"yes", "down"}
    assert dict(inner.initial_metadata())["tidegate-accepted"] == "tones 1.2.3"


def test_a_recording_is_cut_where_the_caller_says(call: Callable[[str], Any], say: Say) -> None:
    content = int16_from_float32(say([("yes", 0.5), ("down", 2.5)], 4.0)).tobytes()
    segments = [
        pb.Segment(segment_id=3, start_sample=0, end_sample=24_000),
        pb.Segment(segment_id=7, start_sample=32_000, end_sample=64_000),
    ]
    answer = call("Recognize")(pb.RecognizeRequest(config=config(), content=content, segments=segments))
    assert [(found.segment_id, found.transcript, found.start_s) for found in answer.results] == [
        (3, "yes", 0.0),
        (7, "down", 2.0),
    ]
    assert answer.results[1].words[0].start_s > 2.0


TONE = b"\0" * 3200

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no audio": ({"content": b""}, "content has 0 bytes"),
    "half a sample": ({"content": b"\0" * 3}, "content has 3 bytes"),
    "no config": ({"config": None}, "encoding is 0"),
    "interim results": ({"config": config(interim_results=True)}, "a recording has no interim_results"),
    "a time-out": ({"config": config(idle_timeout_ms=1)}, "a recording has no idle_timeout_ms"),
    "segment outside": ({"segments": [pb.Segment(start_sample=0, end_sample=1601)]}, "of a recording of 1600"),
    "empty segment": ({"segments": [pb.Segment(start_sample=5, end_sample=5)]}, "samples 5 to 5"),
    "ids do not rise": ({"segments": [pb.Segment(end_sample=10), pb.Segment(end_sample=20)]}, "ids rise"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recording_is_refused(call: Callable[[str], Any], case: str) -> None:
    fields, text = WRONG[case]
    whole: dict[str, Any] = {"config": config(), "content": TONE} | fields
    request = pb.RecognizeRequest(**whole)
    with pytest.raises(grpc.RpcError) as caught:
        call("Recognize")(request, timeout=WAIT_S)
    assert caught.value.code() is Invalid
    assert text in caught.value.details()


def test_a_recording_that_is_too_long(call: Callable[[str], Any]) -> None:
    content = b"\0" * (2 * int((MAXIMUM_SEGMENT_S + 1) * RATE_HZ))
    with pytest.raises(grpc.RpcError) as caught:
        call("Recognize")(pb.RecognizeRequest(config=config(), content=content), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message(call: Callable[[str], Any]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call("Recognize")(b"\xff", timeout=WAIT_S)
    assert caught.value.code() is Invalid


# BatchRecognize


def utterance(name: str, samples: NDArray[np.float32] | None = None, **fields: Any) -> pb.BatchRecognizeRequest:
    content = b"" if samples is None else int16_from_float32(samples).tobytes()
    return pb.BatchRecognizeRequest(utterance=pb.Utterance(**({"id": name, "content": content} | fields)))


def test_a_batch_answers_each_utterance_and_survives_wrong_ones(call: Callable[[str], Any], say: Say) -> None:
    requests = [
        pb.BatchRecognizeRequest(config=config()),
        utterance("a", say([("yes", 0.5)], 1.5)),
        utterance("empty"),
        utterance("long", np.zeros(int((MAXIMUM_SEGMENT_S + 1) * RATE_HZ), np.float32)),
        utterance("b", say([("no", 0.5)], 1.5)),
    ]
    answers = list(call("BatchRecognize")(iter(requests), timeout=WAIT_S))
    assert [answer.id for answer in answers] == ["a", "empty", "long", "b"]
    assert [[result.transcript for result in answer.results] for answer in answers] == [["yes"], [], [], ["no"]]
    assert [answer.error.code for answer in answers] == [0, 3, 8, 0]
    assert "content has 0 bytes" in answers[1].error.message


def test_a_batch_takes_one_utterance_after_the_other(call: Callable[[str], Any], say: Say) -> None:
    """The sender waits for the answer to each before it sends the next: nothing is held back on the server."""
    outbox = Outbox(pb.BatchRecognizeRequest(config=config()))
    answers = call("BatchRecognize")(iter(outbox), timeout=WAIT_S)
    for word in ("yes", "no", "up"):
        outbox.put(utterance(word, say([(word, 0.5)], 1.5)))
        answer = next(answers)
        assert (answer.id, answer.results[0].transcript) == (word, word)
    outbox.close()
    assert list(answers) == []


@pytest.mark.parametrize(
    ("requests", "text"),
    [
        ([utterance("a")], "holds utterance; expected config"),
        ([pb.BatchRecognizeRequest()], "holds nothing; expected config"),
        ([pb.BatchRecognizeRequest(config=config())] * 2, "holds config; expected utterance"),
        ([pb.BatchRecognizeRequest(config=config(interim_results=True))], "has no interim_results"),
    ],
)
def test_a_wrong_batch_ends(call: Callable[[str], Any], requests: list[Any], text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(call("BatchRecognize")(iter(requests), timeout=WAIT_S))
    assert caught.value.code() is Invalid
    assert text in caught.value.details()


def test_a_draining_server_begins_no_utterance(tone_bundle: Path, say: Say) -> None:
    server = Server([tone_bundle])
    server.start()
    outbox = Outbox(pb.BatchRecognizeRequest(config=config()), utterance("a", say([("yes", 0.5)], 1.5)))
    with calls(server) as call:
        answers = call("BatchRecognize")(iter(outbox), timeout=WAIT_S)
        assert next(answers).id == "a"
        assert server.stop(grace_s=WAIT_S)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# Through the scheduler


def test_windows_of_streams_count_as_requests_of_the_model(tone_bundle: Path, say: Say) -> None:
    with Server([tone_bundle]) as server, calls(server) as call:
        requests = [opening(), *spoken(say([("yes", 0.5)], 1.5))]
        assert [answer.transcript for answer in call("StreamingRecognize")(iter(requests))] == ["yes"]
        counts = server.repository.find("tones").statistics.read()
        # One window each 100 ms of 1.5 s, and one at the end.
        assert (counts.success.count, counts.inferences) == (16, 16)


def test_a_version_that_is_unloaded_in_a_segment_finishes_it(tone_bundle: Path, say: Say) -> None:
    first, *rest = spoken(say([("yes", 0.3)], 2.0))
    with Server([tone_bundle]) as server, calls(server) as call:
        outbox = Outbox(opening(), first, *rest[:4])
        answers = call("StreamingRecognize")(iter(outbox), timeout=WAIT_S)
        answers.initial_metadata()
        wait_until(lambda: server.repository.find("tones").usage.users)
        unloading = threading.Thread(target=server.repository.unload, args=("tones",))
        unloading.start()
        for message in rest[4:]:
            outbox.put(message)
        assert next(answers).transcript == "yes"
        unloading.join(WAIT_S)
        assert not unloading.is_alive()
        # The stream keeps the version it began with, although nobody else reaches it any more.
        for message in spoken(say([("no", 0.3)], 1.5), 2, 10 * RATE_HZ):
            outbox.put(message)
        outbox.close()
        assert next(answers).transcript == "no"


class NotTones:
    """Refuses one model."""

    def admit(self, caller: Caller, model: str) -> None:
        if model == "tones":
            raise AccessError("not you", fix="ask for leave")


def everything(method: Any, request: Any) -> list[Any]:
    """Return all answers of a call of either kind."""
    answer = method(request, timeout=WAIT_S)
    return list(answer) if isinstance(method, grpc.StreamStreamMultiCallable) else [answer]


def test_admissions_are_asked_by_every_call(tone_bundle: Path) -> None:
    single = pb.RecognizeRequest(config=config(), content=TONE)
    requests: dict[str, Any] = {
        "StreamingRecognize": iter([opening()]),
        "Recognize": single,
        "BatchRecognize": iter([pb.BatchRecognizeRequest(config=config())]),
    }
    with Server([tone_bundle], admissions=[NotTones()]) as server, calls(server) as call:
        for name, request in requests.items():
            with pytest.raises(grpc.RpcError) as caught:
                everything(call(name), request)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_five_hundred_open_streams_and_calls_between_them(tone_bundle: Path, say: Say) -> None:
    word = spoken(say([("yes", 0.3)], 1.2))
    with Server([tone_bundle]) as server, calls(server) as call, Client(server.address, timeout_s=WAIT_S) as client:
        outboxes = [Outbox(opening()) for _ in range(500)]
        streams = [call("StreamingRecognize")(iter(outbox), timeout=300) for outbox in outboxes]
        for stream in streams:
            stream.initial_metadata()
        assert server.open_streams == 500
        window = np.zeros((1, RATE_HZ), np.float32)
        for outbox in outboxes[::25]:
            for message in word:
                outbox.put(message)
            assert client.infer("tones", {"audio": window})["probabilities"].shape == (1, 6)
        assert [next(stream).transcript for stream in streams[::25]] == ["yes"] * 20
        for outbox in outboxes:
            outbox.close()
        for stream in streams:
            assert list(stream) == []
