"""Prometheus' text exposition format 0.0.4, and families of several processes made one.

The format is a page long (https://prometheus.io/docs/instrumenting/exposition_formats/). What a client library would
bring on top, counters with a lock each, is not wanted here: counting is done by `tidegate.cloud.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

import msgspec

from tidegate.errors import UnavailableError

Kind = Literal["counter", "gauge", "histogram"]


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """One number."""

    labels: dict[str, str]
    value: float
    suffix: str = ""
    """behind the family's name: `_bucket`, `_sum`, `_count`, or nothing"""


class Family(msgspec.Struct, array_like=True):
    """All samples of one metric."""

    name: str
    kind: Kind
    help: str
    samples: list[Sample] = []

    def add(self, value: float, **labels: str) -> None:
        """Append one sample of a counter or gauge."""
        self.samples.append(Sample(labels, value))

    def add_histogram(
        self, bounds: Sequence[float], counts: Sequence[int], total: float, labels: Mapping[str, str]
    ) -> None:
        """Append one histogram.

        Args:
            bounds: upper ends of the bins.
            counts: by bin, one more than bounds: the last is open.
            total: sum of all values.
            labels: of the series.
        """
        running = list(accumulate(counts))
        for bound, count in zip([*map(number, bounds), "+Inf"], running, strict=True):
            self.samples.append(Sample({**labels, "le": bound}, count, "_bucket"))
        self.samples.append(Sample({**labels}, total, "_sum"))
        self.samples.append(Sample({**labels}, running[-1], "_count"))


_FAMILIES = msgspec.msgpack.Decoder(list[Family])


def to_bytes(families: Sequence[Family]) -> bytes:
    """Return families as bytes for another process."""
    return msgspec.msgpack.encode(families)


def from_bytes(raw: bytes) -> list[Family]:
    """Return what `to_bytes` wrote.

    Raises:
        UnavailableError: it is cut off: the other process went away.
    """
    try:
        return _FAMILIES.decode(raw)
    except msgspec.DecodeError as error:
        raise UnavailableError(f"a worker sent {len(raw)} bytes that are no metrics: {error}") from error


def merged(by_worker: Mapping[int, Iterable[Family]]) -> list[Family]:
    """Return the families of all workers, each sample with the label `worker`.

    The numbers are not added up here: a worker that is started again begins at 0, and a sum over workers would then
    fall, which `rate()` takes for a restart of everything. Prometheus adds series up without that mistake.
    """
    found: dict[str, Family] = {}
    for worker, families in sorted(by_worker.items()):
        for family in families:
            into = found.setdefault(family.name, Family(family.name, family.kind, family.help, []))
            into.samples.extend(
                Sample({**sample.labels, "worker": str(worker)}, sample.value, sample.suffix)
                for sample in family.samples
            )
    return list(found.values())


def render(families: Iterable[Family]) -> bytes:
    """Return the text form."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(
            f"{family.name}{sample.suffix}{_labels(sample.labels)} {number(sample.value)}" for sample in family.samples
        )
    return ("\n".join(lines) + "\n").encode()


def number(value: float) -> str:
    """Return a number as Prometheus writes it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**63 else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escaped_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
