"""What a slot needs in the store: whether it is whole, and which files nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.edge.update.record import Slot
from tidegate.errors import BundleError, IntegrityError, NotFoundError, TidegateError
from tidegate.fetch.installed import installed_files, open_installed
from tidegate.fetch.store import Store


def verify(store: Store, slot: Slot) -> None:
    """Read every file of a slot and check its digest.

    Raises:
        IntegrityError: bytes differ, or the variant is not the one that the slot names.
        NotFoundError: a file is missing.
        BundleError: the manifest cannot be used.
        ResourceError: the disk refuses to read.
    """
    with open_installed(store, slot.manifest_sha256, slot.variant) as bundle:
        bundle.verify_files()
        found = bundle.variant(slot.variant).sha256
    if found != slot.variant_sha256:
        raise IntegrityError(
            f"variant {slot.variant} of {slot.version} has SHA-256 {found}; expected {slot.variant_sha256}",
            fix="run the update again",
        )


def problem_of(store: Store, slot: Slot) -> str:
    """Return why a slot cannot run; empty when all its files are here and right."""
    try:
        verify(store, slot)
    except TidegateError as error:
        return error.message
    return ""


def newest_whole(store: Store, slots: Iterable[Slot | None]) -> Slot | None:
    """Return the first of `slots` whose files are all here and right."""
    return next((slot for slot in slots if slot is not None and not problem_of(store, slot)), None)


def needed_files(store: Store, slots: Iterable[Slot]) -> set[str]:
    """Return the digests of all files that the slots need.

    Of a slot whose manifest is damaged, only manifest and model are known. The rest is no loss: without its manifest it
    cannot run, and whoever fetches that again fetches the rest too. The factory version knows all its files.

    Raises:
        ResourceError: the disk refuses, so nobody can say now what is needed.
    """
    needed: set[str] = set()
    for slot in slots:
        needed |= {slot.manifest_sha256, slot.variant_sha256, *slot.files}
        try:
            needed |= set(installed_files(store, slot.manifest_sha256, slot.variant))
        except (NotFoundError, BundleError):
            continue
    return needed


def collect(store: Store, slots: Iterable[Slot]) -> None:
    """Remove every file that none of the slots needs.

    Raises:
        ResourceError: the disk refuses.
    """
    store.remove_except(needed_files(store, slots))
