"""Inference streams, for threads and for asyncio, on servers that speak Triton's dialect and MLServer's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.oip_servers import Streaming, echo, oip_server
from tests.served import linear_bundle, server_process

from tidegate.client import AsyncClient, Client, InferStream
from tidegate.errors import DeadlineError, DependencyError, ModelError, StateError, UnavailableError
from tidegate.wire import messages

ROWS = [np.full((1, 4), number, np.float32) for number in range(100)]


def triton(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    """One answer each; a model called `bad` fails in the band, as Triton has it."""
    for request in requests:
        if request.model_name == "bad":
            failed = messages.ModelStreamInferResponse(error_message="input 'x' is wrong")
            failed.infer_response.id = request.id
            yield failed
        else:
            yield messages.ModelStreamInferResponse(infer_response=echo(request))


def mlserver(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    """Bare answers, with typed contents that are empty."""
    for request in requests:
        answer = echo(request)
        answer.outputs[0].contents.SetInParent()
        yield answer


def decoupled(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    """Three answers to each request, of which the last one says so."""
    for request in requests:
        for number in range(3):
            answer = echo(request)
            answer.parameters["triton_final_response"].bool_param = number == 2
            yield messages.ModelStreamInferResponse(infer_response=answer)


def dies_after_two(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    for number, request in enumerate(requests):
        if number == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield messages.ModelStreamInferResponse(infer_response=echo(request))


@pytest.mark.parametrize("dialect", [triton, mlserver])
def test_one_answer_for_each_request_in_order(dialect: Streaming) -> None:
    with (
        oip_server({}, {"ModelStreamInfer": dialect}) as target,
        Client(target) as client,
        client.infer_stream(timeout_s=60) as stream,
    ):
        found = [answer.outputs["x"] for answer in stream.infer_each("m", ({"x": row} for row in ROWS))]
    np.testing.assert_array_equal(found, ROWS)


@pytest.mark.parametrize("dialect", [triton, mlserver])
def test_asyncio_one_answer_for_each_request_in_order(dialect: Streaming) -> None:
    async def whole(target: str) -> list[Any]:
        async with AsyncClient(target) as client, client.infer_stream(timeout_s=60) as stream:
            return [answer.outputs["x"] async for answer in stream.infer_each("m", ({"x": row} for row in ROWS))]

    with oip_server({}, {"ModelStreamInfer": dialect}) as target:
        np.testing.assert_array_equal(asyncio.run(whole(target)), ROWS)


def test_a_failed_request_is_an_answer_and_the_stream_goes_on() -> None:
    with (
        oip_server({}, {"ModelStreamInfer": triton}) as target,
        Client(target) as client,
        client.infer_stream() as stream,
    ):
        for name in ("good", "bad", "good"):
            stream.send(name, {"x": ROWS[1]}, request_id=name)
        stream.finish()
        first, failed, last = stream
    assert first.error is None
    assert (failed.request_id, failed.outputs) == ("bad", {})
    assert isinstance(failed.error, ModelError)
    assert "input 'x' is wrong" in failed.error.message
    np.testing.assert_array_equal(last.outputs["x"], ROWS[1])


def test_a_request_may_have_several_answers() -> None:
    with (
        oip_server({}, {"ModelStreamInfer": decoupled}) as target,
        Client(target) as client,
        client.infer_stream() as stream,
    ):
        stream.send("m", {"x": ROWS[0]}, request_id="a")
        stream.finish()
        assert [answer.is_final for answer in stream] == [False, False, True]
        assert stream.receive() is None


def test_a_broken_stream_says_why_at_every_call_and_sends_nothing_again() -> None:
    with (
        oip_server({}, {"ModelStreamInfer": dies_after_two}) as target,
        Client(target) as client,
        client.infer_stream() as stream,
    ):
        answers = stream.infer_each("m", ({"x": row} for row in ROWS), in_flight=1)
        next(answers)
        next(answers)
        with pytest.raises(UnavailableError, match="going away"):
            next(answers)
        for call in (stream.receive, lambda: stream.send("m", {"x": ROWS[0]})):
            with pytest.raises(UnavailableError, match="going away"):
                call()


def test_asyncio_a_broken_stream_says_why() -> None:
    async def whole(target: str) -> None:
        async with AsyncClient(target) as client, client.infer_stream() as stream:
            with pytest.raises(UnavailableError, match="going away"):
                async for _ in stream.infer_each("m", ({"x": row} for row in ROWS), in_flight=1):
                    pass
            with pytest.raises(UnavailableError, match="going away"):
                await stream.send("m", {"x": ROWS[0]})

    with oip_server({}, {"ModelStreamInfer": dies_after_two}) as target:
        asyncio.run(whole(target))


def test_a_server_without_streams_says_so() -> None:
    with (
        oip_server({"ModelInfer": echo}) as target,
        Client(target) as client,
        client.infer_stream() as stream,
        pytest.raises(DependencyError),
    ):
        stream.receive(30)


def test_no_answer_in_time_leaves_the_stream_as_it_was() -> None:
    go_on = threading.Event()

    def patient(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            go_on.wait(60)
            yield messages.ModelStreamInferResponse(infer_response=echo(request))

    async def whole(target: str) -> None:
        async with AsyncClient(target) as client, client.infer_stream() as stream:
            await stream.send("m", {"x": ROWS[0]})
            with pytest.raises(DeadlineError):
                await stream.receive(0.1)
            go_on.set()
            answer = await stream.receive(30)
            assert answer is not None

    with oip_server({}, {"ModelStreamInfer": patient}) as target:
        with Client(target) as client, client.infer_stream() as stream:
            stream.send("m", {"x": ROWS[0]})
            with pytest.raises(DeadlineError):
                stream.receive(0.1)
            go_on.set()
            assert stream.receive(30) is not None
        go_on.clear()
        asyncio.run(whole(target))


def test_a_stream_ends_for_good() -> None:
    with oip_server({}, {"ModelStreamInfer": triton}) as target, Client(target) as client:
        stream = client.infer_stream()
        stream.send("m", {"x": ROWS[0]})
        stream.finish()
        with pytest.raises(StateError, match="nothing follows"):
            stream.send("m", {"x": ROWS[0]})
        stream.close()
        stream.close()
        with pytest.raises(StateError, match="closed"):
            stream.send("m", {"x": ROWS[0]})


def test_who_takes_no_answers_slows_the_server_down() -> None:
    """Answers that nobody takes stay with the server, beyond what the two ends keep: 64 answers and gRPC's window."""
    made = []

    def endless(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        request = next(requests)
        for number in range(10_000):
            made.append(number)
            yield messages.ModelStreamInferResponse(infer_response=echo(request))
        next(requests, None)

    big = np.zeros((1, 100_000), np.float32)
    with (
        oip_server({}, {"ModelStreamInfer": endless}) as target,
        Client(target) as client,
        client.infer_stream() as stream,
    ):
        stream.send("m", {"x": big})
        for _ in range(200):
            assert stream.receive(60) is not None
        # 64 wait with the client, some MB of 400 kB each in gRPC's windows; without a limit all 10,000 would come.
        assert len(made) < 1000


def test_the_stream_of_our_own_server_and_a_server_that_is_killed(tmp_path: Path) -> None:
    with (
        server_process([linear_bundle(tmp_path, factor=2.0)]) as server,
        Client(server.address) as client,
        client.infer_stream() as stream,
    ):
        found = [answer.outputs["y"] for answer in stream.infer_each("linear", ({"x": row} for row in ROWS))]
        np.testing.assert_array_equal(found, [2 * row for row in ROWS])
        wrong = next(stream.infer_each("linear", [{"x": ROWS[0].astype(np.float64)}]))
        assert wrong.error is not None
        assert "'x'" in wrong.error.message
        server.kill()
        with pytest.raises(UnavailableError):
            _until_it_breaks(stream)


def _until_it_breaks(stream: InferStream) -> None:
    for _ in stream.infer_each("linear", ({"x": ROWS[0]} for _ in range(10_000))):
        pass
