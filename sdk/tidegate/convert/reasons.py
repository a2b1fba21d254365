"""Find, in a converter's pages of complaint, the layer or operator that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAXIMUM_CHARACTERS = 400

# As MLIR writes it: loc(callsite(fused["Betainc:", "net/odd/Betainc@__inference_47"] at ...)): 'tf.Betainc' op ...
_PLACE = re.compile(r"""fused\["[^"]*", "([^"@]+)@[^"]*"\][^\n]*?: ('tf[l.][\w.]+' op [^\n]*)""")
_PLAIN = re.compile(r"""('tf[l.][\w.]+' op [^\n]*)""")
_MISSING = re.compile(r"^((?:Custom|Flex|Select TF|TF Select) ops): (.+)$", re.MULTILINE)


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, cut where it turns into a dump."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAXIMUM_CHARACTERS else text[:MAXIMUM_CHARACTERS].rstrip() + " ..."


def tflite_reason(error: Exception) -> str:
    """Return operator and place of a failed conversion to TFLite, else the message on one line."""
    text = str(error)
    placed = _first(f"at {place}: {complaint}" for place, complaint in _PLACE.findall(text))
    missing = _first(f"{kind}: {names}" for kind, names in _MISSING.findall(text))
    plain = _first(_PLAIN.findall(text))
    found = [reason for reason in (placed or plain, missing) if reason]
    return "; ".join(found) or one_line(error)


def keras_reason(error: Exception) -> str:
    """Return the innermost cause: Keras puts the whole configuration of the model in front of it."""
    text = str(error)
    if match := re.search(r"Could not locate (?:class|function) '[^']+'", text):
        return match[0]
    return one_line(ValueError(text.rsplit("Exception encountered: ", 1)[-1]))


def _first(reasons: Iterable[str]) -> str:
    """Return the different reasons, three at most."""
    different = list(dict.fromkeys(reasons))
    return "; ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
