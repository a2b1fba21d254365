"""A channel in figures: who may sign until when, what each track offers, and what will need somebody soon."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import msgspec

from tidegate.release.lifetimes import ROLES
from tidegate.release.repository import TARGETS, Repository, lifetimes_of
from tidegate.release.track import Track

_WARN_BELOW = 0.25
"""Share of a lifetime that is left when a role is reported as expiring."""


class RoleReport(msgspec.Struct, frozen=True, kw_only=True):
    """One role."""

    role: str
    version: int
    expires: datetime
    state: str
    """`valid`, `expiring` or `expired`"""
    threshold: int
    keyids: tuple[str, ...]


class ChannelReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `tidegate channel show` prints."""

    path: str
    roles: tuple[RoleReport, ...]
    tracks: tuple[Track, ...]
    files: int
    """distinct files of all releases"""
    size_bytes: int
    staged: bool
    """something is signed that clients do not see yet"""
    warnings: tuple[str, ...]


def report(repository: Repository, now: datetime, *, check_files: bool = False) -> ChannelReport:
    """Describe a channel at a moment.

    Args:
        repository: as read.
        now: UTC.
        check_files: read every target and hold it against its digest.
    """
    roles = tuple(_role(repository, role, now) for role in ROLES)
    files = [file for path, file in repository.files.items() if path.startswith("files/")]
    warnings = [_expiry_warning(role, now) for role in roles if role.state != "valid"]
    if repository.staged:
        warnings.append(
            f"targets {repository.targets.version} are signed and not live: `tidegate channel refresh` makes them so"
        )
    if check_files:
        warnings += _altered_files(repository)
    return ChannelReport(
        path=str(repository.path),
        roles=roles,
        tracks=tuple(repository.tracks()),
        files=len(files),
        size_bytes=sum(file.length for file in files),
        staged=repository.staged,
        warnings=tuple(warnings),
    )


def _role(repository: Repository, role: str, now: datetime) -> RoleReport:
    document = getattr(repository, role)
    left: timedelta = document.signed.expires - now
    expiring = left < lifetimes_of(repository.root.signed).of(role) * _WARN_BELOW
    holders = repository.root.signed.roles[role]
    return RoleReport(
        role=role,
        version=document.version,
        expires=document.signed.expires,
        state="expired" if left <= timedelta(0) else "expiring" if expiring else "valid",
        threshold=holders.threshold,
        keyids=tuple(holders.keyids),
    )


def _expiry_warning(role: RoleReport, now: datetime) -> str:
    remedy = {
        "root": "`tidegate keys rotate --role root` renews it",
        "targets": "any release renews it, or `tidegate channel refresh --targets`",
    }.get(role.role, "`tidegate channel refresh` renews it")
    if role.state == "expired":
        return f"{role.role} expired at {role.expires:%Y-%m-%d %H:%M} UTC, devices refuse it: {remedy}"
    hours = (role.expires - now).total_seconds() / 3600
    return f"{role.role} expires in {f'{hours / 24:.0f} days' if hours >= 48 else f'{hours:.1f} hours'}: {remedy}"


def _altered_files(repository: Repository) -> list[str]:
    problems = []
    for file in repository.files.values():
        (name,) = file.get_prefixed_paths()
        try:
            found = hashlib.sha256((repository.path / TARGETS / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            problems.append(f"{TARGETS}/{name} is missing: {_remedy(file.path)}")
            continue
        if found != file.hashes["sha256"]:
            problems.append(f"{TARGETS}/{name} has SHA-256 {found}: {_remedy(file.path)}")
    return problems


def _remedy(path: str) -> str:
    kind = path.partition("/")[0]
    return {
        "deltas": "devices fetch the full file instead",
        "tracks": "devices do not need it, and the next change of the track writes another",
    }.get(kind, "publish its bundle again on the same track, which mends it")
