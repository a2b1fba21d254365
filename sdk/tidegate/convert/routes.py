"""Which variant can be made from which kind of source, and by which steps.

A step is `module:function` in this package, imported when it is first taken. It receives what the step before made
(the first one: the opened source) and a `Job`, and returns the path of what it made. Routes that begin alike share
those steps: they are taken once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tidegate.errors import ConfigError

SourceKind = Literal["keras", "savedmodel", "sklearn", "onnx", "tflite"]

Route = tuple[str, ...]

ROUTES: dict[tuple[SourceKind, str], Route] = {
    ("keras", "tflite-fp32"): ("keras:to_savedmodel", "savedmodel:to_tflite_fp32"),
    ("keras", "tflite-fp16"): ("keras:to_savedmodel", "savedmodel:to_tflite_fp16"),
    ("keras", "tflite-dynamic-int8"): ("keras:to_savedmodel", "savedmodel:to_tflite_dynamic_int8"),
    ("keras", "tflite-int8"): ("keras:to_savedmodel", "savedmodel:to_tflite_int8"),
    ("keras", "tflite-int8-io"): ("keras:to_savedmodel", "savedmodel:to_tflite_int8_io"),
    ("keras", "onnx-fp32"): ("keras:to_savedmodel", "savedmodel:to_onnx_fp32"),
    ("keras", "onnx-fp16"): ("keras:to_savedmodel", "savedmodel:to_onnx_fp32", "onnx_quantise:to_fp16"),
    ("keras", "onnx-dynamic-int8"): ("keras:to_savedmodel", "savedmodel:to_onnx_fp32", "onnx_quantise:to_dynamic_int8"),
    ("keras", "onnx-int8"): ("keras:to_savedmodel", "savedmodel:to_onnx_fp32", "onnx_quantise:to_int8"),
    ("savedmodel", "tflite-fp32"): ("savedmodel:to_tflite_fp32",),
    ("savedmodel", "tflite-fp16"): ("savedmodel:to_tflite_fp16",),
    ("savedmodel", "tflite-dynamic-int8"): ("savedmodel:to_tflite_dynamic_int8",),
    ("savedmodel", "tflite-int8"): ("savedmodel:to_tflite_int8",),
    ("savedmodel", "tflite-int8-io"): ("savedmodel:to_tflite_int8_io",),
    ("savedmodel", "onnx-fp32"): ("savedmodel:to_onnx_fp32",),
    ("savedmodel", "onnx-fp16"): ("savedmodel:to_onnx_fp32", "onnx_quantise:to_fp16"),
    ("savedmodel", "onnx-dynamic-int8"): ("savedmodel:to_onnx_fp32", "onnx_quantise:to_dynamic_int8"),
    ("savedmodel", "onnx-int8"): ("savedmodel:to_onnx_fp32", "onnx_quantise:to_int8"),
    ("sklearn", "onnx-fp32"): ("sklearn:to_onnx_fp32",),
    ("onnx", "onnx"): ("ready:as_it_is",),
    ("onnx", "onnx-fp32"): ("ready:as_fp32",),
    ("onnx", "onnx-fp16"): ("ready:as_fp32", "onnx_quantise:to_fp16"),
    ("onnx", "onnx-dynamic-int8"): ("ready:as_fp32", "onnx_quantise:to_dynamic_int8"),
    ("onnx", "onnx-int8"): ("ready:as_fp32", "onnx_quantise:to_int8"),
    ("tflite", "tflite"): ("ready:as_it_is",),
    ("tflite", "tflite-fp32"): ("ready:as_fp32",),
}

CALIBRATED_STEPS = frozenset({"savedmodel:to_tflite_int8", "savedmodel:to_tflite_int8_io", "onnx_quantise:to_int8"})
"""Steps that need representative data, to see between which values each activation lies."""


def variants_from(kind: SourceKind) -> list[str]:
    """Return every variant that can be made from a kind of source."""
    return [variant for source, variant in ROUTES if source == kind]


def routes_for(kind: SourceKind, variants: Sequence[str]) -> dict[str, Route]:
    """Return the route of each wanted variant, in the given order.

    Raises:
        ConfigError: none is wanted, one occurs twice, or there is no such route.
    """
    can = ", ".join(variants_from(kind))
    if not variants:
        raise ConfigError("no variant was asked for", fix=f"choose from {can}")
    routes: dict[str, Route] = {}
    for variant in variants:
        if variant in routes:
            raise ConfigError(f"variant {variant!r} was asked for twice", fix="ask for it once")
        route = ROUTES.get((kind, variant))
        if route is None:
            raise ConfigError(f"a {kind} source gives no variant {variant!r}; it gives {can}", fix="choose from these")
        routes[variant] = route
    return routes


def needs_data(route: Route) -> bool:
    """Say whether a route has a step that must see representative data."""
    return not CALIBRATED_STEPS.isdisjoint(route)
