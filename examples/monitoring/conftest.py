"""The speech bundle that the tests of the server use as well."""

from __future__ import annotations

from tests.conftest import tone_bundle

__all__ = ["tone_bundle"]
