"""Spam filter, end to end: generate messages, train on their words, convert, pack, evaluate against criteria.

    python examples/spam_filter/spam_filter.py --out build/spam

The text itself is the model's input (BYTES): splitting and counting words is part of the graph, so no device can do it
another way.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tidegate.bundle import Bundle
from tidegate.convert import convert
from tidegate.convert.build import build
from tidegate.convert.spec import BuildSpec, BundleTable, GoldenTable, VariantTable
from tidegate.evaluate import Evaluation, Options, evaluate, read_criteria, read_evaluation_set

LABELS = ("ham", "spam")
SPAM_SHARE = 0.3
STRAY_SHARE = 0.10
"""Of the words of a message that come from the other kind."""
EXIT_CODES = {"pass": 0, "fail": 1, "wait": 3, None: 0}

WORDS = {
    "ham": "meeting Monday Müller lunch report draft thanks tomorrow train late dinner photos notes Grüße review",
    "spam": "free winner prize click now cheap pills offer cash bonus urgent claim account verify limited credit",
    "both": "the you we a is to for and your our please today here with new this that can see time über café",
}

Texts = NDArray[np.str_]


def make(out: Path) -> Evaluation:
    """Do every step; the bundle is `out/spam-filter.tide`."""
    out.mkdir(parents=True, exist_ok=True)
    texts, labels = messages(2_000, seed=1)
    model = train(texts, labels)
    made = convert(model, ["onnx-fp32"], out, data={"text": texts}, name="spam-filter")
    np.savez(out / "golden.npz", **{"input/text": encoded(texts[:8])})
    asked, truth = messages(2_000, seed=2)
    np.savez(
        out / "evaluation.npz", **{"input/text": encoded(asked), "label": truth, "positive_class": np.array("spam")}
    )
    spec = BuildSpec(
        bundle=BundleTable(
            name="spam-filter",
            version="1.0.0",
            description="Words and pairs of words of a message, UTF-8.",
            labels=LABELS,
        ),
        variant=tuple(VariantTable(id=variant.id, file=variant.path.name) for variant in made.variants),
        golden=GoldenTable(file="golden.npz"),
        directory=out,
    )
    result = build(spec, out / "spam-filter.tide")
    data = read_evaluation_set((out / "evaluation.npz").read_bytes(), origin="evaluation.npz")
    criteria = read_criteria(Path(__file__).with_name("criteria.toml"))
    with Bundle.open(result.path) as bundle:
        return evaluate(bundle, data, Options(criteria=criteria))


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
    """Read the command line; print what was found; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("build/spam_filter"))
    evaluation = make(parser.parse_args().out)
    for criterion in evaluation.criteria:
        found = "no figure" if criterion.estimate is None else f"{criterion.estimate:.4g}"
        print(f"{criterion.verdict}: {criterion.name} ({criterion.variant}): {found}; {criterion.reason}")
    return EXIT_CODES[evaluation.verdict]


if __name__ == "__main__":
    sys.exit(main())
