"""What is measured. Making a system is loading it; the scenario only calls it and closes it."""

from __future__ import annotations

from typing import Protocol


class System(Protocol):
    """Anything that can be called over and over with the same input."""

    def call(self) -> None:
        """Do the measured work once, from the input in memory to the output in memory."""

    def close(self) -> None:
        """Let go of everything; may be called twice."""
