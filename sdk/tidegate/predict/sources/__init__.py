"""Where rows come from: one module a format, all behind `Source`."""

from tidegate.predict.sources.opening import open_source
from tidegate.predict.sources.protocol import Source

__all__ = ["Source", "open_source"]
