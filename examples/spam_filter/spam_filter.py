"""Spam filter, end to end: generate messages, train on their words; then one build that converts, judges and packs.

    python examples/spam_filter/spam_filter.py --out build/spam

The text itself is the model's input (BYTES): splitting and counting words is part of the graph, so no device can do it
another way.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tidegate.cli.main import main as tidegate

SPAM_SHARE = 0.3
STRAY_SHARE = 0.10
"""Of the words of a message that come from the other kind."""

WORDS = {
    "ham": "meeting Monday Müller lunch report draft thanks tomorrow train late dinner photos notes Grüße review",
    "spam": "free winner prize click now cheap pills offer cash bonus urgent claim account verify limited credit",
    "both": "the you we a is to for and your our please today here with new this that can see time über café",
}

Texts = NDArray[np.str_]


def make(out: Path) -> int:
    """Train, write what SPEC.toml names, and build `out/spam-filter.tide`; return the exit code of the build."""
    out.mkdir(parents=True, exist_ok=True)
    texts, labels = messages(2_000, seed=1)
    joblib.dump(train(texts, labels), out / "spam_filter.joblib")
    np.savez(out / "training.npz", **{"input/text": encoded(texts)})
    np.savez(out / "golden.npz", **{"input/text": encoded(texts[:8])})
    asked, truth = messages(2_000, seed=2)
    np.savez(
        out / "evaluation.npz", **{"input/text": encoded(asked), "label": truth, "positive_class": np.array("spam")}
    )
    for name in ("SPEC.toml", "criteria.toml"):
        shutil.copy(Path(__file__).with_name(name), out)
    return tidegate(["build", str(out / "SPEC.toml"), "-o", str(out / "spam-filter.tide")])


def messages(count: int, seed: int) -> tuple[Texts, Texts]:
    """Return texts [count] and labels [count]: words of one kind, strays of the other, and words of both."""
    rng = np.random.default_rng(seed)
    words = {kind: np.array(line.split()) for kind, line in WORDS.items()}
    texts, labels = [], []
    for _ in range(count):
        label, other = ("spam", "ham") if rng.random() < SPAM_SHARE else ("ham", "spam")
        kinds = rng.choice(
            [label, other, "both"], size=rng.integers(6, 25), p=[0.3, STRAY_SHARE * 0.3, 0.7 - STRAY_SHARE * 0.3]
        )
        chosen = [str(rng.choice(words[kind])) for kind in kinds]
        texts.append(" ".join(word.upper() if label == "spam" and rng.random() < 0.2 else word for word in chosen))
        labels.append(label)
    return np.array(texts), np.array(labels)


def train(texts: Texts, labels: Texts) -> Pipeline:
    """Fit a linear model on weighted counts of words and pairs."""
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=3), LogisticRegression(C=10.0)).fit(texts, labels)


def encoded(texts: Texts) -> NDArray[np.bytes_]:
    """Return UTF-8."""
    return np.char.encode(texts, "utf-8")


def main() -> int:
    """Read the command line; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("build/spam_filter"))
    return make(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
