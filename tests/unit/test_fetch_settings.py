"""Settings of a fetch: what they refuse, and that no password gets into a message."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.errors import ConfigError
from tidegate.fetch.settings import FetchSettings, check_url


def test_the_defaults_are_usable() -> None:
    assert FetchSettings().window_bytes == 15_000


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["connect_timeout_s", "read_timeout_s"])
def test_time_outs_are_positive(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        FetchSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("minimum_bytes_per_s", -1.0),
        ("minimum_bytes_per_s", float("nan")),
        ("backoff_s", -0.1),
        ("attempts", 0),
        ("maximum_release_bytes", 0),
        ("parallel_files", 0),
        ("user_agent", ""),
        ("user_agent", "two\r\nlines"),
        ("user_agent", "Gerät"),
        ("proxy", "proxy:3128"),
        ("proxy", "socks5://proxy:1080"),
        ("proxy", "http://"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name) as raised:
        FetchSettings(**{name: value})
    assert raised.value.fix


@pytest.mark.parametrize("proxy", [None, "", "http://proxy:3128", "https://name:word@proxy"])
def test_proxies(proxy: str | None) -> None:
    assert FetchSettings(proxy=proxy).proxy == proxy


@pytest.mark.parametrize("url", ["https://a.example/x", "http://[::1]:8000/x", "http://127.0.0.1:1"])
def test_addresses_of_web_servers(url: str) -> None:
    check_url(url, "it")


def test_no_message_has_a_password() -> None:
    with pytest.raises(ConfigError) as raised:
        FetchSettings(proxy="ftp://name:secret@proxy")
    assert "secret" not in str(raised.value)
    assert "ftp://…@proxy" in str(raised.value)
