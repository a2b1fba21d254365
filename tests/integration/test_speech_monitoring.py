"""Spans, metrics and log lines of speech calls, on a real server."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.http_server import scrape, total
from tests.waiting import wait_until

from tidegate.client import Client, RecognizeStream, Recording
from tidegate.cloud.core import Observer
from tidegate.cloud.http import HttpSettings
from tidegate.cloud.logs import JsonLines, RequestLog
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.cloud.speech_stages import STAGES
from tidegate.cloud.tracing import Tracing
from tidegate.errors import NotFoundError, ResourceError
from tidegate.speech.pcm import int16_from_float32
from tidegate.v1 import speech_pb2 as pb
from tidegate.wire.services import SPEECH

Say = Callable[..., NDArray[np.float32]]

RATE_HZ = 16_000
WAIT_S = 60.0
MAXIMUM_STREAMS = 2
TONES = {"model": "tones", "version": "1.2.3"}


class Lines(logging.Handler):
    """Keeps what is logged, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@dataclass
class Watched:
    """A server, and what is seen of it from outside."""

    server: Server
    exporter: InMemorySpanExporter
    provider: TracerProvider
    lines: Lines

    def seen(self, calls: int) -> tuple[list[ReadableSpan], list[dict[str, Any]]]:
        """The spans and the lines since the last look, when so many calls have ended; the log is told last."""
        texts = wait_until(lambda: self.lines.texts if len(self.lines.texts) >= calls else [])
        assert len(texts) == calls
        self.lines.texts = []
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found, [json.loads(text) for text in texts]


@pytest.fixture
def watched(tone_bundle: Path) -> Iterator[Watched]:
    exporter, provider, lines = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False), Lines()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    outside = OutsideSettings(http=HttpSettings(metrics_listen="127.0.0.1:0"))
    settings = ServerSettings(outside=outside, maximum_streams=MAXIMUM_STREAMS)
    observers: list[Observer] = [Tracing(provider), RequestLog(every_request=True)]
    logger = logging.getLogger("tidegate.cloud.logs")
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        with Server([tone_bundle], settings=settings, observers=observers) as server:
            yield Watched(server, exporter, provider, lines)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)
        provider.shutdown()


def send(stream: RecognizeStream, segment_id: int, audio: NDArray[np.float32], *, ended: bool = True) -> None:
    samples = int16_from_float32(audio)
    start_sample = segment_id * 10 * RATE_HZ
    stream.begin(segment_id, start_sample)
    for first in range(0, len(samples), 1600):
        stream.send(start_sample + first, samples[first : first + 1600])
    if ended:
        stream.end(segment_id, start_sample + len(samples))


