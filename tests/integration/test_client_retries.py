"""What is sent a second time and what is not, with servers that fail at a stated moment or are killed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.oip_servers import echo, oip_server
from tests.served import linear_bundle, server_process, slow_bundle
from tests.waiting import wait_until

from tidegate.client import AsyncClient, Client, RetrySettings
from tidegate.errors import ConfigError, DeadlineError, UnavailableError
from tidegate.wire import messages

ONES = np.ones((1, 4), np.float32)
LONG_TURNS = np.array([500_000_000], np.int64)
QUICKLY = RetrySettings(first_backoff_s=0.01, largest_backoff_s=0.02)


class Failing:
    """Answers UNAVAILABLE so many times, then works; counts what the server has seen."""

    def __init__(self, times: int, answer: Callable[[Any], Any]) -> None:
        self._left = times
        self._answer = answer
        self.seen = 0

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.seen += 1
        if self._left:
            self._left -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return self._answer(request)


def live(request: Any) -> Any:
    return messages.ServerLiveResponse(live=True)


@contextmanager
def failing(times: int, retries: RetrySettings | None = QUICKLY) -> Iterator[tuple[Client, Failing, Failing]]:
    question, inference = Failing(times, live), Failing(times, echo)
    with (
        oip_server({"ServerLive": question, "ModelInfer": inference}) as target,
        Client(target, retries=retries, check_inputs=False, timeout_s=120) as client,
    ):
        yield client, question, inference


def test_a_question_is_asked_again() -> None:
    with failing(2) as (client, question, _):
        assert client.live()
        assert question.seen == 3


def test_a_question_is_asked_so_many_times_and_no_more() -> None:
    with failing(99) as (client, question, _):
        with pytest.raises(UnavailableError, match="not now"):
            client.live()
        assert question.seen == 3
    with failing(99, RetrySettings(attempts=1)) as (client, question, _):
        with pytest.raises(UnavailableError, match="not now"):
            client.live()
        assert question.seen == 1


def test_an_inference_is_not_sent_again_unless_the_caller_says_that_it_may() -> None:
    with failing(1) as (client, _, inference):
        with pytest.raises(UnavailableError, match="not now"):
            client.infer("m", {"x": ONES})
        assert inference.seen == 1
    with failing(2, RetrySettings(infer=True, first_backoff_s=0.01)) as (client, _, inference):
        np.testing.assert_array_equal(client.infer("m", {"x": ONES})["x"], ONES)
        assert inference.seen == 3


def test_a_large_inference_is_kept_for_the_second_attempt() -> None:
    """By default grpc gives up repeating what is larger than 256 KiB."""
    large = np.ones((1, 2**19), np.float32)
    with failing(1, RetrySettings(infer=True, first_backoff_s=0.01)) as (client, _, inference):
        assert client.infer("m", {"x": large})["x"].size == large.size
        assert inference.seen == 2


def test_asyncio_has_the_same_rules() -> None:
    async def whole(target: str) -> None:
        async with AsyncClient(target, retries=QUICKLY, check_inputs=False) as client:
            assert await client.live()
            with pytest.raises(UnavailableError):
                await client.infer("m", {"x": ONES})

    question, inference = Failing(2, live), Failing(1, echo)
    with oip_server({"ServerLive": question, "ModelInfer": inference}) as target:
        asyncio.run(whole(target))
    assert (question.seen, inference.seen) == (3, 1)


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED"])
def test_other_failures_are_answers(code: str) -> None:
    seen = []

    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        seen.append(request)
        context.abort(grpc.StatusCode[code], "no")

    retries = RetrySettings(infer=True, first_backoff_s=0.01)
    with (
        oip_server({"ModelInfer": refuse}) as target,
        Client(target, retries=retries, check_inputs=False) as client,
        pytest.raises(Exception, match="no"),
    ):
        client.infer("m", {})
    assert len(seen) == 1


def test_a_server_that_is_not_there_yet_is_waited_for_when_asked(tmp_path: Path) -> None:
    """At a path: a port that was let go may be anybody's by the time it is wanted again."""
    address, waiting = f"unix:{tmp_path / 'socket'}", RetrySettings(wait_for_server=True)
    with Client(address, timeout_s=0.3, retries=waiting) as client, pytest.raises(DeadlineError):
        client.infer("m", {"x": ONES})
    with Client(address, timeout_s=60, retries=waiting, check_inputs=False) as client:
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(client.infer("m", {"x": ONES})))
        asking.start()
        with oip_server({"ModelInfer": echo}, address=address):
            asking.join(60)
    np.testing.assert_array_equal(answers[0]["x"], ONES)


def test_an_inference_under_way_when_the_server_is_killed_fails_once_and_the_next_server_answers(
    tmp_path: Path,
) -> None:
    bundles = [linear_bundle(tmp_path, factor=2.0), slow_bundle(tmp_path)]
    listen = ("--listen", f"unix:{tmp_path / 'socket'}")
    with server_process(bundles, *listen) as first, Client(first.address, timeout_s=60) as client:
        client.infer("linear", {"x": ONES})
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                client.infer("slow", {"turns": LONG_TURNS})
            except UnavailableError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        before_s = first.cpu_s()
        asking.start()
        wait_until(lambda: first.cpu_s() >= before_s + 0.3)  # the model runs
        first.kill()
        asking.join(30)
        assert [type(failure) for failure in failures] == [UnavailableError]
        with server_process([bundles[0]], *listen):
            retries = RetrySettings(wait_for_server=True)
            with Client(first.address, timeout_s=60, retries=retries) as patient:
                np.testing.assert_array_equal(patient.infer("linear", {"x": ONES})["y"], 2 * ONES)
            # The client from before finds it as well: at once, or after its rest between connections.
            wait_until(lambda: _answers(client))


def _answers(client: Client) -> bool:
    try:
        return bool(client.infer("linear", {"x": ONES}))
    except UnavailableError:
        return False


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts": 6},
        {"first_backoff_s": 0.0},
        {"first_backoff_s": 2.0, "largest_backoff_s": 1.0},
        {"first_backoff_s": float("nan")},
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RetrySettings(**settings)


def test_the_service_config_repeats_no_stream_and_nothing_that_changes_a_server() -> None:
    for settings in (RetrySettings(), RetrySettings(infer=True)):
        repeated = {
            name["method"]
            for rule in json.loads(settings.service_config())["methodConfig"]
            if "retryPolicy" in rule
            for name in rule["name"]
        }
        assert not repeated & {"ModelStreamInfer", "RepositoryModelLoad", "RepositoryModelUnload"}
        assert ("ModelInfer" in repeated) is settings.infer
