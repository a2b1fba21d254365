"""One process imports another project's copy of the protocol and our client, and calls a server with ours.

Runs in that project's environment: beside.py MODULE HOST:PORT
"""

from __future__ import annotations

import importlib
import sys

import numpy as np


def main(module: str, target: str) -> None:
    theirs = importlib.import_module(module)

    from tidegate.client import Client
    from tidegate.wire import messages

    ours = messages.ModelInferRequest(model_name="dense", id="beside")
    read = theirs.ModelInferRequest.FromString(ours.SerializeToString())
    assert (read.model_name, read.id) == ("dense", "beside")
    with Client(target, timeout_s=30) as client:
        outputs = client.infer("dense", {"x": np.ones((1, 64), np.float32)})
    assert outputs["y"].shape == (1, 10)
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
