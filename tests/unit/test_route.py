"""Who decides: no segment is lost, whatever the server does, and the order of segments is kept.

The server is a scripted stream, the clock is moved by the test, and the device's model is a real ONNX graph.
tests/integration/test_listen_cloud.py does the same with real servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.client import RecognizedSegment
from tidegate.edge.backoff import Backoff
from tidegate.edge.cloud_route import LARGEST_BACKLOG, CloudRecogniser
from tidegate.edge.cloud_settings import CloudSettings
from tidegate.edge.device import DeviceModel
from tidegate.edge.endpoint import SegmentAudio, SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.edge.results import SegmentResult
from tidegate.edge.route import EdgeRecogniser, Recogniser
from tidegate.errors import DeadlineError, ResourceError, StateError, TidegateError, UnavailableError
from tidegate.runtime import load
from tidegate.speech import Catalogue, SearchResult, Transcriber, Transcript

RATE_HZ = 16_000
Say = Callable[..., NDArray[np.float32]]


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Inline(Executor):
    """Runs what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except TidegateError as error:
            future.set_exception(error)
        return future


class ScriptedServer:
    """Answers a segment once `answer` says so; breaks when told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.up = True
        self.streams: list[ScriptedStream] = []
        self.answers_at_once = True

    def open(self) -> ScriptedStream:
        if not self.up:
            raise UnavailableError("server: refused")
        self.streams.append(ScriptedStream(self))
        return self.streams[-1]

    @property
    def stream(self) -> ScriptedStream:
        return self.streams[-1]


class ScriptedStream:
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self.calls: list[tuple[Any, ...]] = []
        self.ended: list[int] = []
        self.answers: list[RecognizedSegment] = []
        self.closed = False
        self.broken: TidegateError | None = None
        self.bytes_sent = 0

    def begin(self, segment_id: int, start_sample: int) -> None:
        self._note("begin", segment_id, start_sample)

    def send(self, start_sample: int, audio: NDArray[np.int16]) -> None:
        self._note("send", start_sample, len(audio))
        self.bytes_sent += audio.nbytes

    def end(self, segment_id: int, end_sample: int) -> None:
        self._note("end", segment_id, end_sample)
        self.ended.append(segment_id)
        if self._server.answers_at_once:
            self.answer(segment_id)

    def answer(self, segment_id: int) -> None:
        self.answers.append(
            RecognizedSegment(
                segment_id=segment_id,
                start_s=0,
                end_s=0,
                transcript=Transcript("from the server", 0.5),
                search_results=(SearchResult("s", "t", "", 1.0),),
                model="big",
                version="2.0.0",
                variant="onnx-fp32",
                compute_ms=1.0,
            )
        )

    def poll(self) -> list[RecognizedSegment]:
        answers, self.answers = self.answers, []
        if not answers and self.broken:
            raise self.broken
        return answers

    def wait(self, segment_id: int, timeout_s: float) -> RecognizedSegment:
        for answer in self.answers:
            if answer.segment_id == segment_id:
                self.answers.remove(answer)
                return answer
        if self.broken:
            raise self.broken
        self._server.clock.now_s += timeout_s
        raise DeadlineError(f"server: no answer in {timeout_s:g} s")

    def close(self) -> None:
        self.closed = True

    def breaks(self, error: TidegateError | None = None) -> None:
        self.broken = error or UnavailableError("server: went away")

    def _note(self, *call: Any) -> None:
        if self.broken:
            raise self.broken
        assert not self.closed
        self.calls.append(call)


@pytest.fixture(scope="module")
def transcriber(tone_bundle: Path) -> Iterator[Transcriber]:
    with load(tone_bundle) as model:
        yield Transcriber(model)


class Bench:
    """A CloudRecogniser with everything around it under the test's control."""

    def __init__(self, transcriber: Transcriber, manifest: Any, say: Say, *, device: bool = True) -> None:
        self.clock = Clock()
        self.server = ScriptedServer(self.clock)
        self.warnings: list[str] = []
        self.results: list[SegmentResult] = []
        self._say = say
        self._next_id = 0
        self._device = (
            DeviceModel(
                manifest,
                "onnx-fp32",
                transcriber,
                Catalogue.from_jsonl(b'{"id": "y", "title": "yes"}'),
                maximum_results=3,
                sample_rate_hz=RATE_HZ,
                clock=self.clock,
            )
            if device
            else None
        )

    def start(self, **more: Any) -> CloudRecogniser:
        self.route = CloudRecogniser(
            self.server.open,
            self._device,
            CloudSettings(target="server", timeout_s=2.0),
            sample_rate_hz=RATE_HZ,
            on_warning=self.warnings.append,
            why_no_device="no runtime here",
            clock=self.clock,
            background=Inline(),
            **more,
        )
        return self.route

    def events(self, word: str = "yes") -> list[SegmentEvent]:
        """One segment in three pieces."""
        self._next_id += 1
        samples = (self._say([(word, 0.3)], 1.2) * 32767).astype(np.int16)
        start = self._next_id * 10 * RATE_HZ
        return [
            SegmentStarted(self._next_id, start, samples[:6400]),
            SegmentAudio(self._next_id, start + 6400, samples[6400:]),
            SegmentEnded(self._next_id, start + len(samples), "silence"),
        ]

    def play(self, events: list[SegmentEvent], *, ready: bool = True) -> None:
        for event in events:
            self.route.handle(event)
            if ready:
                self.results += self.route.ready()

    def finish(self) -> list[tuple[int, str, str]]:
        self.results += self.route.finish()
        return [(result.segment_id, result.decided_by, result.text) for result in self.results]


