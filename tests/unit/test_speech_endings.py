"""How a speech call ended, from what its servicer left with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tidegate.cloud.core import Caller, LocalCaller
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_observers import Ending, SpeechCall
from tidegate.cloud.speech_segment import OpenSegment, SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.errors import InputError, ModelError, ResourceError, TidegateError

WRONG, BROKEN, FULL = InputError("a", fix="b"), ModelError("a", fix="b"), ResourceError("a", fix="b")


@dataclass(frozen=True)
class Left(LocalCaller):
    """A caller who is gone."""

    def gone(self) -> bool:
        return True


class Endings:
    """Notes how calls ended, and is what is told of each."""

    def __init__(self) -> None:
        self.found: list[Ending] = []

    def speech_opened(self, caller: Caller, method: str) -> Endings:
        return self

    def accepted(self, settings: StreamSettings, served: ServedModel) -> None:
        raise AssertionError

    def interim_answered(self, answer: SegmentAnswer) -> None:
        raise AssertionError

    def segment_answered(self, answer: SegmentAnswer) -> None:
        raise AssertionError

    def segment_left(self, segment: OpenSegment) -> None:
        raise AssertionError

    def ended(self, ending: Ending) -> None:
        self.found.append(ending)


@pytest.mark.parametrize(
    ("caller", "error", "expected"),
    [
        (LocalCaller(), None, Ending("OK")),
        (Left(), None, Ending("CANCELLED")),
        (LocalCaller(), GeneratorExit(), Ending("CANCELLED")),
        (Left(), WRONG, Ending("CANCELLED", WRONG)),
        (LocalCaller(), WRONG, Ending("INVALID_ARGUMENT", WRONG)),
        (LocalCaller(), FULL, Ending("RESOURCE_EXHAUSTED", FULL)),
        (LocalCaller(), BROKEN, Ending("INTERNAL", BROKEN, server_failed=True)),
        (LocalCaller(), ZeroDivisionError(), Ending("UNKNOWN", server_failed=True)),
        (Left(), ZeroDivisionError(), Ending("CANCELLED")),
    ],
)
def test_every_way_out_of_a_call_has_its_code(caller: Caller, error: BaseException | None, expected: Ending) -> None:
    endings = Endings()
    call = SpeechCall([endings, endings], caller, "Recognize")
    if error is None:
        with call:
            pass
    else:
        with pytest.raises(type(error)), call:
            raise error
    assert endings.found == [expected, expected]
    assert expected.error is None or isinstance(expected.error, TidegateError)
