"""`tidegate bench`: latency, throughput, memory and CPU time of a bundle's variants, or of a model on a server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tidegate.bench.child import Progress as Stage
from tidegate.bench.report import Report, encode
from tidegate.bench.table import model_table, notes, server_table
from tidegate.bundle.atomic import write_atomically
from tidegate.cli.printing import Progress, print_table
from tidegate.cli.server_options import OPTIONS, add_server, tls_of, token_of
from tidegate.errors import ConfigError
from tidegate.runtime.timing import Plan

DESCRIPTION = (
    "Measure each runnable variant of a bundle in a fresh process, or a model on a running server. "
    "Exit code 1 when something that was to be measured failed."
)
EXAMPLE = """tidegate bench voice-commands.tide
tidegate bench voice-commands.tide --variant tflite-int8 --min-duration-s 10 -o pi5.json
tidegate bench --server 127.0.0.1:8001 --model voice-commands --concurrency 4
tidegate bench --server models.example:8443 --model mlp --tls-ca ca.pem --token-file token
tidegate bench delta old.tide new.tide          (an update's bytes, time and memory; see its own --help)"""

TICK_S = 0.25
BAR_STEPS = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    plan = Plan()
    parser.add_argument(
        "bundle", nargs="?", metavar="BUNDLE", help="a .tide file, a directory, or a .tflite / .onnx file"
    )
    parser.add_argument("--server", metavar="HOST:PORT", help="measure a model on this server instead")
    parser.add_argument("--variant", action="append", metavar="ID", help="only this variant; may repeat")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")
    parser.add_argument("--model", metavar="NAME", help="with --server: the model")
    parser.add_argument("--version", metavar="V", help="with --server: its version")
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="with --server: callers at the same time (default: 1)"
    )
    parser.add_argument("--timeout-s", type=float, metavar="S", help="with --server: deadline of a call (default: 5)")
    add_server(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="rows per call, where the first axis is free")
    parser.add_argument(
        "--input", metavar="FILE.npz", help="arrays by input name (default: golden fixture, else random)"
    )
    parser.add_argument(
        "--min-duration-s",
        type=float,
        metavar="S",
        default=plan.minimum_duration_s,
        help="time calls at least this long (default: %(default)s)",
    )
    parser.add_argument(
        "--min-calls",
        type=int,
        metavar="N",
        default=plan.minimum_calls,
        help="and at least so often (default: %(default)s)",
    )
    parser.add_argument(
        "--warm-up-s",
        type=float,
        metavar="S",
        default=plan.warm_up_s,
        help="untimed calls beforehand (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report as JSON into a file")
    parser.add_argument("--no-samples", action="store_true", help="leave the latency of every call out of the JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, print; return 1 if anything that was to be measured was not."""
    _check(arguments)
    report = _bench_server(arguments) if arguments.server else _bench_model(arguments)
    if arguments.output:
        write_atomically(arguments.output, [encode(report)])
    if arguments.json:
        sys.stdout.write(encode(report).decode())
    else:
        _print(report)
    return exit_code(report, asked_by_name=bool(arguments.variant))


def exit_code(report: Report, *, asked_by_name: bool) -> int:
    """Return 0 if there is a measurement and nothing failed; what cannot run here counts only if asked for by name."""
    statuses = {result.status for result in report.results}
    failures = {"failed", "crashed"} | ({"not-runnable"} if asked_by_name else set())
    return 1 if statuses & failures or "ok" not in statuses else 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.bundle) == bool(arguments.server):
        found = "both" if arguments.bundle else "neither"
        raise ConfigError(f"expected a BUNDLE or --server, found {found}", fix="tidegate bench --help shows both forms")
    of_servers = ("model", "version", "concurrency", "timeout_s", *OPTIONS)
    for name in ("variant", "threads") if arguments.server else of_servers:
        if getattr(arguments, name) not in (None, False, ""):
            other = "a BUNDLE" if arguments.server else "--server"
            raise ConfigError(f"--{name.replace('_', '-')} goes with {other} only", fix="leave it out")
    if arguments.output and not arguments.output.parent.is_dir():
        raise ConfigError(f"{arguments.output.parent} is not a directory", fix="make it first, or name another file")


def _plan(arguments: argparse.Namespace) -> Plan:
    return Plan(
        minimum_duration_s=arguments.min_duration_s,
        minimum_calls=arguments.min_calls,
        warm_up_s=arguments.warm_up_s,
        concurrency=1 if arguments.concurrency is None else arguments.concurrency,
    )


def _keep_samples(arguments: argparse.Namespace) -> bool:
    return (arguments.json or arguments.output is not None) and not arguments.no_samples


def _bench_model(arguments: argparse.Namespace) -> Report:
    from tidegate.bench.runner import ModelOptions, bench_model

    options = ModelOptions(
        variants=tuple(arguments.variant or ()),
        threads=arguments.threads,
        batch=arguments.batch,
        input_file=arguments.input,
        plan=_plan(arguments),
        keep_samples=_keep_samples(arguments),
    )
    with _Bar() as bar:
        return bench_model(arguments.bundle, options, bar.show, _tick_s())


def _bench_server(arguments: argparse.Namespace) -> Report:
    from tidegate.bench.server import ServerOptions, bench_server

    options = ServerOptions(
        target=arguments.server,
        model=arguments.model or "",
        version=arguments.version or "",
        batch=arguments.batch,
        input_file=arguments.input,
        timeout_s=5.0 if arguments.timeout_s is None else arguments.timeout_s,
        tls=tls_of(arguments),
        token=token_of(arguments),
        plan=_plan(arguments),
        keep_samples=_keep_samples(arguments),
    )
    with _Bar() as bar:
        return bench_server(options, bar.show, _tick_s())


def _tick_s() -> float | None:
    """Without a terminal nobody looks at a bar, and this process had better sleep while calls are timed."""
    return TICK_S if sys.stderr.isatty() else None


def _print(report: Report) -> None:
    subject = report.subject
    print(f"{subject.name} {subject.version}".rstrip() + f", {report.scenario}, {report.machine.cpu or 'unknown CPU'}")
    print_table(*(server_table(report) if subject.kind == "server" else model_table(report)))
    for line in notes(report):
        print(line)


class _Bar:
    """One progress bar per phase of each variant."""

    def __init__(self) -> None:
        self._label = ""
        self._bar: Progress | None = None

    def show(self, stage: Stage) -> None:
        """Show where the variant stands."""
        label = f"{stage.name}: {stage.phase}"
        if label != self._label:
            self._wipe()
            self._label, self._bar = label, Progress(label, BAR_STEPS)
        if self._bar is not None and stage.expected_s > 0:
            self._bar.update(min(int(BAR_STEPS * stage.elapsed_s / stage.expected_s), BAR_STEPS))

    def _wipe(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._wipe()
