"""What an installation needs, and what of it is missing: the manifest first, then one variant and what goes with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tidegate.bundle.bundle import ListedFile, listed_files
from tidegate.bundle.manifest import Manifest, Variant, decode
from tidegate.bundle.tree import Limits
from tidegate.errors import BundleError, NotFoundError, ResourceError
from tidegate.fetch.error_mapping import mapped
from tidegate.fetch.receiving import MARGIN_BYTES, check_space, receive_into_store
from tidegate.fetch.store import Store
from tidegate.fetch.trusted import ChannelReader, TargetInfo
from tidegate.release.track import Offer, delta_target, file_target

_TELL_OWNER = "tell the channel's owner; what is installed keeps running"


@dataclass(frozen=True)
class PlannedDelta:
    """A shorter way to a file."""

    base_sha256: str
    """of the file in the store that it starts from"""
    target: TargetInfo
    """the delta itself"""


@dataclass(frozen=True)
class PlannedFile:
    """One file that is missing."""

    path: str
    """inside the bundle"""
    target: TargetInfo
    """the whole file"""
    delta: PlannedDelta | None
    """when one is signed, starts from what is here, and has fewer bytes left to fetch"""


@dataclass(frozen=True)
class Plan:
    """What an installation of one variant needs, and what of it is missing. The manifest is in the store already."""

    offer: Offer
    manifest: Manifest
    """as the author wrote it, with all variants"""
    variant: Variant
    files: tuple[PlannedFile, ...]
    """to be fetched, each content once"""
    reused: tuple[str, ...]
    """SHA-256 of the files that are here and whole"""
    download_bytes: int
    """still to be received, if no delta fails"""
    disk_bytes: int
    """free space needed before the start"""

    @property
    def manifest_sha256(self) -> str:
        """The manifest's digest, by which the offer names it."""
        return self.offer.manifest.sha256

    @property
    def wanted(self) -> frozenset[str]:
        """SHA-256 of every file of the installation, with the manifest."""
        return frozenset({self.manifest_sha256, *self.reused, *(file.target.sha256 for file in self.files)})


def plan(reader: ChannelReader, store: Store, offer: Offer, variant: str, bases: Collection[str] = ()) -> Plan:
    """Fetch the manifest of an offer if it is not here, and say what is missing for one variant of it.

    Args:
        reader: refreshed.
        store: keeps the files.
        offer: from the signed track document.
        variant: id of the one variant that is wanted.
        bases: SHA-256 of files in the store that a delta may start from, such as the active variant's.

    Raises:
        NotFoundError: the offer has no such variant.
        BundleError: the manifest is not the one that was offered, or the channel lacks a file of it.
        ResourceError: larger than `maximum_release_bytes`, or the disk refuses.
        IntegrityError, UnavailableError, DeadlineError: of the manifest's fetch.
    """
    manifest = _manifest(reader, store, offer)
    chosen = _variant(offer, manifest, variant)
    needed = _needed(manifest, chosen)
    _check_total(offer, needed, reader.settings.maximum_release_bytes)
    here = {file.sha256 for file in needed if store.check(file.sha256)}
    usable = [base for base in bases if store.has(base)]
    missing = {file.sha256: file for file in needed if file.sha256 not in here}
    files = tuple(_planned(reader, store, offer, file, usable) for file in missing.values())
    return Plan(
        offer=offer,
        manifest=manifest,
        variant=chosen,
        files=files,
        reused=tuple(sorted(here)),
        download_bytes=sum(_left_bytes(store, file.delta.target if file.delta else file.target) for file in files),
        disk_bytes=_disk_bytes(store, files),
    )


