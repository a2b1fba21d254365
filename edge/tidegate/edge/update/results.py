"""What the updater's calls return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tidegate.edge.update.record import LastCheck, Quarantined, Record, Slot
from tidegate.edge.update.states import State

if TYPE_CHECKING:
    from tidegate.edge.update.probe import ProbeReport
    from tidegate.fetch.choice import PassedOver
    from tidegate.fetch.download import FetchReport
    from tidegate.release.track import Offer, OfferedVariant

Outcome = Literal[
    "up to date",
    "noted",
    "postponed",
    "activated",
    "probe failed",
    "refused",
    "waiting",
    "committed",
    "rolled back",
]


@dataclass(frozen=True)
class CheckResult:
    """What the channel has for this device."""

    running: Slot
    offer: Offer | None
    """the newest one that fits and is newer than what runs; None when there is no news"""
    variant: OfferedVariant | None
    """which of its variants this device would run"""
    same_content: bool = False
    """the newest offer that fits holds what runs already; its counter is noted, except during a trial"""
    is_on_trial: bool = False
    """what runs is on trial"""
    withdrawn: str = ""
    """why the author has withdrawn what runs; empty when he has not. On trial it is left by the next `update`"""
    passed_over: tuple[PassedOver, ...] = ()
    """newer offers that do not fit, and why; only when asked to explain"""
    requests: int = 0
    received_bytes: int = 0

    @property
    def news(self) -> bool:
        """Whether there is something newer to install."""
        return self.offer is not None


@dataclass(frozen=True)
class UpdateResult:
    """What an update, a settlement or a roll-back came to."""

    outcome: Outcome
    """
    up to date: nothing newer fits. noted: a newer counter for what runs already. postponed: not now, see `reason`.
    activated: switched, on trial. probe failed, refused: quarantined, the old version runs on.
    waiting: the trial is not decided. committed: the trial is passed. rolled back: an older version runs again.
    """
    running: Slot
    """what runs now"""
    reason: str = ""
    release: int = 0
    """which release it was about; 0 when none"""
    version: str = ""
    fetched: FetchReport | None = None
    probe: ProbeReport | None = None


@dataclass(frozen=True)
class Status:
    """What a device is."""

    phase: State
    active: Slot
    previous: Slot | None
    factory: Slot
    candidate: Slot | None
    quarantined: tuple[Quarantined, ...]
    counters: dict[str, int]
    last_check: LastCheck | None
    busy: str = ""
    """who is updating right now, such as `process 1234`; empty when nobody is"""
    problem: str = ""
    """why the disk takes no writes; empty when it does"""


def up_to_date(record: Record, reason: str = "") -> UpdateResult:
    """Return that there was nothing to do."""
    return UpdateResult("up to date", record.active, reason)


def rolled_back(record: Record, left: Slot, reason: str) -> UpdateResult:
    """Return that the device went from `left` back to what runs now."""
    return UpdateResult("rolled back", record.active, reason, left.release, left.version)
