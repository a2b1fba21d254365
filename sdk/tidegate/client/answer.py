"""What a server says in its headers to a device that reported itself."""

from __future__ import annotations

from tidegate.wire.pairing import EXPECTS_HEADER, SignalPath, check_pair
from tidegate.wire.report import LATEST_HEADER, Headers, Latest, header, parse_latest


def latest_in(headers: Headers) -> Latest | None:
    """Return the release that the server named; None when it named none."""
    value = header(headers, LATEST_HEADER)
    return None if value is None else parse_latest(value)


def check_expected(device: SignalPath | None, headers: Headers, *, device_bundle: str, target: str) -> None:
    """Hold the device's side against what the server's model expects; a server that does not say is not checked.

    Raises:
        StateError: they do not belong together.
    """
    from tidegate.wire.services import ACCEPTED_HEADER

    expected = header(headers, EXPECTS_HEADER)
    if device is not None and expected is not None:
        check_pair(
            device,
            SignalPath.from_header(expected),
            device_bundle=device_bundle,
            server_model=f"{header(headers, ACCEPTED_HEADER)} at {target}",
        )
