"""Open one release and read its files, each checked against the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tidegate.bundle.archive import pack
from tidegate.bundle.archive_reader import ArchiveTree
from tidegate.bundle.atomic import write_atomically
from tidegate.bundle.directory import DirectoryTree
from tidegate.bundle.golden import GoldenFixture
from tidegate.bundle.manifest import Manifest, Variant, decode, encode
from tidegate.bundle.paths import MANIFEST_FILE
from tidegate.bundle.rules import check
from tidegate.bundle.tree import Limits, Tree, check_names
from tidegate.errors import BundleError, IntegrityError, NotFoundError

_GET_AGAIN = "get the bundle again; if it stays so, ask its author to rebuild it with `tidegate build`"


@dataclass(frozen=True)
class ListedFile:
    """What the manifest promises of one file."""

    path: str
    sha256: str
    size_bytes: int


class Bundle:
    """One release, from a directory or a `.tide` file. A context manager; reads are safe from several threads."""

    def __init__(self, path: Path, tree: Tree, manifest: Manifest) -> None:
        self.path = path
        self._tree = tree
        self.manifest = manifest
        self._listed = listed_files(self.manifest)
        _check_tree(path, tree, self._listed)

    @classmethod
    def open(cls, path: str | Path, *, limits: Limits | None = None) -> Bundle:
        """Open a bundle and check everything but the digests of files that were not read yet.

        Args:
            path: a `.tide` file or a directory.
            limits: what to refuse whatever the bundle says; default `Limits()`.

        Raises:
            NotFoundError: nothing is there.
            BundleError: the layout or the manifest breaks a rule; the message names file, found and expected.
            IntegrityError: the archive is truncated or contradicts itself or the manifest.
            ResourceError: the system refused to read.
        """
        where, within = Path(path), limits or Limits()
        tree: Tree = DirectoryTree(where, within) if where.is_dir() else ArchiveTree(where, within)
        try:
            return cls(where, tree, _read_manifest(where, tree, within))
        except BaseException:
            tree.close()
            raise

    @classmethod
    def of_tree(cls, path: Path, tree: Tree, manifest: Manifest) -> Bundle:
        """Take files that lie neither in an archive nor in a directory of their own.

        Args:
            path: how messages call the bundle.
            tree: exactly the files that `manifest` lists, and `manifest.json`.
            manifest: read and checked by the caller; may list fewer variants than `manifest.json`.

        Raises:
            BundleError, IntegrityError: tree and manifest disagree on which files there are, or on their sizes.
        """
        return cls(path, tree, manifest)

    @property
    def files(self) -> tuple[ListedFile, ...]:
        """Every file of the bundle but the manifest, sorted by path."""
        return tuple(self._listed[path] for path in sorted(self._listed))

    @property
    def manifest_bytes(self) -> bytes:
        """`manifest.json` as it stands, byte for byte: with fields that a newer minor version may have added."""
        return self._tree.read(MANIFEST_FILE)

    def read(self, file: str) -> bytes:
        """Return one listed file whole; its SHA-256 is checked at every read.

        Raises:
            NotFoundError: the manifest does not list it.
            IntegrityError: its bytes are not those that the manifest promises.
            StateError: the bundle is closed.
        """
        listed = self._listed.get(file)
        if listed is None:
            raise NotFoundError(
                f"bundle {self.path} has no file {file!r}; it has {', '.join(sorted(self._listed))}",
                fix="use a file that `tidegate inspect` shows",
            )
        data = self._tree.read(file)
        found = digest(data)
        if found != listed.sha256:
            raise IntegrityError(
                f"{self.path}: file {file!r} has SHA-256 {found}; expected {listed.sha256}", fix=_GET_AGAIN
            )
        return data

    def verify_files(self) -> None:
        """Read every listed file once.

        Raises:
            IntegrityError: names the first file that differs.
        """
        for listed in self.files:
            self.read(listed.path)

    def variant(self, id: str) -> Variant:
        """Return the variant `id`.

        Raises:
            NotFoundError: names the variants that exist.
        """
        for variant in self.manifest.variants:
            if variant.id == id:
                return variant
        known = ", ".join(variant.id for variant in self.manifest.variants)
        raise NotFoundError(f"bundle {self.path} has no variant {id!r}; it has {known}", fix="choose one of these")

    def variant_bytes(self, id: str) -> bytes:
        """Return the model file of the variant `id`, digest-checked."""
        return self.read(self.variant(id).file)

    def asset(self, name: str) -> bytes | None:
        """Return the asset `name`, digest-checked, or None when the release has none of that name."""
        asset = self.manifest.assets.get(name)
        return None if asset is None else self.read(asset.file)

    def golden(self) -> GoldenFixture | None:
        """Return the golden fixture, digest-checked, or None when the release has none."""
        golden = self.manifest.golden
        return None if golden is None else GoldenFixture.from_npz(self.read(golden.file), origin=golden.file)

    def reference_profile(self) -> bytes | None:
        """Return the reference profile's file, digest-checked, or None when the release has none."""
        profile = self.manifest.reference_profile
        return None if profile is None else self.read(profile.file)

    def close(self) -> None:
        """Let go of the file; reading afterwards raises StateError. Closing twice does nothing."""
        self._tree.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_bundle(manifest: Manifest, files: Mapping[str, bytes], out: Path) -> None:
    """Write a `.tide` file: `manifest.json` first, then the other files sorted by path. The same inputs give the same
    bytes; a failure leaves what stood at `out` as it was.

    Args:
        manifest: lists exactly `files`, with their digests and sizes.
        files: content by path inside the bundle, without `manifest.json`.
        out: the archive to write.

    Raises:
        BundleError: manifest and files disagree, or a rule of the format is broken.
        ResourceError: the disk is full or refuses.
    """
    problems = check(manifest)
    if problems:
        raise BundleError(f"the manifest cannot be written: {'; '.join(problems)}", fix="mend the specification")
    listed = listed_files(manifest)
    check_names(str(out), [MANIFEST_FILE, *files])
    _check_sizes(out, {path: len(data) for path, data in files.items()}, listed)
    for path, data in files.items():
        if digest(data) != listed[path].sha256:
            raise IntegrityError(
                f"{out}: file {path!r} has SHA-256 {digest(data)}; the manifest states {listed[path].sha256}",
                fix="compute the digest from the bytes that are written",
            )
    ordered = sorted(files.items(), key=lambda item: item[0].encode())
    write_atomically(out, pack([(MANIFEST_FILE, encode(manifest)), *ordered]))


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def listed_files(manifest: Manifest) -> dict[str, ListedFile]:
    """Return every file that the manifest names, by path."""
    listed = {v.file: ListedFile(v.file, v.sha256, v.size_bytes) for v in manifest.variants}
    listed |= {a.file: ListedFile(a.file, a.sha256, a.size_bytes) for a in manifest.assets.values()}
    for single in (manifest.golden, manifest.reference_profile):
        if single is not None:
            listed[single.file] = ListedFile(single.file, single.sha256, single.size_bytes)
    return listed


