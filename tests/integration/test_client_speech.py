"""Recordings, batches and interim results by the client and `tidegate recognize`, on a server with the demo's model."""

from __future__ import annotations

import asyncio
import json
import threading
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.bundle import Bundle
from tidegate.cli.main import main
from tidegate.client import AsyncClient, Client, RecognizedRecording, RecognizedSegment, Recording
from tidegate.cloud import Server, ServerSettings
from tidegate.errors import (
    ConfigError,
    DeadlineError,
    InputError,
    ModelError,
    NotFoundError,
    ResourceError,
    StateError,
    UnavailableError,
)
from tidegate.v1 import speech_pb2 as pb
from tidegate.wire.pairing import SignalPath
from tidegate.wire.services import ACCEPTED_HEADER, SPEECH

Samples = NDArray[np.int16]

DEMO = Path(__file__).parents[2] / "examples" / "voice_commands"
CLOUD = DEMO / "voice-commands-cloud.tide"
RATE_HZ = 16_000
MAXIMUM_SEGMENT_S = 5.0
WAIT_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server([CLOUD], settings=ServerSettings(maximum_segment_s=MAXIMUM_SEGMENT_S)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout_s=WAIT_S) as opened:
        yield opened


@pytest.fixture(scope="module")
def demo() -> Samples:
    with wave.open(str(DEMO / "demo.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture(scope="module")
def spoken(demo: Samples) -> dict[str, Samples]:
    """Three words of the demo, with the quiet around them."""
    truth = json.loads((DEMO / "demo_truth.json").read_text())["words"]
    found = {word["word"]: word for word in reversed(truth)}
    return {
        text: demo[round((found[text]["start_s"] - 0.4) * RATE_HZ) : round((found[text]["end_s"] + 0.4) * RATE_HZ)]
        for text in ("yes", "music", "weather")
    }


def texts(segments: tuple[RecognizedSegment, ...]) -> list[str]:
    return [segment.transcript.text for segment in segments]


def without_times(segments: tuple[RecognizedSegment, ...]) -> list[RecognizedSegment]:
    return [replace(segment, compute_ms=0.0) for segment in segments]


def asynchronously(server: Server, scene: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with AsyncClient(server.address, timeout_s=WAIT_S) as client:
            await scene(client)

    asyncio.run(whole())


# One recording


def test_a_recording_is_one_segment(client: Client, spoken: dict[str, Samples]) -> None:
    (answer,) = client.recognize_recording(spoken["yes"], sample_rate_hz=RATE_HZ)
    assert (answer.transcript.text, answer.segment_id, answer.is_final, answer.stability) == ("yes", 0, True, 1.0)
    assert (answer.start_s, answer.end_s) == (0.0, len(spoken["yes"]) / RATE_HZ)
    assert (answer.model, answer.search_results[0].id != "") == ("voice-commands-cloud", True)


def test_segments_say_who_speaks_when(client: Client, spoken: dict[str, Samples]) -> None:
    pieces = list(spoken.values())
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    segments = list(zip([0, *ends], ends, strict=False))
    answers = client.recognize_recording(
        np.concatenate(pieces), sample_rate_hz=RATE_HZ, segments=segments, maximum_search_results=0
    )
    assert texts(answers) == list(spoken)
    assert [answer.segment_id for answer in answers] == [0, 1, 2]
    assert [answer.start_s for answer in answers] == [start / RATE_HZ for start, _ in segments]
    assert not any(answer.search_results for answer in answers)


def test_what_is_wrong_with_a_recording_is_typed(client: Client, spoken: dict[str, Samples]) -> None:
    yes = spoken["yes"]
    with pytest.raises(InputError, match=r"float32 \[3\]; expected int16"):
        client.recognize_recording(np.zeros(3, np.float32), sample_rate_hz=RATE_HZ)
    with pytest.raises(InputError, match="0 bytes"):
        client.recognize_recording(yes[:0], sample_rate_hz=RATE_HZ)
    with pytest.raises(InputError, match="samples 5 to 5"):
        client.recognize_recording(yes, sample_rate_hz=RATE_HZ, segments=[(5, 5)])
    with pytest.raises(InputError, match="sample_rate_hz is -1"):
        client.recognize_recording(yes, sample_rate_hz=-1)
    with pytest.raises(InputError, match="sample_rate_hz is 100"):
        client.recognize_recording(yes, sample_rate_hz=100)
    with pytest.raises(NotFoundError, match="nobody"):
        client.recognize_recording(yes, sample_rate_hz=RATE_HZ, model="nobody")
    with pytest.raises(ResourceError, match="5 s"):
        client.recognize_recording(np.zeros(6 * RATE_HZ, np.int16), sample_rate_hz=RATE_HZ)
    with pytest.raises(ConfigError, match="timeout_s"):
        client.recognize_recording(yes, sample_rate_hz=RATE_HZ, timeout_s=0)


def test_a_recording_too_large_for_a_message_is_a_resource_error(server: Server, spoken: dict[str, Samples]) -> None:
    short, long = Recording("a", spoken["yes"][:100]), Recording("b", spoken["yes"])
    text = "at most 1000"
    with Client(server.address, timeout_s=WAIT_S, maximum_message_bytes=1000) as small:
        with pytest.raises(ResourceError, match=text):
            small.recognize_recording(long.samples, sample_rate_hz=RATE_HZ)
        answers = small.recognize_batch([short, long], sample_rate_hz=RATE_HZ, in_flight=1)
        assert next(answers).id == "a"
        with pytest.raises(ResourceError, match=text):
            next(answers)

    async def scene() -> None:
        async with AsyncClient(server.address, timeout_s=WAIT_S, maximum_message_bytes=1000) as small:
            with pytest.raises(ResourceError, match=text):
                await small.recognize_recording(long.samples, sample_rate_hz=RATE_HZ)
            answers = small.recognize_batch([short, long], sample_rate_hz=RATE_HZ, in_flight=1)
            assert (await answers.__anext__()).id == "a"
            with pytest.raises(ResourceError, match=text):
                await answers.__anext__()

    asyncio.run(scene())


def test_a_message_too_large_for_the_server_ends_the_batch(spoken: dict[str, Samples]) -> None:
    settings = ServerSettings(maximum_message_bytes=2**20)
    recordings = [Recording("a", spoken["yes"]), Recording("b", np.zeros(2**20, np.int16))]
    with Server([CLOUD], settings=settings) as server, Client(server.address, timeout_s=WAIT_S) as client:
        answers = client.recognize_batch(recordings, sample_rate_hz=RATE_HZ, in_flight=1)
        assert next(answers).id == "a"
        with pytest.raises(ResourceError, match="larger than max"):
            next(answers)


def test_a_device_that_does_not_fit_is_refused(client: Client, spoken: dict[str, Samples]) -> None:
    with Bundle.open(CLOUD) as bundle:
        fits = SignalPath.of(bundle.manifest)
    other = replace(fits, prefilter="webrtc/0000000000000000")
    asked: dict[str, Any] = {"sample_rate_hz": RATE_HZ, "device_bundle": "d 1"}
    assert texts(client.recognize_recording(spoken["yes"], signal_path=fits, **asked)) == ["yes"]
    with pytest.raises(StateError, match="prefilter"):
        client.recognize_recording(spoken["yes"], signal_path=other, **asked)
    with pytest.raises(StateError, match="prefilter"):
        next(client.recognize_batch([], signal_path=other, **asked))


# Batches


def test_a_batch_answers_in_order_and_goes_on_after_a_failure(client: Client, spoken: dict[str, Samples]) -> None:
    too_long = np.zeros(6 * RATE_HZ, np.int16)
    recordings = [
        Recording("a", spoken["yes"]),
        Recording("b", too_long),
        Recording("c", spoken["music"]),
        Recording("c", spoken["music"][:0]),
        Recording(
            "", np.concatenate([spoken["yes"], spoken["weather"]]), [(len(spoken["yes"]), len(spoken["yes"]) + 9000)]
        ),
    ]
    answers = list(client.recognize_batch(recordings, sample_rate_hz=RATE_HZ, in_flight=2))
    assert [answer.id for answer in answers] == ["a", "b", "c", "c", ""]
    assert [texts(answer.segments) for answer in answers] == [["yes"], [], ["music"], [], texts(answers[4].segments)]
    assert [type(answer.error) for answer in answers] == [type(None), ResourceError, type(None), InputError, type(None)]
    assert answers[1].error is not None
    assert client.target in answers[1].error.message
    assert answers[1].error.fix
    assert answers[4].segments[0].start_s == len(spoken["yes"]) / RATE_HZ


def test_a_batch_and_single_calls_agree(client: Client, spoken: dict[str, Samples]) -> None:
    recordings = [Recording(text, samples) for text, samples in spoken.items()]
    for answer in client.recognize_batch(recordings, sample_rate_hz=RATE_HZ):
        alone = client.recognize_recording(spoken[answer.id], sample_rate_hz=RATE_HZ)
        assert without_times(answer.segments) == without_times(alone)


@pytest.mark.parametrize("in_flight", [1, 3])
def test_recordings_are_read_no_faster_than_answers_are_taken(
    client: Client, spoken: dict[str, Samples], in_flight: int
) -> None:
    read = 0

    def endless() -> Iterator[Recording]:
        nonlocal read
        while True:
            read += 1
            yield Recording(str(read), spoken["yes"][:4000])

    answers = client.recognize_batch(endless(), sample_rate_hz=RATE_HZ, in_flight=in_flight)
    assert read == 0
    for taken in range(1, 8):
        assert next(answers).id == str(taken)
        assert read < taken + in_flight
    answers.close()


def test_a_batch_of_nothing_has_no_answers(client: Client) -> None:
    assert list(client.recognize_batch([], sample_rate_hz=RATE_HZ)) == []


def test_a_batch_that_cannot_begin_says_why(client: Client) -> None:
    with pytest.raises(ConfigError, match="in_flight is 0"):
        client.recognize_batch([], sample_rate_hz=RATE_HZ, in_flight=0)
    with pytest.raises(ConfigError, match="timeout_s"):
        client.recognize_batch([], sample_rate_hz=RATE_HZ, answer_timeout_s=0)
    with pytest.raises(NotFoundError, match="nobody"):
        next(client.recognize_batch([], sample_rate_hz=RATE_HZ, model="nobody"))
    with Client("127.0.0.1:9") as nowhere, pytest.raises(UnavailableError):
        next(nowhere.recognize_batch([], sample_rate_hz=RATE_HZ))


def test_answers_before_a_refused_recording_are_not_lost(client: Client, spoken: dict[str, Samples]) -> None:
    wrong = Recording("b", np.zeros(3, np.float32))
    answers = client.recognize_batch([Recording("a", spoken["yes"]), wrong], sample_rate_hz=RATE_HZ, in_flight=1)
    assert next(answers).id == "a"
    with pytest.raises(InputError, match="float32"):
        next(answers)


def test_a_server_that_stops_ends_the_batch_after_what_it_answered(spoken: dict[str, Samples]) -> None:
    with Server([CLOUD]) as server, Client(server.address, timeout_s=WAIT_S) as client:

        def recordings() -> Iterator[Recording]:
            yield Recording("a", spoken["yes"])
            server.stop(grace_s=0)
            yield Recording("b", spoken["yes"])

        answers = client.recognize_batch(recordings(), sample_rate_hz=RATE_HZ, in_flight=1)
        assert next(answers).id == "a"
        with pytest.raises(UnavailableError):
            next(answers)


Reply = Callable[[Iterator[pb.BatchRecognizeRequest]], Iterator[pb.BatchRecognizeResponse]]


def no_more(requests: Iterator[pb.BatchRecognizeRequest]) -> Iterator[pb.BatchRecognizeResponse]:
    """End the call after the first answer, though more was sent."""
    first = next(requests)
    assert list(requests)
    yield pb.BatchRecognizeResponse(id=first.utterance.id)


def another(requests: Iterator[pb.BatchRecognizeRequest]) -> Iterator[pb.BatchRecognizeResponse]:
    for _ in requests:
        yield pb.BatchRecognizeResponse(id="another")


@contextmanager
def serving_speech(reply: Reply) -> Iterator[str]:
    """Run a server that accepts a batch and answers its recordings with `reply`; gives its address."""

    def batch(requests: Iterator[pb.BatchRecognizeRequest], context: Any) -> Iterator[pb.BatchRecognizeResponse]:
        next(requests)
        context.send_initial_metadata([(ACCEPTED_HEADER, "m 1")])
        return reply(requests)

    handler = grpc.stream_stream_rpc_method_handler(
        batch, pb.BatchRecognizeRequest.FromString, pb.BatchRecognizeResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(8))
    service = grpc.method_handlers_generic_handler(SPEECH.name, {"BatchRecognize": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("reply", "error", "text", "answered"),
    [
        (no_more, UnavailableError, "before it answered recording 'b'", ["a"]),
        (another, ModelError, "for recording 'another'; the next one is 'a'", []),
    ],
)
def test_a_server_that_breaks_the_order(reply: Reply, error: type[Exception], text: str, answered: list[str]) -> None:
    sound = np.zeros(100, np.int16)
    recordings = [Recording("a", sound), Recording("b", sound)]
    found: list[str] = []

    async def asynchronous(target: str) -> None:
        async with AsyncClient(target, timeout_s=WAIT_S) as client:
            async for answer in client.recognize_batch(recordings, sample_rate_hz=RATE_HZ):
                found.append(answer.id)

    with serving_speech(reply) as target:
        with Client(target, timeout_s=WAIT_S) as client, pytest.raises(error, match=text):
            found.extend(answer.id for answer in client.recognize_batch(recordings, sample_rate_hz=RATE_HZ))
        with pytest.raises(error, match=text):
            asyncio.run(asynchronous(target))
    assert found[-1:] == answered


def test_an_answer_that_does_not_come_is_a_deadline() -> None:
    gone = threading.Event()

    def waiting(requests: Iterator[pb.BatchRecognizeRequest]) -> Iterator[pb.BatchRecognizeResponse]:
        list(requests)
        gone.wait(WAIT_S)
        yield from ()

    with serving_speech(waiting) as target, Client(target, timeout_s=WAIT_S) as client:
        answers = client.recognize_batch(
            [Recording("a", np.zeros(100, np.int16))], sample_rate_hz=RATE_HZ, answer_timeout_s=0.2
        )
        with pytest.raises(DeadlineError, match=r"recording 'a' in 0\.2 s"):
            next(answers)
        gone.set()


# Interim results and time-outs


def test_interim_answers_come_while_somebody_speaks(client: Client, spoken: dict[str, Samples]) -> None:
    samples = np.concatenate([spoken["yes"], spoken["music"]])
    heard: list[RecognizedSegment] = []
    with client.recognize(sample_rate_hz=RATE_HZ, interim_results=True, interim_interval_ms=100) as stream:
        stream.begin(1, 0)
        stream.send(0, samples)

        def note(answer: RecognizedSegment) -> None:
            if not heard:
                assert stream.poll() == []
                stream.end(1, len(samples))
            heard.append(answer)

        final = stream.wait(1, WAIT_S, on_interim=note)
        assert stream.interim() == []
    assert heard
    assert not any(answer.is_final or answer.search_results for answer in heard)
    assert all(0 <= answer.stability <= 1 for answer in heard)
    assert heard[0].transcript.text.startswith("yes")
    assert (final.is_final, final.transcript.text) == (True, "yes music")


def test_poll_gives_final_answers_only(client: Client, spoken: dict[str, Samples]) -> None:
    with client.recognize(sample_rate_hz=RATE_HZ, interim_results=True, interim_interval_ms=100) as stream:
        stream.begin(1, 0)
        stream.send(0, spoken["yes"], timeout_s=WAIT_S)
        while not (found := stream.interim()):
            assert stream.poll() == []
            with pytest.raises(DeadlineError):
                stream.wait(1, 0.05)
        assert [(one.segment_id, one.is_final, one.transcript.text) for one in found] == [(1, False, "yes")]
        stream.end(1, len(spoken["yes"]))
        assert stream.wait(1, WAIT_S).transcript.text == "yes"
        assert (stream.interim(), stream.poll()) == ([], [])
    with pytest.raises(StateError, match="closed"):
        stream.interim()


def test_nothing_interim_unless_asked_for(client: Client, spoken: dict[str, Samples]) -> None:
    heard: list[RecognizedSegment] = []
    with client.recognize(sample_rate_hz=RATE_HZ) as stream:
        stream.begin(1, 0)
        stream.send(0, spoken["yes"])
        stream.end(1, len(spoken["yes"]))
        assert stream.wait(1, WAIT_S, on_interim=heard.append).is_final
    assert heard == []


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"speech_start_timeout_ms": 50}, "nobody spoke"),
        ({"idle_timeout_ms": 50}, "no message came"),
    ],
)
def test_time_outs_end_the_stream_with_a_deadline(client: Client, asked: dict[str, Any], text: str) -> None:
    with client.recognize(sample_rate_hz=RATE_HZ, **asked) as stream:
        stream._stream._reader.join(WAIT_S)
        with pytest.raises(DeadlineError, match=text):
            stream.poll()
        with pytest.raises(DeadlineError, match=text):
            stream.interim()


