"""The newest release that a device could have, told to whoever reports what it runs.

The server is one more verified client of the channel: a background thread checks it, and calls are answered from
memory. A device learns from it that a check is worthwhile, and believes only what it then verifies itself.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from tidegate.errors import ConfigError, NotFoundError, ResourceError, StateError, TidegateError
from tidegate.fetch.settings import check_url
from tidegate.release import Track, in_cohort
from tidegate.release.track import check_track_name
from tidegate.wire.report import DeviceReport, Latest

if TYPE_CHECKING:
    from tidegate.fetch.trusted import ChannelReader

DEFAULT_INTERVAL_S = 300.0
"""A check without news is two requests and less than a kilobyte."""

MOST_WAITING = 256
"""Pairs of model and track that wait to be looked up; reports may name any, so there is a limit."""

JOIN_S = 1.0
"""For a check under way when the server stops; it ends with the process otherwise."""


class LatestSource(Protocol):
    """Knows the newest release for a device. Called by many threads, never waits."""

    def latest(self, report: DeviceReport) -> Latest | None:
        """Return it; None when nothing is known for the report's model and track."""


class FixedReleases:
    """Releases that the operator states, the same for every device."""

    def __init__(self, releases: Iterable[Latest]) -> None:
        """Take one release for each model and track."""
        self._releases = {(release.model, release.track): release for release in releases}

    def latest(self, report: DeviceReport) -> Latest | None:
        """Return what was stated."""
        return self._releases.get((report.model, report.track))


def newest_for(track: Track, device: str) -> Latest | None:
    """Return the newest standing offer whose roll-out reaches the device; None when none does.

    A device without an id is reached by offers to all. Hardware, runtime and memory are the device's to judge.
    """
    for offer in track.standing:
        percent = offer.rollout.percent
        if percent >= 100 or (device and in_cohort(device, offer.rollout.salt, percent)):
            return Latest(track.model, track.track, offer.release, offer.version)
    return None


