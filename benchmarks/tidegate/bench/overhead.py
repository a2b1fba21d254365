"""What Tidegate adds to one call: `Model` against the fastest public path to the same runtime, interleaved.

    python -m tidegate.bench.overhead MODEL [--json]

Reference and ours run in one process in turns of a few hundred calls, in rotating order, so that a busy machine slows
them alike. Turns in which the kernel took the CPU away (`ru_nivcsw` rose) are set aside. Medians of what is left.

For a model with one input and one output, on a platform with `RUSAGE_THREAD` (Linux).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.errors import InputError, TidegateError
from tidegate.runtime import Model, load

Turn = Callable[[int], None]
"""Makes so many calls."""

REFERENCE = {
    "litert": "Interpreter set_tensor + invoke + get_tensor",
    "onnx": "in-place write + run_with_iobinding",
}


@dataclass(frozen=True)
class Row:
    """One way to call the model."""

    entry: str
    """what is called"""
    median_us: float
    """per call, over the turns kept"""
    ratio: float
    """to the reference"""
    difference_us: float
    """from the reference, per call"""
    turns_kept: int
    turns_set_aside: int
    """turns during which the kernel took the CPU away"""


@dataclass(frozen=True)
class Report:
    """Reference first, then ours."""

    model: str
    runtime: str
    calls_per_turn: int
    rows: tuple[Row, ...]


def measure(path: Path, *, turns: int = 1500, calls_per_turn: int = 200) -> Report:
    """Time the runtime's own path, `Model(array)` and `Model.run` on one bare model file.

    Free axes get size 1. Inputs are zeros: the time of the model itself cancels out in the difference.

    Raises:
        InputError: the model has not one input and one output, or strings.
    """
    with load(path) as model:
        array = _input(model)
        candidates = {
            REFERENCE[model.backend]: _references[model.backend](path, model, array),
            "Model(array)": _model_call(model, array),
            "Model.run({name: array})": _model_run(model, array),
        }
        times_us = _interleave(list(candidates.values()), turns, calls_per_turn)
        reference_us = median(times_us[0])
        rows = tuple(
            Row(
                entry=entry,
                median_us=median(kept),
                ratio=median(kept) / reference_us,
                difference_us=median(kept) - reference_us,
                turns_kept=len(kept),
                turns_set_aside=turns - len(kept),
            )
            for entry, kept in zip(candidates, times_us, strict=True)
        )
        return Report(model=path.name, runtime=model.runtime, calls_per_turn=calls_per_turn, rows=rows)


def table(report: Report) -> str:
    """Return a Markdown table."""
    lines = [
        f"| {report.model} on {report.runtime} | µs per call | ratio | difference µs | turns kept |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.entry} | {row.median_us:.2f} | {row.ratio:.2f} | {row.difference_us:+.2f} "
        f"| {row.turns_kept} of {row.turns_kept + row.turns_set_aside} |"
        for row in report.rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or JSON with `--json`. Exit code 0, or 1 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a .tflite or .onnx file with one input and one output")
    parser.add_argument("--turns", type=_positive, default=1500, help="turns of each candidate (default 1500)")
    parser.add_argument("--calls", type=_positive, default=200, help="calls per turn (default 200)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    options = parser.parse_args(arguments)
    try:
        report = measure(options.model, turns=options.turns, calls_per_turn=options.calls)
    except TidegateError as error:
        print(f"error: {error.message}" + (f"\n  {error.fix}" if error.fix else ""), file=sys.stderr)
        return 1
    print(msgspec.json.encode(report).decode() if options.json else table(report))
    return 0


def _interleave(candidates: list[Turn], turns: int, calls: int) -> list[list[float]]:
    """Return, for each candidate, microseconds per call of every undisturbed turn."""
    for candidate in candidates:
        candidate(calls)  # warm: buffers bound, code specialised
    kept: list[list[float]] = [[] for _ in candidates]
    order = list(range(len(candidates)))
    gc.disable()
    try:
        for turn in range(turns):
            order = order[1:] + order[:1]
            for place in order if turn % 2 else reversed(order):
                switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
                start_ns = perf_counter_ns()
                candidates[place](calls)
                elapsed_ns = perf_counter_ns() - start_ns
                if resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw == switches:
                    kept[place].append(elapsed_ns / 1000 / calls)
    finally:
        gc.enable()
    for times in kept:
        if len(times) < 20:
            raise InputError(
                f"only {len(times)} of {turns} turns were undisturbed; expected at least 20",
                fix="run it on a quieter machine, or with more --turns and fewer --calls",
            )
    return kept


def _input(model: Model) -> NDArray[Any]:
    signature = model.signature
    if len(signature.inputs) != 1 or len(signature.outputs) != 1 or signature.inputs[0].dtype == "BYTES":
        raise InputError(
            f"the model has {len(signature.inputs)} inputs and {len(signature.outputs)} outputs; "
            "expected one of each, of numbers",
            fix="measure with a simpler model; `tidegate bench` takes any",
        )
    spec = signature.inputs[0]
    return np.zeros([1 if size == -1 else size for size in spec.shape], numpy_dtype(spec.dtype))


def _litert_reference(path: Path, model: Model, array: NDArray[Any]) -> Turn:
    interpreter_class = importlib.import_module(f"{model.runtime.split()[0]}.interpreter").Interpreter
    interpreter = interpreter_class(model_path=str(path), num_threads=1)
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    index = given["index"]
    interpreter.resize_tensor_input(index, array.shape)
    interpreter.allocate_tensors()
    array = array.astype(given["dtype"])  # a quantised model takes its integers here
    set_tensor, invoke, get_tensor = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor

    def turn(calls: int) -> None:
        for _ in repeat(None, calls):
            set_tensor(index, array)
            invoke()
            get_tensor(wanted)

    return turn


def _onnx_reference(path: Path, model: Model, array: NDArray[Any]) -> Turn:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source, target = np.zeros_like(array), np.zeros_like(model(array))
    binding = session.io_binding()
    for bind, name, memory in (
        (binding.bind_input, model.signature.inputs[0].name, source),
        (binding.bind_output, model.signature.outputs[0].name, target),
    ):
        bind(name, "cpu", 0, memory.dtype.type, memory.shape, memory.ctypes.data)
    run = session.run_with_iobinding

    def turn(calls: int) -> None:
        for _ in repeat(None, calls):
            source[...] = array
            run(binding)

    # The session writes into `target` for as long as the turn can be called.
    turn.__dict__["memory"] = target
    return turn


_references: dict[str, Callable[[Path, Model, NDArray[Any]], Turn]] = {
    "litert": _litert_reference,
    "onnx": _onnx_reference,
}


def _model_call(model: Model, array: NDArray[Any]) -> Turn:
    def turn(calls: int) -> None:
        for _ in repeat(None, calls):
            model(array)

    return turn


def _model_run(model: Model, array: NDArray[Any]) -> Turn:
    name = model.signature.inputs[0].name

    def turn(calls: int) -> None:
        for _ in repeat(None, calls):
            model.run({name: array})

    return turn


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
