"""How often the reference profile cries wolf, and how much it sees: simulated windows through the real path.

    python -m tidegate.bench.drift [--references 16] [--windows 48] [--only CASE] [--json]

Each case draws a reference of known law, makes its profile, and judges windows with and without drift. A cell is the
share of windows in which the feature drifts; the standard error of a rate of 1 % over 768 windows is 0.36 points.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.profile import Options, Window, judge, profile_from

Draw = Callable[[np.random.Generator, int], Array]
"""Random source and rows to one column [rows, 1]."""

WINDOW_ROWS = (200, 1000, 5000)
REFERENCE_ROWS = 10_000


@dataclass(frozen=True)
class Case:
    """One reference law and one window law."""

    name: str
    reference: Draw
    window: Draw
    reference_rows: int = REFERENCE_ROWS
    window_rows: tuple[int, ...] = WINDOW_ROWS
    spread_over: int = 1
    """so many times the references, each with so many times fewer windows: a small reference decides for all of them"""


class Cell(msgspec.Struct, frozen=True):
    """What was seen at one window size."""

    case: str
    window_rows: int
    windows: int
    drift: float
    """share of windows in which any statistic alarmed"""
    by_statistic: dict[str, float]
    bytes_median: int
    """of the encoded window, 13 bytes of head included"""


def normal(shift: float = 0.0, deviation: float = 1.0) -> Draw:
    """Return a normal law."""
    return lambda rng, rows: rng.normal(shift, deviation, (rows, 1))


def contaminated(share: float, shift: float) -> Draw:
    """Return a standard normal law with a share of rows that are shifted."""
    return lambda rng, rows: rng.normal(size=(rows, 1)) + shift * (rng.random((rows, 1)) < share)


def log_normal(shift: float = 0.0) -> Draw:
    """Return a log-normal law, shifted by so many of its standard deviations."""
    deviation = float(np.sqrt((np.e - 1.0) * np.e))
    return lambda rng, rows: rng.lognormal(size=(rows, 1)) + shift * deviation


def with_nan(share: float) -> Draw:
    """Return a standard normal law with a share of NaN."""
    return lambda rng, rows: np.where(rng.random((rows, 1)) < share, np.nan, rng.normal(size=(rows, 1)))


def uniform_codes(count: int, moved: float = 0.0) -> Draw:
    """Return equally frequent categories; `moved` of all rows change to the first one."""

    def draw(rng: np.random.Generator, rows: int) -> Array:
        return _text(np.where(rng.random(rows) < moved, 0, rng.integers(0, count, rows)))

    return draw


def zipf_codes(count: int, moved: float = 0.0) -> Draw:
    """Return categories of frequency 1/rank; `moved` of all rows change to the one of rank 3."""
    weights = 1.0 / np.arange(1, count + 1)

    def draw(rng: np.random.Generator, rows: int) -> Array:
        codes = rng.choice(count, rows, p=weights / weights.sum())
        return _text(np.where(rng.random(rows) < moved, 2, codes))

    return draw


def cases() -> list[Case]:
    """Return all cases: the laws of the research table first."""
    steady = [
        Case("normal, no drift", normal(), normal()),
        Case("normal, no drift, reference 500", normal(), normal(), 500, spread_over=4),
        Case("normal, no drift, reference 100", normal(), normal(), 100, spread_over=4),
        Case("normal, no drift, between sizes", normal(), normal(), window_rows=(400, 2500, 20_000)),
        Case("log-normal, no drift", log_normal(), log_normal()),
        Case("2 % NaN, no drift", with_nan(0.02), with_nan(0.02)),
    ]
    steady += [
        Case(f"{count} equal categories, no drift", uniform_codes(count), uniform_codes(count))
        for count in (10, 20, 50, 100, 1000)
    ]
    steady += [
        Case(f"{count} Zipf categories, no drift", zipf_codes(count), zipf_codes(count)) for count in (10, 100, 1000)
    ]
    moved = [
        *(Case(f"normal, mean +{shift:g} sd", normal(), normal(shift)) for shift in (0.1, 0.25, 0.5)),
        Case("normal, sd +10 %", normal(), normal(0.0, 1.1)),
        Case("5 % of rows 2 sd off", normal(), contaminated(0.05, 2.0)),
        Case("log-normal, +0.1 sd", log_normal(), log_normal(0.1)),
        Case("2 % NaN to 4 %", with_nan(0.02), with_nan(0.04)),
    ]
    for count in (10, 100, 1000):
        for share in (0.02, 0.05):
            name = f"{share:.0%} of rows change"
            moved.append(Case(f"{count} equal categories, {name}", uniform_codes(count), uniform_codes(count, share)))
            moved.append(Case(f"{count} Zipf categories, {name}", zipf_codes(count), zipf_codes(count, share)))
    return steady + moved


def measure(case: Case, references: int, windows: int, seed: int = 0) -> list[Cell]:
    """Return one cell for each window size."""
    alarms = dict.fromkeys(case.window_rows, 0)
    statistics: dict[int, Counter[str]] = {rows: Counter() for rows in case.window_rows}
    sizes: dict[int, list[int]] = {rows: [] for rows in case.window_rows}
    for number in range(references * case.spread_over):
        rng = np.random.default_rng([seed, number])
        profile = profile_from({"x": case.reference(rng, case.reference_rows)}, {}, options=Options(seed=number))
        # Of text the category is looked at, of a table its only column.
        place = next(n for n, feature in enumerate(profile.features) if feature.measure == "value")
        for rows in case.window_rows:
            for _ in range(windows // case.spread_over):
                window = Window(profile)
                window.add({"x": case.window(rng, rows)})
                result = judge(window)[place]
                alarms[rows] += result.verdict == "drift"
                statistics[rows].update(one.name for one in result.statistics if one.value > one.threshold)
                sizes[rows].append(len(window.encode()))
    total = references * case.spread_over * (windows // case.spread_over)
    return [
        Cell(
            case=case.name,
            window_rows=rows,
            windows=total,
            drift=alarms[rows] / total,
            by_statistic={name: count / total for name, count in sorted(statistics[rows].items())},
            bytes_median=int(np.median(sizes[rows])),
        )
        for rows in case.window_rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.drift", description=__doc__)
    parser.add_argument("--references", type=int, default=16)
    parser.add_argument("--windows", type=int, default=48, help="for each reference and size")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    for case in cases():
        if arguments.only not in case.name:
            continue
        cells = measure(case, arguments.references, arguments.windows)
        for cell in cells:
            if arguments.json:
                print(msgspec.json.encode(cell).decode(), flush=True)
            else:
                details = " ".join(f"{name} {share:.3f}" for name, share in cell.by_statistic.items())
                print(f"{cell.case:42} W={cell.window_rows:<6} {cell.drift:.4f}  ({details})", flush=True)
    return 0


def _text(codes: Array) -> Array:
    return np.char.encode(np.char.add("c", codes.astype(np.str_)), "ascii").astype(object)[:, None]


if __name__ == "__main__":
    raise SystemExit(main())
