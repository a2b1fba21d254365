"""One look at the channel: what it has for this device."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from msgspec.structs import replace

from tidegate.edge.update.device import Device, utc_now
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import LastCheck, Slot
from tidegate.edge.update.settings import DeviceSettings
from tidegate.edge.update.slots import problem_of
from tidegate.edge.update.transition import take_note
from tidegate.errors import NotFoundError, ResourceError, TidegateError
from tidegate.fetch.choice import Choice, DeviceFacts, choose
from tidegate.fetch.progress import OnProgress
from tidegate.fetch.trusted import ChannelReader
from tidegate.release.track import Offer, OfferedVariant, Track
from tidegate.runtime import installed_backends


@dataclass(frozen=True)
class News:
    """An offer that this device should take, with the variant that it would run."""

    offer: Offer
    variant: OfferedVariant

    def is_content_of(self, slot: Slot) -> bool:
        """Return whether a slot holds exactly this, under whatever counter."""
        return slot.holds(self.offer.manifest.sha256, self.variant.id)

    def slot(self, device: Device) -> Slot:
        """Return the candidate that it makes."""
        return Slot(
            model=device.settings.model,
            track=device.settings.track,
            release=self.offer.release,
            version=self.offer.version,
            manifest_sha256=self.offer.manifest.sha256,
            variant=self.variant.id,
            variant_sha256=self.variant.sha256,
            installed_at=utc_now(),
            offered_at=self.offer.offered_at,
        )


@dataclass(frozen=True)
class Look:
    """What a look at the channel found."""

    reader: ChannelReader
    choice: Choice
    withdrawn: str = ""
    """why the author has withdrawn what runs; empty when he has not"""

    @property
    def news(self) -> News | None:
        """The newest offer that fits and is newer than what runs."""
        if self.choice.offer is None or self.choice.variant is None:
            return None
        return News(self.choice.offer, self.choice.variant)


def look(device: Device, on_progress: OnProgress | None) -> Look:
    """Ask the channel, choose, and note when that was. Two requests when there is no news.

    Raises:
        UnavailableError, DeadlineError: unreachable, too slow, or its metadata out of date.
        IntegrityError, BundleError: altered, replayed, or not signed as the root demands.
        NotFoundError: it has no such track; or the trusted root is missing.
        ResourceError: the disk refuses.
    """
    settings, record = device.settings, device.record
    try:
        reader = ChannelReader(
            device.layout.metadata, settings.url, _trusted_root(device.layout), settings.fetch, on_progress
        )
        reader.refresh()
        track = reader.track(settings.model, settings.track)
        choice = choose(
            track,
            _facts(settings),
            running_release=record.counter(settings.track),
            quarantined={one.release for one in record.quarantined},
        )
    except TidegateError as error:
        # What the caller must hear is why the channel could not be read, not that this could not be noted.
        with contextlib.suppress(ResourceError):
            device.write(replace(record, last_check=LastCheck(at=utc_now(), problem=error.message)))
        raise
    newest = choice.offer
    device.write(
        replace(
            record,
            last_check=LastCheck(
                at=utc_now(),
                latest_release=newest.release if newest else record.active.release,
                latest_version=newest.version if newest else record.active.version,
            ),
        )
    )
    return Look(reader, choice, _withdrawn(track, record.active))


def _withdrawn(track: Track, active: Slot) -> str:
    """Return why the offer that runs was withdrawn; empty when it stands, or came from another track."""
    for offer in track.offers:
        is_active = (track.track, offer.release, offer.manifest.sha256) == (
            active.track,
            active.release,
            active.manifest_sha256,
        )
        if is_active and offer.withdrawn is not None:
            return offer.withdrawn.reason
    return ""


def note_if_running(device: Device, news: News) -> bool:
    """Take over the counter of an offer whose content runs already and is whole; return whether it was so."""
    active = device.record.active
    if not news.is_content_of(active) or problem_of(device.store, active):
        return False
    device.write(take_note(device.record, news.offer.release, device.settings.track))
    device.tell("noted", device.record.active)
    return True


def _facts(settings: DeviceSettings) -> DeviceFacts:
    return DeviceFacts(
        device_id=settings.device_id,
        hardware=settings.hardware,
        runtimes=installed_backends(),
        memory_mb=settings.memory_mb,
    )


def _trusted_root(layout: Layout) -> bytes:
    try:
        return layout.trusted_root.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{layout.trusted_root} is not there, so no signature can be checked",
            fix="put the channel's metadata/1.root.json there, as it was shipped",
        ) from error
    except OSError as error:
        raise ResourceError(
            f"{layout.trusted_root} could not be read: {error.strerror or error}", fix="check the disk"
        ) from error
