"""The one service under every servicer: find the model, check the request, schedule it. No transport in here.

Who calls what:

    transport           servicer                core                 model
    direct.py (gRPC) -> inference.py         -> Core.begin        -> Batcher.submit -> Model
    an HTTP thread   -> its own servicer     -> Core.infer        -> Batcher.run    -> Model
    handlers.py      -> speech.py            -> Repository.find_speech, Work

`begin` never blocks and tells the outcome to a callback; `infer` is the same for a thread that may wait. Both check the
request completely before it is queued, so that a neighbour's mistake never reaches a batch.

Where the rest plugs in, each as a Protocol, all of them empty tuples by default and then free of cost:

- `Admission`: authentication, authorisation, rate limits. Asked before anything else is done; raises to refuse.
- `Observer`: tracing, request logging, metrics of inputs and outputs. Told of every request that ended.
- Counters for ModelStatistics and Prometheus: `served.statistics.read()`, for each of `repository.all()`.
- A transport describes its caller as a `Caller`; `LOCAL` is the one for calls from inside the process.
- New sources of versions (a channel): `tidegate.cloud.sources.Source`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tidegate.cloud.calls import (
    LOCAL,
    Admission,
    Caller,
    DoorObserver,
    Finish,
    Inference,
    LocalCaller,
    Observer,
    Request,
)
from tidegate.cloud.queueing import Arrays, Job
from tidegate.cloud.repository import Repository, ServedModel
from tidegate.cloud.work import Work
from tidegate.errors import InputError, NotFoundError, TidegateError

__all__ = [
    "LOCAL",
    "Admission",
    "Caller",
    "Core",
    "DoorObserver",
    "Finish",
    "Inference",
    "LocalCaller",
    "Observer",
    "Request",
    "checked_outputs",
]


class Core:
    """What the server can do, for any number of threads."""

    def __init__(
        self,
        repository: Repository,
        work: Work,
        *,
        admissions: Sequence[Admission] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        """Join the parts.

        Args:
            repository: the models.
            work: counts and drains.
            admissions: asked in this order before every request.
            observers: told after every request.
        """
        self.repository = repository
        self.work = work
        self._admissions = tuple(admissions)
        self._observers = tuple(observers)
        self._door_observers = tuple(one for one in self._observers if isinstance(one, DoorObserver))

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of requests; some of them learn of speech as well."""
        return self._observers

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

    def admit(self, caller: Caller, model: str) -> None:
        """Ask the admissions for one piece of work that does not come as a `Request`, such as a segment of speech.

        Raises:
            TidegateError: an admission's, for the caller.
        """
        for admission in self._admissions:
            admission.admit(caller, model)

    def infer(
        self,
        name: str,
        version: str,
        feeds: Mapping[str, NDArray[Any]],
        wanted: Sequence[str] = (),
        *,
        caller: Caller = LOCAL,
    ) -> Inference:
        """Run a model once and wait for it.

        Args:
            name: model.
            version: version or label; empty for the server's choice.
            feeds: array by input name; names, dtypes, shapes and numbers are checked.
            wanted: outputs to return, in this order; empty for all.
            caller: whose deadline counts.

        Raises:
            NotFoundError: no such model or version.
            InputError: an unknown output, or inputs that do not fit.
            ModelError: the runtime failed.
            ResourceError: the queue is full, or memory is.
            DeadlineError: the time ran out before the model was free.
        """
        return self.answer(Request(name, feeds, version, wanted), caller)

    def answer(self, request: Request, caller: Caller = LOCAL) -> Inference:
        """Run one request and wait for it; raises as `infer`."""
        outcome: list[tuple[Inference | None, TidegateError | None]] = []
        self._start(request, caller, lambda found, error: outcome.append((found, error)), blocking=True, inline=False)
        ((found, error),) = outcome
        if found is None:
            raise error or InputError("the request has no outcome", fix="this is a defect of Tidegate; report it")
        return found

    def begin(self, request: Request, caller: Caller, finish: Finish, *, inline: bool = False) -> None:
        """Begin one request and return soon; never raises a TidegateError, the outcome goes to `finish`.

        Args:
            request: what is asked for.
            caller: whose deadline counts, and who may go away.
            finish: told the outcome, perhaps before this returns.
            inline: whether a run that is known to be short may be done on this thread.
        """
        self._start(request, caller, finish, blocking=False, inline=inline)

    def turned_away(self, caller: Caller, transport: str, error: TidegateError) -> None:
        """Tell of an inference request that ended before `begin`: not readable, not permitted, while draining.

        Args:
            caller: who made it.
            transport: `grpc` or `http`.
            error: what he is told.
        """
        for observer in self._door_observers:
            observer.turned_away(caller, transport, error)

    def _start(self, request: Request, caller: Caller, finish: Finish, *, blocking: bool, inline: bool) -> None:
        """Admit, find, check, schedule."""
        began_ns = time.monotonic_ns()
        served = None
        try:
            for admission in self._admissions:
                admission.admit(caller, request.model)
            served = self._use(request)
            job = InferenceJob(served, request, caller, finish, self._observers, began_ns)
            if blocking:
                served.batcher.run(job)
            else:
                served.batcher.submit(job, inline=inline)
        except TidegateError as error:
            if served is not None:
                served.usage.end()
            finish(None, error)
            _tell(self._observers, caller, request, None, error, began_ns)

    def _use(self, request: Request) -> ServedModel:
        while True:
            served = self.repository.find(request.model, request.version)
            if served.usage.begin():
                return served


