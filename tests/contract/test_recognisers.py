"""What every recogniser promises, run on the device's model, on a server, and on a server that is not there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.bundle import Manifest
from tidegate.client import Client
from tidegate.cloud.server import Server
from tidegate.edge.cloud_route import CloudRecogniser
from tidegate.edge.cloud_settings import CloudSettings
from tidegate.edge.device import DeviceModel
from tidegate.edge.endpoint import SegmentAudio, SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.edge.route import EdgeRecogniser, Recogniser
from tidegate.runtime import load
from tidegate.speech import Transcriber

RATE_HZ = 16_000
KINDS = ("device", "server", "dead server")
Say = Callable[..., NDArray[np.float32]]


@pytest.fixture(params=KINDS)
def recogniser(request: pytest.FixtureRequest, tone_bundle: Path, tone_manifest: Manifest) -> Iterator[Recogniser]:
    with ExitStack() as stack:
        model = stack.enter_context(load(tone_bundle))
        device = DeviceModel(
            tone_manifest, model.variant_id, Transcriber(model), None, maximum_results=0, sample_rate_hz=RATE_HZ
        )
        if request.param == "device":
            made: Recogniser = EdgeRecogniser(device)
        else:
            alive = request.param == "server"
            target = stack.enter_context(Server([tone_bundle])).address if alive else stack.enter_context(closed_port())
            client = stack.enter_context(Client(target, timeout_s=120))
            made = CloudRecogniser(
                lambda: client.recognize(sample_rate_hz=RATE_HZ),
                device,
                CloudSettings(target=target, timeout_s=30),
                sample_rate_hz=RATE_HZ,
                on_warning=lambda message: None,
            )
        yield made
        made.close()


@contextmanager
def closed_port() -> Iterator[str]:
    """Give an address where nobody listens: bound, so that nobody else can."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def segment(say: Say, number: int, word: str) -> list[SegmentEvent]:
    samples = (say([(word, 0.3)], 1.2) * 32767).astype(np.int16)
    start = number * 2 * RATE_HZ
    return [
        SegmentStarted(number, start, samples[:4800]),
        SegmentAudio(number, start + 4800, samples[4800:9600]),
        SegmentAudio(number, start + 9600, samples[9600:]),
        SegmentEnded(number, start + len(samples), "silence"),
    ]


def test_each_segment_gives_one_result_in_order(recogniser: Recogniser, say: Say) -> None:
    words = ["yes", "no", "unknown", "up", "down", "yes"]
    results = []
    for number, word in enumerate(words, start=1):
        for event in segment(say, number, word):
            recogniser.handle(event)
            results += recogniser.ready()
    results += recogniser.finish()
    assert [result.segment_id for result in results] == [1, 2, 3, 4, 5, 6]
    assert [result.text or result.label for result in results] == words
    assert [result.start_s for result in results] == [2.0 * number for number in range(1, 7)]
    assert all(result.end_s - result.start_s == pytest.approx(1.2) for result in results)
    assert all(result.latency_ms >= 0 for result in results)
    for result in results:
        assert all(result.start_s < word.start_s < word.end_s < result.end_s for word in result.words)
        assert (result.bundle, result.version, result.variant) == ("tones", "1.2.3", "onnx-fp32")


def test_nothing_comes_before_a_segment_has_ended(recogniser: Recogniser, say: Say) -> None:
    for event in segment(say, 1, "yes")[:-1]:
        recogniser.handle(event)
        assert recogniser.ready() == []
    assert recogniser.finish() == []


def test_results_need_not_be_asked_for_in_between(recogniser: Recogniser, say: Say) -> None:
    for number in (1, 2, 3, 4, 5):
        for event in segment(say, number, "up"):
            recogniser.handle(event)
    assert [result.text for result in recogniser.finish()] == ["up"] * 5
    assert recogniser.finish() == []


def test_without_segments_there_is_nothing_to_wait_for(recogniser: Recogniser) -> None:
    assert recogniser.ready() == []
    assert recogniser.finish() == []
    assert recogniser.bytes_sent >= 0


def test_close_may_be_repeated(recogniser: Recogniser, say: Say) -> None:
    recogniser.handle(segment(say, 1, "yes")[0])
    recogniser.close()
    recogniser.close()