# asyncio


def test_the_asyncio_client_does_the_same(server: Server, client: Client, spoken: dict[str, Samples]) -> None:
    async def each() -> AsyncIterator[Recording]:
        for text, samples in spoken.items():
            yield Recording(text, samples)
        yield Recording("empty", spoken["yes"][:0])

    async def scene(found: AsyncClient) -> None:
        for recordings in (each(), [recording async for recording in each()]):
            answers: list[RecognizedRecording] = []
            async for answer in found.recognize_batch(recordings, sample_rate_hz=RATE_HZ, in_flight=2):
                answers.append(answer)
            assert [answer.id for answer in answers] == [*spoken, "empty"]
            assert [texts(answer.segments) for answer in answers] == [[text] for text in spoken] + [[]]
            assert isinstance(answers[-1].error, InputError)
        alone = await found.recognize_recording(spoken["yes"], sample_rate_hz=RATE_HZ)
        assert without_times(alone) == without_times(client.recognize_recording(spoken["yes"], sample_rate_hz=RATE_HZ))
        async with aclosing(found.recognize_batch(each(), sample_rate_hz=RATE_HZ)) as begun:
            assert (await begun.__anext__()).id == "yes"
        with pytest.raises(NotFoundError):
            await found.recognize_recording(spoken["yes"], sample_rate_hz=RATE_HZ, model="nobody")
        with pytest.raises(NotFoundError):
            await found.recognize_batch([], sample_rate_hz=RATE_HZ, model="nobody").__anext__()
        wrong = Recording("w", np.zeros(3, np.float32))
        with pytest.raises(InputError, match="float32"):
            await found.recognize_batch([wrong], sample_rate_hz=RATE_HZ).__anext__()

    asynchronously(server, scene)


