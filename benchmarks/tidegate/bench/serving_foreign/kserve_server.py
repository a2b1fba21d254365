"""KServe's model server with an ONNX model called `mlp`, in its own environment: the comparison's counterpart.

kserve_server.py MODEL.onnx GRPC_PORT HTTP_PORT
"""

from __future__ import annotations

import sys
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]


class Perceptron(Model):  # type: ignore[misc, unused-ignore]
    """Runs the model on one core and answers in raw contents, which is its fastest way."""

    def __init__(self, model: str) -> None:
        super().__init__("mlp")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        """Answer one request."""
        (found,) = self._session.run(None, {self._name: payload.inputs[0].as_numpy()})
        output = InferOutput("y", list(found.shape), "FP32")
        output.set_data_from_numpy(found, binary_data=True)
        return InferResponse(payload.id, "mlp", [output])


if __name__ == "__main__":
    path, grpc_port, http_port = sys.argv[1:]
    sys.argv = sys.argv[:1]
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1).start([Perceptron(path)])
