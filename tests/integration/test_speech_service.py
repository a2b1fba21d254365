from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.served import FreezableProxy, linear_bundle
from tests.waiting import wait_until

from tidegate.client import Client, RecognizeStream
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.speech_session import TABLE, Event, Session, State, StreamSettings
from tidegate.errors import (
    DeadlineError,
    InputError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
    UnavailableError,
)
from tidegate.speech.pcm import int16_from_float32
from tidegate.v1 import speech_pb2 as pb
from tidegate.wire.services import SPEECH

Say = Callable[..., NDArray[np.float32]]

RATE_HZ = 16_000
MAXIMUM_SEGMENT_S = 8.0
MAXIMUM_STREAMS = 24
WAIT_S = 60.0


@pytest.fixture(scope="module")
def server(tone_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = ServerSettings(maximum_segment_s=MAXIMUM_SEGMENT_S, maximum_streams=MAXIMUM_STREAMS, unary_threads=2)
    with Server([linear_bundle(tmp_path_factory.mktemp("b")), tone_bundle], settings=settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout_s=120) as opened:
        yield opened


@pytest.fixture
def stream(client: Client) -> Iterator[RecognizeStream]:
    with client.recognize(sample_rate_hz=RATE_HZ) as opened:
        yield opened


def send(
    stream: RecognizeStream,
    segment_id: int,
    audio: NDArray[np.float32],
    *,
    start_sample: int = 0,
    chunk_samples: int = 1600,
) -> None:
    """Send one segment in chunks."""
    samples = int16_from_float32(audio)
    stream.begin(segment_id, start_sample)
    for first in range(0, len(samples), chunk_samples):
        stream.send(start_sample + first, samples[first : first + chunk_samples])
    stream.end(segment_id, start_sample + len(samples))


def test_a_segment_becomes_a_transcript_with_times_and_search_results(stream: RecognizeStream, say: Say) -> None:
    start_sample = 5 * RATE_HZ
    send(stream, 3, say([("yes", 0.5), ("down", 2.0)], 3.0), start_sample=start_sample)
    segment = stream.wait(3, WAIT_S)
    assert segment.transcript.text == "yes down"
    assert (segment.start_s, segment.end_s) == (5.0, 8.0)
    assert [word.text for word in segment.transcript.words] == ["yes", "down"]
    for word, expected_s in zip(segment.transcript.words, (5.5, 7.0), strict=True):
        assert abs(word.start_s - expected_s) < 0.5
    assert {found.id for found in segment.search_results} == {"yes", "down"}
    assert (segment.model, segment.version, segment.variant) == ("tones", "1.2.3", "onnx-fp32")
    assert segment.compute_ms > 0


def test_a_segment_without_a_word_says_which_label_fits(stream: RecognizeStream, say: Say) -> None:
    send(stream, 0, say([], 1.5))
    segment = stream.wait(0, WAIT_S)
    assert (segment.transcript.text, segment.transcript.label, segment.search_results) == ("", "silence", ())


def test_many_segments_on_one_stream(stream: RecognizeStream, say: Say) -> None:
    words = ["yes", "no", "up", "down"]
    for number, word in enumerate(words):
        send(stream, number, say([(word, 0.5)], 1.5), start_sample=number * 10 * RATE_HZ)
    found = [stream.wait(number, WAIT_S) for number in range(len(words))]
    assert [segment.transcript.text for segment in found] == words
    assert [segment.start_s for segment in found] == [0.0, 10.0, 20.0, 30.0]


def test_cutting_the_audio_otherwise_changes_nothing(client: Client, say: Say) -> None:
    audio = say([("up", 0.4), ("no", 1.6)], 2.5)

    def answer(chunk_samples: int) -> tuple[Any, ...]:
        with client.recognize(sample_rate_hz=RATE_HZ) as stream:
            send(stream, 1, audio, chunk_samples=chunk_samples)
            segment = stream.wait(1, WAIT_S)
            return segment.transcript, segment.start_s, segment.end_s

    assert answer(len(audio)) == answer(320) == answer(37)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_audio_at_another_rate_is_resampled(client: Client, say: Say, rate_hz: int) -> None:
    from tidegate.speech.resample import StreamResampler

    resampler = StreamResampler(RATE_HZ, rate_hz)
    audio = np.concatenate([resampler.push(say([("yes", 0.5), ("up", 2.0)], 3.0)), resampler.finish()])
    with client.recognize(sample_rate_hz=rate_hz) as stream:
        send(stream, 1, audio, start_sample=2 * rate_hz)
        segment = stream.wait(1, WAIT_S)
    assert segment.transcript.text == "yes up"
    assert segment.start_s == 2.0
    assert abs(segment.end_s - 5.0) < 1e-3


def test_as_many_search_results_as_asked_for(client: Client, say: Say) -> None:
    counts = []
    for maximum in (0, 1, 3):
        with client.recognize(sample_rate_hz=RATE_HZ, maximum_search_results=maximum) as stream:
            send(stream, 1, say([("yes", 0.5), ("no", 2.0)], 3.0))
            counts.append(len(stream.wait(1, WAIT_S).search_results))
    assert counts == [0, 1, 2]


def test_another_catalogue_can_be_served(tone_bundle: Path, say: Say) -> None:
    line = json.dumps({"id": "mine", "title": "Mine", "text": "yes"}).encode()
    with (
        Server([tone_bundle], catalogue=line) as server,
        Client(server.address) as client,
        client.recognize(sample_rate_hz=RATE_HZ) as stream,
    ):
        send(stream, 1, say([("yes", 0.5)], 1.5))
        assert [found.id for found in stream.wait(1, WAIT_S).search_results] == ["mine"]


def test_poll_returns_each_answer_once(stream: RecognizeStream, say: Say) -> None:
    assert stream.poll() == []
    send(stream, 1, say([("yes", 0.5)], 1.5))
    send(stream, 2, say([("no", 0.5)], 1.5), start_sample=RATE_HZ * 4)
    assert stream.wait(2, WAIT_S).transcript.text == "no"
    assert [segment.segment_id for segment in stream.poll()] == [1]
    assert stream.poll() == []
    with pytest.raises(StateError, match="already returned"):
        stream.wait(1, WAIT_S)


def test_bytes_go_out_before_the_segment_ends(stream: RecognizeStream, say: Say) -> None:
    before = stream.bytes_sent
    audio = int16_from_float32(say([("yes", 0.5)], 1.5))
    stream.begin(1, 0)
    stream.send(0, audio)
    with pytest.raises(DeadlineError, match="no answer for segment 1"):
        stream.wait(1, 0.2)
    assert stream.bytes_sent - before >= audio.nbytes
    stream.end(1, len(audio))
    assert stream.wait(1, WAIT_S).transcript.text == "yes"


def test_waiting_for_a_segment_that_was_not_begun(stream: RecognizeStream) -> None:
    with pytest.raises(StateError, match="not begun"):
        stream.wait(9, WAIT_S)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"model": "nobody"}, NotFoundError, "no model 'nobody'"),
        ({"model": "linear"}, NotFoundError, "not a speech model"),
        ({"version": "9.0.0"}, NotFoundError, "no version '9.0.0'"),
        ({"sample_rate_hz": 0}, InputError, "sample_rate_hz is 0"),
        ({"sample_rate_hz": 10**7}, InputError, "sample_rate_hz is 10000000"),
        ({"maximum_search_results": -1}, InputError, "maximum_search_results is -1"),
    ],
)
def test_a_config_is_refused_when_the_stream_opens(
    client: Client, options: dict[str, Any], kind: type[TidegateError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        client.recognize(**({"sample_rate_hz": RATE_HZ} | options))


def test_a_server_without_a_speech_model_says_so(tmp_path: Path) -> None:
    with (
        Server([linear_bundle(tmp_path)]) as server,
        Client(server.address) as client,
        pytest.raises(NotFoundError, match="no speech model"),
    ):
        client.recognize(sample_rate_hz=RATE_HZ)


def test_a_segment_over_the_limit_ends_the_stream(stream: RecognizeStream, server: Server, client: Client) -> None:
    stream.begin(1, 0)
    stream.send(0, np.zeros(int(MAXIMUM_SEGMENT_S * RATE_HZ) + 1, np.int16))
    with pytest.raises(ResourceError, match=r"8.0 s long; this server takes 8 s"):
        stream.wait(1, WAIT_S)
    with pytest.raises(ResourceError):
        stream.begin(2, 10**6)
    with client.recognize(sample_rate_hz=RATE_HZ) as another:
        assert another.poll() == []


def test_after_close_a_stream_says_so(client: Client) -> None:
    stream = client.recognize(sample_rate_hz=RATE_HZ)
    stream.close()
    stream.close()
    with pytest.raises(StateError, match="closed"):
        stream.begin(1, 0)
    with pytest.raises(StateError, match="closed"):
        stream.poll()


def test_audio_that_is_not_int16_is_refused_before_it_is_sent(stream: RecognizeStream) -> None:
    for audio in (np.zeros(10, np.float32), np.zeros((10, 2), np.int16)):
        with pytest.raises(InputError, match="expected int16"):
            stream.send(0, audio)  # type: ignore[arg-type]


# Messages as a foreign client sends them.

CONFIG = pb.StreamingConfig(encoding=pb.LINEAR16, sample_rate_hz=RATE_HZ)


def config() -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(config=CONFIG)


def start(segment_id: int = 1, sample: int = 0) -> pb.StreamingRecognizeRequest:
    activity = pb.VoiceActivity(event=pb.VoiceActivity.SEGMENT_START, segment_id=segment_id, sample_offset=sample)
    return pb.StreamingRecognizeRequest(voice_activity=activity)


def end(segment_id: int = 1, sample: int = 100) -> pb.StreamingRecognizeRequest:
    activity = pb.VoiceActivity(event=pb.VoiceActivity.SEGMENT_END, segment_id=segment_id, sample_offset=sample)
    return pb.StreamingRecognizeRequest(voice_activity=activity)


def audio(content: bytes = b"\0" * 200, sample: int = 0) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(audio=pb.AudioChunk(sample_offset=sample, content=content))


def other_config(**fields: Any) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(config=pb.StreamingConfig(sample_rate_hz=RATE_HZ, **fields))


WRONG: dict[str, tuple[list[Any], str]] = {
    "malformed first message": ([b"\x0a\xff\xff"], "not a valid tidegate.v1.StreamingRecognizeRequest"),
    "malformed later message": ([config(), b"\xff"], "not a valid tidegate.v1.StreamingRecognizeRequest"),
    "empty first message": ([b""], "no payload"),
    "audio first": ([audio()], "waiting for config and got audio"),
    "start first": ([start()], "waiting for config and got voice_activity SEGMENT_START"),
    "config twice": ([config(), config()], "between segments and got config"),
    "encoding not stated": ([other_config()], "encoding is 0"),
    "unknown encoding": ([other_config(encoding=9)], "encoding is 9"),
    "audio between segments": ([config(), audio()], "between segments and got audio"),
    "end between segments": ([config(), end()], "between segments and got voice_activity SEGMENT_END"),
    "start inside a segment": ([config(), start(1), start(2)], "inside a segment and got"),
    "config inside a segment": ([config(), start(1), config()], "inside a segment and got config"),
    "id does not rise": ([config(), start(5), audio(), end(5), start(5)], "segment 5 follows segment 5"),
    "end of another segment": ([config(), start(1), audio(), end(2)], "segment 1 is open"),
    "end before start": ([config(), start(1, 50), audio(sample=50), end(1, 49)], "before its start at 50"),
    "no audio": ([config(), start(1), end(1)], "segment 1 has no audio"),
    "half a sample": ([config(), start(1), audio(b"\0" * 3)], "3 bytes"),
    "gap": ([config(), start(1), audio(), audio(sample=101)], "at sample 101; expected 100"),
    "negative start": ([config(), start(1, -1)], "starts at sample -1"),
    "event not stated": (
        [config(), pb.StreamingRecognizeRequest(voice_activity=pb.VoiceActivity(segment_id=1))],
        "has event 0",
    ),
}


def bare_method(channel: grpc.Channel) -> Any:
    """Return the method as grpc has it: bytes or messages in, messages out."""
    return channel.stream_stream(
        f"/{SPEECH.name}/StreamingRecognize",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=pb.StreamingRecognizeResponse.FromString,
    )


@pytest.fixture
def recognize(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield bare_method(channel)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_message_ends_the_stream_with_a_reason(recognize: Any, server: Server, case: str) -> None:
    requests, text = WRONG[case]
    with pytest.raises(grpc.RpcError) as caught:
        list(recognize(iter(requests), timeout=WAIT_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()
    assert ". What to do: " in caught.value.details()


def test_a_stream_without_a_message_ends_well(recognize: Any) -> None:
    assert list(recognize(iter([]), timeout=WAIT_S)) == []
    assert list(recognize(iter([config()]), timeout=WAIT_S)) == []


def test_a_stream_that_ends_inside_a_segment_is_answered_as_far_as_it_came(recognize: Any, say: Say) -> None:
    samples = int16_from_float32(say([("yes", 0.5)], 1.5))
    (answer,) = recognize(iter([config(), start(1, RATE_HZ), audio(samples.tobytes(), RATE_HZ)]), timeout=WAIT_S)
    assert (answer.transcript, answer.start_s, answer.end_s, answer.received_bytes) == ("yes", 1.0, 2.5, samples.nbytes)


def test_every_pair_of_state_and_event_is_a_step_or_an_error(server: Server) -> None:
    def session_in(state: State) -> Session:
        session = Session(server.repository, maximum_segment_s=1)
        if state is not State.CONFIGURING:
            session.configure(StreamSettings(sample_rate_hz=RATE_HZ))
        if state is State.SEGMENT:
            session.start(1, 0)
            session.audio(0, b"\0" * 200)
        if state is State.FINISHED:
            session.finish()
        return session

    actions: dict[Event, Callable[[Session], object]] = {
        Event.CONFIG: lambda session: session.configure(StreamSettings(sample_rate_hz=RATE_HZ)),
        Event.START: lambda session: session.start(2, 0),
        Event.AUDIO: lambda session: session.audio(100, b"\0" * 2),
        Event.END: lambda session: session.end(1, 100),
        Event.FINISH: lambda session: session.finish(),
    }
    for state in State:
        for event, action in actions.items():
            session = session_in(state)
            if (state, event) in TABLE:
                action(session)
                assert session.state is TABLE[state, event]
            else:
                with pytest.raises(InputError, match="expected"):
                    action(session)
                assert session.state is state


# Many at once, and clients that go away.


def test_twenty_streams_in_parallel_and_unary_calls_between_them(client: Client, server: Server, say: Say) -> None:
    words = ["yes", "no", "up", "down"] * 5
    recorded = {word: say([(word, 0.5)], 1.5) for word in set(words)}
    wait_for_open_streams(server, 0)
    streams = [client.recognize(sample_rate_hz=RATE_HZ) for _ in words]
    assert server.open_streams == len(words)
    found: list[str] = [""] * len(words)

    def speak(number: int) -> None:
        for segment_id in range(3):
            send(streams[number], segment_id, recorded[words[number]], start_sample=segment_id * 10 * RATE_HZ)
        answers = [streams[number].wait(segment_id, WAIT_S) for segment_id in range(3)]
        found[number] = " ".join(answer.transcript.text for answer in answers)

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(len(words))]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert client.live()
        assert client.infer("linear", {"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 4)
    for thread in threads:
        thread.join(WAIT_S)
    for stream in streams:
        stream.close()
    assert found == [" ".join([word] * 3) for word in words]


def test_one_stream_too_many_is_refused_while_unary_calls_go_on(client: Client, server: Server, say: Say) -> None:
    wait_for_open_streams(server, 0)
    streams = [client.recognize(sample_rate_hz=RATE_HZ) for _ in range(MAXIMUM_STREAMS)]
    with pytest.raises(ResourceError, match=f"all {MAXIMUM_STREAMS} streams"):
        client.recognize(sample_rate_hz=RATE_HZ)
    assert client.ready()
    streams.pop().close()
    wait_for_open_streams(server, MAXIMUM_STREAMS - 1)
    with client.recognize(sample_rate_hz=RATE_HZ) as stream:
        send(stream, 1, say([("yes", 0.5)], 1.5))
        assert stream.wait(1, WAIT_S).transcript.text == "yes"
    for stream in streams:
        stream.close()


def test_a_client_that_cancels_in_a_segment_frees_everything(tone_bundle: Path) -> None:
    server = Server([tone_bundle])
    server.start()
    hold = threading.Event()

    def requests() -> Iterator[Any]:
        yield from (config(), start(1), audio())
        hold.wait(WAIT_S)

    with grpc.insecure_channel(server.address) as channel:
        call = bare_method(channel)(requests())
        call.initial_metadata()
        assert server.open_streams == 1
        call.cancel()
        hold.set()
        wait_for_open_streams(server, 0)
    assert server.stop(grace_s=WAIT_S), "the open segment still counts as work"


def test_a_broken_stream_returns_what_came_before_and_then_says_unavailable(tone_bundle: Path, say: Say) -> None:
    server = Server([tone_bundle])
    server.start()
    with Client(server.address, timeout_s=120) as client, client.recognize(sample_rate_hz=RATE_HZ) as stream:
        send(stream, 1, say([("yes", 0.5)], 1.5))
        send(stream, 2, say([("no", 0.5)], 1.5), start_sample=RATE_HZ * 4)
        assert stream.wait(2, WAIT_S).transcript.text == "no"
        assert server.stop(grace_s=WAIT_S)
        assert [segment.transcript.text for segment in stream.poll()] == ["yes"]
        with pytest.raises(UnavailableError, match=client.target):
            poll_until_broken(stream)
        for action in (lambda: stream.begin(3, 0), lambda: stream.end(3, 0), lambda: stream.wait(3, WAIT_S)):
            with pytest.raises(UnavailableError, match=client.target):
                action()


def test_a_stalled_network_ends_in_an_error_and_not_in_memory(server: Server) -> None:
    with FreezableProxy(server.address) as proxy, Client(proxy.address, timeout_s=30) as client:
        stream = client.recognize(sample_rate_hz=RATE_HZ)
        proxy.freeze()
        stream.begin(1, 0)
        chunk = np.zeros(8000, np.int16)
        with pytest.raises(UnavailableError, match="wait for the network"):
            send_for_ever(stream, chunk)
        stream.close()


def poll_until_broken(stream: RecognizeStream) -> None:
    while True:
        stream.poll()


def send_for_ever(stream: RecognizeStream, chunk: NDArray[np.int16]) -> None:
    for number in itertools.count():
        stream.send(number * len(chunk), chunk)


def wait_for_open_streams(server: Server, count: int) -> None:
    """Poll: the end of a stream is seen by the server some time after the client has left it."""
    wait_until(lambda: server.open_streams == count)
