"""HTTP beside gRPC on the same core: the Open Inference Protocol's REST form, health, and Prometheus metrics."""

from __future__ import annotations

from tidegate.cloud.http.settings import HttpSettings

__all__ = ["HttpSettings"]
