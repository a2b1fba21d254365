"""The Open Inference Protocol's servicer: messages to the core and back.

Where the protocol is silent or its dialects differ, this is what happens here:

- Answers are raw, whether the request was raw or typed (Triton; the protocol leaves it to the server).
- ModelReady of an unknown model or version is `ready: false`, not an error (Triton).
- Status codes are those of Triton; a request that is not valid protobuf is INVALID_ARGUMENT, since it is the caller's.
- Parameters that nobody here knows are left alone, as the protocol's parameters extension has it; those that would
  change where tensors lie (shared memory) are refused.
- An empty version is the highest, by the order of semantic versions. `model_version` of an answer is always filled.
- An axis of size 0 is a tensor like any other where the signature leaves the axis free.
- Metadata carries the protocol's `properties`; Triton has no field there, MLServer another one. `tidegate.NAME` are
  the facts of the manifest, as `tidegate.convert.mirrors.oip` reads them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from numpy.typing import NDArray

from tidegate.bundle.manifest import TensorSpec
from tidegate.cloud.classification import PARAMETER, check_classifiable, classified
from tidegate.cloud.core import Caller, Core, Inference, Request
from tidegate.cloud.direct import Reply
from tidegate.cloud.lifecycle import State
from tidegate.cloud.model_config import model_config, model_statistics
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.repository_control import check_index_request
from tidegate.convert.mirrors import oip
from tidegate.errors import InputError, TidegateError
from tidegate.wire import messages
from tidegate.wire.forms import AnswerForms, RequestForms
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.tensors import read_inputs, write_outputs

SERVER_NAME = "tidegate"

MODEL_INFER = OPEN_INFERENCE.method("ModelInfer")

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)
"""By Triton's names."""

SHARED_MEMORY = "shared_memory_region"
"""Parameter of a tensor that lies in shared memory."""

INDEX_STATE = {
    State.LOADING: "LOADING",
    State.WARMING: "LOADING",
    State.READY: "UNAVAILABLE",
    State.DRAINING: "UNLOADING",
    State.UNLOADED: "UNAVAILABLE",
}
"""Triton's word for a version that cannot be called now; READY stands for one that draining keeps away."""


Respond = Callable[[Any, TidegateError | None], None]
"""Told exactly once, from any thread: the ModelInferResponse, or None and the error."""


class InferenceServicer:
    """One method per method of `inference.GRPCInferenceService`; errors leave as tidegate.errors."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._requests = RequestForms[Request]()
        self._answers = AnswerForms()

    def server_live(self, request: Any) -> Any:
        """Whoever answers is alive."""
        return messages.ServerLiveResponse(live=True)

    def server_ready(self, request: Any) -> Any:
        """Ready until the server drains."""
        return messages.ServerReadyResponse(ready=self._core.ready)

    def model_ready(self, request: Any) -> Any:
        """Unknown models and versions are not ready; that is an answer, not an error, as with Triton."""
        return messages.ModelReadyResponse(ready=self._core.model_ready(request.name, request.version))

    def server_metadata(self, request: Any) -> Any:
        """Name, version, extensions."""
        return messages.ServerMetadataResponse(name=SERVER_NAME, version=version("tidegate"), extensions=EXTENSIONS)

    def model_metadata(self, request: Any) -> Any:
        """Signature, versions, platform, and the bundle's facts as properties; no name asks for the only model."""
        served = self._core.repository.find(request.name or self._core.repository.only_name(), request.version)
        response = messages.ModelMetadataResponse(
            name=served.name,
            versions=self._core.repository.versions(served.name),
            platform=served.model.backend,
            properties=_properties(served),
        )
        _add_specs(response.inputs, served.model.signature.inputs)
        _add_specs(response.outputs, served.model.signature.outputs)
        return response

    def model_infer(self, raw: bytes, caller: Caller, reply: Reply) -> None:
        """Begin to run the model on a serialised ModelInferRequest; the answer is raw, whatever the request was."""
        try:
            asked, top = self._read(raw)
        except TidegateError as error:
            self.turned_away(caller, error)
            reply(None, error)
            return

        def answered(inference: Inference | None, error: TidegateError | None) -> None:
            if inference is None:
                reply(None, error)
                return
            served = inference.served
            try:
                answer = self._answers.encoded(served.name, served.version, asked.id, _outputs(inference, top))
            except TidegateError as unwritable:
                reply(None, unwritable)
                return
            reply(answer, None)

        self._core.begin(asked, caller, answered, inline=True)

    def turned_away(self, caller: Caller, error: TidegateError) -> None:
        """Tell of a request over gRPC that cannot be begun."""
        self._core.turned_away(caller, "grpc", error)

    def begin(self, request: Any, caller: Caller, finish: Respond, *, inline: bool) -> None:
        """Begin one ModelInferRequest; its ModelInferResponse, or the error, is told to `finish`; nothing is raised.

        Args:
            request: parsed.
            caller: whose deadline counts.
            finish: told exactly once, from any thread.
            inline: whether a run that is known to be short may be done on this thread.
        """
        try:
            asked, top = self._asked(request)
        except TidegateError as error:
            self.turned_away(caller, error)
            finish(None, error)
            return

        def answered(inference: Inference | None, error: TidegateError | None) -> None:
            if inference is None:
                finish(None, error)
                return
            response = messages.ModelInferResponse(
                model_name=inference.served.name, model_version=inference.served.version, id=asked.id
            )
            try:
                write_outputs(response, _outputs(inference, top))
            except TidegateError as unwritable:
                finish(None, unwritable)
                return
            finish(response, None)

        self._core.begin(asked, caller, answered, inline=inline)

    def _read(self, raw: bytes) -> tuple[Request, Mapping[str, int]]:
        """Return what a serialised request asks for; raises as `_asked`, and InputError for what is not one."""
        known = self._requests.read(raw)
        if known is not None:
            form, feeds = known
            return Request(form.model, feeds, form.version, form.wanted, "", form.priority, form.timeout_s), {}
        request = MODEL_INFER.parsed(raw)
        asked, top = self._asked(request)
        if not top:
            self._requests.learn(raw, request, asked._replace(feeds={}))
        return asked, top

    def _asked(self, request: Any) -> tuple[Request, Mapping[str, int]]:
        """Return what a parsed request asks for, and of which outputs how many highest values.

        Raises:
            InputError: the request is not what it says, or an output cannot be classified.
            NotFoundError: classification is asked of a model that is not there.
        """
        top = _classifications(request)
        if top:
            served = self._core.repository.find(request.model_name, request.model_version)
            for name in top:
                check_classifiable(served, name)
        return _request(request), top

    def model_config(self, request: Any) -> Any:
        """Triton's configuration of a version; no name asks for the only model."""
        served = self._core.repository.find(request.name or self._core.repository.only_name(), request.version)
        return messages.ModelConfigResponse(config=model_config(served))

    def model_statistics(self, request: Any) -> Any:
        """Triton's counters, of one version, of all of a model, or of everything."""
        return model_statistics(self._core.repository, request.name, request.version)

    def repository_index(self, request: Any) -> Any:
        """Every version that is or was here, in Triton's states; one that draining or a failure keeps away says why."""
        check_index_request(request)
        draining = not self._core.ready
        response = messages.RepositoryIndexResponse()
        for status in self._core.repository.statuses():
            ready = status.state is State.READY and not draining
            if request.ready and not ready:
                continue
            response.models.add(
                name=status.name,
                version=status.version,
                state="READY" if ready else INDEX_STATE[status.state],
                reason="the server is shutting down" if draining and status.state is State.READY else status.reason,
            )
        return response


