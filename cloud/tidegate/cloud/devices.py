"""What devices report of themselves: heard, checked, kept, answered.

A report is information, never a permission: whoever reaches the port may send one without a signature. With the
device's public key at hand a signature is checked; a wrong one, and one that was seen before, is refused.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.cloud.announce import LatestSource
from tidegate.cloud.device_keys import DeviceKeys
from tidegate.errors import InputError
from tidegate.wire.report import (
    LATEST_HEADER,
    REPORT_HEADER,
    SIGNATURE_HEADER,
    DeviceReport,
    header,
    parse_report,
)

_REPORTING = frozenset({REPORT_HEADER, SIGNATURE_HEADER})

MOST_DEVICES = 10_000
"""Whose last report is kept; the one heard longest ago goes first."""

SESSIONS = 8
"""Processes of one device that may report at the same time."""

WINDOW = 256
"""Reports of one session that may arrive out of order."""


@dataclass(frozen=True)
class Heard:
    """One report, as the server took it."""

    report: DeviceReport
    verified: bool
    """signed with the key that is registered for the device"""
    why_not_verified: str
    at_s: float
    """Unix time"""


class Reception:
    """Takes reports and answers them; shared by all calls of a server."""

    def __init__(
        self,
        latest: LatestSource | None = None,
        keys: DeviceKeys | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the sources.

        Args:
            latest: what to answer; None: nothing.
            keys: of the devices whose signatures are checked; None: every report counts as not verified.
            clock: Unix time in seconds.
        """
        self._latest = latest
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._replays = ReplayGuard()
        self._heard: OrderedDict[tuple[str, bool], Heard] = OrderedDict()

    def hear(self, headers: Iterable[tuple[str, str | bytes]]) -> Heard | None:
        """Take the report among a call's headers; None when there is none, which costs one look through them.

        Raises:
            InputError: the report or its signature is malformed, wrong, or was sent before.
        """
        headers = tuple(headers)
        value = header(headers, REPORT_HEADER)
        signature = header(headers, SIGNATURE_HEADER)
        if value is None:
            if signature is not None:
                raise InputError(f"{SIGNATURE_HEADER} without {REPORT_HEADER}", fix="send both, or neither")
            return None
        report = parse_report(value)
        why_not = self._why_not_verified(report, value, signature)
        with self._lock:
            if not why_not:
                self._replays.check(report.device, report.session, report.counter)
            heard = Heard(report, not why_not, why_not, self._clock())
            self._keep(heard)
        return heard

    def answer(self, heard: Heard | None) -> list[tuple[str, str]]:
        """Return the headers of the answer to a report."""
        latest = self._latest.latest(heard.report) if heard and self._latest else None
        return [] if latest is None else [(LATEST_HEADER, latest.to_header())]

    def greet(self, headers: Sequence[tuple[str, str | bytes]], context: Any) -> None:
        """Hear and answer a call that nothing else has to be said to; `context` is grpc's. Raises as `hear`."""
        if not any(key in _REPORTING for key, _ in headers):
            return
        answer = self.answer(self.hear(headers))
        if answer:
            context.send_initial_metadata(answer)

    def all(self) -> tuple[Heard, ...]:
        """Return the last report of each device, the one heard longest ago first.

        A device may be there twice, verified and not: what anybody says never hides what the device has signed.
        """
        with self._lock:
            return tuple(self._heard.values())

    def _why_not_verified(self, report: DeviceReport, value: str, signature: str | None) -> str:
        if signature is None:
            return "not signed"
        if self._keys is None:
            return "this server has no device keys"
        return self._keys.check(report.device, value, signature)

    def _keep(self, heard: Heard) -> None:
        if not heard.report.device:
            return
        place = (heard.report.device, heard.verified)
        self._heard[place] = heard
        self._heard.move_to_end(place)
        if len(self._heard) > MOST_DEVICES:
            self._heard.popitem(last=False)


@dataclass
class _Session:
    highest: int
    seen: int
    """bit n: counter `highest - n` was seen"""


class ReplayGuard:
    """Which reports were seen: for each session of a device a sliding window over the counter.

    The window is that of IPsec (RFC 4303, section 3.4.3). In memory only: a server that starts has seen nothing.
    """

    def __init__(self) -> None:
        self._devices: OrderedDict[str, dict[int, _Session]] = OrderedDict()

    def check(self, device: str, session: int, counter: int) -> None:
        """Note one verified report.

        Raises:
            InputError: it was seen before, or is too old to tell.
        """
        sessions = self._devices.setdefault(device, {})
        self._devices.move_to_end(device)
        if len(self._devices) > MOST_DEVICES:
            self._devices.popitem(last=False)
        if not self._is_new(sessions, session, counter):
            raise InputError(
                f"the report of device {device}, session {session}, counter {counter}, was sent before or is too old",
                fix="send each report once; after restoring a device from a copy, initialise it again",
            )

    def _is_new(self, sessions: dict[int, _Session], number: int, counter: int) -> bool:
        session = sessions.get(number)
        if session is None:
            if len(sessions) >= SESSIONS:
                oldest = min(sessions)
                if number < oldest:
                    return False
                del sessions[oldest]
            sessions[number] = _Session(counter, 1)
            return True
        ahead = counter - session.highest
        if ahead > 0:
            session.highest = counter
            session.seen = (session.seen << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            return True
        if -ahead >= WINDOW or session.seen >> -ahead & 1:
            return False
        session.seen |= 1 << -ahead
        return True
