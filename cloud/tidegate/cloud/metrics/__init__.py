"""What Prometheus reads: collected from the core when asked for, merged over workers, written as its text form."""

from __future__ import annotations

from tidegate.cloud.metrics.collect import Metrics
from tidegate.cloud.metrics.requests import RequestCounts
from tidegate.cloud.metrics.values import ValueCounts

__all__ = ["Metrics", "RequestCounts", "ValueCounts"]
