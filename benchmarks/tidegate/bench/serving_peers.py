"""What `tidegate serve` is held against: bare grpcio servers, each a process of its own.

python -m tidegate.bench.serving_peers echo
python -m tidegate.bench.serving_peers runtime model.onnx
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.wire import messages

METHOD = "ModelInfer"
POOL_THREADS = 10
"""The best of 1, 4, 10 and 32 for a bare server at 32 callers."""


def echo(raw: bytes, context: Any) -> bytes:
    """Answer with the request: what grpcio itself costs."""
    return raw


def bare_runtime(model: bytes) -> Callable[[bytes, Any], bytes]:
    """Return the least that runs the model: parse, run, answer; nothing is checked and no error is translated."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def handle(raw: bytes, context: Any) -> bytes:
        request = messages.ModelInferRequest.FromString(raw)
        tensor = request.inputs[0]
        array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(tensor.shape))
        (found,) = session.run(names, {tensor.name: array})
        response = messages.ModelInferResponse(model_name=request.model_name, id=request.id)
        output = response.outputs.add(name=names[0], datatype="FP32")
        output.shape.extend(found.shape)
        response.raw_output_contents.append(found.tobytes())
        answer: bytes = response.SerializeToString()
        return answer

    return handle


def main(arguments: list[str]) -> None:
    """Serve until killed; print `listening on HOST:PORT` when ready."""
    import grpc

    handle = echo if arguments[0] == "echo" else bare_runtime(Path(arguments[1]).read_bytes())
    server = grpc.server(ThreadPoolExecutor(POOL_THREADS))
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(messages.SERVICE_NAME, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
