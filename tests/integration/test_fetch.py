"""The verified client over a real web server: what it asks for, what it reuses, and what it does when things break."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.fault_server import Request
from tests.fetching import ASSETS, QUICK, World, world
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import digest
from tidegate.errors import (
    BundleError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
    UnavailableError,
)
from tidegate.fetch.download import fetch, plan
from tidegate.fetch.progress import Progress
from tidegate.fetch.trusted import ChannelReader
from tidegate.release.keys import KeyRing
from tidegate.release.lifetimes import ROLES
from tidegate.release.rotation import rotate
from tidegate.release.track import delta_target, file_target
from tidegate.testing.channels import make_channel, open_keys, write_keys


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory, [*ROLES, "timestamp-2", "root-2"])
    return directory


@pytest.fixture(scope="module")
def keys(key_files: Path) -> KeyRing:
    return open_keys(key_files)


@pytest.fixture
def here(tmp_path: Path, key_files: Path, keys: KeyRing) -> Iterator[World]:
    with world(make_channel(tmp_path / "site", key_files), keys, tmp_path) as made:
        yield made


def test_only_the_wanted_variant_is_fetched_and_all_of_it(here: World) -> None:
    offer = here.publish("1.0.0")
    reader = here.refreshed()
    made = here.planned(reader)
    report = fetch(reader, here.store, made)

    wanted = {b"weights of 1.0.0", *ASSETS.values()}
    manifest = here.store.read(offer.manifest.sha256)
    assert set(here.installed().values()) == {*wanted, manifest}
    assert made.wanted == set(here.installed())
    assert made.download_bytes == report.received_bytes == sum(map(len, wanted))
    assert (report.requests, report.reused, report.deltas_used, report.delta_failures) == (3, (), (), ())
    assert report.files == ("assets/catalogue", "assets/labels", "models/a.onnx")
    assert len(here.target_requests()) == 4, "these and the manifest"
    assert list((here.device / "store" / "partial").iterdir()) == []


def test_a_check_without_news_is_two_requests_and_both_counters_are_those_of_the_wire(here: World) -> None:
    here.publish("1.0.0")
    first = here.refreshed()
    assert (first.requests, len(here.site.requests)) == (4, 4)
    here.site.requests.clear()
    second = here.refreshed()
    assert here.site.requests == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    assert second.requests == 2
    assert second.received_bytes == (here.channel.path / "metadata" / "timestamp.json").stat().st_size
    second.refresh()
    assert second.requests == 4, "one reader may be asked again"


def test_unchanged_files_are_never_fetched_twice(here: World) -> None:
    here.publish("1.0.0")
    here.install()
    here.site.requests.clear()
    offer = here.publish("1.1.0", weights=b"weights of 1.0.0")
    report = here.install()
    sha256 = offer.manifest.sha256
    assert here.target_requests() == [f"/targets/files/{sha256}.{sha256}"], "the manifest alone is new"
    assert report.files == ()
    assert sorted(report.reused) == sorted(map(digest, [b"weights of 1.0.0", *ASSETS.values()]))
    here.site.requests.clear()
    here.install()
    assert here.target_requests() == []


def test_equal_content_under_two_names_is_fetched_once(here: World) -> None:
    here.publish("1.0.0", assets={"one": b"same", "two": b"same"})
    assert len(here.install().files) == 2


def test_a_file_that_the_disk_has_spoilt_is_fetched_again(here: World) -> None:
    here.publish("1.0.0")
    here.install()
    whole = here.installed()
    for name in whole:
        path = here.store.path(name)
        path.chmod(0o644)
        path.write_bytes(b"spoilt")
    here.install()
    assert here.installed() == whole


# Deltas


def model(number: int) -> bytes:
    """Return a model of 20 kB whose weights move a little from each number to the next."""
    weights = np.random.default_rng(1).normal(size=(50, 100)).astype(np.float32)
    weights.view(np.uint32)[...] += np.uint32(7 * number)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w")])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.fixture
def updated(here: World) -> tuple[str, str]:
    """Install one release, publish the next, and return the digests of the two models."""
    here.publish("1.0.0", weights=model(0))
    here.install()
    here.publish("1.1.0", weights=model(1))
    return digest(model(0)), digest(model(1))


def delta_file(here: World, old: str, new: str) -> Path:
    (found,) = (here.channel.path / "targets" / "deltas" / old).glob(f"*.{new}")
    return found


def test_a_delta_is_fetched_instead_of_the_file(here: World, updated: tuple[str, str]) -> None:
    old, new = updated
    report = here.install(bases=(old,))
    assert report.deltas_used == ("models/a.onnx",)
    assert here.store.read(new) == model(1)
    assert report.received_bytes == delta_file(here, old, new).stat().st_size < len(model(1)) / 2
    assert list((here.device / "store" / "partial").iterdir()) == []


def test_without_a_base_the_file_is_fetched_whole(here: World, updated: tuple[str, str]) -> None:
    assert here.install(bases=("0" * 64,)).deltas_used == ()
    assert here.store.read(updated[1]) == model(1)


def altered_delta(here: World, old: str, new: str) -> None:
    delta = delta_file(here, old, new)
    delta.write_bytes(delta.read_bytes()[:-1] + b"?")


def no_delta(here: World, old: str, new: str) -> None:
    delta_file(here, old, new).unlink()


def spoilt_base(here: World, old: str, new: str) -> None:
    here.store.path(old).chmod(0o644)
    here.store.path(old).write_bytes(model(2))


def cut_delta(here: World, old: str, new: str) -> None:
    here.site.cut_once("deltas", 10)


@pytest.mark.parametrize("harm", [altered_delta, no_delta, spoilt_base, cut_delta])
def test_when_a_delta_fails_the_file_is_fetched_whole_and_the_report_says_why(
    harm: Callable[[World, str, str], None], here: World, updated: tuple[str, str]
) -> None:
    harm(here, *updated)
    heard: list[Progress] = []
    reader = here.refreshed()
    report = fetch(reader, here.store, here.planned(reader, bases=(updated[0],)), heard.append)
    assert here.store.read(updated[1]) == model(1)
    assert report.deltas_used == ()
    assert len(report.delta_failures) == 1
    assert report.delta_failures[0].startswith("models/a.onnx: ")
    assert heard[-1].done_bytes <= heard[-1].total_bytes


def test_a_whole_file_that_has_nearly_come_is_preferred_to_a_delta(here: World, updated: tuple[str, str]) -> None:
    old, new = updated
    here.store.partial_path(new).write_bytes(model(1)[:-10])
    made = here.planned(here.refreshed(), bases=(old,))
    assert [file.delta for file in made.files] == [None]
    assert made.download_bytes == 10


def test_a_delta_is_signed_as_any_file(here: World, updated: tuple[str, str]) -> None:
    target = here.refreshed().target(delta_target(*updated))
    assert target is not None
    assert target.length == delta_file(here, *updated).stat().st_size


# Cuts and other accidents on the way


@pytest.mark.parametrize("after", [0, 1, 4095, 65535, 65536, 65537, 131072, 150_000, 199_999])
def test_a_cut_leaves_what_runs_untouched_and_the_next_run_goes_on(after: int, here: World) -> None:
    here.publish("1.0.0")
    here.install()
    before = here.installed()
    weights = np.random.default_rng(0).bytes(200_000)
    here.publish("1.1.0", weights=weights)
    here.settings = dataclasses.replace(QUICK, minimum_bytes_per_s=100_000.0)
    here.site.cut_once(digest(weights), after)
    with pytest.raises(UnavailableError):
        here.install()
    assert before.items() <= here.installed().items()
    assert digest(weights) not in here.installed()

    report = here.install()
    assert here.store.read(digest(weights)) == weights
    assert report.received_bytes == len(weights) - after


@pytest.mark.parametrize("part", ["2.root", "timestamp", "snapshot", "targets.json", "/targets/"])
@pytest.mark.parametrize("after", [0, 1, 100])
def test_a_cut_in_the_metadata_or_the_manifest_leaves_nothing_half_known(part: str, after: int, here: World) -> None:
    here.publish("1.0.0")
    if part == "2.root":
        rotate(here.channel.path, "root", here.keys)
    here.site.cut_once(part, after)
    with pytest.raises(UnavailableError):
        here.install()
    here.install()
    assert here.store.has(digest(b"weights of 1.0.0"))


def test_a_kept_part_that_a_power_cut_has_spoilt_is_fetched_anew(here: World) -> None:
    here.publish("1.0.0")
    sha256 = digest(b"weights of 1.0.0")
    here.store.partial_path(sha256).write_bytes(bytes(5))
    here.install()
    assert here.store.read(sha256) == b"weights of 1.0.0"
    here.store.path(sha256).unlink()
    here.store.partial_path(sha256).write_bytes(bytes(len(b"weights of 1.0.0")))
    here.install()
    assert here.store.read(sha256) == b"weights of 1.0.0"


def test_the_first_failure_ends_the_other_files_and_is_the_one_that_is_told(here: World) -> None:
    here.publish("1.0.0", assets={f"a{number}": os.urandom(1000) for number in range(20)}, weights=os.urandom(300_000))

    def missing(request: Request) -> bool:
        if request.wanted_from(1) is None or len(request.content() or b"") != 1000:
            return False
        request.send_status(404)
        return True

    reader = here.refreshed()
    made = here.planned(reader)
    here.site.rules["/targets/"] = missing
    with pytest.raises(UnavailableError, match="404"):
        fetch(reader, here.store, made)
    del here.site.rules["/targets/"]
    here.install()
    assert made.wanted <= set(here.installed())


def test_several_files_are_fetched_at_the_same_time(here: World) -> None:
    here.publish("1.0.0", assets={f"a{number}": os.urandom(100) for number in range(7)})
    reader = here.refreshed()
    made = here.planned(reader)
    together = threading.Barrier(reader.settings.parallel_files, timeout=120)

    def wait_for_the_others(request: Request) -> bool:
        together.wait()
        return False

    here.site.rules["/targets/"] = wait_for_the_others
    assert len(made.files) == 2 * reader.settings.parallel_files
    fetch(reader, here.store, made)
    assert made.wanted <= set(here.installed())


# Limits, progress


def test_a_release_beyond_the_limit_or_the_disk_is_refused_before_its_files(here: World) -> None:
    here.publish("1.0.0", weights=bytes(5000))
    here.settings = dataclasses.replace(QUICK, maximum_release_bytes=5000)
    with pytest.raises(ResourceError, match=r"has 5017 bytes .* at most 5000"):
        here.install()
    here.settings = QUICK
    reader = here.refreshed()
    made = here.planned(reader)
    free = shutil.disk_usage(here.device).free
    asked = len(here.target_requests())
    with pytest.raises(ResourceError, match=r"needs 1152921504606846976 bytes .* \d+ are free") as raised:
        fetch(reader, here.store, dataclasses.replace(made, disk_bytes=1 << 60))
    assert raised.value.retry
    assert 5017 < made.disk_bytes < free
    assert len(here.target_requests()) == asked == 1, "the manifest alone was fetched"


def test_progress_rises_to_the_total_and_counts_what_was_kept(here: World) -> None:
    weights = os.urandom(200_000)
    here.publish("1.0.0", weights=weights)
    here.store.partial_path(digest(weights)).write_bytes(weights[:50_000])
    heard: list[Progress] = []
    reader = here.refreshed()
    made = here.planned(reader)
    assert made.download_bytes == 150_000 + 17
    fetch(reader, here.store, made, heard.append)
    done = [one.done_bytes for one in heard]
    assert done == sorted(done)
    assert heard[-1].done_bytes == heard[-1].total_bytes == 200_017
    assert {one.file for one in heard} == {file_target(file.target.sha256) for file in made.files}


def test_a_reader_s_own_listener_hears_metadata_and_files(here: World) -> None:
    here.publish("1.0.0")
    heard: list[str] = []
    reader = here.reader()
    reader.on_progress = lambda progress: heard.append(progress.file)
    reader.refresh()
    assert heard == ["timestamp.json", "2.snapshot.json", "2.targets.json"]
    fetch(reader, here.store, here.planned(reader))
    assert len(heard) > 3


class EnoughError(TidegateError):
    """What a listener raises."""


@pytest.mark.parametrize("bases", [True, False], ids=["delta", "full"])
def test_what_a_listener_raises_ends_the_fetch_and_reaches_the_caller(
    bases: bool, here: World, updated: tuple[str, str]
) -> None:
    def enough(progress: Progress) -> None:
        raise EnoughError("battery low")

    reader = here.refreshed()
    made = here.planned(reader, bases=(updated[0],) if bases else ())
    with pytest.raises(EnoughError):
        fetch(reader, here.store, made, enough)
    assert updated[1] not in here.installed()
    here.install()
    assert here.store.read(updated[1]) == model(1)


# What is asked wrongly, and offers that do not fit together


def test_what_is_not_there_is_named(here: World) -> None:
    reader = here.reader()
    with pytest.raises(StateError, match="not read yet"):
        reader.track("tiny", "stable")
    here.publish("1.0.0")
    reader.refresh()
    with pytest.raises(NotFoundError, match="no track 'beta' of model 'tiny'"):
        reader.track("tiny", "beta")
    assert reader.target("files/none") is None
    with pytest.raises(NotFoundError, match="no variant 'gpu'; it has onnx-fp32, tflite-int8"):
        here.planned(reader, variant="gpu")


def test_an_offer_must_agree_with_its_manifest(here: World) -> None:
    here.publish("1.0.0")
    reader = here.refreshed()
    offer = reader.track("tiny", "stable").standing[0]
    other = msgspec.structs.replace
    for wrong, message in [
        (other(offer, version="9.9.9"), "its manifest says 1.0.0"),
        (other(offer, variants=(other(offer.variants[0], sha256="0" * 64),)), "its manifest does not"),
        (other(offer, manifest=other(offer.manifest, sha256="0" * 64)), "the channel does not have"),
        (other(offer, manifest=other(offer.manifest, sha256="1" * 64, size_bytes=5 << 20)), "at most 4194304"),
    ]:
        with pytest.raises(BundleError, match=message):
            plan(reader, here.store, wrong, "onnx-fp32")
    here.store.path(offer.manifest.sha256).unlink()
    with pytest.raises(BundleError, match="the channel signs"):
        plan(reader, here.store, other(offer, manifest=other(offer.manifest, size_bytes=7)), "onnx-fp32")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "channel",
        "ftp://x/y",
        "http://",
        "http://x:port/",
        "https://a b/",
        "file:///x",
        "http://name:secret@x/",
        "http://x/?a",
        "http://x/#a",
    ],
)
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the channel's address") as raised:
        ChannelReader(tmp_path / "metadata", url, b"{}")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("root", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_a_trusted_root_that_is_none(root: bytes, here: World) -> None:
    with pytest.raises(ConfigError, match="the trusted root cannot be used"):
        ChannelReader(here.metadata, here.site.url, root, QUICK).refresh()


# The metadata on the device's disk


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def removed(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


METADATA = ["root.json", "root_history/1.root.json", "root_history/2.root.json", "timestamp.json", "snapshot.json"]


@pytest.mark.parametrize("harm", [torn, emptied, zeroed, nested, removed, a_directory])
@pytest.mark.parametrize("name", [*METADATA, "targets.json"])
def test_damaged_metadata_heals(name: str, harm: Callable[[Path], None], here: World, key_files: Path) -> None:
    rotate(here.channel.path, "root", here.keys)
    here.publish("1.0.0")
    here.refreshed()
    harm(here.metadata / name)
    assert here.refreshed().track("tiny", "stable").offers[0].version == "1.0.0"
    here.site.requests.clear()
    here.refreshed()
    assert len(here.site.requests) == 2, "whole again: a check costs what it did before"


def test_a_directory_of_metadata_that_is_gone_or_full_of_a_crash_s_leftovers(here: World) -> None:
    here.publish("1.0.0")
    here.refreshed()
    for number in range(3):
        (here.metadata / f"tmp{number}abc").write_bytes(b"half")
    here.refreshed()
    names = {entry.name for entry in here.metadata.iterdir()}
    assert names == {"root.json", "root_history", "timestamp.json", "snapshot.json", "targets.json"}
    shutil.rmtree(here.metadata / "root_history")
    (here.metadata / "root_history").write_bytes(b"a file")
    here.refreshed()
    shutil.rmtree(here.metadata)
    here.refreshed()


def test_trust_begins_at_the_shipped_root_whatever_lies_on_the_disk(
    here: World, tmp_path: Path, key_files: Path
) -> None:
    here.publish("1.0.0")
    here.refreshed()
    write_keys(tmp_path / "thief")
    other = make_channel(tmp_path / "other", tmp_path / "thief")
    forged = (other.path / "metadata" / "1.root.json").read_bytes()
    for name in ("root_history/1.root.json", "root_history/2.root.json", "root.json"):
        (here.metadata / name).unlink(missing_ok=True)
        (here.metadata / name).write_bytes(forged)
    assert here.refreshed().track("tiny", "stable").offers[0].version == "1.0.0"
    here.site.directory = other.path
    with pytest.raises(IntegrityError):
        here.refreshed()


def test_a_disk_that_refuses_is_no_fault_of_the_channel(here: World) -> None:
    here.publish("1.0.0")
    here.device.mkdir()
    (here.device / "metadata").write_bytes(b"a file where a directory should be")
    with pytest.raises(ResourceError):
        here.refreshed()


# A device has no cryptography


def test_signatures_are_checked_without_cryptography(here: World) -> None:
    here.publish("1.0.0")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['cryptography'] = None\n"
        "from tidegate.errors import IntegrityError\n"
        "from tidegate.fetch.settings import FetchSettings\n"
        "from tidegate.fetch.trusted import ChannelReader\n"
        "directory, url, root = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()\n"
        "reader = ChannelReader(directory, url, root, FetchSettings(proxy='', attempts=1))\n"
        "reader.refresh()\n"
        "print(reader.track('tiny', 'stable').offers[0].version)\n"
        "timestamp = Path(sys.argv[4])\n"
        "timestamp.write_bytes(timestamp.read_bytes().replace(b'\"version\":2', b'\"version\":3'))\n"
        "try:\n"
        "    reader.refresh()\n"
        "except IntegrityError as error:\n"
        "    print('refused')\n"
    )
    metadata = here.channel.path / "metadata"
    arguments = [str(here.metadata), here.site.url, str(metadata / "1.root.json"), str(metadata / "timestamp.json")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout.split() == ["1.0.0", "refused"], done.stderr


@pytest.mark.parametrize("library", ["tuf", "urllib3"])
def test_without_the_libraries_the_message_names_the_extra(library: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.modules[{library!r}] = None\n"
        "from tidegate.errors import DependencyError\n"
        "from tidegate.fetch.trusted import ChannelReader\n"
        "try:\n"
        "    ChannelReader(Path(sys.argv[1]), 'http://127.0.0.1:1', b'{}').refresh()\n"
        "except DependencyError as error:\n"
        "    print(error.fix)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert "tidegate[update]" in done.stdout, done.stderr