@pytest.fixture
def bench(transcriber: Transcriber, tone_manifest: Any, say: Say) -> Bench:
    return Bench(transcriber, tone_manifest, say)


SERVER, DEVICE = ("cloud", "from the server"), ("edge", "yes")


def test_the_device_decides_at_the_end_of_the_segment(bench: Bench) -> None:
    assert bench._device is not None
    route: Recogniser = EdgeRecogniser(bench._device, clock=bench.clock)
    for event in bench.events()[:2]:
        route.handle(event)
        assert route.ready() == []
    route.handle(SegmentEnded(1, 10 * RATE_HZ + 19200, "silence"))
    (result,) = route.ready()
    assert (result.text, result.decided_by, result.bundle, result.version) == ("yes", "edge", "tones", "1.2.3")
    assert (result.start_s, result.end_s) == (10.0, 11.2)
    assert 10.2 < result.words[0].start_s < 10.5
    assert [found.id for found in result.search_results] == ["y"]
    assert route.finish() == []
    assert route.bytes_sent == 0


def test_the_server_decides_and_hears_the_segment_before_it_ends(bench: Bench) -> None:
    bench.start()
    first, second, last = bench.events()
    bench.play([first, second])
    assert bench.server.stream.calls == [("begin", 1, 160_000), ("send", 160_000, 6400), ("send", 166_400, 12_800)]
    bench.play([last])
    assert bench.finish() == [(1, *SERVER)]
    (result,) = bench.results
    assert (result.bundle, result.version, result.variant) == ("big", "2.0.0", "onnx-fp32")
    assert (result.start_s, result.end_s) == (10.0, 11.2)
    assert [found.id for found in result.search_results] == ["s"]
    assert bench.route.bytes_sent == 2 * 19_200
    assert bench.warnings == []


@pytest.mark.parametrize("pieces", [0, 1, 2, 3])
def test_a_server_that_dies_after_any_piece_loses_nothing(bench: Bench, pieces: int) -> None:
    bench.server.answers_at_once = False
    bench.start()
    events = bench.events()
    bench.play(events[:pieces])
    bench.server.stream.breaks()
    bench.play(events[pieces:])
    assert bench.finish() == [(1, *DEVICE)]
    assert len(bench.warnings) == 1
    assert "server: went away; going on with the model on this device, tones 1.2.3 (onnx-fp32)" in bench.warnings[0]
    assert bench.server.stream.closed


def test_a_server_that_is_dead_from_the_start(bench: Bench) -> None:
    bench.server.up = False
    bench.start()
    assert len(bench.warnings) == 1
    bench.play(bench.events())
    bench.play(bench.events())
    assert bench.finish() == [(1, *DEVICE), (2, *DEVICE)]
    assert len(bench.warnings) == 1


def test_an_error_of_the_server_counts_as_a_failure_too(bench: Bench) -> None:
    bench.start()
    bench.server.stream.breaks(ResourceError("server: too many streams"))
    bench.play(bench.events())
    assert bench.finish() == [(1, *DEVICE)]
    assert "too many streams" in bench.warnings[0]


def test_an_answer_that_came_before_the_failure_is_kept(bench: Bench) -> None:
    bench.start()
    bench.play(bench.events(), ready=False)
    bench.server.stream.breaks()
    bench.play(bench.events(), ready=False)
    assert bench.finish() == [(1, *SERVER), (2, *DEVICE)]


def test_an_answer_that_never_comes_is_waited_for_until_the_deadline(bench: Bench) -> None:
    bench.server.answers_at_once = False
    bench.start()
    bench.play(bench.events())
    bench.clock.now_s += 1.9
    assert bench.route.ready() == []
    bench.clock.now_s += 0.2
    assert [result.decided_by for result in bench.route.ready()] == ["edge"]
    assert "no answer 2 s after the end of segment 1" in bench.warnings[0]
    assert bench.server.stream.closed


