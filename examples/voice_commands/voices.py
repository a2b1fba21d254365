"""The voices that speak the training and the test words, and their split.

A *voice* is one speaker of one synthesiser.  The split is by voice: a voice of
the test set says nothing in training.  The variants in
:data:`HELD_OUT_VARIANTS` occur in no training voice with any accent, and the
accent ``en-us-nyc`` occurs in no training voice at all.  Festival is the unseen
synthesiser: all of its voices are test voices.
"""

from __future__ import annotations

from dataclasses import dataclass

ESPEAK_ACCENTS: tuple[str, ...] = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)

ESPEAK_VARIANTS: tuple[str, ...] = tuple(
    """
    m1 m2 m3 m4 m5 m8 f1 f2 f3 f5 adam Alex Alicia Andrea Annie anika antonio
    aunty belinda benjamin boris caleb david Denis Diogo ed edward2 Gene Gene2
    gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john Lee marcelo Marco
    Mario max Michael michel miguel Mike Nguyen norbert pablo paul pedro quincy
    rob robert sandro shelby steph steph2 steph3 travis victor grandma grandpa
    klatt klatt2 klatt4 klatt5 klatt6
    """.split()  # noqa: SIM905
)

HELD_OUT_VARIANTS: tuple[str, ...] = ("f4", "m6", "m7", "edward", "linda", "Andy", "zac", "klatt3")

FLITE_TRAIN_VOICES: tuple[str, ...] = ("kal", "kal16", "awb", "slt")
FLITE_TEST_VOICES: tuple[str, ...] = ("rms",)
FESTIVAL_VOICES: tuple[str, ...] = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")


@dataclass(frozen=True)
class Voice:
    """One speaker of one synthesiser."""

    engine: str
    """``espeak``, ``flite`` or ``festival``."""
    name: str
    """Voice name in the synthesiser's own notation, such as ``en-us+f3``."""

    @property
    def key(self) -> str:
        """File-safe identifier, such as ``espeak-en-us+f3``."""
        return f"{self.engine}-{self.name}"

    @property
    def is_natural(self) -> bool:
        """True for voices built from recordings of a person."""
        return self.engine != "espeak"


def train_voices() -> tuple[Voice, ...]:
    """Return every voice that may be heard in training.

    Every variant speaks with three of the seven accents, chosen by rotation so
    that all accents occur equally often.
    """
    espeak = tuple(
        Voice("espeak", f"{ESPEAK_ACCENTS[(index + step) % len(ESPEAK_ACCENTS)]}+{variant}")
        for index, variant in enumerate(ESPEAK_VARIANTS)
        for step in (0, 2, 5)
    )
    return espeak + tuple(Voice("flite", name) for name in FLITE_TRAIN_VOICES)


def held_out_espeak_voices() -> tuple[Voice, ...]:
    """Return the eSpeak NG test voices: variants that no training voice uses."""
    names = (
        "en-gb-scotland+f4",
        "en-us+m7",
        "en-gb-x-rp+edward",
        "en-us+linda",
        "en-029+Andy",
        "en-gb+zac",
        "en-us-nyc+m6",
        "en-us-nyc+f4",
        "en-us+klatt3",
    )
    return tuple(Voice("espeak", name) for name in names)


def held_out_flite_voices() -> tuple[Voice, ...]:
    """Return the flite test voices."""
    return tuple(Voice("flite", name) for name in FLITE_TEST_VOICES)


def unseen_synthesiser_voices() -> tuple[Voice, ...]:
    """Return the voices of the synthesiser that training never uses."""
    return tuple(Voice("festival", name) for name in FESTIVAL_VOICES)


def test_groups() -> dict[str, tuple[Voice, ...]]:
    """Return the test voices by group, in the order of the report."""
    return {
        "held-out espeak-ng": held_out_espeak_voices(),
        "held-out flite": held_out_flite_voices(),
        "unseen synthesiser": unseen_synthesiser_voices(),
    }
