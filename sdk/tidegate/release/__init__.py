"""Releases on a channel: who may sign, what a track offers to which device, and how both reach a static web server.

This import is light and needs no extra: the track document and the cohort, which a device reads too. What signs and
publishes is in `tidegate.release.channel`, `.keys` and `.rotation`, and needs `tidegate[release]`.
"""

from tidegate.release.cohort import cohort, in_cohort
from tidegate.release.lifetimes import Lifetimes
from tidegate.release.track import FileReference, Offer, OfferedVariant, Rollout, Track, Withdrawal

__all__ = [
    "FileReference",
    "Lifetimes",
    "Offer",
    "OfferedVariant",
    "Rollout",
    "Track",
    "Withdrawal",
    "cohort",
    "in_cohort",
]