def named(spans: list[ReadableSpan], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def test_a_stream_is_one_trace_from_its_caller_to_each_stage_of_each_segment(watched: Watched, say: Say) -> None:
    tracer = watched.provider.get_tracer("caller")
    with (
        Client(watched.server.address) as client,
        tracer.start_as_current_span("caller"),
        client.recognize(sample_rate_hz=RATE_HZ) as stream,
    ):
        send(stream, 1, say([("yes", 0.5), ("down", 1.5)], 2.5))
        send(stream, 2, say([], 1.5))
        assert [stream.wait(number, WAIT_S).transcript.text for number in (1, 2)] == ["yes down", ""]
    spans, _ = watched.seen(calls=1)
    (caller,), (call,), segments = named(spans, "caller"), named(spans, "speech"), named(spans, "segment")
    assert {span.context.trace_id for span in spans if span.context is not None} == {caller.context.trace_id}
    assert call.parent.span_id == caller.context.span_id
    assert call.attributes["rpc.method"] == "StreamingRecognize"
    assert (call.attributes["tidegate.model"], call.attributes["tidegate.version"]) == ("tones", "1.2.3")
    assert (call.attributes["tidegate.code"], call.attributes["tidegate.segments"]) == ("OK", 2)
    assert [segment.attributes["tidegate.segment_id"] for segment in segments] == [1, 2]
    assert [segment.attributes["tidegate.audio_s"] for segment in segments] == [2.5, 1.5]
    for segment, searches in zip(segments, (True, False), strict=True):
        assert segment.parent.span_id == call.context.span_id
        parts = [span for span in spans if span.parent and span.parent.span_id == segment.context.span_id]
        assert {part.name for part in parts} == set(STAGES) - (set() if searches else {"search"})
        windows = segment.attributes["tidegate.windows"]
        assert len(named(parts, "queue")) == len(named(parts, "compute")) == windows > 1
        for stage in STAGES:
            shown_ms = sum((part.end_time - part.start_time) / 1e6 for part in named(parts, stage))
            # Messages that complete no window are in the sum only.
            assert shown_ms <= segment.attributes[f"tidegate.{stage}_ms"] + 1e-6
        ends = [segment.start_time, *[moment for part in parts for moment in (part.start_time, part.end_time)]]
        assert [*ends, segment.end_time] == sorted([*ends, segment.end_time])
    assert "yes" not in "".join(span.to_json() for span in spans)


def test_a_stream_is_counted_and_logged_without_what_was_said(watched: Watched, say: Say) -> None:
    with Client(watched.server.address) as client:
        with client.recognize(sample_rate_hz=RATE_HZ, device_bundle="words 3.0.0") as stream:
            send(stream, 1, say([("yes", 0.5)], 1.5))
            send(stream, 2, say([], 1.0))
            stream.wait(2, WAIT_S)
            found = scrape(watched.server.metrics_address)
            assert total(found, "tidegate_speech_calls_open", method="StreamingRecognize") == 1
        _, (line,) = watched.seen(calls=1)
    found = scrape(watched.server.metrics_address)
    assert total(found, "tidegate_speech_calls_open") == 0
    assert total(found, "tidegate_speech_calls_total", method="StreamingRecognize", code="OK", **TONES) == 1
    assert total(found, "tidegate_speech_segments_total", result="words", **TONES) == 1
    assert total(found, "tidegate_speech_segments_total", result="no_words", **TONES) == 1
    assert total(found, "tidegate_speech_audio_seconds_total", **TONES) == 2.5
    assert total(found, "tidegate_speech_final_seconds_count", **TONES) == 2
    assert total(found, "tidegate_speech_real_time_factor_count", **TONES) == 2
    spent_s = {stage: total(found, "tidegate_speech_stage_seconds_total", stage=stage) for stage in STAGES}
    assert all(seconds > 0 for seconds in spent_s.values())
    work_s = sum(seconds for stage, seconds in spent_s.items() if stage != "queue")
    # Factors are of 1.5 s and of 1 s: their sum lies between all work by the longer and by the shorter.
    assert work_s / 1.5 <= total(found, "tidegate_speech_real_time_factor_sum") <= work_s / 1.0
    assert (line["event"], line["level"], line["method"]) == ("speech", "info", "StreamingRecognize")
    assert (line["model"], line["version"], line["code"]) == ("tones", "1.2.3", "OK")
    assert (line["segments"], line["with_words"], line["unanswered"], line["audio_s"]) == (2, 1, 0, 2.5)
    assert line["device_bundle"] == "words 3.0.0"
    assert line["longest_final_ms"] > 0
    assert line["compute_ms"] <= line["took_ms"]
    assert "yes" not in json.dumps(line)


def test_recordings_are_calls_as_well(watched: Watched, say: Say) -> None:
    samples = int16_from_float32(say([("no", 0.5)], 1.5))
    with Client(watched.server.address) as client:
        (segment,) = client.recognize_recording(samples, sample_rate_hz=RATE_HZ)
        assert segment.transcript.text == "no"
        recordings = [Recording("a", samples), Recording("none", samples[:0]), Recording("b", samples)]
        answers = list(client.recognize_batch(recordings, sample_rate_hz=RATE_HZ))
    assert [answer.error is None for answer in answers] == [True, False, True]
    spans, lines = watched.seen(calls=2)
    assert sorted((line["method"], line["segments"]) for line in lines) == [("BatchRecognize", 2), ("Recognize", 1)]
    assert {span.attributes["rpc.method"] for span in named(spans, "speech")} == {"Recognize", "BatchRecognize"}
    assert len(named(spans, "segment")) == len(named(spans, "search")) == 3
    found = scrape(watched.server.metrics_address)
    assert total(found, "tidegate_speech_calls_total", method="Recognize", code="OK") == 1
    assert total(found, "tidegate_speech_calls_total", method="BatchRecognize", code="OK") == 1
    assert total(found, "tidegate_speech_segments_total", result="words") == 3


def test_interim_results_are_counted_and_their_decoding_is_in_the_sum(watched: Watched, say: Say) -> None:
    with (
        Client(watched.server.address) as client,
        client.recognize(sample_rate_hz=RATE_HZ, interim_results=True) as stream,
    ):
        send(stream, 1, say([("yes", 0.5), ("down", 2.0)], 3.0))
        stream.wait(1, WAIT_S)
    spans, (line,) = watched.seen(calls=1)
    assert line["interim"] >= 1
    assert total(scrape(watched.server.metrics_address), "tidegate_speech_interim_total") == line["interim"]
    (segment,), (decode,) = named(spans, "segment"), named(spans, "decode")
    assert segment.attributes["tidegate.decode_ms"] > (decode.end_time - decode.start_time) / 1e6


def test_a_call_that_is_not_accepted_is_refused_by_reason(watched: Watched) -> None:
    with Client(watched.server.address) as client:
        with pytest.raises(NotFoundError), client.recognize(sample_rate_hz=RATE_HZ, model="none"):
            pass
        (span,), (line,) = watched.seen(calls=1)
        wait_until(lambda: watched.server.open_streams == 0)
        with (
            client.recognize(sample_rate_hz=RATE_HZ),
            client.recognize(sample_rate_hz=RATE_HZ),
            pytest.raises(ResourceError),
            client.recognize(sample_rate_hz=RATE_HZ),
        ):
            pass
    _, lines = watched.seen(calls=3)
    assert sorted(line["code"] for line in lines) == ["OK", "OK", "RESOURCE_EXHAUSTED"]
    assert (line["event"], line["code"], line["error"]) == ("speech", "NOT_FOUND", "NotFoundError")
    assert (span.name, span.status.status_code) == ("speech", StatusCode.ERROR)
    assert span.status.description == "NotFoundError"
    found = scrape(watched.server.metrics_address)
    assert total(found, "tidegate_speech_refused_total", method="StreamingRecognize", code="NOT_FOUND") == 1
    assert total(found, "tidegate_speech_refused_total", code="RESOURCE_EXHAUSTED") == 1
    assert total(found, "tidegate_speech_calls_total", code="OK") == 2
    assert total(found, "tidegate_speech_calls_open") == 0


@pytest.mark.parametrize("name", [method.name for method in SPEECH.methods])
def test_a_call_whose_message_cannot_be_read_is_refused(watched: Watched, name: str) -> None:
    method = SPEECH.method(name)
    with grpc.insecure_channel(watched.server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        # A stream of one message is a unary call on the wire.
        list(channel.stream_stream(SPEECH.path(method))(iter([b"\xff" * 9]), timeout=WAIT_S))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    _, (line,) = watched.seen(calls=1)
    assert (line["method"], line["code"], line["segments"]) == (name, "INVALID_ARGUMENT", 0)
    found = scrape(watched.server.metrics_address)
    assert total(found, "tidegate_speech_refused_total", method=name, code="INVALID_ARGUMENT") == 1


def test_a_segment_that_a_wrong_message_ends_is_not_answered(watched: Watched) -> None:
    method = SPEECH.method("StreamingRecognize")
    start = pb.VoiceActivity(event=pb.VoiceActivity.SEGMENT_START, segment_id=1)
    chunk = pb.AudioChunk(content=bytes(RATE_HZ))
    messages = [
        pb.StreamingRecognizeRequest(config=pb.StreamingConfig(encoding=pb.LINEAR16, sample_rate_hz=RATE_HZ)),
        pb.StreamingRecognizeRequest(voice_activity=start),
        pb.StreamingRecognizeRequest(audio=chunk),
        pb.StreamingRecognizeRequest(audio=chunk),
    ]
    with grpc.insecure_channel(watched.server.address) as channel, pytest.raises(grpc.RpcError) as ended:
        list(
            channel.stream_stream(SPEECH.path(method))(iter([m.SerializeToString() for m in messages]), timeout=WAIT_S)
        )
    assert "at sample 0; expected 8000" in ended.value.details()
    spans, (line,) = watched.seen(calls=1)
    assert (line["event"], line["code"], line["error"]) == ("speech", "INVALID_ARGUMENT", "InputError")
    assert (line["segments"], line["unanswered"], line["audio_s"]) == (1, 1, 0.5)
    (segment,) = named(spans, "segment")
    assert (segment.status.status_code, segment.status.description) == (StatusCode.ERROR, "not answered")
    found = scrape(watched.server.metrics_address)
    assert total(found, "tidegate_speech_segments_total", result="unanswered", **TONES) == 1
    assert total(found, "tidegate_speech_calls_total", code="INVALID_ARGUMENT", **TONES) == 1
    assert total(found, "tidegate_speech_final_seconds_count") == 0
    assert total(found, "tidegate_speech_calls_open") == 0
