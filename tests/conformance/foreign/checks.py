"""What is asked of every foreign server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.client import AsyncClient, Client
from tidegate.errors import DeadlineError, InputError, NotFoundError, TidegateError
from tidegate.runtime import load

MODEL = Path(__file__).parents[2] / "data" / "dense.onnx"
ONES = np.ones((1, 64), np.float32)


def cell(check: Callable[[], object]) -> str:
    """Run one check."""
    try:
        check()
    except TidegateError as error:
        return f"{type(error).__name__}: {error.message.partition(': ')[2][:60]}"
    except AssertionError as error:
        return f"differs: {str(error).strip()[:60]}"
    return "ok"


def checks(client: Client) -> dict[str, Callable[[], object]]:
    """Return what is asked of every server, by name."""
    return {
        "live, ready, model ready": lambda: equal([client.live(), client.ready(), client.model_ready("dense")], True),
        "server metadata": lambda: client.server_metadata().name,
        "model metadata": lambda: equal(client.model_metadata("dense").signature.inputs[0].shape, (1, 64)),
        "one ONNX model, as in this process": lambda: same_as_here(client),
        "id comes back": lambda: equal(client.infer_answer("dense", {"x": ONES}, request_id="a7").request_id, "a7"),
        **{f"echo {array.dtype}": echo(client, array) for array in arrays()},
        "echo BYTES": echo(client, np.array([[b"", b"abc", "é".encode()]], object)),
        "echo of no rows": echo(client, np.empty((0, 4), np.float32)),
        "echo of two inputs": lambda: two_inputs(client),
        "wrong dtype, refused here": lambda: raises(
            InputError, lambda: client.infer("dense", {"x": ONES.astype(np.float64)}), "float64"
        ),
        "wrong shape, refused here": lambda: raises(
            InputError, lambda: client.infer("dense", {"x": ONES[:, :5]}), "[1, 64]"
        ),
        "unknown model": lambda: raises(NotFoundError, lambda: client.infer("nobody", {"x": ONES}), "nobody"),
        "deadline": lambda: raises(
            DeadlineError, lambda: client.infer("echo", {"wait_s": np.array([5.0])}, timeout_s=0.3), ""
        ),
        "5 MB": echo(client, np.ones((1, 1_300_000), np.float32)),
        "inference stream": lambda: streamed(client),
        "still answers": lambda: same_as_here(client),
    }


def arrays() -> list[NDArray[Any]]:
    """Return an array of every dtype with extreme values."""
    whole = [
        np.array([[np.iinfo(kind).min, 0, np.iinfo(kind).max]], kind)
        for kind in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
    ]
    broken = [np.array([[-0.5, 0, np.inf, np.finfo(kind).max]], kind) for kind in (np.float16, np.float32, np.float64)]
    return [np.array([[True, False]]), *whole, *broken]


def echo(client: Client, array: NDArray[Any]) -> Callable[[], None]:
    """Return a check that an array comes back as it went."""

    def check() -> None:
        found = client.infer("echo", {"x": array})["x"]
        assert found.dtype == array.dtype, f"{found.dtype} for {array.dtype}"
        np.testing.assert_array_equal(found, array)

    return check


def two_inputs(client: Client) -> None:
    """Raw contents are told apart by their order."""
    sent: dict[str, NDArray[Any]] = {"a": np.arange(3, dtype=np.int64), "b": np.array([[0.5]], np.float32)}
    found = client.infer("echo", sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(found[name], array)


def same_as_here(client: Client) -> None:
    """The server and the runtime in this process give the same numbers."""
    feeds = {"x": np.linspace(-1, 1, 64, dtype=np.float32)[None]}
    with load(MODEL) as model:
        np.testing.assert_allclose(client.infer("dense", feeds)["y"], model.run(feeds)["y"], rtol=1e-5)


def streamed(client: Client) -> None:
    """Answers come in the order of the requests."""
    rows = [ONES * factor for factor in range(20)]
    with client.infer_stream(timeout_s=30) as stream:
        found = [answer.outputs["y"] for answer in stream.infer_each("dense", ({"x": row} for row in rows))]
    np.testing.assert_allclose(found, [client.infer("dense", {"x": row})["y"] for row in rows], rtol=1e-6)


async def many(target: str) -> None:
    """A hundred calls on one connection."""
    async with AsyncClient(target, timeout_s=30) as client:
        found = await asyncio.gather(*(client.infer("dense", {"x": ONES}) for _ in range(100)))
    assert all(np.array_equal(one["y"], found[0]["y"]) for one in found)


def equal(found: object, expected: object) -> None:
    """Compare, each element of a list with `expected`."""
    for one in found if isinstance(found, list) else [found]:
        assert one == expected, f"{one!r} for {expected!r}"


def raises(kind: type[TidegateError], call: Callable[[], object], words: str) -> None:
    """Expect an error that says `words`."""
    message = None
    try:
        call()
    except kind as error:
        message = error.message
    assert message is not None, "no error"
    assert words in message, message
