"""What a speech stream keeps of its answers until somebody takes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.client.segment_answers import SegmentAnswers
from tidegate.v1 import speech_pb2 as pb


def answer(segment_id: int, text: str, *, is_final: bool) -> pb.StreamingRecognizeResponse:
    return pb.StreamingRecognizeResponse(segment_id=segment_id, transcript=text, is_final=is_final)


def test_the_newest_interim_answer_is_kept_until_the_final_one() -> None:
    answers = SegmentAnswers()
    answers.waiting_for.update((1, 2))
    for segment_id, text, is_final in ((1, "y", False), (1, "yes", False), (2, "no", True)):
        answers.take(answer(segment_id, text, is_final=is_final))
    assert answers.waiting_for == {1}
    assert answers.has(1, interim=True)
    assert not answers.has(1, interim=False)
    assert answers.pop(1).transcript.text == "yes"
    answers.take(answer(1, "yes s", is_final=False))
    answers.take(answer(1, "yes stop", is_final=True))
    assert not answers.waiting_for
    assert [found.transcript.text for found in answers.pop_finals()] == ["yes stop", "no"]
    assert answers.pop_finals() == []


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_no_final_answer_is_lost_and_interim_ones_do_not_pile_up(sent: list[tuple[int, bool]]) -> None:
    answers = SegmentAnswers()
    finals: set[int] = set()
    last: dict[int, str] = {}
    for number, (segment_id, is_final) in enumerate(sent):
        if segment_id in finals:
            continue  # a segment has one final answer, and nothing follows it
        answers.take(answer(segment_id, str(number), is_final=is_final))
        last[segment_id] = str(number)
        if is_final:
            finals.add(segment_id)
    open_segments = sorted(set(last) - finals)
    assert [(one.segment_id, one.transcript.text) for one in answers.pop_interims()] == [
        (segment_id, last[segment_id]) for segment_id in open_segments
    ]
    assert [one.segment_id for one in answers.pop_finals()] == sorted(finals)
