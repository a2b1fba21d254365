"""What a draft would change and who has signed it, for those who are asked to sign."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from tidegate.release.draft import Draft, Signatures, askers, name_of, signatures
from tidegate.release.lifetimes import ROLES
from tidegate.release.repository import lifetimes_of
from tidegate.release.track import from_custom, is_track_target
from tidegate.release.tuf_types import Metadata, Root, Targets


class SignaturesReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far one threshold is reached."""

    asked_by: str
    """the root whose keys and threshold these are, such as `root 1`"""
    threshold: int
    signed: tuple[str, ...]
    """key ids"""
    waiting: tuple[str, ...]
    """ids of the other keys that may sign"""
    missing: int
    """how many more are needed"""


class DocumentReport(msgspec.Struct, frozen=True, kw_only=True):
    """One file of metadata in the draft."""

    name: str
    expires: datetime
    content: tuple[str, ...]
    """what it says, a line for each role or track"""
    signatures: tuple[SignaturesReport, ...]


class DraftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `tidegate keys sign` prints."""

    builds_on: str
    """such as `root 3, targets 7`, or `a new channel`"""
    documents: tuple[DocumentReport, ...]
    complete: bool
    """every signature is there, so that it can be carried out"""
    online: tuple[str, ...]
    """roles whose keys `tidegate keys apply` needs"""


def describe(draft: Draft) -> DraftReport:
    """Describe a draft.

    Raises:
        BundleError: a track document in it breaks the format.
    """
    documents = []
    previous = draft.base.signed if draft.base else None
    for document, roots in askers(draft):
        documents.append(
            DocumentReport(
                name=name_of(document),
                expires=document.signed.expires,
                content=tuple(_content(document, previous)),
                signatures=tuple(_signatures(found) for found in signatures(document, roots)),
            )
        )
        if isinstance(document.signed, Root):
            previous = document.signed
    return DraftReport(
        builds_on=f"root {draft.base.signed.version}, targets {draft.base_targets}" if draft.base else "a new channel",
        documents=tuple(documents),
        complete=not any(found.missing for document in documents for found in document.signatures),
        online=tuple(draft.online),
    )


def _signatures(found: Signatures) -> SignaturesReport:
    return SignaturesReport(
        asked_by=found.asked_by,
        threshold=found.threshold,
        signed=found.signed,
        waiting=found.waiting,
        missing=found.missing,
    )


def _content(document: Metadata[Any], previous: Root | None) -> Iterator[str]:
    if isinstance(document.signed, Root):
        yield from _roles(document.signed, previous)
    elif isinstance(document.signed, Targets):
        yield from _offers(document.signed)


def _roles(root: Root, previous: Root | None) -> Iterator[str]:
    for role in ROLES:
        keyids = root.roles[role].keyids
        before = previous.roles[role].keyids if previous else keyids
        words = [f"{role}: {root.roles[role].threshold} of {_short(keyids)}"]
        added = [keyid for keyid in keyids if keyid not in before]
        removed = [keyid for keyid in before if keyid not in keyids]
        words += [f"adds {_short(added)}"] if added else []
        words += [f"removes {_short(removed)}"] if removed else []
        if previous and previous.roles[role].threshold != root.roles[role].threshold:
            words.append(f"threshold was {previous.roles[role].threshold}")
        yield "; ".join(words)
    lifetimes_s = lifetimes_of(root).as_dict()
    if previous is None or lifetimes_of(previous).as_dict() != lifetimes_s:
        yield "lifetimes: " + ", ".join(f"{role} {seconds:,} s" for role, seconds in lifetimes_s.items())


def _offers(targets: Targets) -> Iterator[str]:
    """Yield what every track of the channel would offer, newest first to be considered."""
    named = sorted(path for path in targets.targets if is_track_target(path))
    for path in named:
        track = from_custom(targets.targets[path].custom, origin=path)
        if not track.offers:
            yield f"{track.model} {track.track}: no offers"
            continue
        newest = track.offers[-1]
        state = f"withdrawn: {newest.withdrawn.reason}" if newest.withdrawn else f"{newest.rollout.percent} %"
        yield (
            f"{track.model} {track.track}: version {newest.version}, release {newest.release}, {state}, "
            f"manifest {newest.manifest.sha256[:16]}"
        )
    if not named:
        yield "no offers"


def _short(keyids: list[str]) -> str:
    return ", ".join(keyid[:8] for keyid in keyids)
