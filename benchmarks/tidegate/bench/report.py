"""The result of a benchmark: schema `tidegate.bench/1`. All fields are always there; null means not known here."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

import msgspec

from tidegate.bench.environment import Conditions, Machine, Verdict
from tidegate.bench.statistics import Latency, Undisturbed
from tidegate.runtime.feeds import InputRecord
from tidegate.runtime.timing import Plan, StoppedBy

SCHEMA = "tidegate.bench/1"

Status = Literal["ok", "not-runnable", "failed", "crashed"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    kind: Literal["bundle", "model-file", "server"]
    source: str
    """path, or HOST:PORT"""
    name: str
    version: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no complete measurement."""

    kind: str
    """class of the error, or the signal that ended the child process"""
    message: str
    fix: str | None


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """The first time in a fresh process; the file is in the system's cache by then."""

    load_ns: int
    """for a model: import of the runtime, reading and checking the file, preparing; for a server: connecting"""
    first_call_ns: int


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Calls and rows per second of the timed run, the loop's own time included."""

    calls_per_s: float
    rows_per_s: float


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of the whole process, all its threads, over the timed run."""

    process: Literal["model", "caller"]
    """the one that runs the model, or the one that calls the server"""
    per_call_ns: float
    cores_busy: float
    """CPU time by elapsed time"""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of the process that runs the model."""

    baseline_rss_bytes: int | None
    """before the load: Python, numpy, Tidegate, input"""
    peak_rss_bytes: int | None
    above_baseline_bytes: int | None


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """The timed calls by block, as columns; the blocks cover `samples_ns` in order."""

    caller: list[int]
    calls: list[int]
    involuntary_switches: list[int]
    """empty where the system does not count them"""
    cpu_ns: list[int]
    """of the whole process, other callers included"""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One variant, or one model on a server."""

    name: str
    status: Status
    problem: Problem | None
    backend: str | None
    runtime: str | None
    provider: str | None
    input: InputRecord | None
    cold_start: ColdStart | None
    warm_up_calls: int
    elapsed_ns: int | None
    latency: Latency | None
    undisturbed: Undisturbed | None
    throughput: Throughput | None
    cpu: Cpu | None
    memory: Memory | None
    errors: dict[str, int]
    """failed calls by class of error"""
    stopped_by: StoppedBy | None
    harness_floor_ns: int | None
    """what the loop measures for a call that does nothing; contained in every latency"""
    conditions: Conditions | None
    samples_ns: list[int] | None
    """every latency, in the order of the calls, caller after caller"""
    blocks: Blocks | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark."""

    schema: str
    started: str
    """ISO 8601, UTC"""
    subject: Subject
    scenario: Literal["single-stream", "concurrent"]
    plan: Plan
    machine: Machine
    """the one that the bench ran on; for a server, the caller's"""
    trust: Verdict
    """the worst of the results'"""
    results: tuple[Result, ...]


def without_measurement(name: str, status: Status, problem: Problem, backend: str | None = None) -> Result:
    """Return the result of something that could not be measured."""
    return Result(
        name=name,
        status=status,
        problem=problem,
        backend=backend,
        runtime=None,
        provider=None,
        input=None,
        cold_start=None,
        warm_up_calls=0,
        elapsed_ns=None,
        latency=None,
        undisturbed=None,
        throughput=None,
        cpu=None,
        memory=None,
        errors={},
        stopped_by=None,
        harness_floor_ns=None,
        conditions=None,
        samples_ns=None,
        blocks=None,
    )


def worst_verdict(results: tuple[Result, ...]) -> Verdict:
    """Return the verdict on the whole: one disturbed result disturbs it, none measured leaves it unknown."""
    verdicts = {result.conditions.trust.verdict for result in results if result.conditions is not None}
    if "disturbed" in verdicts:
        return "disturbed"
    return "clean" if verdicts == {"clean"} else "unknown"


def encode(report: Report) -> bytes:
    """Return the JSON: indented, but on one line when it carries raw samples."""
    plain = msgspec.json.encode(report)
    if any(result.samples_ns is not None for result in report.results):
        return plain + b"\n"
    return msgspec.json.format(plain, indent=2) + b"\n"


def decode(raw: bytes) -> Report:
    """Parse a report; msgspec.DecodeError says what is missing or of the wrong type."""
    return msgspec.json.decode(raw, type=Report)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `tidegate.bench/1`."""
    return msgspec.json.schema(Report)


def now() -> str:
    """Return the time of day for `started`."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
