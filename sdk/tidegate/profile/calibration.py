"""Thresholds by bootstrap: windows without drift are drawn from the reference, and the reference is drawn anew as well.

The reference is itself a sample. If only windows were drawn, its own error would be taken for drift: in each replicate
the window is therefore compared with a resampled reference. What the reference never saw gets the share that one
further row would have, Beta(1, n), on each open side. Rows are taken to be independent.

A feature has several statistics, which see the same rows. Each gets the same level rate / tests, where `tests` is
measured on the replicates so that the chance of any alarm is the rate (as the min-P of Westfall and Young, 1993).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tidegate.profile import statistics
from tidegate.profile.cells import Ints
from tidegate.profile.document import Alarm, StatisticName, Tail
from tidegate.profile.measures.column import Floats
from tidegate.profile.summary import STEPS
from tidegate.profile.tails import fit, natural, rounded, straight

MINIMUM_VALUES = 50
"""With fewer values in the reference only the share of missing rows is watched."""

_CHUNK_ELEMENTS = 1 << 21


@dataclass(frozen=True)
class Reference:
    """One feature of the evaluation data, as the bootstrap needs it."""

    name: str
    cells: Ints
    """bin or cell of each row with a value"""
    cell_count: int
    open_cells: tuple[int, ...]
    """cells that unseen values would fall into; one of each pair is drawn as a side of its own"""
    steps: Ints | None
    """q of each row with a value; None for categories"""
    absent: int
    """rows that are missing or null"""


@dataclass(frozen=True)
class Plan:
    """What to calibrate for."""

    false_alarm_rate: float
    window_rows: tuple[int, ...]
    replicates: int
    seed: int


def calibrate(reference: Reference, plan: Plan) -> tuple[Alarm, ...]:
    """Return the thresholds of one feature for each window size; the seed and the feature's name decide the draws."""
    alarms = []
    for rows in plan.window_rows:
        rng = np.random.default_rng([plan.seed, zlib.crc32(reference.name.encode()), rows])
        drawn = replicate_statistics(reference, rows, plan.replicates, rng)
        alarms.append(_alarm(drawn, rows, plan.false_alarm_rate))
    return tuple(alarms)


def uses_moments(cells: Ints, steps: Ints | None) -> bool:
    """Whether the reference varies enough for mean and spread to say anything."""
    return (
        steps is not None and len(cells) - int(np.unique(steps, return_counts=True)[1].max()) >= statistics.VARIED_ROWS
    )