class InferenceJob(Job):
    """One request on its way through a model, and who is told of its outcome."""

    __slots__ = ("_caller", "_finish_request", "_length", "_observers", "_request", "_served", "_wanted")

    def __init__(
        self,
        served: ServedModel,
        request: Request,
        caller: Caller,
        finish: Finish,
        observers: Sequence[Observer],
        began_ns: int,
    ) -> None:
        """Check a request against its model; everything that the caller can do wrong is found here.

        Args:
            served: counted as used until the outcome is told.
            request: what is asked for.
            caller: whose deadline counts.
            finish: told the outcome.
            observers: told after that.
            began_ns: `time.monotonic_ns()` when it arrived.

        Raises:
            InputError: an unknown output, or inputs that do not fit; nothing is told then.
        """
        batcher = served.batcher
        self._wanted = checked_outputs(served, request.wanted)
        arrays, self._length = served.checked(request.feeds), 0
        if batcher.settings.padding is not None:
            arrays, self._length = batcher.settings.padding.pad(served.signature, arrays)
        rows = _common_rows(arrays) if batcher.batched else 1
        deadline_s = caller.deadline_s
        if request.timeout_s:
            last_s = time.monotonic() + request.timeout_s
            deadline_s = last_s if deadline_s is None else min(deadline_s, last_s)
        super().__init__(
            arrays,
            key=tuple([array.shape[1:] if batcher.batched and rows else array.shape for array in arrays]),
            rows=rows,
            began_ns=began_ns,
            priority=request.priority,
            deadline_s=deadline_s,
            gone=caller.gone,
        )
        self._served, self._request, self._caller = served, request, caller
        self._finish_request, self._observers = finish, observers

    def finish(self, outputs: Arrays | None, error: TidegateError | None) -> None:
        """Tell the outcome; the version is used until everybody knows it."""
        served = self._served
        try:
            answer = None if outputs is None else self._answer(served, outputs)
            self._finish_request(answer, error)
            _tell(self._observers, self._caller, self._request, answer, error, self.began_ns)
        finally:
            served.usage.end()

    def _answer(self, served: ServedModel, outputs: Arrays) -> Inference:
        padding = served.batcher.settings.padding
        if padding is not None:
            outputs = padding.crop(served.signature, outputs, self._length)
        known = served.output_names
        by_name = dict(zip(known, outputs, strict=True))
        if self._wanted is not known:
            by_name = {name: by_name[name] for name in self._wanted}
        return Inference(served, by_name, self.started_ns - self.began_ns, self.ended_ns - self.started_ns)


def _tell(
    observers: Sequence[Observer],
    caller: Caller,
    request: Request,
    answer: Inference | None,
    error: TidegateError | None,
    began_ns: int,
) -> None:
    if observers:
        took_ns = time.monotonic_ns() - began_ns
        for observer in observers:
            observer.finished(caller, request, answer, error, took_ns)


def _common_rows(arrays: Arrays) -> int:
    """Return the size of the first axis, which all inputs of a model with a batch axis share."""
    rows: int = arrays[0].shape[0]
    if len(arrays) > 1 and any(array.shape[0] != rows for array in arrays):
        raise InputError(
            f"inputs have {[array.shape[0] for array in arrays]} rows; expected as many in each",
            fix="send the same number of rows for every input",
        )
    return rows


def checked_outputs(served: ServedModel, wanted: Sequence[str]) -> Sequence[str]:
    """Return the names of the outputs to answer with, in order.

    Raises:
        InputError: an unknown one, or one twice.
    """
    known = served.output_names
    if not wanted:
        return known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"model {served.name!r} has no output {unknown[0]!r}; outputs: {', '.join(map(repr, known))}",
            fix="ask for these, or for none to get all",
        )
    repeated = [name for name in wanted if list(wanted).count(name) > 1]
    if repeated:
        raise InputError(f"output {repeated[0]!r} is asked for more than once", fix="ask for each output once")
    return wanted
