"""Latency and memory, as `tidegate bench BUNDLE -o bench.json` measured them in processes of their own."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Manifest
from tidegate.errors import InputError

SCHEMA = "tidegate.bench/1"
MEGABYTE = 1e6
"""Bytes in the unit of `rss_mb`."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one variant as a program."""

    latencies_ms: NDArray[np.float64] | None
    """every timed call, ascending [n]; None when the report was written without samples"""
    rss_mb: float | None
    """most memory that was resident, in 10^6 bytes"""
    trust: str
    """whether the machine was quiet: `clean`, `disturbed` or `unknown`"""
    machine: str = ""
    """what it was measured on; the figures hold for no other machine"""


class _Memory(msgspec.Struct):
    peak_rss_bytes: int | None


class _Trust(msgspec.Struct):
    verdict: str


class _Conditions(msgspec.Struct):
    trust: _Trust


class _Result(msgspec.Struct):
    name: str
    status: str
    memory: _Memory | None
    conditions: _Conditions | None
    samples_ns: list[int] | None
    runtime: str | None = None


class _Subject(msgspec.Struct):
    kind: str
    name: str
    version: str


class _Machine(msgspec.Struct):
    cpu: str | None = None
    cores: int | None = None


class _Report(msgspec.Struct):
    schema: str
    subject: _Subject
    results: list[_Result]
    machine: _Machine = msgspec.field(default_factory=_Machine)


def read_measurements(raw: bytes, manifest: Manifest, *, origin: str) -> dict[str, Measurement]:
    """Parse a report of `tidegate bench`.

    Args:
        raw: its JSON.
        manifest: of the bundle in question; a report about another release is refused.
        origin: how messages call the report.

    Returns:
        What was measured, by variant; variants that could not be measured are left out.

    Raises:
        InputError: not such a report, or about something else.
    """
    fix = "write it with `tidegate bench BUNDLE -o FILE`"
    try:
        report = msgspec.json.decode(raw, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{origin} is not a report of `tidegate bench`: {error}", fix=fix) from error
    if report.schema != SCHEMA:
        raise InputError(f"{origin} has schema {report.schema!r}; expected {SCHEMA!r}", fix=fix)
    subject = report.subject
    if subject.kind != "bundle" or (subject.name, subject.version) != (manifest.name, manifest.version):
        raise InputError(
            f"{origin} is about the {subject.kind} {subject.name} {subject.version}; expected the bundle "
            f"{manifest.name} {manifest.version}",
            fix="measure this bundle",
        )
    machine = ", ".join([report.machine.cpu or "a machine without a name", f"{report.machine.cores or '?'} cores"])
    return {result.name: _measurement(result, machine) for result in report.results if result.status == "ok"}


def _measurement(result: _Result, machine: str) -> Measurement:
    memory = result.memory.peak_rss_bytes if result.memory else None
    return Measurement(
        latencies_ms=None if not result.samples_ns else np.sort(np.array(result.samples_ns, np.float64)) / 1e6,
        rss_mb=None if memory is None else memory / MEGABYTE,
        trust=result.conditions.trust.verdict if result.conditions else "unknown",
        machine=machine if result.runtime is None else f"{machine}, {result.runtime}",
    )
