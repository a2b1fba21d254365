"""What a device says about itself with a cloud call, and which release the server knows: headers of a gRPC call.

The report is one line of JSON in printable ASCII. Its signature, when there is one, is over exactly the bytes sent, so
nothing needs a canonical form: see tidegate.wire.report_signature. docs/serving.md writes the form out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.errors import ConfigError, InputError
from tidegate.wire.pairing import SignalPath

SCHEMA: Final = "tidegate.report/1"

REPORT_HEADER = "tidegate-device-report"
SIGNATURE_HEADER = "tidegate-device-signature"
LATEST_HEADER = "tidegate-latest"
"""Response header: MODEL TRACK RELEASE VERSION."""

LARGEST_REPORT_BYTES = 768
"""Every field at its longest fits; a usual report has 400."""

Headers = tuple[tuple[str, str], ...]

RunState = Literal["committed", "trial", "rolled-back", "not-active", "unknown", "unmanaged"]
"""
committed: it has passed its trial. trial: it is on trial. rolled-back: a newer one was left for it.
not-active: another release runs than the one that the device has settled on. unknown: the device's record cannot be
read. unmanaged: a bundle that no updater keeps.
"""

# Printable ASCII without the quote and the backslash: nothing of it is escaped in JSON or breaks a line of a log.
_Word24 = Annotated[str, Meta(max_length=24, pattern=r"^[!#-\[\]-~]*\Z")]
_Word32 = Annotated[str, Meta(max_length=32, pattern=r"^[!#-\[\]-~]*\Z")]
_Word48 = Annotated[str, Meta(max_length=48, pattern=r"^[!#-\[\]-~]*\Z")]
_Word64 = Annotated[str, Meta(max_length=64, pattern=r"^[!#-\[\]-~]*\Z")]
_Text48 = Annotated[str, Meta(max_length=48, pattern=r"^[ !#-\[\]-~]*\Z")]
_Count = Annotated[int, Meta(ge=0, lt=2**40)]


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What really runs on a device."""

    schema: Literal["tidegate.report/1"]
    device: _Word64 = ""
    """id; empty: it has none"""
    model: _Word64
    """name of the bundle"""
    version: _Word48
    release: _Count = 0
    """counter on the channel, or the bundle's own"""
    track: _Word32 = ""
    """empty: it follows none"""
    variant: _Word64 = ""
    """empty: nothing on the device runs the model, its segments are all decided by the server"""
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """of the variant's file"""
    runtime: _Text48 = ""
    """such as `litert 2.1.0`"""
    front_end: _Word24 = ""
    """see tidegate.wire.pairing"""
    prefilter: _Word48 = ""
    state: RunState
    since: _Word24 = ""
    """when this release was activated, UTC, ISO 8601"""
    session: _Count = 0
    """rises with every start of a reporting process on the device; 0: not counted"""
    counter: _Count = 0
    """rises with every report of a session"""

    @property
    def signal_path(self) -> SignalPath:
        """What stands in front of the model."""
        return SignalPath(self.front_end, self.prefilter)

    @property
    def bundle(self) -> str:
        """NAME VERSION."""
        return f"{self.model} {self.version}"


@dataclass(frozen=True)
class Latest:
    """The newest release that a server knows for a model and track. A hint: nothing signed it."""

    model: str
    track: str
    release: int
    version: str

    def to_header(self) -> str:
        """Return the value of `LATEST_HEADER`."""
        return f"{self.model} {self.track} {self.release} {self.version}"


def format_report(report: DeviceReport) -> str:
    """Return the header's value.

    Raises:
        ConfigError: a field cannot travel: too long, or not printable ASCII.
    """
    plain = msgspec.to_builtins(report)
    value = json.dumps(plain, separators=(",", ":"))
    try:
        # Building a Struct checks nothing; reading does.
        parse_report(value)
    except InputError as error:
        raise ConfigError(
            f"what this device would report cannot travel in a header: {error.message}",
            fix="give device, model and track names of printable ASCII without spaces, at most 64 characters",
        ) from error
    return value


def parse_report(value: str) -> DeviceReport:
    """Read a header's value; fields that this version does not know are left alone.

    Raises:
        InputError: too long, not JSON, another schema, a field missing, of the wrong type or out of its limits.
    """
    fix = "send the report as docs/serving.md describes it, or none"
    if len(value) > LARGEST_REPORT_BYTES:
        raise InputError(
            f"{REPORT_HEADER} has {len(value)} characters; expected at most {LARGEST_REPORT_BYTES}", fix=fix
        )
    try:
        return msgspec.json.decode(value.encode("utf-8", "surrogatepass"), type=DeviceReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{REPORT_HEADER} is not a {SCHEMA}: {error}", fix=fix) from error


_LATEST = re.compile(r"([a-z0-9][a-z0-9._-]{0,63}) ([a-z0-9][a-z0-9_-]{0,31}) ([0-9]{1,12}) ([!-~]{1,64})(?: .*)?")


def parse_latest(value: str) -> Latest | None:
    """Read a server's hint; None for what is not one: a hint is worth no failed call."""
    found = _LATEST.fullmatch(value)
    return None if found is None else Latest(found[1], found[2], int(found[3]), found[4])


def header(headers: Iterable[tuple[str, str | bytes]], name: str) -> str | None:
    """Return the first value of a header, None when it is not there. gRPC keys are in lower case."""
    for key, value in headers:
        if key == name:
            return value if isinstance(value, str) else value.decode("latin-1")
    return None
