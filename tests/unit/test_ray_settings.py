"""Settings of the Ray application, as `serve run` gives them."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.cloud.ray_serving import place_of
from tidegate.cloud.ray_settings import RaySettings
from tidegate.errors import ConfigError


def test_text_and_values_are_read() -> None:
    settings = RaySettings.of({"bundles": "a.tide,b.tide", "max_replicas": "4", "threads": 2, "drain_s": "5"})
    assert settings == RaySettings(("a.tide", "b.tide"), threads=2, max_replicas=4, drain_s=5.0)
    assert RaySettings.of({"bundles": ["a.tide"]}).bundles == ("a.tide",)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "no bundle"),
    ({"bundles": "a", "replicas": "2"}, "no setting 'replicas'"),
    ({"bundles": "a", "max_replicas": "two"}, "expected int"),
    ({"bundles": "a", "min_replicas": "3", "max_replicas": "2"}, "min_replicas is 3"),
    ({"bundles": "a", "threads": "0"}, "threads is 0"),
    ({"bundles": "a", "versions": "newest"}, "version policy"),
    ({"bundles": "a", "drain_s": "-1"}, "drain_s"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_settings_that_cannot_be_meant_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RaySettings.of(arguments)


@pytest.mark.parametrize("listen", ["127.0.0.1:8001", "0.0.0.0", "0.0.0.0:http"])
def test_an_address_that_ray_cannot_keep_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="every interface"):
        place_of(listen, None)


def test_every_interface_is_taken() -> None:
    assert place_of("0.0.0.0:9000", "auto").port == 9000
