"""One question to a server: who says what the answer should be, and what the answer was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.conformance.bench import Bench


class Source(Enum):
    """Who says so. Only the first is the protocol; the rest is what its users have come to rely on."""

    OIP = "OIP"
    """open_inference_grpc.proto and inference_grpc.md of the Open Inference Protocol"""
    TRITON = "Triton"
    """Triton's extension documents, and what its server answers where the protocol is silent"""
    GRPC = "gRPC"
    """gRPC's own specifications: status codes, compression, health checking, reflection"""


class Verdict(Enum):
    """What became of a check."""

    PASS = "pass"  # noqa: S105  # the word of the table, no password
    FAIL = "fail"
    NOT_OFFERED = "not offered"
    """the server does not implement it, or this model gives no occasion for it"""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    verdict: Verdict
    found: str


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    source: Source
    rule: str
    """what the source says, in our words"""
    expected: str
    probe: Callable[[Bench], Finding]


@dataclass(frozen=True)
class Result:
    """A check with what it found."""

    check: Check
    finding: Finding


def judged(ok: bool, found: str) -> Finding:
    """Return pass or fail."""
    return Finding(Verdict.PASS if ok else Verdict.FAIL, found)


def failed(found: str) -> Finding:
    """Return a failure."""
    return Finding(Verdict.FAIL, found)


def not_offered(found: str) -> Finding:
    """Return that there was nothing to judge."""
    return Finding(Verdict.NOT_OFFERED, found)
