"""A channel as tables: roles, tracks, warnings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tidegate.cli.printing import print_table

if TYPE_CHECKING:
    from tidegate.release.report import ChannelReport
    from tidegate.release.track import Offer, Track


def print_channel(found: ChannelReport) -> None:
    """Print roles and tracks as tables, warnings on standard error."""
    print_table(
        ("role", "version", "expires", "state", "keys"),
        [
            (
                role.role,
                str(role.version),
                f"{role.expires:%Y-%m-%d %H:%M} UTC",
                role.state,
                f"{role.threshold} of {', '.join(keyid[:8] for keyid in role.keyids)}",
            )
            for role in found.roles
        ],
    )
    if found.tracks:
        print()
        print_table(
            ("model", "track", "release", "version", "share", "offered", "state"),
            [_row(track, offer) for track in found.tracks for offer in reversed(track.offers)],
        )
    print(f"\n{found.files} files of content, {found.size_bytes:,} bytes")
    warn(found)


def _row(track: Track, offer: Offer) -> tuple[str, ...]:
    if offer.withdrawn:
        state = f"withdrawn: {offer.withdrawn.reason}"
    else:
        state = f"takes back {offer.rollback_of}: {offer.reason}" if offer.rollback_of else "offered"
    share = f"{offer.rollout.percent} %"
    return (track.model, track.track, str(offer.release), offer.version, share, offer.offered_at, state)


def warn(found: ChannelReport) -> None:
    """Print the warnings on standard error."""
    for warning in found.warnings:
        sys.stderr.write(f"warning: {warning}\n")
