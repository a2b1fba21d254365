"""Which runs are so short that the thread that reads the network may do them itself.

A hand-over between threads costs more than a small model does. A long run on that thread would hold up every other
call, so a shape has to have proven itself several times on a thread of its own, and a model only qualifies when its
graph has no loop: then its cost depends on the shape of its inputs and not on what is in them.

A run is measured by the processor time of its thread. On a clock, the wait for the interpreter's lock behind a run
would count as well: under load every run would look long, and the hand-overs that follow from it would keep it so.
"""

from __future__ import annotations

from collections.abc import Hashable

from tidegate.runtime import tflite_file

LONGEST_NS = 500_000
"""A run of up to half a millisecond is short: the length of two hand-overs on a busy core."""

PROOFS = 8
"""Short runs in a row that a shape needs."""

MOST_PROOFS = 64

PROOFS_LOST = 16
"""By one long run: the first after a pause may be, four in a row are not bad luck."""

MEASURED_EVERY = 16
"""Asking for a thread's processor time is a system call, which costs as much as a tenth of a small model."""

SHAPES_KEPT = 64

LOOPS = (b"\x22\x04Loop", b"\x22\x04Scan", b"\x22\x0bSequenceMap")
"""`op_type` (field 4 of NodeProto) of ONNX's operators that repeat a graph, as they stand in the file."""

OF_UNKNOWN_COST = frozenset(
    {
        tflite_file.CALL,
        tflite_file.CUSTOM,
        tflite_file.DELEGATE,
        tflite_file.IF,
        tflite_file.WHILE,
        tflite_file.NON_MAX_SUPPRESSION_V4,
        tflite_file.NON_MAX_SUPPRESSION_V5,
        tflite_file.STABLEHLO_CUSTOM_CALL,
        tflite_file.STABLEHLO_WHILE,
        tflite_file.STABLEHLO_COMPOSITE,
        tflite_file.STABLEHLO_CASE,
    }
)
"""TFLite's operators that run another graph, go on until the data say stop, or may do anything. Without the first kind
only the main graph runs, however many there are."""


def cost_follows_shape(backend: str, content: bytes) -> bool:
    """Say whether the time that a model file takes depends on its inputs' shapes only, as far as can be told.

    Args:
        backend: as in the manifest.
        content: the model file.
    """
    if backend == "onnx":
        return not any(mark in content for mark in LOOPS)
    codes = tflite_file.operator_codes(content) if backend == "litert" else None
    return codes is not None and not codes & OF_UNKNOWN_COST


class ShortRuns:
    """Shapes that have proven to be short. Used under the batcher's claim, so by one thread at a time."""

    def __init__(self, possible: bool) -> None:
        """Begin without any proof.

        Args:
            possible: whether the model qualifies at all.
        """
        self._possible = possible
        self._proofs: dict[tuple[Hashable, int], int] = {}
        self._runs = 0

    def due(self, key: Hashable, rows: int) -> bool:
        """Say whether the next run is to be measured: each of a shape that may lose its proofs, else every so many."""
        self._runs += 1
        return self._possible and (not self._runs % MEASURED_EVERY or self._proofs.get((key, rows), 0) < MOST_PROOFS)

    def allows(self, key: Hashable, rows: int) -> bool:
        """Say whether a run of this shape may be done in place."""
        return self._possible and self._proofs.get((key, rows), 0) >= PROOFS

    def saw(self, key: Hashable, rows: int, took_ns: int) -> None:
        """Note a run's processor time; a long one takes some of its shape's proofs away."""
        if not self._possible:
            return
        shape = (key, rows)
        if took_ns > LONGEST_NS and shape in self._proofs:
            self._proofs[shape] = max(self._proofs[shape] - PROOFS_LOST, 0)
        elif took_ns <= LONGEST_NS and (shape in self._proofs or len(self._proofs) < SHAPES_KEPT):
            self._proofs[shape] = min(self._proofs.get(shape, 0) + 1, MOST_PROOFS)
