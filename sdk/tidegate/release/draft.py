"""A change of a channel's metadata before it is written: a list of steps, signed in one go or by several in turns.

Root and targets may ask for more than one key, whose holders keep them apart. So what the offline roles sign is put
down first, as a draft that can be carried from one holder to the next; then it is carried out (`applying`). Snapshot
and timestamp state digests of what was signed before them, so a draft only says when they are signed, and the machine
that carries it out does it. docs/channel.md has the file's form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from tidegate.errors import BundleError, ConfigError
from tidegate.release.error_mapping import mapped
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ONLINE
from tidegate.release.tuf_types import Metadata, Root, Targets

SCHEMA = "tidegate.draft/1"

Step: TypeAlias = "Metadata[Any] | str"
"""A root or targets to write, or the name of an online role to sign at that point."""


@dataclass(frozen=True)
class Draft:
    """Steps in the order in which they are taken; each leaves a channel that clients accept."""

    base: Metadata[Root] | None
    """the newest root when the draft was made; None for a new channel"""
    base_targets: int
    """version of the newest targets then; 0 for a new channel"""
    steps: tuple[Step, ...]

    @property
    def documents(self) -> list[Metadata[Any]]:
        """What is written: roots and targets."""
        return [step for step in self.steps if not isinstance(step, str)]

    @property
    def online(self) -> list[str]:
        """The online roles that sign when the draft is carried out."""
        return list(dict.fromkeys(step for step in self.steps if isinstance(step, str)))

    @property
    def last_root(self) -> Root:
        """The root that holds when all is done."""
        roots = [document.signed for document in self.documents if isinstance(document.signed, Root)]
        return roots[-1] if roots else self._base_root

    @property
    def _base_root(self) -> Root:
        assert self.base is not None, "a draft without a base begins with a root"
        return self.base.signed

    def to_bytes(self) -> bytes:
        """Return the draft as a file."""
        value = {
            "schema": SCHEMA,
            "base": {"root": self.base.to_dict() if self.base else None, "targets_version": self.base_targets},
            "steps": [step if isinstance(step, str) else step.to_dict() for step in self.steps],
        }
        return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


@dataclass(frozen=True)
class Signatures:
    """How far a document's signatures reach one threshold."""

    asked_by: str
    """whose keys and threshold: such as `root 1`"""
    threshold: int
    signed: tuple[str, ...]
    """ids of the keys whose signature is there and valid"""
    waiting: tuple[str, ...]
    """ids of the other keys that may sign"""

    @property
    def missing(self) -> int:
        """How many more signatures are needed."""
        return max(0, self.threshold - len(self.signed))


