"""The messages of an inference stream, and how the answers of two dialects are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from tidegate.client.descriptions import Answer, read_answer
from tidegate.errors import ModelError
from tidegate.wire import messages
from tidegate.wire.services import Method, Service


@dataclass(frozen=True)
class StreamedAnswer:
    """One message of the server."""

    response: Any
    """ModelInferResponse"""
    error: str
    """of this one request; empty when it succeeded"""

    @classmethod
    def FromString(cls, raw: bytes) -> StreamedAnswer:  # noqa: N802 - the name by which a Method's classes are read
        """Read what Triton sends, or MLServer, whose stream holds bare ModelInferResponse messages.

        MLServer's model name has the field number of Triton's error message. A failed request of Triton's has no
        outputs where MLServer has them, so outputs there tell.
        """
        try:
            bare = messages.ModelInferResponse.FromString(raw)
        except DecodeError:
            bare = None
        if bare is not None and bare.model_name and bare.outputs:
            return cls(bare, "")
        wrapped = messages.ModelStreamInferResponse.FromString(raw)
        return cls(wrapped.infer_response, wrapped.error_message)

    def read(self, target: str) -> Answer:
        """Return the answer; what failed is in it, since the stream goes on.

        Raises:
            ModelError: its tensors are not what it says they are.
        """
        answer = read_answer(self.response, target)
        if not self.error:
            return answer
        error = ModelError(f"{target}: {self.error}", fix="look into the server's log, or compare with the metadata")
        return Answer(answer.model, answer.version, answer.request_id, {}, answer.parameters, error)


STREAMED = Service(
    messages.SERVICE_NAME, (Method("ModelStreamInfer", messages.ModelInferRequest, StreamedAnswer, streaming=True),)
)
"""The streaming method of the inference service, as this client reads it."""
