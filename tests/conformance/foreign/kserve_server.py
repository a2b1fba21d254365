"""KServe's model server with two models: `dense`, an ONNX file, and `echo`, which gives every input back.

Runs in the environment that `foreign_servers.py` makes: kserve_server.py MODEL.onnx GRPC_PORT HTTP_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]


class Dense(Model):  # type: ignore[misc, unused-ignore]
    """`x` FP32 [1, 64] -> `y` FP32 [1, 10]."""

    def __init__(self, model: str) -> None:
        super().__init__("dense")
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "x", "datatype": "FP32", "shape": [1, 64]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": "y", "datatype": "FP32", "shape": [1, 10]}]

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        (found,) = self._session.run(["y"], {"x": payload.inputs[0].as_numpy()})
        output = InferOutput("y", list(found.shape), "FP32")
        output.set_data_from_numpy(found, binary_data=False)
        return InferResponse(payload.id, "dense", [output])


class Echo(Model):  # type: ignore[misc, unused-ignore]
    """Every input, under its own name; one called `wait_s` is also how long the answer takes."""

    def __init__(self) -> None:
        super().__init__("echo")
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        outputs = []
        for tensor in payload.inputs:
            if tensor.name == "wait_s":
                await asyncio.sleep(float(tensor.as_numpy().item()))
        for tensor in payload.inputs:
            output = InferOutput(tensor.name, tensor.shape, tensor.datatype)
            output.set_data_from_numpy(tensor.as_numpy(), binary_data=tensor.datatype == "FP16")
            outputs.append(output)
        return InferResponse(payload.id, "echo", outputs)


if __name__ == "__main__":
    path, grpc_port, http_port = sys.argv[1:]
    sys.argv = sys.argv[:1]
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1).start([Dense(path), Echo()])