def _manifest(reader: ChannelReader, store: Store, offer: Offer) -> Manifest:
    """Return the offered manifest, fetched when it is not here."""
    sha256, size_bytes = offer.manifest.sha256, offer.manifest.size_bytes
    if not store.check(sha256):
        most = Limits().manifest_bytes
        if size_bytes > most:
            raise BundleError(
                f"release {offer.release} has a manifest of {size_bytes} bytes; at most {most} are read",
                fix=_TELL_OWNER,
            )
        check_space(store, size_bytes + MARGIN_BYTES)
        receive_into_store(reader, store, _target(reader, offer, ListedFile("manifest.json", sha256, size_bytes)))
    manifest = decode(store.read(sha256), origin=f"manifest of release {offer.release}")
    if manifest.version != offer.version:
        raise BundleError(
            f"release {offer.release} is offered as version {offer.version}; its manifest says {manifest.version}",
            fix=_TELL_OWNER,
        )
    return manifest


def _variant(offer: Offer, manifest: Manifest, id: str) -> Variant:
    """Return the variant, which offer and manifest must state alike."""
    offered = next((one for one in offer.variants if one.id == id), None)
    if offered is None:
        raise NotFoundError(
            f"release {offer.release} has no variant {id!r}; it has {', '.join(one.id for one in offer.variants)}",
            fix="choose one of these",
        )
    for variant in manifest.variants:
        if variant.id == id and (variant.sha256, variant.size_bytes) == (offered.sha256, offered.size_bytes):
            return variant
    raise BundleError(
        f"release {offer.release} offers variant {id!r} with SHA-256 {offered.sha256}; its manifest does not",
        fix=_TELL_OWNER,
    )


def _needed(manifest: Manifest, chosen: Variant) -> list[ListedFile]:
    """Return every file of the installation: all that the manifest lists but the other variants."""
    others = {variant.file for variant in manifest.variants} - {chosen.file}
    return [file for path, file in sorted(listed_files(manifest).items()) if path not in others]


def _check_total(offer: Offer, needed: Iterable[ListedFile], maximum_bytes: int) -> None:
    total = sum(file.size_bytes for file in needed)
    if total > maximum_bytes:
        raise ResourceError(
            f"release {offer.release} has {total} bytes for this device; at most {maximum_bytes} are allowed",
            fix="raise maximum_release_bytes if a release of this size is meant",
        )


def _target(reader: ChannelReader, offer: Offer, file: ListedFile) -> TargetInfo:
    """Return what the channel signs of a file, which must be what the offer or the manifest says of it."""
    target = reader.target(file_target(file.sha256))
    if target is None:
        raise BundleError(
            f"release {offer.release} needs {file.path!r} with SHA-256 {file.sha256}, which the channel does not have",
            fix=_TELL_OWNER,
        )
    if (target.sha256, target.length) != (file.sha256, file.size_bytes):
        raise BundleError(
            f"release {offer.release}: {file.path!r} should have {file.size_bytes} bytes and SHA-256 {file.sha256}; "
            f"the channel signs {target.length} bytes and {target.sha256}",
            fix=_TELL_OWNER,
        )
    return target


def _planned(
    reader: ChannelReader, store: Store, offer: Offer, file: ListedFile, bases: Collection[str]
) -> PlannedFile:
    full = _target(reader, offer, file)
    deltas = []
    for base in bases:
        target = reader.target(delta_target(base, file.sha256))
        if target is not None and _left_bytes(store, target) < _left_bytes(store, full):
            deltas.append(PlannedDelta(base, target))
    return PlannedFile(file.path, full, min(deltas, key=lambda one: _left_bytes(store, one.target), default=None))


def _left_bytes(store: Store, target: TargetInfo) -> int:
    """Return how many bytes are still to be received, after what an earlier run kept."""
    have = _size(store.partial_path(target.sha256))
    return target.length - have if have <= target.length else target.length


def _disk_bytes(store: Store, files: Collection[PlannedFile]) -> int:
    total = MARGIN_BYTES
    for file in files:
        if file.delta is None:
            total += _left_bytes(store, file.target)
        else:
            total += file.target.length + _left_bytes(store, file.delta.target)
    return total if files else 0


def _size(path: Path) -> int:
    with mapped(str(path)):
        return path.stat().st_size if path.exists() else 0
