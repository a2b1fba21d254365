"""The one service under every servicer: find the model, check the request, run it. No transport in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tidegate.cloud.repository import Repository, ServedModel
from tidegate.cloud.work import Work
from tidegate.errors import InputError, NotFoundError


@dataclass(frozen=True)
class Inference:
    """The answer to one request."""

    served: ServedModel
    outputs: dict[str, NDArray[Any]]


class Core:
    """What the server can do, for any number of threads."""

    def __init__(self, repository: Repository, work: Work) -> None:
        self.repository = repository
        self.work = work

    @property
    def ready(self) -> bool:
        """Whether requests are taken: models are loaded and the server does not drain."""
        return not self.work.draining

    def model_ready(self, name: str, version: str = "") -> bool:
        """Return whether the model can be called now; an unknown one cannot."""
        try:
            self.repository.find(name, version)
        except NotFoundError:
            return False
        return self.ready

    def check_taking_work(self) -> None:
        """Refuse a stream that could not begin a segment any more.

        Raises:
            UnavailableError: the server is draining.
        """
        self.work.begin().release()

    def infer(
        self, name: str, version: str, feeds: Mapping[str, NDArray[Any]], wanted: Sequence[str] = ()
    ) -> Inference:
        """Run a model once.

        Args:
            name: model.
            version: empty for the highest.
            feeds: array by input name; the model checks names, dtypes, shapes and numbers.
            wanted: outputs to return, in this order; empty for all.

        Raises:
            NotFoundError: no such model or version.
            InputError: an unknown output, or inputs that do not fit.
            ModelError: the runtime failed.
        """
        served = self.repository.find(name, version)
        names = _checked_outputs(served, wanted)
        with self.work.compute():
            outputs = served.model.run(feeds)
        return Inference(served, {output: outputs[output] for output in names})


def _checked_outputs(served: ServedModel, wanted: Sequence[str]) -> Sequence[str]:
    known = [spec.name for spec in served.model.signature.outputs]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"model {served.name!r} has no output {unknown[0]!r}; outputs: {', '.join(map(repr, known))}",
            fix="ask for these, or for none to get all",
        )
    repeated = [name for name in wanted if list(wanted).count(name) > 1]
    if repeated:
        raise InputError(f"output {repeated[0]!r} is asked for more than once", fix="ask for each output once")
    return wanted or known
