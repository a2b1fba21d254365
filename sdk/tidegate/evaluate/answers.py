"""What a model said of each row, beside the truth: classes, numbers or texts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import ConfigError
from tidegate.evaluate.data import Name

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classified:
    """A class for each row."""

    classes: tuple[str, ...]
    truth: Ints
    """class index [n]; -1 for a class that this model does not know, which is never right"""
    decision: Ints
    """class index [n]; -1 where the model decided nothing, because it answered NaN"""
    scores: Floats | None
    """[n, classes], higher is surer; None when the model gives classes only"""
    positive: int | None
    """index of the class that a question is about; of two classes the second, unless the data says otherwise"""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each row was decided rightly."""
        return np.asarray((self.decision == self.truth) & (self.truth >= 0))


@dataclass(frozen=True)
class Estimated:
    """A number, or several, for each row."""

    truth: Floats
    """[n, values]"""
    value: Floats
    """[n, values]"""

    @property
    def absolute_error(self) -> Floats:
        """Return the mean absolute error of each row [n]."""
        return np.asarray(np.abs(self.value - self.truth).mean(axis=1))


@dataclass(frozen=True)
class Transcribed:
    """A text for each row."""

    truth: tuple[str, ...]
    text: tuple[str, ...]
    errors: Floats
    """word errors [n]"""
    words: Floats
    """words of the reference [n]"""


Answers = Classified | Estimated | Transcribed


def aligned(baseline: Answers, candidate: Answers) -> Answers:
    """Return what the baseline said in the candidate's classes and truth, by name.

    A class that the candidate does not have is no decision, and never right; one that the baseline does not have gets
    the lowest score.
    """
    if not isinstance(baseline, Classified) or not isinstance(candidate, Classified):
        return baseline
    place = {name: index for index, name in enumerate(candidate.classes)}
    column = np.array([*(place.get(name, -1) for name in baseline.classes), -1], np.int64)
    scores = None
    if baseline.scores is not None:
        scores = np.full((len(baseline.decision), len(candidate.classes)), -np.inf)
        for index, name in enumerate(baseline.classes):
            if name in place:
                scores[:, place[name]] = baseline.scores[:, index]
    return Classified(candidate.classes, candidate.truth, column[baseline.decision], scores, candidate.positive)


def class_index(name: Name, classes: Sequence[str], where: str) -> int:
    """Return the index of a class given by name or by index.

    Raises:
        ConfigError: there is no such class; the nearest is named.
    """
    if isinstance(name, int) and 0 <= name < len(classes):
        return name
    if str(name) in classes:
        return list(classes).index(str(name))
    near = difflib.get_close_matches(str(name), classes, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(classes[:20])}"
    raise ConfigError(f"{where}: there is no class {name!r}{hint}", fix="use a label of the bundle")
