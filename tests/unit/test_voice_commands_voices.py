"""The split of voices and words in the voice-commands example."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"
HOMOPHONES = {"know", "write", "whether", "knows", "rite", "wright", "wether"}


def load(name: str) -> ModuleType:
    """Import one script of the example by its path."""
    import sys

    key = f"voice_commands_{name}"
    spec = importlib.util.spec_from_file_location(key, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


voices = load("voices")
words = load("words")


def test_no_test_voice_speaks_in_training() -> None:
    train = {voice.key for voice in voices.train_voices()}
    test = {voice.key for group in voices.test_groups().values() for voice in group}
    assert train.isdisjoint(test)


def test_held_out_variants_occur_with_no_accent_in_training() -> None:
    spoken = {v.name.partition("+")[2] for v in voices.train_voices() if v.engine == "espeak"}
    assert spoken.isdisjoint(voices.HELD_OUT_VARIANTS)
    tested = {v.name.partition("+")[2] for v in voices.held_out_espeak_voices()}
    assert tested <= set(voices.HELD_OUT_VARIANTS)


def test_training_never_uses_the_unseen_synthesiser() -> None:
    engines = {voice.engine for voice in voices.train_voices()}
    assert engines == {"espeak", "flite"}
    assert {voice.engine for voice in voices.unseen_synthesiser_voices()} == {"festival"}


def test_every_accent_occurs_in_training() -> None:
    spoken = {v.name.partition("+")[0] for v in voices.train_voices() if v.engine == "espeak"}
    assert spoken == set(voices.ESPEAK_ACCENTS)


def test_labels_begin_with_silence_and_unknown_and_hold_the_commands() -> None:
    assert words.LABELS[:2] == ("silence", "unknown")
    assert set(words.LABELS[2:]) == set(words.COMMANDS)
    assert len(set(words.LABELS)) == len(words.LABELS) == 14


def test_unknown_words_are_no_commands_and_no_homophones_of_them() -> None:
    unknown = set(words.TRAIN_UNKNOWN_WORDS) | set(words.TEST_ONLY_WORDS)
    assert unknown.isdisjoint(words.COMMANDS)
    assert unknown.isdisjoint(HOMOPHONES)
    assert len(words.TRAIN_UNKNOWN_WORDS) >= 200


def test_test_only_words_are_not_in_training() -> None:
    assert set(words.TEST_ONLY_WORDS).isdisjoint(words.TRAIN_UNKNOWN_WORDS)


def test_sentences_hold_no_command() -> None:
    spoken = {word for sentence in words.SENTENCES for word in sentence.split()}
    assert spoken.isdisjoint(words.COMMANDS)