def test_at_the_end_the_deadline_holds_as_well(bench: Bench) -> None:
    bench.server.answers_at_once = False
    bench.start()
    bench.play(bench.events())
    assert bench.finish() == [(1, *DEVICE)]
    assert bench.clock.now_s == 102.0
    assert bench.results[0].latency_ms == 2000.0


def test_results_stay_in_order_when_answers_do_not(bench: Bench) -> None:
    bench.server.answers_at_once = False
    bench.start()
    bench.play(bench.events())
    bench.play(bench.events())
    bench.server.stream.answer(2)
    assert bench.route.ready() == []
    bench.server.stream.answer(1)
    assert bench.finish() == [(1, *SERVER), (2, *SERVER)]


def test_after_a_back_off_the_server_is_tried_again(bench: Bench) -> None:
    bench.start()
    bench.server.stream.breaks()
    bench.server.up = False
    bench.play(bench.events())
    bench.clock.now_s += 1.1
    bench.route.ready()
    bench.server.up = True
    bench.clock.now_s += 1.8
    bench.play(bench.events())
    bench.clock.now_s += 0.3
    bench.play(bench.events())
    assert bench.finish() == [(1, *DEVICE), (2, *DEVICE), (3, *SERVER)]
    assert len(bench.server.streams) == 2
    assert bench.warnings[1:] == ["server: the server answers again; segments go there again"]


