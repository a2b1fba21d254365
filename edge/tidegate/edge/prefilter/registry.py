"""From the name in a bundle's manifest to a detector.

To add a detector: write a class with the methods of `Detector`, a class attribute `Options` (a frozen dataclass of
int and float fields that checks itself) and a constructor that takes one `Options`; put its import path into `KINDS`;
run tidegate.testing.detector_contract on it. Names joined by `+` make a detector in which all parts must agree.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.prefilter.combine import AllOf
from tidegate.edge.prefilter.protocol import Detector
from tidegate.errors import ConfigError

KINDS: dict[str, str] = {
    "webrtc": "tidegate.edge.prefilter.webrtc:WebrtcDetector",
    "energy": "tidegate.edge.prefilter.energy:EnergyDetector",
}
"""Name -> `module:Class`; imported when first asked for."""


def make_detector(settings: PrefilterSettings) -> Detector:
    """Return the detector that `settings.kind` and `settings.options` describe.

    Raises:
        ConfigError: an unknown kind or option (the known ones are listed), or a value out of range.
        DependencyError: the detector's package is not installed.
    """
    classes = [_find(name) for name in settings.kind.split("+")]
    _check_options(settings, classes)
    parts: list[Detector] = [kind(_options(kind, settings.options)) for kind in classes]
    _check_frames(settings.kind, parts)
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _find(name: str) -> Any:
    path = KINDS.get(name)
    if path is None:
        raise ConfigError(
            f"unknown prefilter kind {name!r}; known: {', '.join(sorted(KINDS))}, or several joined by '+'",
            fix="correct `kind` in the bundle's prefilter settings",
        )
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _check_options(settings: PrefilterSettings, classes: list[Any]) -> None:
    known = sorted({field.name for kind in classes for field in fields(kind.Options)})
    unknown = sorted(set(settings.options) - set(known))
    if unknown:
        raise ConfigError(
            f"prefilter {settings.kind!r} has no option {', '.join(map(repr, unknown))}; known: {', '.join(known)}",
            fix="correct `options` in the bundle's prefilter settings",
        )


def _options(kind: Any, given: Mapping[str, float]) -> Any:
    """Build `kind.Options` from its share of the options; whole numbers where the field is an int."""
    values: dict[str, float] = {}
    for field in fields(kind.Options):
        if field.name not in given:
            continue
        value = given[field.name]
        if isinstance(field.default, int):
            if not float(value).is_integer():
                raise ConfigError(
                    f"prefilter option {field.name} is {value:g}; expected a whole number",
                    fix="correct `options` in the bundle's prefilter settings",
                )
            value = int(value)
        values[field.name] = value
    return kind.Options(**values)


def _check_frames(kind: str, parts: list[Detector]) -> None:
    lengths = {(part.sample_rate_hz, part.frame_samples) for part in parts}
    if len(lengths) > 1:
        raise ConfigError(
            f"the parts of prefilter {kind!r} hear frames of different length: {sorted(lengths)}",
            fix="set `frame_ms` so that all parts share it",
        )
