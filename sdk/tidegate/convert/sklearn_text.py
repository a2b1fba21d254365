"""Make text pipelines mean the same in ONNX Runtime as in scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DEFAULT_TOKENS = r"(?u)\b\w\w+\b"
"""scikit-learn's: two or more letters, digits or underscores of any alphabet."""

TOKENS = r"[\p{L}\p{N}_]{2,}"
"""The same for RE2, whose `\\w` is ASCII only. skl2onnx's own translation cuts words at every letter beyond ASCII, and
keeps words of one letter."""

LOCALE = "C.UTF-8"
"""Part of every C library of Debian, Ubuntu and Fedora. ONNX Runtime's default, en_US.UTF-8, must be installed first,
and a model that asks for it does not load elsewhere."""


def text_options(model: Any) -> dict[Any, Any]:
    """Return skl2onnx's options for every vectoriser with scikit-learn's default words."""
    return {
        id(step): {"tokenexp": TOKENS}
        for step in _parts(model)
        if getattr(step, "token_pattern", None) == DEFAULT_TOKENS
        and step.tokenizer is None
        and getattr(step, "analyzer", "") == "word"
    }


def with_portable_locale(model: Any) -> Any:
    """Set the locale of each StringNormalizer, in place, and return the model."""
    from onnx import helper

    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("locale", LOCALE)])
    return model


def _parts(model: Any) -> Iterator[Any]:
    """Yield an estimator and all that it is made of."""
    yield model
    inner = [step for _, step in getattr(model, "steps", [])]
    inner += [part[1] for part in getattr(model, "transformers_", [])]
    inner += [part for _, part in getattr(model, "transformer_list", [])]
    for step in inner:
        if not isinstance(step, str):
            yield from _parts(step)