def test_a_cancelled_batch_ends_its_call_and_leaves_the_client_usable() -> None:
    begun, gone = threading.Event(), threading.Event()

    def waiting(requests: Iterator[pb.BatchRecognizeRequest]) -> Iterator[pb.BatchRecognizeResponse]:
        yield pb.BatchRecognizeResponse(id=next(requests).utterance.id)
        begun.set()
        try:
            list(requests)
        except grpc.RpcError:
            gone.set()
            raise

    async def endless() -> AsyncIterator[Recording]:
        yield Recording("a", np.zeros(100, np.int16))
        await asyncio.Event().wait()

    async def scene(target: str) -> None:
        async with AsyncClient(target, timeout_s=WAIT_S) as client:

            async def take() -> None:
                async with aclosing(client.recognize_batch(endless(), sample_rate_hz=RATE_HZ, in_flight=1)) as answers:
                    async for _ in answers:
                        pass

            task = asyncio.ensure_future(take())
            assert await asyncio.to_thread(begun.wait, WAIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gone.wait, WAIT_S)
            again = client.recognize_batch([Recording("b", np.zeros(9, np.int16))], sample_rate_hz=RATE_HZ)
            assert (await again.__anext__()).id == "b"
            await again.aclose()

    with serving_speech(waiting) as target:
        asyncio.run(scene(target))


