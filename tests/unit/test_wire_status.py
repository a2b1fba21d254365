from __future__ import annotations

import grpc
import pytest

from tidegate import errors
from tidegate.errors import DeadlineError, InputError, ModelError, TidegateError, UnavailableError
from tidegate.wire.status import CODE_BY_ERROR, ERROR_BY_CODE, code_of, error_of, text_of

ALL_ERRORS = [getattr(errors, name) for name in errors.__all__]


def test_every_error_class_has_a_code_that_grpc_knows() -> None:
    assert set(CODE_BY_ERROR) == set(ALL_ERRORS)
    assert set(CODE_BY_ERROR.values()) <= {code.name for code in grpc.StatusCode}


def test_every_code_of_grpc_but_ok_has_an_error() -> None:
    assert set(ERROR_BY_CODE) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_what_the_caller_can_act_on_survives_the_wire(kind: type[TidegateError]) -> None:
    sent = kind("input 'x' is short; expected 8", fix="send 8")
    back = error_of(code_of(sent), text_of(sent), peer="host:1")
    assert back.message == "host:1: input 'x' is short; expected 8"
    assert back.fix == "send 8"
    assert back.retry == sent.retry


@pytest.mark.parametrize(
    "kind",
    [InputError, errors.NotFoundError, errors.ResourceError, UnavailableError, DeadlineError, ModelError],
)
def test_these_classes_come_back_as_themselves(kind: type[TidegateError]) -> None:
    assert type(error_of(code_of(kind("m")), "m", peer="p")) is kind


def test_a_class_outside_the_table_takes_its_nearest_base() -> None:
    class SpecialError(InputError):
        """A derived error."""

    assert code_of(SpecialError("m")) == "INVALID_ARGUMENT"


def test_foreign_statuses_get_a_usual_fix_and_a_message_even_when_empty() -> None:
    error = error_of("UNAVAILABLE", "", peer="host:1")
    assert (type(error), error.message) == (UnavailableError, "host:1: UNAVAILABLE")
    assert error.fix
    assert type(error_of("SOMETHING_NEW", "odd", peer="p")) is ModelError
