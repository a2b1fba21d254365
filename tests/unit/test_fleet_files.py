"""Copies of bundles that workers share: what a worker that comes later is offered, whatever became of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.served import linear_bundle

from tidegate.cloud.fleet_files import FleetFiles
from tidegate.cloud.sources import BundleFiles, Listing, Offer
from tidegate.errors import BundleError, ModelError, ResourceError

Worker = Callable[[], FleetFiles]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir()
    linear_bundle(directory)
    return directory


@pytest.fixture(params=[False, True], ids=["once", "watching"])
def follows(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def worker(tmp_path: Path, models: Path, follows: bool) -> Worker:
    return lambda: FleetFiles(BundleFiles([models]), tmp_path / "copies", follows=follows)


def serve(files: FleetFiles) -> Listing:
    """Load what is offered, as a worker does."""
    listing = files.list()
    for offer in listing.offers:
        load(files, offer)
    return listing


def load(files: FleetFiles, offer: Offer) -> None:
    with files.open(offer) as bundle:
        assert bundle.manifest.version == offer.version
        bundle.verify_files()
    files.told(offer, None)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_later_worker_is_offered_what_a_broken_file_once_was(worker: Worker, models: Path, follows: bool) -> None:
    before = serve(worker())
    cut(models / "linear-1.0.0.tide")
    later = worker()
    listing = serve(later)
    assert listing.offers == before.offers
    # A watch tells of it at every look; without one nobody looks.
    assert [place for place, _ in listing.problems] == [str(models / "linear-1.0.0.tide")] * follows


def test_only_a_watch_follows_files_that_come_and_go(worker: Worker, models: Path, follows: bool) -> None:
    first = worker()
    serve(first)
    (models / "linear-1.0.0.tide").unlink()
    linear_bundle(models, version="1.1.0")
    for files in (first, worker()):
        assert [offer.version for offer in serve(files).offers] == [["1.0.0"], ["1.1.0"]][follows]


@pytest.mark.parametrize("follows", [True], indirect=True)
def test_a_content_that_failed_in_one_worker_is_not_offered_to_the_others(worker: Worker, models: Path) -> None:
    first, second = worker(), worker()
    good = serve(first).offers
    serve(second)
    linear_bundle(models, factor=2.0)
    (bad,) = first.list().offers
    assert bad not in good
    first.told(bad, ModelError("golden", fix=""))
    for files in (first, second, worker()):
        listing = serve(files)
        assert listing.offers == good
        assert [place for place, _ in listing.problems] == [bad.location]
    linear_bundle(models, factor=3.0)
    listing = serve(second)
    assert listing.problems == ()
    assert not set(listing.offers) & {bad, *good}


@pytest.mark.parametrize("follows", [True], indirect=True)
def test_what_may_work_later_is_tried_again(worker: Worker, models: Path) -> None:
    files = worker()
    serve(files)
    linear_bundle(models, factor=2.0)
    (new,) = files.list().offers
    files.told(new, ResourceError("memory", fix=""))
    assert files.list() == Listing((new,))


@pytest.mark.parametrize("follows", [True], indirect=True)
def test_copies_go_when_their_versions_do(worker: Worker, models: Path, tmp_path: Path) -> None:
    files = worker()
    for factor in range(3):
        linear_bundle(models, factor=float(factor + 1))
        serve(files)
    assert len(list((tmp_path / "copies").glob("*.tide"))) == 1
    (models / "linear-1.0.0.tide").unlink()
    assert files.list().offers == ()
    assert list((tmp_path / "copies").glob("*.tide")) == []


def test_a_file_that_changes_between_look_and_copy_is_refused(worker: Worker, models: Path) -> None:
    files = worker()
    (offer,) = files.list().offers
    linear_bundle(models, factor=2.0)
    with pytest.raises(BundleError, match="changed while it was read"):
        files.open(offer)


def test_a_directory_is_copied_as_a_whole(tmp_path: Path, models: Path) -> None:
    import zipfile

    (packed,) = models.iterdir()
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "loose")
    files = FleetFiles(BundleFiles([tmp_path / "loose"]), tmp_path / "copies", follows=False)
    assert len(serve(files).offers) == 1


def test_a_start_with_a_broken_file_is_not_the_look_for_all(worker: Worker, models: Path) -> None:
    whole = (models / "linear-1.0.0.tide").read_bytes()
    cut(models / "linear-1.0.0.tide")
    assert len(worker().list().problems) == 1
    (models / "linear-1.0.0.tide").write_bytes(whole)
    assert len(serve(worker()).offers) == 1