def replicate_statistics(
    reference: Reference, rows: int, replicates: int, rng: np.random.Generator
) -> dict[StatisticName, Floats]:
    """Return each statistic of `replicates` windows without drift."""
    found: dict[StatisticName, list[Floats]] = {}
    chunk = max(1, _CHUNK_ELEMENTS // rows)
    for first in range(0, replicates, chunk):
        for name, values in _draw(reference, rows, min(chunk, replicates - first), rng).items():
            found.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _draw(reference: Reference, rows: int, count: int, rng: np.random.Generator) -> dict[StatisticName, Floats]:
    present, total = len(reference.cells), len(reference.cells) + reference.absent
    share = rng.beta(reference.absent + 0.5, present + 0.5, count)
    absent = rng.binomial(rows, share).astype(np.float64)
    drawn: dict[StatisticName, Floats] = {"missing": statistics.missing_change(absent, rows, reference.absent, total)}
    if present < MINIMUM_VALUES:
        return drawn
    seen = np.bincount(reference.cells, minlength=reference.cell_count).astype(np.float64)
    again = rng.multinomial(present, seen / present, count).astype(np.float64)
    if reference.steps is None:
        window = rng.multinomial(rows, seen / present, count).astype(np.float64)
        _move_to_open(window, reference, seen, rng)
        return drawn | {"chi2": statistics.chi_square(window, again)}
    picked = rng.integers(0, present, (count, rows), dtype=np.int32)
    window = _counts(reference.cells[picked], reference.cell_count)
    if uses_moments(reference.cells, reference.steps):
        drawn |= _moment_statistics(reference, picked, again, rng)
    _move_to_open(window, reference, seen, rng)
    return drawn | {
        "ks": statistics.kolmogorov_smirnov(window, again),
        "chi2": statistics.chi_square(window, again),
    }


def _moment_statistics(
    reference: Reference,
    picked: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    again: Floats,
    rng: np.random.Generator,
) -> dict[StatisticName, Floats]:
    """Return mean, and spread unless the tail is heavy; the resampled reference's moments follow its resampled bins."""
    assert reference.steps is not None
    values = reference.steps / STEPS
    rows, present = picked.shape[1], len(values)
    taken = values[picked]
    mean, square = taken.mean(axis=1), np.einsum("ij,ij->i", taken, taken) / rows
    again_mean, again_square = _resampled_moments(values, reference, again, rng)
    deviation = float(values.std())
    drawn: dict[StatisticName, Floats] = {"mean": statistics.mean_shift(mean, again_mean, deviation, rows, present)}
    if np.mean((values - values.mean()) ** 4) > statistics.LARGEST_KURTOSIS * deviation**4:
        return drawn
    variance, again_variance = square - mean**2, again_square - again_mean**2
    return drawn | {"spread": statistics.spread_change(variance, again_variance, rows, present)}


def _resampled_moments(
    values: Floats, reference: Reference, again: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the first two moments of resampled references, given how many rows each has in each bin.

    Within a bin the sums of values and squares are near normal, with the bin's own means and covariance.
    """
    weights = np.bincount(reference.cells, minlength=reference.cell_count)
    filled = np.maximum(weights, 1)

    def mean_by_bin(what: Floats) -> Floats:
        return np.bincount(reference.cells, what, minlength=reference.cell_count) / filled

    squares = values**2
    first, second = mean_by_bin(values), mean_by_bin(squares)
    residual, residual_square = values - first[reference.cells], squares - second[reference.cells]
    variance = again @ mean_by_bin(residual**2)
    covariance = again @ mean_by_bin(residual * residual_square)
    variance_of_square = again @ mean_by_bin(residual_square**2)
    noise, noise_too = rng.standard_normal((2, len(again)))
    root = np.sqrt(variance)
    slope = np.divide(covariance, root, out=np.zeros_like(root), where=root > 0)
    rest = np.sqrt(np.maximum(variance_of_square - slope**2, 0.0))
    present = len(values)
    return (again @ first + root * noise) / present, (again @ second + slope * noise + rest * noise_too) / present


def _counts(cells: Ints, cell_count: int) -> Floats:
    """Return how often each cell occurs in each window [b, rows], as [b, cells]."""
    offset = np.arange(len(cells))[:, None] * cell_count
    flat = np.bincount((cells + offset).ravel(), minlength=len(cells) * cell_count)
    return flat.reshape(len(cells), cell_count).astype(np.float64)


def _move_to_open(window: Floats, reference: Reference, seen: Floats, rng: np.random.Generator) -> None:
    """Move some rows into cells that the reference left empty, as a reference of so few rows cannot exclude."""
    unseen = [cell for cell in reference.open_cells if seen[cell] == 0]
    if not unseen:
        return
    sides = [(unseen[0], 1), (unseen[-1], -2)] if reference.steps is not None else [(-1, int(seen.argmax()))]
    for cell, neighbour in sides:
        place = np.full(len(window), cell) if cell >= 0 else rng.choice(np.array(unseen), len(window))
        source = window[:, neighbour]
        share = rng.beta(1.0, len(reference.cells), len(window)) * len(reference.cells) / max(seen[neighbour], 1.0)
        moved = rng.binomial(source.astype(np.int64), np.minimum(share, 1.0))
        window[:, neighbour] -= moved
        window[np.arange(len(window)), place] += moved


def _alarm(drawn: dict[StatisticName, Floats], rows: int, rate: float) -> Alarm:
    tails = {name: fit(straight(name, values)) for name, values in drawn.items()}
    levels = np.stack([tail.levels(straight(name, drawn[name])) for name, tail in tails.items()])
    any_at_rate = float(np.mean(levels.min(axis=0) <= rate))
    tests = min(max(any_at_rate / rate, 1.0), float(len(tails)))
    return Alarm(
        window_rows=rows,
        tests=rounded(tests),
        statistics={
            name: Tail(threshold=rounded(natural(name, tail.at(rate / tests))), scale=rounded(tail.scale))
            for name, tail in tails.items()
        },
    )
