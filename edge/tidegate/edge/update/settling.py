"""The end of a trial: what the health counters say of the active version, and what follows."""

from __future__ import annotations

from tidegate.edge.update.device import Device, seconds_since
from tidegate.edge.update.health import read_health
from tidegate.edge.update.results import UpdateResult, rolled_back
from tidegate.edge.update.states import Event, State
from tidegate.edge.update.trial import Verdict, judge, thresholds
from tidegate.fetch.installed import installed_manifest


def settle_trial(device: Device) -> UpdateResult | None:
    """Commit the version on trial or go back; None when none is on trial."""
    if device.record.phase is not State.TRIAL:
        return None
    left, verdict = device.record.active, _verdict(device)
    if verdict.decision == "wait":
        return UpdateResult("waiting", left, verdict.reason, left.release, left.version)
    if verdict.decision == "roll back":
        device.go_back(Event.TRIAL_FAILED, verdict.reason)
        return rolled_back(device.record, left, verdict.reason)
    device.send(Event.TRIAL_PASSED, reason=verdict.reason)
    device.collect()
    device.send(Event.DONE)
    return UpdateResult("committed", left, verdict.reason, left.release, left.version)


def _verdict(device: Device) -> Verdict:
    active = device.record.active
    manifest = installed_manifest(device.store, active.manifest_sha256, active.variant)
    health = read_health(device.layout.health)
    return judge(
        health.of(active.release),
        thresholds(manifest.trial, device.settings.trial),
        elapsed_s=seconds_since(active.activated_at),
        is_readable=health.is_readable,
    )
