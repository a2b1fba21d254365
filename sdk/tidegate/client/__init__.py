"""Call a Tidegate server, or any server of the Open Inference Protocol."""

from __future__ import annotations

from tidegate.client.client import Client, ListedModel, ModelDescription, ServerDescription
from tidegate.client.streaming import RecognizedSegment, RecognizeStream

__all__ = ["Client", "ListedModel", "ModelDescription", "RecognizeStream", "RecognizedSegment", "ServerDescription"]
