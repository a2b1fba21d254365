"""Fraud screening, end to end: generate transactions, train; then one build that converts, evaluates, judges and packs.

    python examples/fraud_screening/fraud_screening.py --out build/fraud

One transaction in a hundred is fraud, so accuracy says nothing: 99 % is what a model gets that never sees fraud. The
criteria are about recall and precision.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import precision_recall_curve

from tidegate.cli.main import main as tidegate

COLUMNS = ("amount_eur", "hour", "distance_km", "payments_last_day", "card_age_days", "foreign")
FRAUD_SHARE = 0.01
WANTED_PRECISION = 0.8

Columns = dict[str, NDArray[np.float32]]


def make(out: Path) -> int:
    """Train, write what SPEC.toml names, and build `out/fraud-screening.tide`; return the exit code of the build."""
    out.mkdir(parents=True, exist_ok=True)
    columns, labels = transactions(15_000, seed=1)
    model = train(columns, labels)
    joblib.dump(model, out / "fraud_screening.joblib")
    write(out / "training.npz", columns)
    write(out / "golden.npz", {name: values[:8] for name, values in columns.items()})
    threshold = choose_threshold(model, *transactions(15_000, seed=2))
    write_evaluation_set(out / "evaluation.npz", threshold, *transactions(30_000, seed=3))
    for name in ("SPEC.toml", "criteria.toml"):
        shutil.copy(Path(__file__).with_name(name), out)
    return tidegate(["build", str(out / "SPEC.toml"), "-o", str(out / "fraud-screening.tide")])


def transactions(count: int, seed: int) -> tuple[Columns, NDArray[np.int64]]:
    """Return columns [count] and labels [count], 1 for fraud. Fraud is dearer, later, farther and in bursts."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(count) < FRAUD_SHARE
    pick = lambda usual, unusual: np.where(fraud, unusual, usual)  # noqa: E731
    columns = {
        "amount_eur": np.exp(rng.normal(pick(3.3, 5.0), pick(1.0, 0.9))),
        "hour": np.mod(rng.normal(pick(14.0, 2.0), pick(4.5, 3.0)), 24.0),
        "distance_km": np.exp(rng.normal(pick(1.5, 4.2), 1.4)),
        "payments_last_day": rng.poisson(pick(1.5, 6.0)),
        "card_age_days": rng.gamma(2.0, pick(600.0, 250.0)),
        "foreign": rng.random(count) < pick(0.04, 0.45),
    }
    return {name: columns[name].astype(np.float32) for name in COLUMNS}, fraud.astype(np.int64)


def train(columns: Columns, labels: NDArray[np.int64]) -> HistGradientBoostingClassifier:
    """Fit 40 shallow trees."""
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=0)
    return model.fit(np.column_stack(list(columns.values())), labels)


def choose_threshold(model: HistGradientBoostingClassifier, columns: Columns, labels: NDArray[np.int64]) -> float:
    """Return the lowest score with the wanted precision, on data that is neither trained nor tested with."""
    scores = model.predict_proba(np.column_stack(list(columns.values())))[:, 1]
    precision, _, thresholds = precision_recall_curve(labels, scores)
    return float(thresholds[np.argmax(precision[:-1] >= WANTED_PRECISION)])


def write(path: Path, columns: Columns, **truth: NDArray[Any]) -> None:
    """Write each column as the input of its name, [rows, 1], and what is known of the rows."""
    np.savez(path, **{f"input/{name}": values[:, None] for name, values in columns.items()}, **truth)  # type: ignore


def write_evaluation_set(path: Path, threshold: float, columns: Columns, labels: NDArray[np.int64]) -> None:
    """Write inputs with the truth; `abroad` is a slice of its own in the report."""
    truth = {
        "label": labels,
        "positive_class": np.array("fraud"),
        "threshold": np.array(threshold),
        "score_output": np.array("probabilities"),
        "slice/place": np.where(columns["foreign"] > 0, "abroad", "at home"),
    }
    write(path, columns, **truth)


def main() -> int:
    """Read the command line; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("build/fraud_screening"))
    return make(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
