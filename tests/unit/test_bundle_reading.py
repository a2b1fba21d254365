"""Opening, reading and writing a bundle as its users do."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tidegate.bundle import Bundle, Manifest, write_bundle
from tidegate.errors import BundleError, ConfigError, IntegrityError, NotFoundError, StateError

Release = tuple[Manifest, dict[str, bytes]]


@pytest.fixture(params=["archive", "directory"])
def place(request: pytest.FixtureRequest, tide: Path) -> Path:
    """Return the same release as an archive and as a directory."""
    if request.param == "archive":
        return tide
    with zipfile.ZipFile(tide) as archive:
        archive.extractall(tide.with_suffix(""))
    return tide.with_suffix("")


def test_everything_is_read_back(place: Path, release: Release) -> None:
    manifest, files = release
    with Bundle.open(str(place)) as bundle:
        assert bundle.path == place
        assert bundle.manifest == manifest
        assert {file.path: bundle.read(file.path) for file in bundle.files} == files
        assert bundle.variant("onnx-fp32") == manifest.variants[0]
        assert bundle.variant_bytes("onnx-fp32") == files["variants/a.onnx"]
        assert bundle.asset("list") == b""
        assert bundle.asset("none") is None
        golden = bundle.golden()
        assert golden is not None
        assert golden.outputs["y"].tolist() == [[0.25, 0.25, 0.25]]
        bundle.verify_files()


def test_what_is_not_there_is_named_with_what_is(place: Path) -> None:
    with Bundle.open(place) as bundle:
        with pytest.raises(NotFoundError, match="no variant 'tflite-int8'; it has onnx-fp32"):
            bundle.variant("tflite-int8")
        with pytest.raises(NotFoundError, match=r"no file 'b\.bin'; it has assets/list\.txt, golden\.npz"):
            bundle.read("b.bin")


def test_use_after_close_is_an_error_of_the_caller(place: Path) -> None:
    bundle = Bundle.open(place)
    bundle.close()
    bundle.close()
    with pytest.raises(StateError, match="is closed"):
        bundle.read("golden.npz")


def test_several_threads_read_the_same_bundle(place: Path, release: Release) -> None:
    wrong: list[str] = []

    def read(bundle: Bundle) -> None:
        for _ in range(50):
            wrong.extend(f.path for f in bundle.files if bundle.read(f.path) != release[1][f.path])

    with Bundle.open(place) as bundle:
        threads = [threading.Thread(target=read, args=(bundle,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_bundle_replaced_on_disk_stays_what_it_was_for_its_reader(tide: Path, release: Release) -> None:
    manifest, files = release
    with Bundle.open(tide) as bundle:
        write_bundle(msgspec.structs.replace(manifest, version="9.9.9"), files, tide)
        bundle.verify_files()
        assert bundle.manifest.version == "1.2.3"
    with Bundle.open(tide) as bundle:
        assert bundle.manifest.version == "9.9.9"


def test_a_directory_may_be_reached_through_a_link(tide: Path) -> None:
    """A device points `current` at the slot in use."""
    with zipfile.ZipFile(tide) as archive:
        archive.extractall(tide.with_suffix(""))
    tide.with_name("current").symlink_to(tide.with_suffix(""), target_is_directory=True)
    with Bundle.open(tide.with_name("current")) as bundle:
        bundle.verify_files()


def test_writing_refuses_what_reading_would(release: Release, tmp_path: Path) -> None:
    manifest, files = release
    out = tmp_path / "out.tide"
    cases: list[tuple[Manifest, dict[str, bytes], str]] = [
        (manifest, files | {"extra": b""}, "'extra' is not listed"),
        (manifest, {k: v for k, v in files.items() if k != "golden.npz"}, "'golden.npz' is missing"),
        (manifest, files | {"golden.npz": b"short"}, "is 5 bytes long"),
        (manifest, files | {"variants/a.onnx": b"M" * 240}, "has SHA-256"),
        (manifest, files | {"../x": b""}, "leads out of the bundle"),
        (manifest, files | {"manifest.json": b"{}"}, "occurs twice"),
        (msgspec.structs.replace(manifest, version="1"), files, "not a semantic version"),
    ]
    for bad_manifest, bad_files, complaint in cases:
        with pytest.raises((BundleError, IntegrityError), match=complaint):
            write_bundle(bad_manifest, bad_files, out)
    assert not out.exists()


def test_writing_to_no_place(release: Release, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a directory"):
        write_bundle(*release, tmp_path / "none" / "out.tide")
    with pytest.raises(ConfigError, match="is a directory"):
        write_bundle(*release, tmp_path)


def test_golden_differences_are_measured(tide: Path) -> None:
    with Bundle.open(tide) as bundle:
        golden = bundle.golden()
    assert golden is not None
    cases = [
        (np.full((1, 3), 0.25, np.float32), 0.0, "", True),
        (np.array([[0.25, 0.375, 0.0]], np.float32), 0.25, "", True),
        (np.array([[0.25, 0.625, 0.0]], np.float32), 0.375, "", False),
        (np.full((3,), 0.25, np.float32), np.inf, "has shape [3], expected [1, 3]", False),
        (np.array([[0.25, np.nan, 0.25]], np.float32), np.inf, "has NaN in other places", False),
        (np.array([[b"a", b"b", b"c"]], object), np.inf, "has dtype object", False),
    ]
    for found, size, problem, within in cases:
        (error,) = golden.compare({"y": found}, 0.25)
        assert (error.maximum_error, error.within) == (size, within)
        assert error.problem.startswith(problem)
    (error,) = golden.compare({}, 0.25)
    assert (error.problem, error.within) == ("is missing", False)
