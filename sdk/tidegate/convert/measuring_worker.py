"""The process that measures one variant for a build. `python -m tidegate.convert.measuring_worker`

The job comes on standard input, the outcome goes out on what was standard output. Whatever a runtime prints itself
lands on standard error.
"""

from __future__ import annotations

import os
import sys

import msgspec

from tidegate.bundle import Bundle
from tidegate.convert.measuring_job import Failed, Job, Measured, Outcome
from tidegate.errors import TidegateError
from tidegate.runtime import Model, load
from tidegate.runtime.feeds import Array, make_feeds
from tidegate.runtime.process import peak_resident_bytes
from tidegate.runtime.timing import Recording, peak_without_samples, single_stream, warm_up


class _Calls:
    """A model with its input at hand."""

    def __init__(self, model: Model, arrays: dict[str, Array]) -> None:
        self._model = model
        self._arrays = arrays

    def call(self) -> None:
        self._model.run(self._arrays)


def main() -> int:
    """Read the job, do it, answer."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        outcome: Outcome = measure(job)
    except TidegateError as error:
        outcome = Failed(error.message, error.fix)
    answers.write(msgspec.json.encode(outcome))
    answers.close()
    return 0


def measure(job: Job) -> Measured:
    """Load, warm up, time.

    Raises:
        TidegateError: the bundle, its variant or its input cannot be used.
    """
    with Bundle.open(job.source) as bundle:
        fixture = bundle.golden()
        feeds = make_feeds(bundle.manifest.signature, golden=None if fixture is None else fixture.inputs)
        with load(bundle, variant=job.variant) as model:
            calls = _Calls(model, feeds.arrays)
            warm = warm_up(calls, job.plan)
            before = peak_resident_bytes()
            recording = single_stream(calls, job.plan, warm)
            after = peak_resident_bytes()
            return Measured(
                runtime=model.runtime,
                latencies_ns=recording.latencies_ns.tolist(),
                peak_rss_bytes=peak_without_samples(before, after, recording),
                switched_share=_switched_share(recording),
            )


def _switched_share(recording: Recording) -> float | None:
    if not recording.block_switches:
        return None
    pairs = zip(recording.block_calls, recording.block_switches, strict=True)
    return sum(calls for calls, switches in pairs if switches) / sum(recording.block_calls)


if __name__ == "__main__":
    sys.exit(main())