class ChannelAnnouncer:
    """Tracks of a channel, checked in the background."""

    def __init__(
        self,
        url: str,
        trusted_root: bytes,
        tracks: Iterable[str] = ("stable",),
        *,
        interval_s: float = DEFAULT_INTERVAL_S,
        on_warning: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Note where to look; nothing is sent before `start`.

        Args:
            url: of the channel.
            trusted_root: content of a root.json that was got in a trusted way.
            tracks: those that are announced; a report that names another one is not answered.
            interval_s: between two checks.
            on_warning: told when a check fails after one that succeeded, and the other way round.

        Raises:
            ConfigError: no track, a name or an address that is none, or an interval that cannot be meant.
        """
        check_url(url, "the channel's address")
        self._tracks = frozenset(tracks)
        if not self._tracks:
            raise ConfigError("no track to announce", fix="name at least one, such as stable")
        for track in self._tracks:
            check_track_name(track)
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise ConfigError(f"interval_s is {interval_s}; expected more than 0", fix="300 seconds are usual")
        self._url = url
        self._trusted_root = trusted_root
        self._interval_s = interval_s
        self._on_warning = on_warning
        self._changed = threading.Condition()
        self._known: dict[tuple[str, str], Track] = {}
        """by model and track, as far as reports asked for them and the channel has them"""
        self._waiting: set[tuple[str, str]] = set()
        """asked for, and not known"""
        self._stopping = False
        self._problem = ""
        self._metadata: tempfile.TemporaryDirectory[str] | None = None
        self._thread = threading.Thread(target=self._run, name="tidegate-announce", daemon=True)

    @property
    def problem(self) -> str:
        """Why the last check failed; empty when it did not. What was known before is still announced."""
        return self._problem

    @property
    def waiting(self) -> int:
        """How many models and tracks wait to be looked up; at most `MOST_WAITING`."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to check, in a temporary directory. What goes wrong then is `problem`.

        Raises:
            StateError: started or closed before.
            ResourceError: there is no room for the directory.
        """
        if self._metadata is not None:
            raise StateError("the announcer was started before", fix="make a new one")
        try:
            self._metadata = tempfile.TemporaryDirectory(prefix="tidegate-announce-")
        except OSError as error:
            raise ResourceError(
                f"no temporary directory for the channel's metadata: {error.strerror}", fix="check disk and TMPDIR"
            ) from error
        self._thread.start()

    def close(self) -> None:
        """Stop checking. Closing again does nothing."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        if self._metadata is not None:
            self._metadata.cleanup()

    def __enter__(self) -> ChannelAnnouncer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def latest(self, report: DeviceReport) -> Latest | None:
        """Return the newest release for a device. The first report of a model is noted, and answered the next time."""
        if report.track not in self._tracks:
            return None
        asked = (report.model, report.track)
        with self._changed:
            track = self._known.get(asked)
            if track is None and len(self._waiting) < MOST_WAITING:
                self._waiting.add(asked)
                self._changed.notify_all()
        return None if track is None else newest_for(track, report.device)

    def wait_until_known(self, model: str, track: str, release: int, timeout_s: float) -> bool:
        """Wait until a release or a later one of a track that was asked for is known; return whether it is."""

        def known() -> bool:
            found = self._known.get((model, track))
            return found is not None and bool(found.offers) and found.offers[-1].release >= release

        with self._changed:
            return self._changed.wait_for(known, timeout_s)

    def wait_until_failed(self, timeout_s: float) -> bool:
        """Wait until a check has failed; return whether one has, and none has succeeded since."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._problem), timeout_s)

    # The thread's side.

    def _run(self) -> None:
        from tidegate.fetch.trusted import ChannelReader

        assert self._metadata is not None
        try:
            reader = ChannelReader(Path(self._metadata.name), self._url, self._trusted_root)
        except TidegateError as error:
            # Nothing that was not started heals by waiting: an extra is missing, or the address is none.
            self._note(error)
            return
        while not self._stopping:
            self._check(reader)
            self._serve_new_until_the_next_check(reader)
        reader.close()

    def _check(self, reader: ChannelReader) -> None:
        """Learn what is new; on failure keep what is known."""
        try:
            reader.refresh()
        except TidegateError as error:
            self._note(error)
            return
        with self._changed:
            wanted = [*self._known, *self._waiting]
            self._waiting.clear()
        self._note(self._look_up(reader, wanted))

    def _serve_new_until_the_next_check(self, reader: ChannelReader) -> None:
        """Look up what reports ask for in the metadata at hand: a report never causes a request."""
        due_s = time.monotonic() + self._interval_s
        if self._problem:
            # There may be no metadata at hand. The next check looks up all.
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, self._interval_s)
            return
        while (left_s := due_s - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting, left_s)
                if self._stopping:
                    return
                wanted = list(self._waiting)
                self._waiting.clear()
            self._look_up(reader, wanted)

    def _look_up(self, reader: ChannelReader, wanted: Iterable[tuple[str, str]]) -> TidegateError | None:
        """Take the tracks that there are; return what was wrong with the last one that cannot be read."""
        problem: TidegateError | None = None
        for model, name in wanted:
            try:
                track = reader.track(model, name)
            except NotFoundError:
                # Somebody may have made the name up: it is not kept.
                continue
            except TidegateError as error:
                problem = error
                continue
            with self._changed:
                self._known[model, name] = track
                self._changed.notify_all()
        return problem

    def _note(self, error: TidegateError | None) -> None:
        """Keep how the check ended, and say it when that is another way than before."""
        if error is not None and not self._problem:
            self._on_warning(f"the channel could not be read: {error.message}; announcing what was known before")
        if error is None and self._problem:
            self._on_warning("the channel can be read again")
        with self._changed:
            self._problem = "" if error is None else error.message
            self._changed.notify_all()
