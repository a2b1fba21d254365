"""Every exception of the libraries below leaves this room as one of ours; and importing the room loads none of them."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from types import ModuleType

import pytest
import tuf.api.exceptions
import tuf.api.serialization
from cryptography import exceptions as crypto
from securesystemslib import exceptions as sslib
from tests.waiting import COMMAND_TIMEOUT_S
from urllib3 import HTTPResponse
from urllib3 import exceptions as urllib3

from tidegate.errors import (
    BundleError,
    DeadlineError,
    DependencyError,
    IntegrityError,
    StateError,
    TidegateError,
    UnavailableError,
)
from tidegate.release.error_mapping import mapped, translate

NOT_MET = {
    # Raised by ciphers and derivations that this room does not use, or does not use twice.
    crypto.AlreadyFinalized,
    crypto.AlreadyUpdated,
    crypto.NotYetFinalized,
    crypto.InvalidTag,
    crypto.InvalidKey,
    # Warnings, not errors.
    *(kind for kind in vars(urllib3).values() if inspect.isclass(kind) and issubclass(kind, Warning)),
}


def exceptions_of(*modules: ModuleType) -> list[type[Exception]]:
    found = {
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__.split(".")[0] != "builtins"
    }
    foreign = [
        kind
        for kind in found
        if kind.__module__.split(".")[0] in {"tuf", "securesystemslib", "cryptography", "urllib3"}
    ]
    return sorted(foreign, key=lambda kind: f"{kind.__module__}.{kind.__name__}")


NEED_ARGUMENTS: dict[type[Exception], Exception] = {
    urllib3.IncompleteRead: urllib3.IncompleteRead(1, 2),
    urllib3.InvalidChunkLength: urllib3.InvalidChunkLength(HTTPResponse(io.BytesIO()), b"x"),
}

EVERY = exceptions_of(tuf.api.exceptions, tuf.api.serialization, sslib, crypto, urllib3)


def test_the_list_is_not_empty() -> None:
    assert len(EVERY) > 40


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind not in NOT_MET], ids=lambda kind: kind.__name__)
def test_each_is_mapped(kind: type[Exception]) -> None:
    error = NEED_ARGUMENTS.get(kind) or kind.__new__(kind)
    with pytest.raises(TidegateError) as raised, mapped("the channel"):
        raise error
    assert raised.value.message.startswith("the channel: ")
    assert raised.value.fix
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        (tuf.api.exceptions.ExpiredMetadataError, UnavailableError),
        (tuf.api.exceptions.BadVersionNumberError, IntegrityError),
        (tuf.api.exceptions.EqualVersionNumberError, IntegrityError),
        (tuf.api.exceptions.UnsignedMetadataError, IntegrityError),
        (tuf.api.exceptions.LengthOrHashMismatchError, IntegrityError),
        (tuf.api.exceptions.DownloadLengthMismatchError, IntegrityError),
        (tuf.api.exceptions.RepositoryError, BundleError),
        (tuf.api.exceptions.SlowRetrievalError, DeadlineError),
        (urllib3.ProtocolError, UnavailableError),
        (urllib3.ReadTimeoutError, DeadlineError),
        (sslib.UnsupportedLibraryError, DependencyError),
    ],
)
def test_the_kind_of_error_says_whose_fault_it_is(kind: type[Exception], ours: type[TidegateError]) -> None:
    assert type(translate(kind.__new__(kind), "x")) is ours


def test_our_own_and_unrelated_errors_pass_unchanged() -> None:
    with pytest.raises(StateError, match="ours"), mapped("x"):
        raise StateError("ours")
    with pytest.raises(ZeroDivisionError), mapped("x"):
        raise ZeroDivisionError
    assert translate(ValueError("x"), "x") is None


def test_the_import_is_light() -> None:
    code = (
        "import sys, tidegate.release, tidegate.release.offers, tidegate.release.content\n"
        "import tidegate.cli.commands.keys, tidegate.cli.commands.publish, tidegate.cli.commands.channel\n"
        "heavy = {'tuf', 'securesystemslib', 'cryptography', 'urllib3', 'onnxruntime', 'ai_edge_litert', 'grpc'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout.strip() == "[]"


def test_without_the_libraries_the_message_names_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['tuf'] = None\n"
        "from tidegate.cli.main import main\n"
        "sys.exit(main(['channel', 'show', '--channel', '.']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S
    )
    assert done.returncode == 1
    assert "tidegate[release]" in done.stderr
    assert "Traceback" not in done.stderr