def test_back_off_doubles_to_its_limit_and_forgets(bench: Bench) -> None:
    clock = Clock()
    backoff = Backoff(1.0, 30.0, clock)
    assert backoff.may_try()
    assert [backoff.failed() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    clock.now_s += 29.9
    assert not backoff.may_try()
    clock.now_s += 0.2
    assert backoff.may_try()
    backoff.succeeded()
    assert backoff.failed() == 1


def test_a_full_backlog_waits_for_the_oldest(bench: Bench) -> None:
    """A file is read faster than it plays: it is slowed down, not given up."""
    bench.server.answers_at_once = False
    bench.start()
    for _ in range(LARGEST_BACKLOG):
        bench.play(bench.events())
    assert bench.clock.now_s == 100.0
    bench.play(bench.events())
    assert bench.clock.now_s == 102.0
    assert bench.finish() == [(number, *DEVICE) for number in range(1, LARGEST_BACKLOG + 2)]


def test_without_a_device_model_a_failure_says_so(transcriber: Transcriber, tone_manifest: Any, say: Say) -> None:
    bench = Bench(transcriber, tone_manifest, say, device=False)
    bench.start()
    bench.play(bench.events())
    assert bench.finish() == [(1, *SERVER)]
    bench.server.stream.breaks()
    with pytest.raises(
        UnavailableError, match="went away; and this device cannot go on alone: no runtime here"
    ) as caught:
        bench.play(bench.events())
    assert "tidegate[litert]" in str(caught.value.fix)


def test_without_a_device_model_a_server_dead_from_the_start(
    transcriber: Transcriber, tone_manifest: Any, say: Say
) -> None:
    bench = Bench(transcriber, tone_manifest, say, device=False)
    bench.server.up = False
    with pytest.raises(UnavailableError, match="refused; and this device cannot go on alone"):
        bench.start()


@pytest.mark.parametrize("has_device", [True, False])
@pytest.mark.parametrize("noticed", ["in the silence", "at the next word"])
def test_a_stream_that_ends_in_silence_is_replaced_and_nobody_is_told(
    transcriber: Transcriber, tone_manifest: Any, say: Say, has_device: bool, noticed: str
) -> None:
    bench = Bench(transcriber, tone_manifest, say, device=has_device)
    bench.start()
    bench.play(bench.events())
    for _ in range(3):  # hour after hour
        bench.clock.now_s += 1800.0
        bench.server.stream.breaks(UnavailableError("server: cancelled"))
        if noticed == "in the silence":
            before = len(bench.server.streams)
            for _ in range(2):  # it is noticed, and the next one is taken
                bench.results += bench.route.ready()
            assert len(bench.server.streams) == before + 1
    bench.play(bench.events())
    assert bench.finish() == [(1, *SERVER), (2, *SERVER)]
    assert bench.warnings == []
    begun = [call for stream in bench.server.streams for call in stream.calls if call[0] == "begin"]
    assert [call[1] for call in begun] == [1, 2], "each segment goes to one stream"


def test_when_it_cannot_be_replaced_the_device_decides_and_says_so(bench: Bench) -> None:
    bench.start()
    bench.play(bench.events())
    bench.clock.now_s += 1800.0
    bench.server.stream.breaks()
    bench.server.up = False
    bench.play(bench.events())
    assert bench.finish() == [(1, *SERVER), (2, *DEVICE)]
    assert len(bench.warnings) == 1
    assert "server: refused; going on with the model on this device" in bench.warnings[0]


def test_a_server_that_ends_every_stream_at_once_is_given_a_rest(bench: Bench) -> None:
    bench.start()
    for _ in range(5):
        bench.server.stream.breaks()
        bench.route.ready()
        bench.clock.now_s += 0.1
    assert len(bench.server.streams) == 1
    assert len(bench.warnings) == 1


def test_close_ends_the_stream_and_keeps_the_count(bench: Bench) -> None:
    bench.start()
    bench.play(bench.events())
    bench.route.close()
    assert bench.server.stream.closed
    assert bench.route.bytes_sent == 2 * 19_200


actions = st.lists(
    st.one_of(
        st.sampled_from(["piece", "piece", "piece", "ready", "break", "down", "up", "mute", "speak"]),
        st.floats(0.1, 5.0),
    ),
    max_size=60,
)


@given(actions)
def test_whatever_happens_every_segment_comes_out_once_and_in_order(
    transcriber: Transcriber, tone_manifest: Any, say: Say, script: list[str | float]
) -> None:
    bench = Bench(transcriber, tone_manifest, say)
    bench.start()
    pending: list[SegmentEvent] = []
    for action in script:
        if isinstance(action, float):
            bench.clock.now_s += action
        elif action == "piece":
            pending = pending or bench.events()
            bench.route.handle(pending.pop(0))
        elif action == "ready":
            bench.results += bench.route.ready()
        elif action == "break":
            bench.server.stream.breaks()
        elif action in ("down", "up"):
            bench.server.up = action == "up"
        else:
            bench.server.answers_at_once = action == "speak"
    bench.play(pending)
    outcome = bench.finish()
    assert [segment_id for segment_id, _, _ in outcome] == list(range(1, bench._next_id + 1))
    assert {(decided, text) for _, decided, text in outcome} <= {SERVER, DEVICE}
    if "break" not in script and "mute" not in script:
        assert {decided for _, decided, _ in outcome} <= {"cloud"}


def test_between_segments_a_stream_is_exchanged_when_its_ground_has_changed(bench: Bench) -> None:
    changed = [False]
    bench.start(renew=lambda: changed[0])
    bench.play(bench.events())
    first = bench.server.stream
    bench.server.answers_at_once = False
    events = bench.events()
    bench.play(events[:1])
    changed[0] = True
    # In the middle of a segment, and while one waits for its answer, the stream stays.
    bench.play(events[1:])
    assert bench.server.streams == [first]
    first.answer(2)
    bench.results += bench.route.ready()
    bench.route.ready()
    assert len(bench.server.streams) > 1
    assert first.closed
    changed[0] = False
    bench.server.answers_at_once = True
    bench.play(bench.events())
    assert bench.server.stream.ended == [3]
    assert bench.finish() == [(1, *SERVER), (2, *SERVER), (3, *SERVER)]
    assert bench.route.bytes_sent == 3 * 19200 * 2
    assert bench.warnings == []


def test_when_no_other_stream_can_be_had_the_device_decides(bench: Bench) -> None:
    changed = [False]
    bench.start(renew=lambda: changed[0])
    bench.play(bench.events())
    changed[0] = True
    bench.server.up = False
    bench.route.ready()
    bench.play(bench.events())
    assert bench.finish() == [(1, *SERVER), (2, *DEVICE)]
    assert len(bench.warnings) == 1


def test_a_refusal_says_what_to_do_to_a_device_that_has_no_model(
    transcriber: Transcriber, tone_manifest: Any, say: Say
) -> None:
    bench = Bench(transcriber, tone_manifest, say, device=False)
    bench.start()
    bench.server.stream.breaks(StateError("they do not belong together", fix="update the device"))
    with pytest.raises(UnavailableError, match="do not belong together") as caught:
        bench.play(bench.events())
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("update the device")


def test_a_segment_does_not_go_to_a_stream_that_was_told_of_another_version(bench: Bench) -> None:
    changed = [False]
    bench.start(renew=lambda: changed[0])
    first = bench.server.stream
    changed[0] = True
    bench.server.up = False
    events = bench.events()
    bench.route._link._opening = Future()
    bench.play(events)
    assert first.ended == []
    assert bench.finish() == [(1, *DEVICE)]
