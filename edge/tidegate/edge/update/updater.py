"""One device's updates, from the look at the channel to the verdict of the trial.

Each public call takes the device's lock, and first makes whole what a crash has left. In between, every step is one
write of the record: whenever this process dies, the next call goes on from a state of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.edge.update import history
from tidegate.edge.update.device import Device
from tidegate.edge.update.hint import UpdateHint
from tidegate.edge.update.history import HistoryEntry
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.lock import exclusive, holder
from tidegate.edge.update.record import Record, read_record
from tidegate.edge.update.recovery import recovered
from tidegate.edge.update.results import CheckResult, Status, UpdateResult, rolled_back, up_to_date
from tidegate.edge.update.settings import read_settings
from tidegate.edge.update.slots import newest_whole
from tidegate.edge.update.states import Event, State
from tidegate.errors import ResourceError, StateError

if TYPE_CHECKING:
    from tidegate.fetch.progress import OnProgress
    from tidegate.wire.report import Latest


class Updater:
    """The updates of one device. Several threads or processes may try; one works, the others are told who does.

    Args:
        directory: made by `initialise`.
        conditions: asked before the fetch and before the switch; says why not now, such as "battery at 12 %", or None.
        on_progress: hears of the bytes that come in.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        conditions: Callable[[], str | None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._layout = Layout(Path(directory))
        self._conditions = conditions or (lambda: None)
        self._on_progress = on_progress
        self._hint = UpdateHint()

    def note_latest(self, latest: Latest) -> bool:
        """Hear what a server named as the newest release; tell whether a check is worthwhile because of it.

        Nothing signed the server's word, so nothing of it is kept on the disk or believed: what `check` and `update`
        find is verified as ever. Needs no lock and no network. See `UpdateHint` for when it is True.

        Raises:
            NotFoundError, BundleError, ResourceError: the device's record cannot be read.
        """
        return self._hint.note(latest, read_record(self._layout.state))

    def check(self, explain: bool = False) -> CheckResult:
        """Look whether the channel has something newer for this device. Without news that is two requests.

        An offer whose content runs already is no news; its counter is noted.

        Args:
            explain: say of each newer offer that does not fit why it was passed over.

        Raises:
            UnavailableError, DeadlineError: no channel, or its metadata is out of date.
            IntegrityError, BundleError: it was altered, replayed or not signed as the trusted root demands.
            StateError: another process updates this device.
            NotFoundError: the directory is not a device, or the channel has no such track.
            ConfigError: `device.json` cannot be meant.
            ResourceError: the disk refuses.
        """
        from tidegate.edge.update.channel import look, note_if_running

        with self._device() as device:
            seen = look(device, self._on_progress)
            news = seen.news
            runs = news is not None and news.is_content_of(device.record.active)
            if news is not None and device.record.phase is State.IDLE and note_if_running(device, news):
                news = None
            return CheckResult(
                running=device.record.active,
                offer=None if news is None else news.offer,
                variant=None if news is None else news.variant,
                same_content=runs,
                withdrawn=seen.withdrawn,
                is_on_trial=device.record.phase is State.TRIAL,
                passed_over=seen.choice.passed_over if explain else (),
                requests=seen.reader.requests,
                received_bytes=seen.reader.received_bytes,
            )

    def update(self) -> UpdateResult:
        """Bring the device to the newest version that fits. What was activated is on trial until `settle`.

        Raises:
            as `check`, and ModelError or DependencyError when this machine cannot run the probe. Whatever is raised,
            what is installed keeps running, and the next call goes on from there.
        """
        from tidegate.edge.update.steps import Update

        with self._device() as device:
            run = Update(device, self._conditions, self._on_progress)
            for step in (run.settle, run.check, run.fetch, run.verify, run.probe):
                done = step()
                if done is not None:
                    return done
            return run.activate()

    def settle(self) -> UpdateResult:
        """Commit the version on trial, or go back, or wait, as the health counters say. Needs no network.

        Raises:
            StateError, NotFoundError, ConfigError, ResourceError: as `check`.
        """
        from tidegate.edge.update.settling import settle_trial

        with self._device() as device:
            left = device.record.active
            problem = device.mend()
            if problem:
                return rolled_back(device.record, left, problem)
            return settle_trial(device) or up_to_date(device.record, "no version is on trial")

    def rollback(self, reason: str) -> UpdateResult:
        """Go back to the version before, or else to the factory version; what is left is quarantined. Needs no network.

        Args:
            reason: why, in words, for history and reports.

        Raises:
            StateError: nothing older is whole, or another process updates this device.
            NotFoundError, ConfigError, ResourceError: as `check`.
        """
        with self._device() as device:
            left = device.record.active
            if newest_whole(device.store, device.older_slots()) is None:
                raise StateError(
                    f"there is no older version to go back to from {left.version} (release {left.release})",
                    fix="publish a version that works, then run `tidegate device update`",
                )
            device.go_back(Event.ROLLBACK_ASKED, reason)
            return rolled_back(device.record, left, reason)

    def status(self) -> Status:
        """Return what runs, what ran before, and how far an update is. Works while another process updates.

        Raises:
            NotFoundError: the directory is not a device.
            BundleError: neither the record nor the factory slot can be read.
            ConfigError: `device.json` cannot be meant.
        """
        try:
            with self._device() as device:
                return _status(device.record)
        except StateError:
            return _status(read_record(self._layout.state), busy=holder(self._layout.lock))
        except ResourceError as error:
            # A disk that takes no writes: what stands there is true all the same.
            return _status(read_record(self._layout.state), problem=error.message)

    def history(self) -> list[HistoryEntry]:
        """Return what happened on this device, oldest first.

        Raises:
            NotFoundError: the directory is not a device.
            ConfigError: `device.json` cannot be meant.
            ResourceError: the disk refuses.
        """
        read_settings(self._layout.settings)
        return history.read(self._layout.history)

    @contextmanager
    def _device(self) -> Iterator[Device]:
        """Hold the device, in a state that no crash has left half done."""
        settings = read_settings(self._layout.settings)
        with exclusive(self._layout.lock):
            yield recovered(self._layout, settings)


def _status(record: Record, busy: str = "", problem: str = "") -> Status:
    return Status(
        phase=record.phase,
        active=record.active,
        previous=record.previous,
        factory=record.factory,
        candidate=record.candidate,
        quarantined=record.quarantined,
        counters=record.counters,
        last_check=record.last_check,
        busy=busy,
        problem=problem,
    )