def _outputs(inference: Inference, top: Mapping[str, int]) -> Mapping[str, NDArray[Any]]:
    """Return what is answered: the outputs, or of those in `top` the highest values."""
    if not top:
        return inference.outputs
    return {
        name: classified(inference.served, name, array, top[name]) if name in top else array
        for name, array in inference.outputs.items()
    }


def _request(request: Any) -> Request:
    """Return what a ModelInferRequest asks for.

    Raises:
        InputError: its tensors are not what they say, or `priority` or `timeout` is not a number.
    """
    parameters = request.parameters
    return Request(
        model=request.model_name,
        feeds=read_inputs(request),
        version=request.model_version,
        wanted=[output.name for output in request.outputs],
        id=request.id,
        priority=_number(parameters, "priority") if parameters else 0,
        timeout_s=_number(parameters, "timeout") / 1e6 if parameters else 0.0,
    )


def _classifications(request: Any) -> dict[str, int]:
    """Return how many highest values are asked for, by output.

    Raises:
        InputError: not a number from 1; or a tensor lies in shared memory, of which there is none here.
    """
    found: dict[str, int] = {}
    for kind, tensors in (("input", request.inputs), ("output", request.outputs)):
        for tensor in tensors:
            parameters = tensor.parameters
            if not parameters:
                continue
            if SHARED_MEMORY in parameters:
                raise InputError(
                    f"{kind} {tensor.name!r} lies in shared memory, which this server does not offer",
                    fix="send it in the request",
                )
            if kind == "output" and PARAMETER in parameters:
                count = _number(parameters, PARAMETER)
                if not count:
                    raise InputError(f"parameter {PARAMETER!r} of output {tensor.name!r} is 0", fix="ask for 1 or more")
                found[tensor.name] = count
    return found


def _number(parameters: Any, name: str) -> int:
    """Return Triton's parameter of that name, 0 where it is not given; its `timeout` counts in microseconds."""
    if name not in parameters:
        return 0
    kind = parameters[name].WhichOneof("parameter_choice")
    value = getattr(parameters[name], kind) if kind in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise InputError(f"parameter {name!r} is no whole number from 0", fix="send it as int64_param or uint64_param")
    return int(value)


def _add_specs(tensors: Any, specs: tuple[TensorSpec, ...]) -> None:
    for spec in specs:
        tensors.add(name=spec.name, datatype=spec.dtype, shape=spec.shape)


def _properties(served: ServedModel) -> dict[str, str]:
    """Return the mirror of the manifest, and what runs the model here."""
    model = served.model
    variant = next(variant for variant in served.manifest.variants if variant.id == model.variant_id)
    mirrored: dict[str, str] = oip.metadata(served.manifest, variant)["properties"]
    return mirrored | {"runtime": model.runtime, "provider": model.provider}
