"""What a change of offers means in files and metadata: content and deltas stored, and a draft of new targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from tidegate.release.content import Content
from tidegate.release.delta import custom_of, deltas_to_newest, without_stale_deltas
from tidegate.release.draft import Draft, Step
from tidegate.release.lifetimes import ONLINE
from tidegate.release.repository import Repository, read_metadata
from tidegate.release.track import Track, delta_target, file_target, to_bytes, to_custom, track_target
from tidegate.release.tuf_types import TargetFile
from tidegate.release.writer import Writer


def content_of(writer: Writer, content: Content) -> list[TargetFile]:
    """Store every file of a release by its digest."""
    return [writer.target(file_target(hashlib.sha256(data).hexdigest()), data) for data in content.files()]


def deltas_of(writer: Writer, repository: Repository, changed: Mapping[str, Track], bases: int) -> list[TargetFile]:
    """Store the deltas to what is offered newly, from files that the channel still has."""
    described = []
    for track in changed.values():
        for delta in deltas_to_newest(writer.path, track, bases, repository.files):
            path = delta_target(delta.header.base.sha256, delta.header.full.sha256)
            described.append(writer.target(path, delta.data))
            described[-1].unrecognized_fields["custom"] = custom_of(delta)
    return described


def changed_metadata(
    writer: Writer,
    repository: Repository,
    changed: Mapping[str, Track],
    files: Sequence[TargetFile],
    staged: bool,
    *,
    dropped: frozenset[str] = frozenset(),
) -> Draft:
    """Store the changed track documents; return the steps to new targets, if they differ, and to clients.

    `dropped` are targets that are not named any more.
    """
    described = {file.path: file for file in files}
    for track in changed.values():
        target = writer.target(track_target(track.model, track.track), to_bytes(track))
        target.unrecognized_fields["custom"] = to_custom(track)
        described[target.path] = target
    steps: list[Step] = []
    if dropped or any(repository.files.get(path) != file for path, file in described.items()):
        tracks = {(track.model, track.track): track for track in (*repository.tracks(), *changed.values())}
        named = {path: file for path, file in repository.files.items() if path not in dropped}
        wanted = without_stale_deltas({**named, **described}, tracks.values())
        steps.append(writer.new_targets(repository.root.signed, wanted, after=repository.targets.version))
    if not staged and (steps or repository.staged):
        steps += ONLINE
    return _draft_on(repository, steps)


def renewal(writer: Writer, repository: Repository) -> Draft:
    """Return the steps that sign the targets again as they are, not signed yet."""
    targets = writer.new_targets(repository.root.signed, repository.files, after=repository.targets.version)
    return _draft_on(repository, [targets, *ONLINE])


def _draft_on(repository: Repository, steps: Sequence[Step]) -> Draft:
    return Draft(read_metadata(repository.path, repository.root.signed), repository.targets.version, tuple(steps))


def mended(writer: Writer, repository: Repository, content: Content) -> bool:
    """Write again what is missing or damaged of content that is on the channel; tell whether there was any."""
    if file_target(content.release.manifest.sha256) in repository.files:
        for data in content.files():
            path = file_target(hashlib.sha256(data).hexdigest())
            if path in repository.files:
                writer.target(path, data)
    return writer.written.files > 0