def test_interim_answers_for_asyncio(server: Server, spoken: dict[str, Samples]) -> None:
    async def scene(client: AsyncClient) -> None:
        heard: list[RecognizedSegment] = []
        async with await client.recognize(
            sample_rate_hz=RATE_HZ, interim_results=True, interim_interval_ms=100
        ) as stream:
            await stream.begin(1, 0)
            await stream.send(0, spoken["yes"])
            ends: list[asyncio.Task[None]] = []

            def note(answer: RecognizedSegment) -> None:
                heard.append(answer)
                if not ends:
                    assert stream.poll() == []
                    ends.append(asyncio.ensure_future(stream.end(1, len(spoken["yes"]))))

            final = await stream.wait(1, WAIT_S, on_interim=note)
            assert stream.interim() == []
        assert {answer.transcript.text for answer in heard} == {"yes"}
        assert (final.is_final, final.transcript.text) == (True, "yes")

    asynchronously(server, scene)


def test_time_outs_for_asyncio(server: Server) -> None:
    async def scene(client: AsyncClient) -> None:
        async with await client.recognize(sample_rate_hz=RATE_HZ, speech_start_timeout_ms=50) as stream:
            await stream._stream.changes.until(lambda: not stream._stream.is_open, WAIT_S)
            with pytest.raises(DeadlineError, match="nobody spoke"):
                stream.interim()

    asynchronously(server, scene)


