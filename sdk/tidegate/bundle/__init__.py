"""One model release: manifest, archive, digests and golden fixtures."""

from tidegate.bundle.bundle import Bundle, ListedFile, digest, write_bundle
from tidegate.bundle.golden import GoldenFixture, OutputError
from tidegate.bundle.manifest import (
    Asset,
    Budgets,
    CriterionResult,
    DecoderSettings,
    EvaluationData,
    FrontEnd,
    Golden,
    Manifest,
    Parity,
    PrefilterSettings,
    Signature,
    TensorSpec,
    TrialSettings,
    Variant,
)
from tidegate.bundle.tree import Limits

__all__ = [
    "Asset",
    "Budgets",
    "Bundle",
    "CriterionResult",
    "DecoderSettings",
    "EvaluationData",
    "FrontEnd",
    "Golden",
    "GoldenFixture",
    "Limits",
    "ListedFile",
    "Manifest",
    "OutputError",
    "Parity",
    "PrefilterSettings",
    "Signature",
    "TensorSpec",
    "TrialSettings",
    "Variant",
    "digest",
    "write_bundle",
]
