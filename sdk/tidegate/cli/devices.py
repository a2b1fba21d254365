"""How the results of `tidegate device` look to people and to machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from tidegate.edge.update import CheckResult, HistoryEntry, Slot, Status, UpdateResult
    from tidegate.edge.update.probe import ProbeReport
    from tidegate.fetch.choice import PassedOver
    from tidegate.release import Offer, OfferedVariant


def check_lines(found: CheckResult, *, explained: bool) -> list[str]:
    """Return what `check` says: is there something newer, what it would cost, and is what runs still wanted."""
    return [*_news_lines(found, explained=explained), *_withdrawn_lines(found)]


def _withdrawn_lines(found: CheckResult) -> list[str]:
    if not found.withdrawn:
        return []
    then = (
        "it is on trial: `tidegate device update` goes back to the version before"
        if found.is_on_trial
        else "it runs on until there is something newer; `tidegate device rollback` goes back by hand"
    )
    return [f"release {found.running.release} was withdrawn by its author: {found.withdrawn}; {then}"]


def _news_lines(found: CheckResult, *, explained: bool) -> list[str]:
    runs = f"{found.running.model} {found.running.version} (release {found.running.release}) runs"
    if found.offer is None or found.variant is None:
        hint = "" if explained else "; --explain tells of newer ones that are not for it"
        return [f"nothing newer for this device: {runs}{hint}"]
    offer, variant = found.offer, found.variant
    news = f"release {offer.release} is newer: {found.running.model} {offer.version}, variant {variant.id}; {runs}"
    back = [f"  it takes back release {offer.rollback_of}: {offer.reason}"] if offer.rollback_of else []
    if found.same_content:
        return [news, *back, "  its content runs already: `tidegate device update` only notes the new number"]
    return [
        news,
        *back,
        f"  {_cost(found, offer, variant)}",
        "  run `tidegate device update` to install it",
    ]


def _cost(found: CheckResult, offer: Offer, variant: OfferedVariant) -> str:
    manifest = f"manifest {offer.manifest.size_bytes:,} bytes"
    if variant.sha256 == found.running.variant_sha256:
        return f"to fetch: {manifest}, and what changed of the assets; the model file is here"
    model = f"model {variant.size_bytes:,} bytes (less if the channel has a delta from what is here)"
    return f"to fetch: {manifest}, {model}, and what changed of the assets"


def passed_over_rows(passed_over: Sequence[PassedOver]) -> list[tuple[str, ...]]:
    """Return the rows of the table of `check --explain`."""
    return [(str(one.release), one.version, one.reason) for one in passed_over]


def result_lines(result: UpdateResult) -> list[str]:
    """Return what `update`, `settle` and `rollback` say."""
    runs = f"{result.running.model} {result.running.version} (release {result.running.release}) runs"
    about = f"version {result.version}, release {result.release}"
    why = f": {result.reason}" if result.reason else ""
    told = {
        "up to date": f"{result.reason or 'nothing newer for this device'}: {runs}",
        "noted": f"{about} has the content that runs already; its number is noted",
        "postponed": f"not now{why}; {runs}",
        "activated": f"{about} is active, on trial until the app has used it enough",
        "probe failed": f"{about} failed its probe and is in quarantine{why}; {runs}",
        "refused": f"{about} is refused and in quarantine{why}; {runs}",
        "waiting": f"the trial goes on{why}; {runs}",
        "committed": f"{about} passed its trial{why}; {runs}",
        "rolled back": f"went back from {about}{why}; {runs}",
    }[result.outcome]
    return [told, *_measured(result)]


def _measured(result: UpdateResult) -> list[str]:
    lines = []
    if result.fetched is not None:
        fetched = result.fetched
        by_delta = f" ({len(fetched.deltas_used)} by delta)" if fetched.deltas_used else ""
        lines.append(
            f"  fetched the manifest and {_counted(len(fetched.files), 'file')}{by_delta}, "
            f"{fetched.received_bytes:,} bytes; {_counted(len(fetched.reused), 'file')} here already"
        )
        lines += [f"  no delta for {failure}" for failure in fetched.delta_failures]
    if result.probe is not None and result.probe.passed:
        lines.append(f"  probe: {', '.join(_figures(result.probe))}")
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _figures(probe: ProbeReport) -> Iterator[str]:
    yield f"{probe.calls} calls on {probe.runtime}"
    if probe.latency_p95_ms is not None:
        yield f"p95 {probe.latency_p95_ms:.3g} ms"
    if probe.rss_mb is not None:
        yield f"peak {probe.rss_mb:.0f} MB"
    yield "no golden fixture" if probe.maximum_error is None else f"largest error {probe.maximum_error:.2g}"


def status_lines(directory: Path, status: Status) -> list[str]:
    """Return what `status` says: each slot with what it is, where, since when and why."""
    lines = [f"{directory}: {status.active.model}, track {status.active.track}, {_phase(status)}"]
    if status.problem:
        lines.append(f"the disk takes no writes: {status.problem}")
    for name, slot in _slots(status):
        if slot is not None:
            lines += ["", *_slot_lines(directory, name, slot)]
    for bad in status.quarantined:
        lines += ["", f"quarantined  {bad.version}, release {bad.release}, since {bad.at}", f"  why   {bad.reason}"]
    if status.last_check is not None:
        seen = status.last_check
        newest = f"newest for this device: {seen.latest_version}, release {seen.latest_release}"
        lines += ["", f"last check {seen.at}: {seen.problem or (newest if seen.latest_release else 'nothing fits')}"]
    return lines


def _phase(status: Status) -> str:
    phase = status.phase.value.replace("_", " ")
    return f"{phase}; {status.busy} is at work" if status.busy else phase


def _slots(status: Status) -> list[tuple[str, Slot | None]]:
    return [
        ("active", status.active),
        ("candidate", status.candidate),
        ("previous", status.previous),
        ("factory", status.factory),
    ]


def _slot_lines(directory: Path, name: str, slot: Slot) -> list[str]:
    since = f"since {slot.activated_at}" if slot.activated_at else f"installed {slot.installed_at}"
    return [
        f"{name:<11}  {slot.version}, release {slot.release}, {slot.variant}, {since}",
        f"  why   {slot.why or '-'}",
        f"  file  {_file(directory, slot)}",
    ]


def _file(directory: Path, slot: Slot) -> Path:
    from tidegate.edge.update.layout import Layout

    return Layout(directory).store.path(slot.variant_sha256)


def slot_json(directory: Path, slot: Slot | None) -> dict[str, Any] | None:
    """Return a slot for machines: its own fields, and the path of the model file, whose SHA-256 is `variant_sha256`."""
    return None if slot is None else {**msgspec.structs.asdict(slot), "file": str(_file(directory, slot))}


def status_json(directory: Path, status: Status) -> dict[str, Any]:
    """Return what `status --json` prints."""
    return {
        "directory": str(directory),
        "phase": status.phase.value,
        "busy": status.busy,
        "problem": status.problem,
        **{name: slot_json(directory, slot) for name, slot in _slots(status)},
        "quarantined": status.quarantined,
        "counters": status.counters,
        "last_check": status.last_check,
    }


def history_rows(entries: Sequence[HistoryEntry]) -> list[tuple[str, ...]]:
    """Return the rows of the table of `history`."""
    return [
        (entry.at, entry.event.replace("_", " "), str(entry.release or "-"), entry.version or "-", entry.reason or "-")
        for entry in entries
    ]
