"""LiteRT models on the server: short runs are done where the network is read, as those of ONNX models are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.models import tflite

from tidegate.bundle import Manifest, Variant, digest, write_bundle
from tidegate.client import Client
from tidegate.cloud import Server
from tidegate.cloud.core import Caller, Inference, Request
from tidegate.cloud.short_runs import PROOFS
from tidegate.errors import TidegateError
from tidegate.runtime import load
from tidegate.testing.backend_contract import BIAS, WEIGHTS

MODELS_OWN, ELSEWHERE = "the model's own thread", "another thread"
CALLS = 100
"""More than a shape needs to prove itself, even if some of its runs are long by bad luck."""


@dataclass
class Threads:
    """Notes where requests end."""

    seen: list[str] = field(default_factory=list)

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        is_own = threading.current_thread().name == f"tidegate-{request.model}"
        self.seen.append(MODELS_OWN if is_own else ELSEWHERE)


def bundle_of(name: str, directory: Path) -> Path:
    content = tflite(name).read_bytes()
    with load(tflite(name)) as model:
        signature = model.signature
    variant = Variant(
        id="litert",
        backend="litert",
        precision="as-is",
        file="variants/model.tflite",
        sha256=digest(content),
        size_bytes=len(content),
    )
    manifest = Manifest(
        schema="tidegate.bundle/1", name=name, version="1.0.0", signature=signature, variants=(variant,)
    )
    path = directory / f"{name}.tide"
    write_bundle(manifest, {variant.file: content}, path)
    return path


def rows_of(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).uniform(-1, 1, (count, 64)).astype(np.float32)


def test_a_short_model_is_run_where_the_network_is_read(tmp_path: Path) -> None:
    threads = Threads()
    with (
        Server([bundle_of("batch", tmp_path)], observers=[threads]) as server,
        Client(server.address) as client,
    ):
        for _ in range(CALLS):
            found = client.infer("batch", {"x": rows_of(1)})["y"]
            np.testing.assert_allclose(found, rows_of(1) @ WEIGHTS + BIAS, rtol=1e-5)
    assert threads.seen[:PROOFS] == [MODELS_OWN] * PROOFS
    assert threads.seen[-1] == ELSEWHERE


def test_threads_and_shapes_in_turn_give_each_caller_its_own_answer(tmp_path: Path) -> None:
    """One interpreter, resized between calls of several callers, on whichever thread a run ends up."""
    with Server([bundle_of("batch", tmp_path)]) as server, Client(server.address) as client:

        def ask(number: int) -> None:
            rows = rows_of(number % 5 + 1)
            found = client.infer("batch", {"x": rows})["y"]
            np.testing.assert_allclose(found, rows @ WEIGHTS + BIAS, rtol=1e-5, atol=1e-6)

        with ThreadPoolExecutor(8) as callers:
            assert len(list(callers.map(ask, range(4 * CALLS)))) == 4 * CALLS


def test_a_model_with_branches_has_a_thread_of_its_own(tmp_path: Path) -> None:
    threads = Threads()
    with (
        Server([bundle_of("branches", tmp_path)], observers=[threads]) as server,
        Client(server.address) as client,
    ):
        for _ in range(CALLS):
            client.infer("branches", {"x": np.ones(3, np.float32)})
    assert set(threads.seen) == {MODELS_OWN}
