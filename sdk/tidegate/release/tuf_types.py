"""The names of python-tuf and securesystemslib that this room uses; says which extra to install if they are missing."""

from __future__ import annotations

from tidegate.release.error_mapping import missing

try:
    from securesystemslib.signer import CryptoSigner, SSlibKey
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
except ImportError as error:
    raise missing(error) from error

__all__ = [
    "CryptoSigner",
    "MetaFile",
    "Metadata",
    "RepositoryError",
    "Root",
    "SSlibKey",
    "Signed",
    "Snapshot",
    "TargetFile",
    "Targets",
    "Timestamp",
]
