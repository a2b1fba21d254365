"""Counts and times one run of the pipeline. CPU times are those of the listening thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.device import Costs
from tidegate.edge.gate import GateAccount
from tidegate.edge.results import SegmentResult, Summary
from tidegate.edge.sources.protocol import AudioSource
from tidegate.errors import TidegateError


class Meter:
    """Made at the start of a run."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._process_cpu_s = time.process_time()
        self._thread_cpu_s = time.thread_time()
        self._cpu_s = {"source": 0.0, "gate": 0.0}
        self._decided = {"edge": 0, "cloud": 0}
        self._rejected = 0
        self._failed = 0
        self._failure: TidegateError | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the CPU time of the block to a stage."""
        started_s = time.thread_time()
        try:
            yield
        finally:
            self._cpu_s[name] += time.thread_time() - started_s

    def chunks(self, source: AudioSource) -> Iterator[NDArray[np.float32]]:
        """Yield the source's chunks; end where it fails and keep the error for `raise_failure_of_the_source`."""
        chunks = source.chunks()
        while True:
            try:
                with self.stage("source"):
                    chunk = next(chunks, None)
            except TidegateError as error:
                self._failure = error
                return
            if chunk is None:
                return
            yield chunk

    def raise_failure_of_the_source(self) -> None:
        """Raise what ended the source early, if something did."""
        if self._failure is not None:
            raise self._failure

    def counted(self, results: list[SegmentResult]) -> list[SegmentResult]:
        """Count results and pass them on."""
        for result in results:
            self._failed += bool(result.problem)
            self._decided[result.decided_by] += not result.problem
            self._rejected += not (result.text or result.problem)
        return results

    def summary(self, gate: GateAccount, costs: Costs, bytes_sent: int) -> Summary:
        """Add it all up."""
        wall_s = time.monotonic() - self._started_s
        other_threads_cpu_s = (time.process_time() - self._process_cpu_s) - (time.thread_time() - self._thread_cpu_s)
        return Summary(
            duration_s=gate.audio_s,
            wall_s=wall_s,
            real_time_factor=wall_s / gate.audio_s if gate.audio_s else 0.0,
            segments=sum(self._decided.values()) + self._failed,
            segments_edge=self._decided["edge"],
            segments_cloud=self._decided["cloud"],
            segments_rejected=self._rejected,
            segments_failed=self._failed,
            frames_total=gate.frames_total,
            frames_held_back=gate.frames_held_back,
            bytes_total=gate.bytes_total,
            bytes_held_back=gate.bytes_not_sent,
            bytes_sent=bytes_sent,
            held_back_share=gate.bytes_not_sent / gate.bytes_total if gate.bytes_total else 0.0,
            cpu_s={
                "source": self._cpu_s["source"],
                "resample": gate.resample_cpu_s,
                "detector": gate.detector_cpu_s,
                "endpointer": max(self._cpu_s["gate"] - gate.resample_cpu_s - gate.detector_cpu_s, 0.0),
                "model": costs.model_cpu_s,
                "search": costs.search_cpu_s,
                "other_threads": max(other_threads_cpu_s, 0.0),
            },
        )
