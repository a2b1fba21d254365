"""A window: what a device counts between two reports. One pass, memory that does not grow with the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.arrays import Array
from tidegate.errors import InputError
from tidegate.profile.document import Profile, encode
from tidegate.profile.encoding import decode_summary, encode_summary, read_varints, varints
from tidegate.profile.measures.column import Column
from tidegate.profile.summary import Summary, empty, summarise
from tidegate.profile.tensors import measure

MAGIC = b"TGW1"
_DIGEST_BYTES = 8


class Window:
    """Counts of one profile's features."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.identity = hashlib.sha256(encode(profile)).digest()[:_DIGEST_BYTES]
        """first eight bytes of the SHA-256 of the profile's canonical bytes"""
        self._summaries: list[Summary] = [empty(feature) for feature in profile.features]

    def add(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array] | None = None,
        lengths: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        """Count some rows.

        Args:
            inputs: [rows, ...] by name; tensors that the profile does not know, or that are absent, are left out.
            outputs: what the model answered, in the same form.
            lengths: samples of each row of a padded audio input before the padding.

        Raises:
            InputError: an array is not of the form that the profile was made for; then nothing is counted.
        """
        added: dict[str, Column] = {}
        for rule in self.profile.tensors:
            side = inputs if rule.side == "input" else outputs or {}
            if rule.name in side:
                columns = measure(rule, side[rule.name], (lengths or {}).get(rule.name))
                added |= {f"{rule.tensor}/{name}": column for name, column in columns.items()}
        fresh = list(self._summaries)
        for place, feature in enumerate(self.profile.features):
            if feature.name in added:
                fresh[place] = fresh[place].merge(summarise(feature, added[feature.name]))
            elif feature.tensor.partition("/")[2] in (inputs if feature.tensor.startswith("input/") else outputs or {}):
                raise InputError(
                    f"{feature.tensor} has no {feature.measure}, which the profile was made for",
                    fix="use the profile that belongs to this model",
                )
        self._summaries = fresh

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """One for each feature of the profile, in its order."""
        return tuple(self._summaries)

    def merge(self, other: Window) -> Window:
        """Return the window of both's rows. Exact, associative and commutative.

        Raises:
            InputError: the windows belong to different profiles.
        """
        if self.identity != other.identity:
            raise InputError(
                "windows of different profiles cannot be merged", fix="merge windows of one release of the model"
            )
        return self._with([a.merge(b) for a, b in zip(self._summaries, other._summaries, strict=True)])

    def encode(self) -> bytes:
        """Return the bytes to report: 12 of head, the number of features, at most 100 for each.

        Raises:
            InputError: more than 2,097,151 rows.
        """
        records = [
            encode_summary(feature, summary)
            for feature, summary in zip(self.profile.features, self._summaries, strict=True)
        ]
        return b"".join([MAGIC, self.identity, varints([len(records)]), *records])

    @classmethod
    def decode(cls, raw: bytes, profile: Profile) -> Window:
        """Parse what `encode` wrote.

        Raises:
            InputError: not a window, damaged, or made with another profile.
        """
        window = cls(profile)
        head = len(MAGIC) + _DIGEST_BYTES
        if raw[: len(MAGIC)] != MAGIC:
            raise InputError("the bytes are not a window summary", fix="give what Window.encode wrote")
        if raw[len(MAGIC) : head] != window.identity:
            raise InputError(
                f"the window summary was made with profile {raw[len(MAGIC) : head].hex()}; "
                f"this is profile {window.identity.hex()}",
                fix="use the profile of the release that the device ran",
            )
        (count,), position = read_varints(raw, head, 1)
        if count != len(profile.features):
            raise InputError(
                f"the window summary has {count} features; expected {len(profile.features)}", fix="send it again"
            )
        summaries = []
        for feature in profile.features:
            summary, position = decode_summary(feature, raw, position)
            summaries.append(summary)
        if position != len(raw):
            raise InputError(f"the window summary has {len(raw) - position} bytes too many", fix="send it again")
        return window._with(summaries)

    def _with(self, summaries: list[Summary]) -> Window:
        other = Window.__new__(Window)
        other.profile, other.identity, other._summaries = self.profile, self.identity, summaries
        return other
