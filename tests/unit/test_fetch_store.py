"""The store: a name is given to whole content only, and what is needed stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.conftest import Release

from tidegate.bundle import digest
from tidegate.bundle.manifest import encode
from tidegate.errors import BundleError, ConfigError, IntegrityError, NotFoundError, StateError
from tidegate.fetch import Store, installed_files, open_installed

WORDS = b"yes no up down"
NAME = digest(WORDS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "device" / "store")


def filled(store: Store, release: Release) -> str:
    """Put a release in; return its manifest's digest."""
    manifest, files = release
    for data in files.values():
        store.put(data)
    return store.put(encode(manifest))


def test_making_a_store_touches_no_disk(store: Store) -> None:
    assert not store.has(NAME)
    assert not store.check(NAME)
    assert not store.directory.parent.exists()


def test_what_is_put_is_found_under_its_digest(store: Store) -> None:
    assert store.put(WORDS) == NAME
    assert (store.has(NAME), store.check(NAME), store.read(NAME)) == (True, True, WORDS)
    assert store.path(NAME) == store.directory / "files" / NAME
    inode = store.path(NAME).stat().st_ino
    store.put(WORDS)
    assert store.path(NAME).stat().st_ino == inode, "what is whole is not written again"


@pytest.mark.parametrize("damage", [b"", WORDS[:-1], WORDS[:-1] + b"?", WORDS + b"?"])
def test_damage_is_seen_and_mended_by_putting_again(store: Store, damage: bytes) -> None:
    store.put(WORDS)
    store.path(NAME).write_bytes(damage)
    assert store.has(NAME)
    assert not store.check(NAME)
    with pytest.raises(IntegrityError, match=f"expected {NAME}"):
        store.read(NAME)
    store.put(WORDS)
    assert store.read(NAME) == WORDS


def test_a_finished_download_is_adopted(store: Store) -> None:
    partial = store.partial_path(NAME)
    partial.write_bytes(WORDS)
    assert store.adopt(partial, NAME, len(WORDS)) == store.path(NAME)
    assert store.read(NAME) == WORDS
    assert not partial.exists()


@given(st.binary(max_size=40), st.integers(0, 40))
def test_only_what_was_promised_is_adopted(tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    partial = store.partial_path(NAME)
    partial.write_bytes(data)
    if data == WORDS and size == len(WORDS):
        assert store.adopt(partial, NAME, size).read_bytes() == WORDS
        return
    with pytest.raises(IntegrityError, match="expected"):
        store.adopt(partial, NAME, size)
    assert not store.has(NAME)
    assert not partial.exists(), "more bytes cannot mend it"


def test_adopting_mends_a_damaged_file(store: Store) -> None:
    store.put(WORDS)
    store.path(NAME).write_bytes(b"damaged")
    partial = store.partial_path(NAME)
    partial.write_bytes(WORDS)
    store.adopt(partial, NAME, len(WORDS))
    assert store.check(NAME)


def test_nothing_to_adopt(store: Store) -> None:
    with pytest.raises(NotFoundError, match="not there"):
        store.adopt(store.partial_path(NAME), NAME, 1)
    with pytest.raises(NotFoundError, match="not in the store"):
        store.read(NAME)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", NAME.upper(), NAME + "0", NAME + "\n"])
def test_only_digests_are_names(store: Store, name: str) -> None:
    for call in (store.path, store.has, store.partial_path):
        with pytest.raises(ConfigError, match="not a SHA-256"):
            call(name)


def test_removing_keeps_what_is_needed(store: Store) -> None:
    kept, gone = store.put(b"kept"), store.put(b"gone")
    for sha256 in (kept, gone):
        store.partial_path(sha256).write_bytes(b"be")
    leftover = store.directory / "files" / f".{gone}.0123456789abcdef.part"
    leftover.write_bytes(b"of a writer that was killed")
    store.remove_except({kept})
    assert sorted(path.name for path in store.directory.rglob("*") if path.is_file()) == [kept, kept]
    store.remove_except(set())
    assert not store.has(kept)


def test_removing_from_a_store_that_is_not_there(store: Store) -> None:
    store.remove_except(set())
    assert not store.directory.exists()


def test_an_installed_release_opens_as_a_bundle_of_one_variant(store: Store, release: Release) -> None:
    manifest, files = release
    sha256 = filled(store, release)
    with open_installed(store, sha256, "onnx-fp32") as bundle:
        assert [variant.id for variant in bundle.manifest.variants] == ["onnx-fp32"]
        assert bundle.variant_bytes("onnx-fp32") == files["variants/a.onnx"]
        assert bundle.asset("list") == b""
        assert bundle.golden() is not None
        assert bundle.manifest_bytes == encode(manifest)
        bundle.verify_files()
    with pytest.raises(StateError, match="closed"):
        bundle.read("golden.npz")
    assert set(installed_files(store, sha256, "onnx-fp32")) == {digest(data) for data in files.values()}


def test_an_installed_release_with_a_file_missing_does_not_open(store: Store, release: Release) -> None:
    sha256 = filled(store, release)
    with pytest.raises(NotFoundError, match="no variant 'tflite-int8'; it has onnx-fp32"):
        open_installed(store, sha256, "tflite-int8")
    store.path(digest(release[1]["golden.npz"])).unlink()
    with pytest.raises(NotFoundError, match="not in the store"):
        open_installed(store, sha256, "onnx-fp32")


def test_every_read_of_an_installed_release_is_checked(store: Store, release: Release) -> None:
    sha256 = filled(store, release)
    model = store.path(digest(release[1]["variants/a.onnx"]))
    with open_installed(store, sha256, "onnx-fp32") as bundle:
        model.write_bytes(bytes(reversed(model.read_bytes())))
        with pytest.raises(IntegrityError):
            bundle.variant_bytes("onnx-fp32")
    model.write_bytes(b"short")
    with pytest.raises(IntegrityError, match="5 bytes long"):
        open_installed(store, sha256, "onnx-fp32")


def test_a_manifest_that_changed_is_not_read(store: Store, release: Release) -> None:
    sha256 = filled(store, release)
    path = store.path(sha256)
    path.write_bytes(path.read_bytes().replace(b'"tiny"', b'"evil"'))
    with pytest.raises(IntegrityError):
        open_installed(store, sha256, "onnx-fp32")
    with pytest.raises(BundleError, match="not a manifest"):
        open_installed(store, store.put(b"no manifest"), "onnx-fp32")
