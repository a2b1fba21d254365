"""Read a TFLite file just far enough to tell which operators it uses.

Field numbers and operator codes are those of TFLite's schema.fbs (version 3c).
"""

from __future__ import annotations

from typing import Final

from tidegate.runtime import flatbuffer

_OPERATOR_CODES = 1
_OLD_CODE, _CODE = 0, 3

CALL: Final = 31
CUSTOM: Final = 32
DELEGATE: Final = 51
IF: Final = 118
WHILE: Final = 119
NON_MAX_SUPPRESSION_V4: Final = 120
NON_MAX_SUPPRESSION_V5: Final = 121
STABLEHLO_CUSTOM_CALL: Final = 173
STABLEHLO_WHILE: Final = 200
STABLEHLO_COMPOSITE: Final = 206
STABLEHLO_CASE: Final = 209


def operator_codes(content: bytes) -> frozenset[int] | None:
    """Return the code of every operator that any graph of a TFLite file may use, None where the file is damaged."""
    try:
        return frozenset(
            # Codes up to 126 stand in a field of one byte; in files of any age the larger of the two fields counts.
            max(flatbuffer.number(content, item, _OLD_CODE, "<b"), flatbuffer.number(content, item, _CODE, "<i"))
            for item in flatbuffer.tables(content, flatbuffer.unsigned(content, 0), _OPERATOR_CODES)
        )
    except flatbuffer.DAMAGED:
        return None
