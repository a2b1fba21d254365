"""The Open Inference Protocol's servicer: messages to the core and back.

Where the protocol is silent or its dialects differ, this is what happens here:

- Answers are raw, whether the request was raw or typed (Triton; the protocol leaves it to the server).
- ModelReady of an unknown model or version is `ready: false`, not an error (Triton).
- Status codes are those of Triton; a request that is not valid protobuf is INVALID_ARGUMENT, since it is the caller's.
- An empty version is the highest, by the order of semantic versions. `model_version` of an answer is always filled.
- An axis of size 0 is a tensor like any other where the signature leaves the axis free.
- Metadata carries the protocol's `properties`; Triton has no field there, MLServer another one. `tidegate.NAME` are
  the facts of the manifest, as `tidegate.convert.mirrors.oip` reads them back.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from tidegate.bundle.manifest import TensorSpec
from tidegate.cloud.core import Core
from tidegate.cloud.repository import ServedModel
from tidegate.convert.mirrors import oip
from tidegate.wire import messages
from tidegate.wire.tensors import read_inputs, write_outputs

SERVER_NAME = "tidegate"

EXTENSIONS = ("binary_tensor_data", "repository_index")
"""Raw contents, by Triton's name; and of Triton's `model_repository` the index only, so by a name of our own."""


class InferenceServicer:
    """One method per method of `inference.GRPCInferenceService`; errors leave as tidegate.errors."""

    def __init__(self, core: Core) -> None:
        self._core = core

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

    def model_infer(self, request: Any) -> Any:
        """Run the model; the answer is raw, whatever the request was."""
        wanted = [output.name for output in request.outputs]
        inference = self._core.infer(request.model_name, request.model_version, read_inputs(request), wanted)
        response = messages.ModelInferResponse(
            model_name=inference.served.name, model_version=inference.served.version, id=request.id
        )
        write_outputs(response, inference.outputs)
        return response

    def repository_index(self, request: Any) -> Any:
        """Every version of every model; what is listed is loaded, so only draining makes it unavailable."""
        ready = self._core.ready
        served_models = () if request.ready and not ready else self._core.repository.all()
        response = messages.RepositoryIndexResponse()
        for served in served_models:
            response.models.add(
                name=served.name,
                version=served.version,
                state="READY" if ready else "UNAVAILABLE",
                reason="" if ready else "the server is shutting down",
            )
        return response


def _add_specs(tensors: Any, specs: tuple[TensorSpec, ...]) -> None:
    for spec in specs:
        tensors.add(name=spec.name, datatype=spec.dtype, shape=spec.shape)


def _properties(served: ServedModel) -> dict[str, str]:
    """Return the mirror of the manifest, and what runs the model here."""
    model = served.model
    variant = next(variant for variant in served.manifest.variants if variant.id == model.variant_id)
    mirrored: dict[str, str] = oip.metadata(served.manifest, variant)["properties"]
    return mirrored | {"runtime": model.runtime, "provider": model.provider}
