"""Two models for MLServer: `dense`, an ONNX file, and `echo`, which gives every input back.

Runs in the environment that `foreign_servers.py` makes; `mlserver start` finds the classes by the settings beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]


class Dense(MLModel):  # type: ignore[misc, unused-ignore]
    """`x` FP32 [1, 64] -> `y` FP32 [1, 10]; one answer to each request of a stream."""

    async def load(self) -> bool:
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        (found,) = self._session.run(["y"], feeds)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output("y", found)])

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[Any]:
        async for payload in payloads:
            yield await self.predict(payload)


class Echo(MLModel):  # type: ignore[misc, unused-ignore]
    """Every input, under its own name; one called `wait_s` is also how long the answer takes."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        for tensor in payload.inputs:
            if tensor.name == "wait_s":
                await asyncio.sleep(float(NumpyCodec.decode_input(tensor).item()))
        outputs = [
            ResponseOutput(name=tensor.name, shape=tensor.shape, datatype=tensor.datatype, data=tensor.data)
            for tensor in payload.inputs
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)
