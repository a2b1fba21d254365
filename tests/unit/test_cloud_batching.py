"""The scheduler of one model: exact answers, nobody waits alone, a neighbour's error stays the neighbour's."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.models import tflite

from tidegate.cloud.batching import Batcher, BatchSettings, split
from tidegate.cloud.padding import Padding
from tidegate.cloud.queueing import Arrays, Job, QueueSettings
from tidegate.cloud.short_runs import LONGEST_NS, PROOFS, ShortRuns, cost_follows_shape
from tidegate.cloud.statistics import Statistics
from tidegate.errors import ConfigError, DeadlineError, ModelError, ResourceError, TidegateError, UnavailableError

LIMIT_S = 60


@dataclass
class Answer:
    """Where a job's outcome arrives."""

    outcome: tuple[Arrays | None, TidegateError | None] | None = None
    told: threading.Event = field(default_factory=threading.Event)
    thread: int = 0

    def finish(self, outputs: Arrays | None, error: TidegateError | None) -> None:
        assert self.outcome is None, "told twice"
        self.outcome = (outputs, error)
        self.thread = threading.get_ident()
        self.told.set()

    def outputs(self) -> Arrays:
        assert self.told.wait(LIMIT_S)
        assert self.outcome is not None
        assert self.outcome[0] is not None, self.outcome[1]
        return self.outcome[0]

    def error(self) -> TidegateError:
        assert self.told.wait(LIMIT_S)
        assert self.outcome is not None
        assert self.outcome[1] is not None
        return self.outcome[1]


def job(array: NDArray[Any], answer: Answer, **options: Any) -> Job:
    return Job((array,), key=(array.shape[1:],), rows=len(array), finish=answer.finish, began_ns=0, **options)


