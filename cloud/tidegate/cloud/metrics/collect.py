"""All metrics of this process, collected when they are asked for. docs/monitoring.md lists them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tidegate.cloud.core import Core
from tidegate.cloud.metrics.exposition import Family
from tidegate.cloud.metrics.requests import RequestCounts
from tidegate.cloud.metrics.values import ValueCounts, categories
from tidegate.cloud.statistics import BOUNDS_NS
from tidegate.profile import CategoryFeature, NumberFeature
from tidegate.runtime.process import resident_bytes

BOUNDS_S = tuple(bound / 1e9 for bound in BOUNDS_NS)

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Rows of one run."""


class Metrics:
    """Reads the counters of one process."""

    def __init__(
        self, core: Core, requests: RequestCounts, values: ValueCounts | None, open_streams: Callable[[], int]
    ) -> None:
        """Join the parts.

        Args:
            core: the models.
            requests: an observer of the core.
            values: another one; None: values are not counted.
            open_streams: how many there are now.
        """
        self._core = core
        self._requests = requests
        self._values = values
        self._open_streams = open_streams
        self._started_s = time.time()

    def families(self) -> list[Family]:
        """Return every metric as it stands now."""
        return [
            *self._server(),
            *self._process(),
            *self._versions(),
            *self._times(),
            *self._requests.speech.families(),
            *self._counted_values(),
        ]

    def _server(self) -> list[Family]:
        ready = Family("tidegate_ready", "gauge", "1 while requests are taken, 0 while the server drains.", [])
        ready.add(int(self._core.ready))
        build = Family("tidegate_build_info", "gauge", "1, with the version of Tidegate.", [])
        build.add(1, release=version("tidegate"))
        streams = Family("tidegate_streams_open", "gauge", "Streams that are open.", [])
        streams.add(self._open_streams())
        work = Family("tidegate_work_under_way", "gauge", "Requests and speech segments that are not answered yet.", [])
        work.add(self._core.work.under_way)
        computing = Family("tidegate_models_computing", "gauge", "Threads inside a model.", [])
        computing.add(self._core.work.computing)
        failing = Family("tidegate_load_failures", "gauge", "Versions that the latest look could not load.", [])
        failing.add(self._core.repository.failing)
        return [ready, build, streams, work, computing, failing]

    def _process(self) -> list[Family]:
        """Return what every Prometheus client reports, under the usual names."""
        cpu = Family("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.", [])
        times = os.times()
        cpu.add(times.user + times.system)
        memory = Family("process_resident_memory_bytes", "gauge", "Memory that the process holds.", [])
        memory.add(resident_bytes() or 0)
        started = Family("process_start_time_seconds", "gauge", "When the server was made, seconds since 1970.", [])
        started.add(self._started_s)
        files = Family("process_open_fds", "gauge", "Open files and connections.", [])
        descriptors = Path("/proc/self/fd")
        if descriptors.is_dir():
            files.add(len(list(descriptors.iterdir())))
        return [cpu, memory, started, files]

    def _versions(self) -> list[Family]:
        state = Family("tidegate_model_state", "gauge", "1 for the state that a version is in.", [])
        label = Family("tidegate_model_label", "gauge", "1 for each label, at the version that it points at.", [])
        for status in self._core.repository.statuses():
            state.add(1, model=status.name, version=status.version, state=status.state.value)
            for name in status.labels:
                label.add(1, model=status.name, version=status.version, label=name)
        memory = Family(
            "tidegate_model_memory_bytes", "gauge", "What the process grew by when a version was loaded.", []
        )
        length = Family("tidegate_queue_length", "gauge", "Requests that wait for a version.", [])
        rows = Family("tidegate_rows_total", "counter", "Rows that were inferred.", [])
        refused = Family("tidegate_refused_total", "counter", "Requests that a full queue turned away.", [])
        dropped = Family(
            "tidegate_dropped_total", "counter", "Requests whose time ran out, or whose caller left, in the queue.", []
        )
        queue = Family("tidegate_queue_seconds", "histogram", "Time of requests in the queue.", [])
        compute = Family("tidegate_compute_seconds", "histogram", "Time of runs in the runtime.", [])
        batch = Family("tidegate_batch_rows", "histogram", "Rows of one run.", [])
        for served in self._core.repository.all():
            of = {"model": served.name, "version": served.version}
            counts = served.statistics.read()
            memory.add(served.memory_bytes, **of)
            length.add(served.batcher.waiting, **of)
            rows.add(counts.inferences, **of)
            refused.add(counts.refused, **of)
            dropped.add(counts.dropped, **of)
            queue.add_histogram(BOUNDS_S, counts.queue_bins, counts.queue.ns / 1e9, of)
            runs_ns = sum(one.compute_infer.ns for one in counts.batches.values())
            compute.add_histogram(BOUNDS_S, counts.infer_bins, runs_ns / 1e9, of)
            by_rows = {size: one.compute_infer.count for size, one in counts.batches.items()}
            batch.add_histogram(BATCH_BOUNDS, _batch_bins(by_rows), counts.inferences, of)
        return [state, label, memory, length, rows, refused, dropped, queue, compute, batch]

    def _times(self) -> list[Family]:
        request = Family(
            "tidegate_request_seconds",
            "histogram",
            "Time of requests from their arrival to their answer, by outcome.",
            [],
        )
        for key, times in sorted(self._requests.read().items()):
            request.add_histogram(BOUNDS_S, times.bins, times.total_ns / 1e9, key._asdict())
        away = Family(
            "tidegate_turned_away_total", "counter", "Requests for inference that could not be read or let in.", []
        )
        for (transport, code), count in sorted(self._requests.read_turned_away().items()):
            away.add(count, transport=transport, code=code)
        return [request, away]

    def _counted_values(self) -> list[Family]:
        value = Family(
            "tidegate_value", "histogram", "Sampled values of inputs and outputs, in bins of the reference profile.", []
        )
        category = Family(
            "tidegate_category_total", "counter", "Sampled categories of inputs and outputs, as in the profile.", []
        )
        absent = Family("tidegate_value_missing_total", "counter", "Sampled rows without a value, or with NaN.", [])
        left = Family(
            "tidegate_values_left_out_total", "counter", "Requests of a model with a profile that did not fit it.", []
        )
        if self._values is None:
            return []
        counted, left_out = self._values.read()
        for model, version_, feature, summary in counted:
            of = {"model": model, "version": version_, "feature": feature.name}
            absent.add(summary.missing + summary.null, **of)
            if isinstance(feature, CategoryFeature):
                for name, count in categories(feature, summary).items():
                    category.add(count, **of, category=name)
            elif isinstance(feature, NumberFeature):
                bins = [int(count) for count in summary.counts]
                value.add_histogram(feature.edges, bins, _total(feature, summary.total, sum(bins)), of)
        for (model, version_), requests in sorted(left_out.items()):
            left.add(requests, model=model, version=version_)
        return [value, category, absent, left]


def _batch_bins(by_rows: dict[int, int]) -> list[int]:
    bins = [0] * (len(BATCH_BOUNDS) + 1)
    for rows, runs in by_rows.items():
        place = next((place for place, bound in enumerate(BATCH_BOUNDS) if rows <= bound), len(BATCH_BOUNDS))
        bins[place] += runs
    return bins


def _total(feature: NumberFeature, steps: int, values: int) -> float:
    """Return the sum of values, which windows keep in steps of 1/1024 of the feature's scale from its centre."""
    return values * feature.centre + steps * feature.scale / 1024
