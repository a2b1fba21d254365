"""The asyncio client on real servers: the same answers and errors, many calls at once, cancellation, one event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.oip_servers import described, echo, oip_server

from tidegate.client import AsyncClient
from tidegate.cloud import Server
from tidegate.errors import (
    ConfigError,
    DeadlineError,
    DependencyError,
    InputError,
    NotFoundError,
    StateError,
    TidegateError,
    UnavailableError,
)
from tidegate.wire import messages

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "voice_commands"
ONES = np.ones((2, 4), np.float32)

Scene = Callable[[AsyncClient], Awaitable[None]]


def play(target: str, scene: Scene, **options: Any) -> None:
    async def whole() -> None:
        async with AsyncClient(target, **options) as client:
            await scene(client)

    asyncio.run(whole())


@pytest.fixture
def target() -> Iterator[str]:
    def missing(request: Any, context: grpc.ServicerContext) -> Any:
        if request.name == "nobody":
            context.abort(grpc.StatusCode.NOT_FOUND, "no model 'nobody'")
        return described(("x", "FP32", [-1, 4]))(request, context)

    unary = {
        "ServerLive": lambda request, context: messages.ServerLiveResponse(live=True),
        "ServerReady": lambda request, context: messages.ServerReadyResponse(ready=True),
        "ModelReady": lambda request, context: messages.ModelReadyResponse(ready=request.name == "m"),
        "ServerMetadata": lambda request, context: messages.ServerMetadataResponse(name="test", version="1"),
        "ModelMetadata": missing,
        "ModelInfer": echo,
    }
    with oip_server(unary) as address:
        yield address


def test_every_call_answers_as_the_other_client_does(target: str) -> None:
    async def scene(client: AsyncClient) -> None:
        assert await client.live()
        assert await client.ready()
        assert await client.model_ready("m")
        assert not await client.model_ready("n")
        assert (await client.server_metadata()).name == "test"
        assert (await client.model_metadata("m")).signature.inputs[0].shape == (-1, 4)
        np.testing.assert_array_equal((await client.infer("m", {"x": ONES}))["x"], ONES)
        answer = await client.infer_answer("m", {"x": ONES}, request_id="r", timeout_s=20)
        assert (answer.version, answer.request_id) == ("3", "r")
        with pytest.raises(DependencyError):
            await client.models()

    play(target, scene)


def test_errors_are_typed(target: str) -> None:
    async def scene(client: AsyncClient) -> None:
        with pytest.raises(InputError, match="float64; expected float32"):
            await client.infer("m", {"x": ONES.astype(np.float64)})
        with pytest.raises(NotFoundError, match="no model 'nobody'"):
            await client.infer("nobody", {"x": ONES})
        with pytest.raises(ConfigError):
            await client.infer("m", {"x": ONES}, timeout_s=0)

    play(target, scene)


def test_hundreds_of_calls_share_one_connection(target: str) -> None:
    async def scene(client: AsyncClient) -> None:
        found = await asyncio.gather(
            *(client.infer("m", {"x": np.full((1, 4), number, np.float32)}) for number in range(300))
        )
        assert [one["x"][0, 0] for one in found] == list(range(300))

    play(target, scene, timeout_s=60)


def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        async def scene(client: AsyncClient) -> None:
            with pytest.raises(UnavailableError) as caught:
                await client.live()
            assert type(caught.value) is UnavailableError

        play(f"127.0.0.1:{taken.getsockname()[1]}", scene, timeout_s=3600)


@pytest.fixture
def stuck() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A server whose ModelInfer goes on until the test lets it: address, `begun`, `gone` (the caller has left)."""
    begun, gone = threading.Event(), threading.Event()

    def wait(request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(gone.set)
        begun.set()
        gone.wait(60)
        return echo(request)

    with oip_server({"ModelInfer": wait}) as target:
        yield target, begun, gone


def test_a_cancelled_task_cancels_its_call(stuck: tuple[str, threading.Event, threading.Event]) -> None:
    target, begun, gone = stuck

    async def scene(client: AsyncClient) -> None:
        task = asyncio.ensure_future(client.infer("m", {"x": ONES}))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 30)

    play(target, scene, timeout_s=60, check_inputs=False)


def test_a_deadline_is_kept(stuck: tuple[str, threading.Event, threading.Event]) -> None:
    async def scene(client: AsyncClient) -> None:
        with pytest.raises(DeadlineError):
            await client.infer("m", {"x": ONES}, timeout_s=0.2)

    play(stuck[0], scene, check_inputs=False)


def test_after_close_every_call_is_a_state_error(target: str) -> None:
    async def whole() -> None:
        client = AsyncClient(target)
        assert await client.live()
        await client.close()
        await client.close()
        with pytest.raises(StateError):
            await client.live()

    asyncio.run(whole())


def test_a_client_belongs_to_one_event_loop(target: str) -> None:
    client = AsyncClient(target)
    assert asyncio.run(client.live())
    with pytest.raises(StateError, match="another event loop"):
        asyncio.run(client.live())


@asynccontextmanager
async def speech_client() -> AsyncIterator[AsyncClient]:
    with Server([DEMO / "voice-commands-cloud.tide"]) as server:
        async with AsyncClient(server.address, timeout_s=120) as client:
            yield client


def test_speech_is_recognised() -> None:
    with wave.open(str(ROOT / "tests" / "data" / "five_words.wav")) as recording:
        rate_hz = recording.getframerate()
        audio = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")

    async def whole() -> None:
        async with speech_client() as client, await client.recognize(sample_rate_hz=rate_hz) as stream:
            await stream.begin(1, 0)
            for start in range(0, len(audio), rate_hz // 5):
                await stream.send(start, audio[start : start + rate_hz // 5])
            await stream.end(1, len(audio))
            segment = await stream.wait(1, 60)
            assert segment.transcript.text
            assert segment.model == "voice-commands-cloud"
            assert stream.poll() == []
            assert stream.bytes_sent > audio.nbytes
            with pytest.raises(StateError, match="already returned"):
                await stream.wait(1, 1)
            with pytest.raises(InputError, match="int16"):
                await stream.send(0, audio.astype(np.float32))
        with pytest.raises(StateError):
            await stream.begin(2, 0)

    asyncio.run(whole())


def test_a_refused_stream_says_why_and_a_silent_server_is_a_deadline() -> None:
    async def refused() -> None:
        async with speech_client() as client:
            with pytest.raises(NotFoundError):
                await client.recognize(sample_rate_hz=16_000, model="nobody")
            async with await client.recognize(sample_rate_hz=16_000) as stream:
                await stream.begin(1, 0)
                with pytest.raises(DeadlineError, match="segment 1"):
                    await stream.wait(1, 0.1)

    async def silent() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            async with AsyncClient(f"127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.3) as client:
                with pytest.raises(TidegateError) as caught:
                    await client.recognize(sample_rate_hz=16_000)
                assert type(caught.value) is DeadlineError

    asyncio.run(refused())
    asyncio.run(silent())