class Gate:
    """A model that doubles; each run waits until it is let through, and is noted."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, arrays: Arrays) -> Arrays:
        self.entered.release()
        assert self.open.wait(LIMIT_S)
        self.runs.append(len(arrays[0]))
        if np.isnan(arrays[0]).any():
            raise ModelError("the model cannot bear NaN")
        return (arrays[0] * 2,)


def batcher_of(model: Any, *, batched: bool = True, **options: Any) -> Batcher:
    return Batcher("m", model, BatchSettings(**options), Statistics(), batched=batched)


def held(batcher: Batcher, gate: Gate) -> Answer:
    """Have one request inside the model."""
    first = Answer()
    batcher.submit(job(np.zeros((1, 2)), first))
    assert gate.entered.acquire(timeout=LIMIT_S)
    return first


def test_what_arrives_while_the_model_is_busy_runs_together() -> None:
    gate = Gate()
    batcher = batcher_of(gate)
    first = held(batcher, gate)
    answers = [Answer() for _ in range(5)]
    for value, answer in enumerate(answers):
        batcher.submit(job(np.full((1, 2), float(value)), answer))
    gate.open.set()
    first.outputs()
    for value, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.outputs()[0], np.full((1, 2), 2.0 * value))
    assert gate.runs == [1, 5]
    batcher.close()


def test_a_lone_caller_that_may_wait_runs_on_its_own_thread() -> None:
    gate = Gate()
    gate.open.set()
    answer = Answer()
    batcher = batcher_of(gate, maximum_delay_ms=3_600_000)
    batcher.run(job(np.ones((1, 2)), answer))
    assert answer.thread == threading.get_ident()
    batcher.close()


def test_a_delay_is_not_spent_on_a_request_that_comes_alone() -> None:
    gate = Gate()
    gate.open.set()
    batcher = batcher_of(gate, maximum_delay_ms=3_600_000)
    for _ in range(3):
        answer = Answer()
        batcher.submit(job(np.ones((1, 2)), answer))
        answer.outputs()
    batcher.close()


def test_an_error_of_one_request_does_not_fail_its_neighbours() -> None:
    gate = Gate()
    batcher = batcher_of(gate)
    first = held(batcher, gate)
    good, bad, also_good = Answer(), Answer(), Answer()
    for value, answer in ((1.0, good), (np.nan, bad), (3.0, also_good)):
        batcher.submit(job(np.full((1, 2), value), answer))
    gate.open.set()
    first.outputs()
    assert good.outputs()[0][0, 0] == 2
    assert also_good.outputs()[0][0, 0] == 6
    assert isinstance(bad.error(), ModelError)
    assert gate.runs == [1, 3, 1, 1, 1]
    batcher.close()


def test_a_model_without_a_batch_axis_runs_one_at_a_time() -> None:
    gate = Gate()
    batcher = batcher_of(gate, batched=False)
    first = held(batcher, gate)
    answers = [Answer() for _ in range(3)]
    for answer in answers:
        batcher.submit(job(np.ones((1, 2)), answer))
    gate.open.set()
    for answer in (first, *answers):
        answer.outputs()
    assert gate.runs == [1, 1, 1, 1]
    batcher.close()


def test_preferred_sizes_are_kept_to() -> None:
    gate = Gate()
    batcher = batcher_of(gate, maximum_rows=8, preferred_rows=(4,))
    first = held(batcher, gate)
    answers = [Answer() for _ in range(6)]
    for answer in answers:
        batcher.submit(job(np.ones((1, 2)), answer))
    gate.open.set()
    for answer in (first, *answers):
        answer.outputs()
    assert gate.runs == [1, 4, 2]
    batcher.close()


def test_who_went_away_or_ran_out_of_time_is_not_run() -> None:
    gate = Gate()
    batcher = batcher_of(gate)
    first = held(batcher, gate)
    gone, late = Answer(), Answer()
    batcher.submit(job(np.ones((1, 2)), gone, gone=lambda: True))
    batcher.submit(job(np.ones((1, 2)), late, deadline_s=0.0))
    gate.open.set()
    first.outputs()
    assert isinstance(late.error(), DeadlineError)
    assert type(gone.error()) is UnavailableError
    assert gate.runs == [1]
    batcher.close()


def test_a_full_queue_refuses_and_closing_answers_what_waits() -> None:
    gate = Gate()
    batcher = batcher_of(gate, queue=QueueSettings(maximum_length=1))
    first, waiting, refused = held(batcher, gate), Answer(), Answer()
    batcher.submit(job(np.ones((1, 2)), waiting))
    with pytest.raises(ResourceError, match="takes no more"):
        batcher.submit(job(np.ones((1, 2)), refused))
    assert batcher.waiting == 1
    batcher.close()
    assert isinstance(waiting.error(), UnavailableError)
    gate.open.set()
    first.outputs()
    with pytest.raises(UnavailableError):
        batcher.submit(job(np.ones((1, 2)), refused))
    assert refused.outcome is None


def test_a_short_run_is_done_in_place_once_it_is_known() -> None:
    gate = Gate()
    gate.open.set()
    short = ShortRuns(possible=True)
    batcher = Batcher("m", gate, BatchSettings(), Statistics(), batched=True, short=short)
    before, after = Answer(), Answer()
    batcher.submit(job(np.ones((1, 2)), before), inline=True)
    before.outputs()
    assert before.thread != threading.get_ident()
    for _ in range(PROOFS):
        short.saw(((2,),), 1, 1)
    batcher.submit(job(np.ones((1, 2)), after), inline=True)
    assert after.thread == threading.get_ident()
    batcher.close()


def test_long_runs_take_the_proofs_away() -> None:
    short = ShortRuns(possible=True)
    for _ in range(1000):
        short.saw("shape", 1, LONGEST_NS)
    assert short.allows("shape", 1)
    assert not short.allows("shape", 2)
    for _ in range(4):
        short.saw("shape", 1, LONGEST_NS + 1)
    assert not short.allows("shape", 1)


def test_a_loop_in_the_graph_makes_the_cost_unknown() -> None:
    assert cost_follows_shape("onnx", b"\x22\x04Gemm")
    assert not cost_follows_shape("onnx", b"...\x22\x04Loop...")
    assert not cost_follows_shape("litert", b"")
    assert not cost_follows_shape("litert", tflite("dense").read_bytes()[:100])
    assert not cost_follows_shape("another", tflite("dense").read_bytes())


@pytest.mark.parametrize(
    ("model", "expected"),
    [("dense", True), ("batch", True), ("dense_int8", True), ("signatures", True), ("branches", False)],
)
def test_a_branch_in_a_tflite_file_makes_the_cost_unknown(model: str, expected: bool) -> None:
    """Of two signatures only the main graph runs, so two graphs alone do no harm."""
    assert cost_follows_shape("litert", tflite(model).read_bytes()) is expected


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    maximum_rows=st.integers(1, 9),
    callers=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_answers_are_bit_equal_to_those_of_requests_alone(
    sizes: list[int], maximum_rows: int, callers: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    arrays = [random.standard_normal((rows, 3)).astype(np.float32) for rows in sizes]

    def model(inputs: Arrays) -> Arrays:
        (x,) = inputs
        return x * np.float32(1.7) + np.float32(0.3), x.sum(axis=1, keepdims=True)

    batcher = batcher_of(model, maximum_rows=maximum_rows)
    answers = [Answer() for _ in arrays]

    def call(index: int) -> None:
        for place in range(index, len(arrays), callers):
            batcher.submit(job(arrays[place], answers[place]))

    threads = [threading.Thread(target=call, args=(index,)) for index in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for array, answer in zip(arrays, answers, strict=True):
        for found, expected in zip(answer.outputs(), model((array,)), strict=True):
            np.testing.assert_array_equal(found, expected)
    batcher.close()


def test_counters_add_up() -> None:
    gate = Gate()
    statistics = Statistics()
    batcher = Batcher("m", gate, BatchSettings(), statistics, batched=True)
    first = held(batcher, gate)
    answers = [Answer() for _ in range(3)]
    for answer in answers:
        batcher.submit(job(np.ones((2, 2)), answer))
    gate.open.set()
    for answer in (first, *answers):
        answer.outputs()
    batcher.close()
    counts = statistics.read()
    assert (counts.success.count, counts.fail.count) == (4, 0)
    assert (counts.executions, counts.inferences) == (2, 7)
    assert {rows: batch.compute_infer.count for rows, batch in counts.batches.items()} == {1: 1, 6: 1}
    assert counts.compute_infer.count == 4


def test_an_output_without_a_row_for_each_is_found_out() -> None:
    with pytest.raises(ModelError, match="one row each"):
        split((np.zeros((3, 2)),), [1, 1])


@pytest.mark.parametrize(
    "fields", [{"maximum_rows": 0}, {"maximum_delay_ms": -1}, {"maximum_rows": 4, "preferred_rows": (8,)}]
)
def test_settings_that_cannot_be_meant(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BatchSettings(**fields)


def test_padding_goes_in_and_comes_out() -> None:
    from tidegate.bundle import Signature, TensorSpec

    spec = TensorSpec(name="x", dtype="FP32", shape=(-1, -1))
    signature = Signature(inputs=(spec,), outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, -1)),))
    padding = Padding(inputs=("x",), buckets=(4, 8), cropped_outputs=("y",))
    padding.check(signature)
    padded, length = padding.pad(signature, (np.ones((1, 5), np.float32),))
    assert (padded[0].shape, length, padded[0].sum()) == ((1, 8), 5, 5)
    assert padding.crop(signature, padded, length)[0].shape == (1, 5)
    with pytest.raises(TidegateError, match="up to 8"):
        padding.pad(signature, (np.ones((1, 9), np.float32),))
    with pytest.raises(ConfigError, match="free axis"):
        Padding(inputs=("z",), buckets=(4,)).check(signature)


def test_a_defect_between_the_runs_is_told_to_everybody_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loud: queue.SimpleQueue[type[BaseException]] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", lambda args: loud.put(args.exc_type))

    class Defective(Statistics):
        def ran(self, *counted: int) -> None:
            raise RuntimeError("a counter is broken")

    gate = Gate()
    batcher = Batcher("m", gate, BatchSettings(), Defective(), batched=True)
    held(batcher, gate)
    waiting = [Answer() for _ in range(3)]
    for answer in waiting:
        batcher.submit(job(np.ones((1, 2)), answer))
    gate.open.set()
    assert all(isinstance(answer.error(), ModelError) for answer in waiting)
    last = Answer()
    batcher.submit(job(np.ones((1, 2)), last))
    assert last.outputs()[0].tolist() == [[2, 2]]
    assert loud.get(timeout=LIMIT_S) is RuntimeError