# The command


def write_wave(path: Path, samples: Samples) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())
    return path


def test_the_command_prints_a_line_for_each_file(
    server: Server, spoken: dict[str, Samples], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write_wave(tmp_path / f"{text}.wav", samples)) for text, samples in spoken.items()]
    assert main(["recognize", server.address, *files, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["file"], line["text"], line["is_final"]) for line in lines] == [
        (file, text, True) for file, text in zip(files, spoken, strict=True)
    ]
    assert main(["recognize", server.address, files[0]]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("  yes")


def test_the_command_cuts_a_long_file_and_shows_interim_results(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [server.address, str(DEMO / "demo.wav"), "--cut", str(DEMO / "voice-commands.tide"), "--json"]
    assert main(["recognize", *words]) == 0
    whole = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in whole][:3] == ["yes", "music", "up"]
    assert main(["recognize", *words, "--interim"]) == 0
    streamed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    finals = [line for line in streamed if line["is_final"]]
    assert [(line["segment_id"], line["text"]) for line in finals] == [
        (line["segment_id"], line["text"]) for line in whole
    ]
    assert len(streamed) > len(finals)


def test_the_command_says_what_is_wrong_and_goes_on(
    server: Server, spoken: dict[str, Samples], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_wave(tmp_path / "yes.wav", spoken["yes"])
    long = write_wave(tmp_path / "long.wav", np.zeros(6 * RATE_HZ, np.int16))
    assert main(["recognize", server.address, str(tmp_path / "none.wav"), str(long), str(good)]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].endswith("  yes")
    assert "none.wav: no such file" in shown.err
    assert "long.wav: " in shown.err
    assert shown.err.count("what to do: ") == 2
    for code, text, words in (
        (1, "nobody", [server.address, str(good), "--model", "nobody"]),
        (1, "127.0.0.1:9", ["127.0.0.1:9", str(good)]),
        (1, "none.tide", [server.address, str(good), "--cut", "none.tide"]),
        (2, "HOST:PORT", ["nowhere", str(good)]),
        (2, "--results", [server.address, str(good), "--results", "-1"]),
    ):
        assert main(["recognize", *words]) == code, words
        shown = capsys.readouterr()
        assert text in shown.err
        assert shown.out == ""
