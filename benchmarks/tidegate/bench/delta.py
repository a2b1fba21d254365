"""What an update from one model file to another costs: bytes, time and memory of each method, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, get_args

import msgspec

from tidegate.bench.delta_worker import Answer, Done, Refused, Task, UpdateMethod
from tidegate.bench.environment import Machine, Probe
from tidegate.bundle import Bundle
from tidegate.delta import MAXIMUM_PERCENT, METHODS
from tidegate.errors import DependencyError, NotFoundError, ResourceError

SCHEMA = "tidegate.bench-delta/1"
COMMAND = (sys.executable, "-m", "tidegate.bench.delta_worker")
UPDATE_METHODS: tuple[UpdateMethod, ...] = get_args(UpdateMethod)

Observer = Callable[[str], None]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of making or applying, from files to files. Memory is null where the system does not tell."""

    elapsed_ms: float
    runs: int
    """the time is their median"""
    peak_rss_bytes: int | None
    above_baseline_bytes: int | None
    """that peak less what the interpreter and its libraries had before"""


class MethodResult(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one pair of files."""

    method: UpdateMethod
    status: Literal["ok", "not-applicable"]
    size_bytes: int | None
    percent: float | None
    """of the full file"""
    make: Cost | None
    apply: Cost | None
    problem: str | None


class PairResult(msgspec.Struct, frozen=True, kw_only=True):
    """All methods on one pair of files."""

    name: str
    """of the variant, or of the new file"""
    base_bytes: int
    full_bytes: int
    identical: bool
    methods: tuple[MethodResult, ...]
    published: UpdateMethod
    """what `tidegate publish` lets a device fetch"""


class DeltaReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result."""

    schema: str
    base: str
    full: str
    pairs: tuple[PairResult, ...]
    machine: Machine


def bench_delta(
    base: Path, full: Path, *, variants: Sequence[str] = (), observer: Observer = lambda what: None
) -> DeltaReport:
    """Measure every method on each variant that both releases have, or on two model files.

    Args:
        base: the old bundle or model file.
        full: the new one.
        variants: ids; empty for all that both have. Only for bundles.
        observer: told what is measured next.

    Raises:
        NotFoundError: a file or a variant is not there.
        BundleError: a bundle cannot be used.
        DependencyError: zstandard is not installed.
    """
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pairs = [
            _measure_pair(name, old, new, place, observer) for name, old, new in _pairs(base, full, variants, stack)
        ]
    return DeltaReport(schema=SCHEMA, base=str(base), full=str(full), pairs=tuple(pairs), machine=Probe().machine())


def _pairs(base: Path, full: Path, variants: Sequence[str], stack: ExitStack) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield name, old bytes and new bytes of what is to be compared."""
    bundles = [_is_bundle(path) for path in (base, full)]
    if bundles == [False, False] and not variants:
        yield full.name, _read(base), _read(full)
        return
    if bundles != [True, True]:
        raise NotFoundError(
            f"{full if bundles[0] else base} is no bundle, so it has no variants",
            fix="name two bundles, or two model files without --variant",
        )
    old, new = (stack.enter_context(Bundle.open(path)) for path in (base, full))
    shared = [variant.id for variant in new.manifest.variants if variant.id in {v.id for v in old.manifest.variants}]
    if not variants and not shared:
        raise NotFoundError(f"{base} and {full} have no variant in common", fix="compare two releases of one model")
    for id in variants or shared:
        yield id, old.variant_bytes(id), new.variant_bytes(id)


def _is_bundle(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".tide"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}", fix="name an existing bundle or model file") from error
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror}", fix="check its permissions") from error


def _measure_pair(name: str, base: bytes, full: bytes, place: Path, observer: Observer) -> PairResult:
    (place / "base").write_bytes(base)
    (place / "full").write_bytes(full)
    results = []
    for method in UPDATE_METHODS:
        observer(f"{name}: {method}")
        results.append(_measure_method(method, place, len(full)))
    return PairResult(
        name=name,
        base_bytes=len(base),
        full_bytes=len(full),
        identical=base == full,
        methods=tuple(results),
        published=_published(results),
    )


def _published(results: Sequence[MethodResult]) -> UpdateMethod:
    """Return the smallest delta if it is small enough, as `tidegate.delta.choose` does."""
    worth = [
        (result.size_bytes, result.method)
        for result in results
        if result.method in METHODS and result.percent is not None and result.percent <= MAXIMUM_PERCENT
    ]
    return min(worth, key=lambda pair: pair[0] or 0, default=(0, "full"))[1]


def _measure_method(method: UpdateMethod, place: Path, full_bytes: int) -> MethodResult:
    """Make the update in one process and apply it in another."""
    update = place / "update"
    answers: list[Done] = []
    for step in ("make", "apply"):
        answer = _in_child(
            Task(
                step=step,
                method=method,
                base=str(place / "base"),
                full=str(place / "full"),
                update=str(update),
                out=str(place / "out"),
            )
        )
        if isinstance(answer, Refused):
            if answer.kind == "DependencyError":
                raise DependencyError(answer.message, fix=answer.fix)
            return MethodResult(
                method=method,
                status="not-applicable",
                size_bytes=None,
                percent=None,
                make=None,
                apply=None,
                problem=answer.message,
            )
        answers.append(answer)
    size = update.stat().st_size
    return MethodResult(
        method=method,
        status="ok",
        size_bytes=size,
        percent=100 * size / full_bytes if full_bytes else None,
        make=None if method == "full" else _cost(answers[0]),
        apply=_cost(answers[1]),
        problem=None,
    )


def _in_child(task: Task) -> Answer:
    """Run one task in a fresh interpreter.

    Raises:
        ResourceError: it ended without an answer, as when the system kills it for its memory.
    """
    done = subprocess.run(COMMAND, input=msgspec.json.encode(task), capture_output=True, check=False)  # noqa: S603
    if done.returncode or not done.stdout:
        last_words = done.stderr.decode(errors="replace").strip()[-200:] or "it said nothing"
        raise ResourceError(
            f"{task.method}, {task.step}: the process ended with code {done.returncode}; {last_words}",
            fix="free memory, or compare smaller files",
        )
    answer: Answer = msgspec.json.decode(done.stdout, type=Answer)
    return answer


def _cost(done: Done) -> Cost:
    known = done.peak_rss_bytes is not None and done.baseline_rss_bytes is not None
    return Cost(
        elapsed_ms=done.elapsed_ns / 1e6,
        runs=done.runs,
        peak_rss_bytes=done.peak_rss_bytes,
        above_baseline_bytes=(done.peak_rss_bytes or 0) - (done.baseline_rss_bytes or 0) if known else None,
    )
