"""Every exception that a device can meet while fetching becomes one of ours, with cryptography and without it."""

from __future__ import annotations

import errno
import inspect
import io
import json
import ssl
import subprocess
import sys

import pytest
import tuf.api.exceptions
import tuf.api.serialization
from securesystemslib import exceptions as sslib
from tests.waiting import COMMAND_TIMEOUT_S
from urllib3 import HTTPResponse
from urllib3 import exceptions as urllib3

from tidegate.errors import ConfigError, DeadlineError, ResourceError, StateError, TidegateError, UnavailableError
from tidegate.fetch.error_mapping import mapped

MODULES = (tuf.api.exceptions, tuf.api.serialization, sslib, urllib3)
EVERY = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__.split(".")[0] in {"tuf", "securesystemslib", "urllib3"}
    },
    key=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
NEED_ARGUMENTS: dict[type[Exception], Exception] = {
    urllib3.IncompleteRead: urllib3.IncompleteRead(1, 2),
    urllib3.InvalidChunkLength: urllib3.InvalidChunkLength(HTTPResponse(io.BytesIO()), b"x"),
}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_each_is_mapped(kind: type[Exception]) -> None:
    error = NEED_ARGUMENTS.get(kind) or kind.__new__(kind)
    with pytest.raises(TidegateError) as raised, mapped("the channel"):
        raise error
    assert raised.value.message.startswith("the channel: ")
    assert raised.value.fix
    assert raised.value.__cause__ is error


TRANSPORT = [kind for kind in EVERY if issubclass(kind, urllib3.HTTPError)]
SETTINGS = (urllib3.LocationValueError, urllib3.ProxySchemeUnknown, urllib3.ProxySchemeUnsupported)


@pytest.mark.parametrize("kind", TRANSPORT, ids=lambda kind: kind.__name__)
def test_trouble_on_the_line_may_pass_and_trouble_with_an_address_does_not(kind: type[Exception]) -> None:
    with pytest.raises(TidegateError) as raised, mapped("x"):
        raise NEED_ARGUMENTS.get(kind) or kind.__new__(kind)
    if issubclass(kind, SETTINGS):
        assert type(raised.value) is ConfigError
    elif issubclass(kind, urllib3.TimeoutError):
        assert type(raised.value) is DeadlineError
    else:
        assert type(raised.value) is UnavailableError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOTDIR, errno.EMFILE])
def test_the_disk_is_the_machines_fault(number: int) -> None:
    with pytest.raises(ResourceError, match=r"^the store: ") as raised, mapped("the store"):
        raise OSError(number, "what the system says")
    assert raised.value.retry


def test_a_certificate_names_the_clock() -> None:
    with pytest.raises(UnavailableError) as raised, mapped("x"):
        raise urllib3.SSLError(ssl.SSLCertVerificationError("expired"))
    assert "clock" in str(raised.value.fix)


def test_ours_and_unrelated_ones_pass() -> None:
    with pytest.raises(StateError, match="ours"), mapped("x"):
        raise StateError("ours")
    with pytest.raises(ZeroDivisionError), mapped("x"):
        raise ZeroDivisionError


def test_the_table_needs_no_cryptography_and_importing_the_room_loads_nothing() -> None:
    code = (
        "import sys, json\n"
        "import tidegate.fetch.trusted, tidegate.fetch.download, tidegate.fetch.transport\n"
        "heavy = {'tuf', 'securesystemslib', 'cryptography', 'urllib3', 'zstandard', 'onnxruntime', 'grpc'}\n"
        "light = sorted(heavy & set(sys.modules))\n"
        "sys.modules['cryptography'] = None\n"
        "from tidegate.release.error_mapping import translate\n"
        "from tuf.api.exceptions import BadVersionNumberError\n"
        "print(json.dumps([light, type(translate(BadVersionNumberError('x'), 'y')).__name__]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert json.loads(done.stdout) == [[], "IntegrityError"]
