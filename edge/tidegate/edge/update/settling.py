"""The end of a trial: what the health counters say of the active version, and what follows."""

from __future__ import annotations

from msgspec.structs import replace

from tidegate.bundle import TrialSettings
from tidegate.edge.update.device import Device, seconds_since, utc_now
from tidegate.edge.update.health import read_health
from tidegate.edge.update.record import Slot
from tidegate.edge.update.results import UpdateResult, rolled_back
from tidegate.edge.update.states import Event, State
from tidegate.edge.update.trial import Verdict, judge, thresholds
from tidegate.errors import BundleError, NotFoundError
from tidegate.fetch.installed import installed_manifest


def settle_trial(device: Device) -> UpdateResult | None:
    """Commit the version on trial or go back; None when none is on trial."""
    if device.record.phase is not State.TRIAL:
        return None
    left, verdict = device.record.active, trial_verdict(device)
    if verdict.decision == "wait":
        return UpdateResult("waiting", left, verdict.reason, left.release, left.version)
    if verdict.decision == "roll back":
        return _fail(device, verdict)
    device.send(Event.TRIAL_PASSED, reason=verdict.reason)
    device.collect()
    device.send(Event.DONE)
    return UpdateResult("committed", left, verdict.reason, left.release, left.version)


def leave_failed_trial(device: Device) -> UpdateResult | None:
    """Go back if the trial has failed; None when none is on trial or it has not failed."""
    if device.record.phase is not State.TRIAL:
        return None
    verdict = trial_verdict(device)
    return _fail(device, verdict) if verdict.decision == "roll back" else None


def trial_verdict(device: Device) -> Verdict:
    """Return what the counters say now of the version on trial."""
    active = device.record.active
    health = read_health(device.layout.health)
    return judge(
        health.of(active.release),
        thresholds(_trial_of(device, active), device.settings.trial),
        elapsed_s=_elapsed_s(device),
        is_readable=health.is_readable,
    )


def _fail(device: Device, verdict: Verdict) -> UpdateResult:
    left = device.record.active
    device.go_back(Event.TRIAL_FAILED, verdict.reason)
    return rolled_back(device.record, left, verdict.reason)


def _elapsed_s(device: Device) -> float:
    """Return how long the trial lasts; it begins again when the clock was wrong at its beginning.

    Many devices have no clock that survives a power cut. The author's signed date says when it was wrong: nothing is
    activated before it was offered, or later than now.
    """
    active, now = device.record.active, utc_now()
    if now < active.offered_at:
        return 0.0
    if not active.offered_at <= active.activated_at <= now:
        device.write(replace(device.record, active=replace(active, activated_at=now)))
        return 0.0
    return seconds_since(active.activated_at)


def _trial_of(device: Device, slot: Slot) -> TrialSettings | None:
    """Return what the manifest states of the trial; nothing when it cannot be read, and no other version is whole."""
    try:
        return installed_manifest(device.store, slot.manifest_sha256, slot.variant).trial
    except (NotFoundError, BundleError):
        return None