def read_draft(raw: bytes, *, origin: str) -> Draft:
    """Read a draft.

    Raises:
        BundleError: it is not one, or of another version.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_a_draft(origin, str(error)) from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise _not_a_draft(origin, f"it has schema {schema!r}; expected {SCHEMA!r}")
    with mapped(origin):
        try:
            root = value["base"]["root"]
            draft = Draft(
                base=Metadata.from_dict(root) if root else None,
                base_targets=int(value["base"]["targets_version"]),
                steps=tuple(step if isinstance(step, str) else Metadata.from_dict(step) for step in value["steps"]),
            )
            for document in draft.documents:
                document.signed_bytes  # noqa: B018  what cannot be signed is refused here
        except KeyError as error:
            raise _not_a_draft(origin, f"it lacks {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise _not_a_draft(origin, str(error)) from error
    problem = _problem(draft)
    if problem:
        raise _not_a_draft(origin, problem)
    return draft


def name_of(document: Metadata[Any]) -> str:
    """Return the name of the file that the document becomes."""
    return f"{document.signed.version}.{document.signed.type}.json"


def askers(draft: Draft) -> Iterator[tuple[Metadata[Any], list[Root]]]:
    """Yield each document with the roots whose threshold it must reach.

    A root: the one before and itself. Targets: the root that holds when they are written, and the last.
    """
    current = draft.base.signed if draft.base else None
    for document in draft.documents:
        if isinstance(document.signed, Root):
            yield document, [root for root in (current, document.signed) if root is not None]
            current = document.signed
        else:
            assert current is not None
            roots = [current, draft.last_root]
            yield document, roots[:1] if roots[0] is roots[1] else roots


def signatures(document: Metadata[Any], roots: Sequence[Root]) -> list[Signatures]:
    """Tell who signed a document and who else may, for each root that asks."""
    found = []
    for root in roots:
        result = root.get_verification_result(document.signed.type, document.signed_bytes, document.signatures)
        found.append(
            Signatures(
                f"root {root.version}", result.threshold, tuple(sorted(result.signed)), tuple(sorted(result.unsigned))
            )
        )
    return found


def sign(draft: Draft, keys: KeyRing) -> list[str]:
    """Sign every document with the keys at hand that count for it and have not signed it; return their ids.

    Raises:
        ConfigError: a passphrase is wrong.
    """
    used: dict[str, None] = {}
    for document, roots in askers(draft):
        for keyid in sorted({keyid for one in signatures(document, roots) for keyid in one.waiting} & keys.keyids):
            with mapped(name_of(document)):
                document.signatures.pop(keyid, None)
                document.sign(keys.signer(keyid), append=True)
            used[keyid] = None
    return list(used)


def check_may_sign(draft: Draft, keys: KeyRing) -> None:
    """Check that at least one of the keys at hand counts for a document of the draft.

    Raises:
        ConfigError: none does; names those that do.
    """
    counting = {
        keyid
        for document, roots in askers(draft)
        for root in roots
        for keyid in root.roles[document.signed.type].keyids
    }
    if not counting & keys.keyids:
        known = ", ".join(keyid[:8] for keyid in sorted(counting))
        raise ConfigError(
            f"none of the {len(keys.keyids)} keys at hand may sign this draft; these may: {known}",
            fix="name another key with --keys; `tidegate keys show` tells ids",
        )


def check_signed(draft: Draft) -> None:
    """Check that every document has all signatures that it needs.

    Raises:
        ConfigError: names the document, how many are missing and who may sign.
    """
    for document, roots in askers(draft):
        for found in signatures(document, roots):
            if found.missing:
                raise ConfigError(
                    f"{name_of(document)} needs {found.threshold} signatures by keys of {document.signed.type} in "
                    f"{found.asked_by} and has {len(found.signed)}; "
                    f"not signed: {', '.join(keyid[:8] for keyid in found.waiting)}",
                    fix="let one of their holders run `tidegate keys sign` on the draft",
                )


def _problem(draft: Draft) -> str:
    """Return what is wrong with the order or kinds of a draft's steps, or nothing."""
    for step in draft.steps:
        if isinstance(step, str) and step not in ONLINE:
            return f"it has a step {step!r}; expected {' or '.join(ONLINE)}"
        if not isinstance(step, str) and not isinstance(step.signed, (Root, Targets)):
            return f"it holds {step.signed.type} metadata; expected root or targets"
    if not draft.documents:
        return "it changes nothing"
    if draft.base is None and not isinstance(draft.documents[0].signed, Root):
        return "it has no root"
    if draft.base is not None and not isinstance(draft.base.signed, Root):
        return "its base is no root"
    for one in (*([draft.base] if draft.base else []), *draft.documents):
        if type(one.signed.version) is not int:
            return f"it holds version {one.signed.version!r}; expected a whole number"
    for root in (*([draft.base] if draft.base else []), *draft.documents):
        if isinstance(root.signed, Root) and not _names_its_keys(root.signed):
            return f"root {root.signed.version} names keys that it does not hold"
    versions = [draft.base.signed.version if draft.base else 0]
    versions += [document.signed.version for document in draft.documents if isinstance(document.signed, Root)]
    if versions != list(range(versions[0], versions[0] + len(versions))):
        return f"its roots have versions {versions}; expected each to follow the one before"
    return ""


def _names_its_keys(root: Root) -> bool:
    return all(
        type(role.threshold) is int and all(isinstance(keyid, str) and keyid in root.keys for keyid in role.keyids)
        for role in root.roles.values()
    )


def _not_a_draft(origin: str, what: str) -> BundleError:
    return BundleError(
        f"{origin} is not a draft that can be read: {what}", fix="name a file that --draft wrote, unaltered"
    )
