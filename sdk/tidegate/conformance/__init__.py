"""A conformance suite for servers of the Open Inference Protocol over gRPC: anybody's, by raw bytes.

    from tidegate.conformance import Verdict, run

    found = run("127.0.0.1:8001", model="simple")
    assert found.count(Verdict.FAIL) == 0

`Source` says of each check whether it is the protocol's text or a convention of Triton's or gRPC's.
"""

from tidegate.conformance.check import Check, Finding, Result, Source, Verdict
from tidegate.conformance.models import write_models
from tidegate.conformance.suite import CHECKS, Run, run

__all__ = ["CHECKS", "Check", "Finding", "Result", "Run", "Source", "Verdict", "run", "write_models"]
