"""The steps of one update. Each either goes on (None) or says what the update came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import msgspec

from tidegate.edge.update.channel import Look, News, look, note_if_running
from tidegate.edge.update.device import Device
from tidegate.edge.update.health import forget
from tidegate.edge.update.probe import ProbeReport, ProbeSettings, probe
from tidegate.edge.update.record import Slot
from tidegate.edge.update.results import Outcome, UpdateResult, rolled_back, up_to_date
from tidegate.edge.update.settling import leave_failed_trial, settle_trial, trial_verdict
from tidegate.edge.update.slots import verify
from tidegate.edge.update.states import Event, State
from tidegate.errors import BundleError, ConfigError, IntegrityError, StateError, TidegateError
from tidegate.fetch.download import FetchReport, fetch, plan

if TYPE_CHECKING:
    from tidegate.fetch.progress import OnProgress


class Update:
    """One run over one device whose lock is held: what its steps hand on to each other."""

    def __init__(
        self, device: Device, conditions: Callable[[], str | None], on_progress: OnProgress | None = None
    ) -> None:
        self._device = device
        self._conditions = conditions
        self._on_progress = on_progress
        self._settled: UpdateResult | None = None
        self._look: Look | None = None
        self._fetched: FetchReport | None = None
        self._probed: ProbeReport | None = None

    def settle(self) -> UpdateResult | None:
        """Leave a version whose files are damaged, and one whose trial has failed."""
        self._device.mend()
        return leave_failed_trial(self._device)

    def check(self) -> UpdateResult | None:
        """Ask the channel; then decide a trial. Go on only with news whose content does not run already.

        In this order, so that what the author has taken back is never committed by the same call that hears of it.
        """
        device = self._device
        try:
            self._look = look(device, self._on_progress)
        except TidegateError:
            settle_trial(device)
            raise
        news = self._look.news
        if device.record.phase is State.STAGED and not _is_for(news, device.record.candidate):
            device.send(Event.SUPERSEDED, reason="the channel offers something else now")
        if device.record.phase is State.TRIAL and not self._left_trial():
            self._settled = settle_trial(device)
            if self._settled is not None and self._settled.outcome != "committed":
                return self._settled
        if news is None:
            return self._settled or up_to_date(device.record)
        return self._result("noted") if note_if_running(device, news) else None

    def fetch(self) -> UpdateResult | None:
        """Bring the candidate's files into the store, unless they were staged by a run before."""
        device, news, reader = self._device, self._news, self._found.reader
        if device.record.phase is State.STAGED:
            return None
        why_not = self._conditions()
        if why_not:
            return self._result("postponed", why_not)
        bases = {slot.variant_sha256 for slot in device.record.slots}
        device.send(Event.OFFERED, slot=news.slot(device))
        try:
            planned = plan(reader, device.store, news.offer, news.variant.id, bases)
            self._check_model(planned.manifest.name)
            self._fetched = fetch(reader, device.store, planned, self._on_progress)
        except BundleError as error:
            # Bytes that differ are the line's or the mirror's fault, and may be right next time. A manifest that is
            # as it was signed and breaks a rule will always break it.
            if isinstance(error, IntegrityError):
                device.send(Event.FETCH_FAILED, reason=error.message)
                raise
            return self._refused(error.message)
        except BaseException as error:
            device.send(Event.FETCH_FAILED, reason=str(error) or type(error).__name__)
            raise
        return None

    def verify(self) -> UpdateResult | None:
        """Read every file of the candidate again; only then is it staged."""
        device = self._device
        try:
            verify(device.store, self._candidate)
        except BaseException as error:
            device.send(Event.FETCH_FAILED, reason=str(error) or type(error).__name__)
            raise
        if device.record.phase is State.FETCHING:
            device.send(Event.FETCHED)
        return None

    def probe(self) -> UpdateResult | None:
        """Let the candidate prove itself in a child process."""
        device = self._device
        device.send(Event.BEGUN)
        try:
            self._probed = probe(device.layout.directory, self._candidate, _probe_settings(device.settings.probe))
        except BaseException as error:
            device.send(Event.POSTPONED, reason=str(error) or type(error).__name__)
            raise
        if self._probed.passed:
            return None
        result = self._result("probe failed", self._probed.problem)
        device.send(Event.PROBE_FAILED, reason=self._probed.problem)
        device.collect()
        return result

    def activate(self) -> UpdateResult:
        """Switch to the candidate. One write of the record is the whole switch."""
        device = self._device
        try:
            why_not = self._conditions()
            # What an earlier trial of the same release counted is no evidence in this one.
            forget(device.layout.health, self._candidate.release)
        except BaseException as error:
            device.send(Event.POSTPONED, reason=str(error) or type(error).__name__)
            raise
        if why_not:
            device.send(Event.POSTPONED, reason=why_not)
            return self._result("postponed", why_not)
        offer = self._news.offer
        reason = f"takes back release {offer.rollback_of}: {offer.reason}" if offer.rollback_of else "passed its probe"
        device.send(Event.PROBE_PASSED, reason=reason)
        return self._result("activated", reason)

    @property
    def _found(self) -> Look:
        if self._look is None:
            raise StateError("no look at the channel came before this step", fix="please report this: it is a bug")
        return self._look

    @property
    def _news(self) -> News:
        news = self._found.news
        if news is None:
            raise StateError("there is no news to act on", fix="please report this: it is a bug")
        return news

    @property
    def _candidate(self) -> Slot:
        candidate = self._device.record.candidate
        if candidate is None:
            raise StateError("there is no candidate to act on", fix="please report this: it is a bug")
        return candidate

    def _left_trial(self) -> bool:
        """Leave a version on trial that its author takes back, or that stands badly while there is a newer one.

        Other news wait until the trial is decided: what has proven itself is what the next one can go back to.
        """
        device, news, left = self._device, self._found.news, self._device.record.active
        if news is not None and news.is_content_of(left):
            return False
        if news is not None and news.offer.rollback_of:
            event, reason = Event.SUPERSEDED, f"release {news.offer.release} takes it back: {news.offer.reason}"
        elif self._found.withdrawn:
            event, reason = Event.WITHDRAWN, f"its author has withdrawn it: {self._found.withdrawn}"
        elif news is not None and (verdict := trial_verdict(device)).is_doubtful:
            event, reason = Event.SUPERSEDED, f"release {news.offer.release} is newer, and {verdict.reason}"
        else:
            return False
        device.go_back(event, reason)
        self._settled = rolled_back(device.record, left, reason)
        return True

    def _check_model(self, name: str) -> None:
        if name != self._device.settings.model:
            raise BundleError(
                f"the release holds model {name!r}; expected {self._device.settings.model!r}",
                fix="tell the channel's owner",
            )

    def _refused(self, reason: str) -> UpdateResult:
        result = self._result("refused", reason)
        self._device.send(Event.REFUSED, reason=reason)
        self._device.collect()
        return result

    def _result(self, outcome: Outcome, reason: str = "") -> UpdateResult:
        offer, running = self._news.offer, self._device.record.active
        return UpdateResult(outcome, running, reason, offer.release, offer.version, self._fetched, self._probed)


def _probe_settings(overrides: Mapping[str, object]) -> ProbeSettings:
    """Return the probe's settings with what the device's own say instead."""
    known = {field.name for field in fields(ProbeSettings)}
    strangers = overrides.keys() - known
    if strangers:
        raise ConfigError(
            f"probe has no setting {min(strangers)!r}; expected one of {', '.join(sorted(known))}",
            fix="correct device.json",
        )
    try:
        return msgspec.convert(dict(overrides), ProbeSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"probe: {error}", fix="correct device.json") from error


def _is_for(news: News | None, candidate: Slot | None) -> bool:
    """Return whether the channel still offers what is staged."""
    if news is None or candidate is None:
        return False
    return news.offer.release == candidate.release and news.is_content_of(candidate)