def _read_manifest(path: Path, tree: Tree, limits: Limits) -> Manifest:
    size = tree.sizes.get(MANIFEST_FILE)
    if size is None:
        raise BundleError(
            f"{path} has no {MANIFEST_FILE}, so it is not a bundle",
            fix="name a .tide file or a bundle directory; `tidegate build` makes one from a model file",
        )
    if size > limits.manifest_bytes:
        raise BundleError(
            f"{path}: file {MANIFEST_FILE!r} is {size} bytes long; expected at most {limits.manifest_bytes}",
            fix=_GET_AGAIN,
        )
    return decode(tree.read(MANIFEST_FILE), origin=f"{path}: {MANIFEST_FILE}")


def _check_tree(path: Path, tree: Tree, listed: Mapping[str, ListedFile]) -> None:
    present = {name: size for name, size in tree.sizes.items() if name != MANIFEST_FILE}
    _check_sizes(path, present, listed)


def _check_sizes(origin: Path, present: Mapping[str, int], listed: Mapping[str, ListedFile]) -> None:
    for name in sorted(listed.keys() - present.keys()):
        raise BundleError(
            f"{origin}: file {name!r} is missing; expected {listed[name].size_bytes} bytes as the manifest lists it",
            fix=_GET_AGAIN,
        )
    for name in sorted(present.keys() - listed.keys()):
        raise BundleError(
            f"{origin}: file {name!r} is not listed in the manifest; expected only listed files",
            fix="add it to [assets] of the specification and rebuild, or remove it",
        )
    for name, size in sorted(present.items()):
        if size != listed[name].size_bytes:
            raise IntegrityError(
                f"{origin}: file {name!r} is {size} bytes long; expected {listed[name].size_bytes} bytes",
                fix=_GET_AGAIN,
            )
