"""An installed release: its files lie in the store under their digests, and only one variant of it is here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.bundle import Bundle, Manifest
from tidegate.bundle.bundle import listed_files
from tidegate.bundle.manifest import decode
from tidegate.bundle.paths import MANIFEST_FILE
from tidegate.errors import NotFoundError, StateError
from tidegate.fetch.store import Store


def open_installed(store: Store, manifest_sha256: str, variant_id: str) -> Bundle:
    """Open an installed release as a bundle that has one variant. Every read is checked against its digest.

    The bundle's `manifest` lists that variant only; `manifest_bytes` are the author's, with all of them.

    Raises:
        NotFoundError: the manifest, the variant or a file that it lists is not here.
        IntegrityError: the manifest's bytes changed, or a file's size did.
        BundleError: the manifest cannot be read by this version.
        ResourceError: the disk refuses.
    """
    manifest = installed_manifest(store, manifest_sha256, variant_id)
    return Bundle.of_tree(store.path(manifest_sha256), StoreTree(store, manifest_sha256, manifest), manifest)


def installed_manifest(store: Store, manifest_sha256: str, variant_id: str) -> Manifest:
    """Return the manifest of a stored release with the one variant only.

    Raises: as `open_installed`, for the manifest alone.
    """
    origin = f"manifest {manifest_sha256[:12]}"
    whole = decode(store.read(manifest_sha256), origin=origin)
    chosen = tuple(variant for variant in whole.variants if variant.id == variant_id)
    if not chosen:
        known = ", ".join(variant.id for variant in whole.variants)
        raise NotFoundError(f"{origin} has no variant {variant_id!r}; it has {known}", fix="choose one of these")
    return msgspec.structs.replace(whole, variants=chosen)


def installed_files(store: Store, manifest_sha256: str, variant_id: str) -> dict[str, int]:
    """Return digest and size in bytes of each file that the installed release needs, without the manifest.

    Raises: as `installed_manifest`.
    """
    manifest = installed_manifest(store, manifest_sha256, variant_id)
    return {file.sha256: file.size_bytes for file in listed_files(manifest).values()}


class StoreTree:
    """The files of one release by their paths in the bundle, out of the store."""

    def __init__(self, store: Store, manifest_sha256: str, manifest: Manifest) -> None:
        self._store = store
        self._digests = {path: file.sha256 for path, file in listed_files(manifest).items()}
        self._digests[MANIFEST_FILE] = manifest_sha256
        self._sizes = {path: self._size(sha256) for path, sha256 in self._digests.items()}
        self._closed = False

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file when the release was opened, by path."""
        return self._sizes

    def read(self, path: str) -> bytes:
        """Return one file whole, checked against its digest."""
        if self._closed:
            raise StateError(
                f"the release in {self._store.directory} is closed",
                fix="read inside the `with` block, or open it again",
            )
        return self._store.read(self._digests[path])

    def close(self) -> None:
        """Refuse further reads."""
        self._closed = True

    def _size(self, sha256: str) -> int:
        try:
            return self._store.path(sha256).stat().st_size
        except OSError as error:
            raise NotFoundError(
                f"{self._store.path(sha256)} is not in the store: {error.strerror or error}",
                fix="run the update again",
            ) from error
