"""The rules of a track, as tables and as a random walk over every command."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import BundleError, ConfigError, NotFoundError, StateError, TidegateError
from tidegate.release import offers
from tidegate.release.offers import Release, Stamp
from tidegate.release.track import (
    FileReference,
    OfferedVariant,
    Track,
    empty_track,
    from_custom,
    to_bytes,
    to_custom,
)
from tidegate.release.versions import precedence

Tracks = dict[str, Track]


def release(version: str, *, content: str = "", counter_floor: int = 0) -> Release:
    sha256 = hashlib.sha256(f"{version}{content}".encode()).hexdigest()
    return Release(
        model="tiny",
        version=version,
        counter_floor=counter_floor,
        bundle_schema="tidegate.bundle/1",
        manifest=FileReference(sha256=sha256, size_bytes=10),
        variants=(OfferedVariant(id="onnx-fp32", backend="onnx", precision="fp32", sha256="0" * 64, size_bytes=3),),
        rss_mb=0,
    )


def stamp(number: int = 0) -> Stamp:
    return Stamp(at=f"2026-01-01T00:00:{number % 60:02d}Z", salt=f"{number:016x}")


def after(*published: tuple[str, str]) -> Tracks:
    """Return tracks after versions were published, each `(version, track)`."""
    tracks: Tracks = {}
    for number, (version, track) in enumerate(published):
        tracks |= offers.publish(tracks, track, release(version), 100, stamp(number))
    return tracks


def newest(tracks: Tracks, track: str) -> str:
    return tracks[track].standing[0].version


@pytest.mark.parametrize(
    "rising",
    [
        # The order that semver.org gives as its example, and build metadata after it.
        ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"],
        ["1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"],
    ],
)
def test_versions_have_the_precedence_of_semver(rising: list[str]) -> None:
    keys = [precedence(version) for version in rising]
    assert all(earlier < later for earlier, later in itertools.pairwise(keys))
    assert precedence("1.0.0+one") == precedence("1.0.0+two")


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        (lambda t: offers.publish(t, "stable", release("1.0.0", content="x"), 100, stamp()), StateError, "published"),
        (lambda t: offers.publish(t, "beta", release("1.1.0", content="x"), 100, stamp()), StateError, "published"),
        (lambda t: offers.publish(t, "stable", release("0.9.0"), 100, stamp()), StateError, "is not newer"),
        (lambda t: offers.publish(t, "stable", release("1.0.0"), 100, stamp()), StateError, "is not newer"),
        (lambda t: offers.publish(t, "stable", release("1.1.0"), 50, stamp()), StateError, "not 50 %"),
        (lambda t: offers.publish(t, "stable", release("1.2.0"), 101, stamp()), ConfigError, "101 percent"),
        (lambda t: offers.publish(t, "stable", release("1.2.0"), -1, stamp()), ConfigError, "-1 percent"),
        (lambda t: offers.publish(t, "../x", release("1.2.0"), 100, stamp()), ConfigError, "track '../x'"),
        (lambda t: offers.ramp(t, "stable", None, 99), StateError, "at 100 %"),
        (lambda t: offers.ramp(t, "gone", None, 99), NotFoundError, "there are beta, stable"),
        (lambda t: offers.ramp(t, "stable", "9.9.9", 99), NotFoundError, "does not offer version 9.9.9"),
        (lambda t: offers.promote(t, "stable", "stable", None, 100, stamp()), ConfigError, "to itself"),
        (lambda t: offers.promote(t, "stable", "beta", None, 100, stamp()), StateError, "1.1.0 is not newer"),
        (lambda t: offers.roll_back(t, "stable", "9.9.9", "why", stamp()), NotFoundError, "never published"),
        (lambda t: offers.roll_back(t, "stable", "1.0.0", "  ", stamp()), ConfigError, "reason is empty"),
        (lambda t: offers.withdraw(t, "9.9.9", None, "why", stamp()), NotFoundError, "never offered"),
        (lambda t: offers.withdraw(t, "1.0.0", "beta", "why", stamp()), NotFoundError, "never offered on beta"),
        (lambda t: offers.withdraw(t, "1.0.0", None, "", stamp()), ConfigError, "reason is empty"),
    ],
)
def test_what_a_track_refuses(attempt: Callable[[Tracks], Tracks], error: type[TidegateError], says: str) -> None:
    tracks = after(("1.0.0", "stable"), ("1.1.0", "stable"), ("1.2.0-rc.1", "beta"))
    with pytest.raises(error, match=says) as raised:
        attempt(tracks)
    assert raised.value.fix


def test_a_rollback_withdraws_what_is_newer_and_leaves_other_tracks_alone() -> None:
    tracks = after(("1.0.0", "stable"), ("1.1.0", "stable"), ("1.2.0", "stable"), ("1.3.0", "beta"))
    tracks |= offers.roll_back(tracks, "stable", "1.0.0", "bad", stamp(9))
    assert [(o.version, o.release, o.withdrawn is not None) for o in tracks["stable"].offers] == [
        ("1.0.0", 1, False),
        ("1.1.0", 2, True),
        ("1.2.0", 3, True),
        ("1.0.0", 5, False),
    ]
    assert tracks["stable"].offers[-1].rollback_of == 3
    assert newest(tracks, "beta") == "1.3.0"
    with pytest.raises(StateError, match="was withdrawn: rolled back: bad"):
        offers.publish(tracks, "stable", release("1.1.0"), 100, stamp())
    tracks |= offers.publish(tracks, "stable", release("1.2.1"), 100, stamp())
    assert newest(tracks, "stable") == "1.2.1"


def test_a_rollback_after_a_withdrawal_takes_back_the_withdrawn_offer() -> None:
    tracks = after(("1.0.0", "stable"), ("1.1.0", "stable"))
    tracks |= offers.withdraw(tracks, "1.1.0", None, "bad", stamp())
    assert newest(tracks, "stable") == "1.0.0"
    tracks |= offers.roll_back(tracks, "stable", "1.0.0", "bad", stamp())
    last = tracks["stable"].offers[-1]
    assert (last.version, last.release, last.rollback_of) == ("1.0.0", 3, 2)


def test_a_rolled_back_version_is_not_promoted_again() -> None:
    tracks = after(("1.0.0", "stable"), ("1.1.0", "beta"))
    tracks |= offers.promote(tracks, "beta", "stable", None, 100, stamp())
    tracks |= offers.roll_back(tracks, "stable", "1.0.0", "bad", stamp())
    with pytest.raises(StateError, match="was withdrawn"):
        offers.promote(tracks, "beta", "stable", None, 100, stamp())


def test_a_rollback_may_go_to_content_of_another_track() -> None:
    tracks = after(("1.0.0", "beta"), ("1.1.0", "stable"))
    tracks |= offers.roll_back(tracks, "stable", "1.0.0", "bad", stamp())
    assert [offer.version for offer in tracks["stable"].standing] == ["1.0.0"]


VERSIONS = [f"1.{minor}.0" for minor in range(6)]
COMMANDS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(["stable", "beta"]), st.sampled_from(VERSIONS), st.integers(0, 100)),
    st.tuples(st.just("ramp"), st.sampled_from(["stable", "beta"]), st.sampled_from(VERSIONS), st.integers(0, 100)),
    st.tuples(st.just("promote"), st.sampled_from(["stable", "beta"]), st.sampled_from(VERSIONS), st.integers(0, 100)),
    st.tuples(st.just("roll_back"), st.sampled_from(["stable", "beta"]), st.sampled_from(VERSIONS), st.just(100)),
    st.tuples(st.just("withdraw"), st.sampled_from(["stable", "beta"]), st.sampled_from(VERSIONS), st.just(0)),
)


def perform(tracks: Tracks, command: tuple[str, str, str, int], number: int) -> Tracks:
    what, track, version, percent = command
    other = "beta" if track == "stable" else "stable"
    if what == "publish":
        return offers.publish(tracks, track, release(version), percent, stamp(number))
    if what == "ramp":
        return offers.ramp(tracks, track, version, percent)
    if what == "promote":
        return offers.promote(tracks, other, track, version, percent, stamp(number))
    if what == "roll_back":
        return offers.roll_back(tracks, track, version, "why", stamp(number))
    return offers.withdraw(tracks, version, None, "why", stamp(number))


@settings(max_examples=200)
@given(commands=st.lists(COMMANDS, max_size=25))
def test_whatever_is_done_counters_rise_shares_never_fall_and_withdrawn_stays_withdrawn(
    commands: list[tuple[str, str, str, int]],
) -> None:
    tracks: Tracks = {}
    for number, command in enumerate(commands):
        last = max((offer.release for track in tracks.values() for offer in track.offers), default=0)
        try:
            changed = perform(tracks, command, number)
        except (StateError, NotFoundError):
            continue
        for name, track in changed.items():
            before = tracks.get(name, empty_track("tiny", name)).offers
            assert len(track.offers) >= len(before)
            for old, new in zip(before, track.offers, strict=False):
                assert (old.release, old.manifest, old.rollout.salt) == (new.release, new.manifest, new.rollout.salt)
                assert old.rollout.percent <= new.rollout.percent
                assert old.withdrawn in (None, new.withdrawn)
            for offer in track.offers[len(before) :]:
                assert offer.release > last
            assert from_custom(to_custom(track), origin="track") == track
            assert json.loads(to_bytes(track)) == to_custom(track)
        repeated = {**tracks, **changed}
        if command[0] != "promote" or command[1] in changed:
            assert perform(repeated, command, number) == {}, "the same command again changes nothing"
        tracks = repeated
    contents: dict[str, set[str]] = {}
    for track in tracks.values():
        for offer in track.offers:
            contents.setdefault(offer.version, set()).add(offer.manifest.sha256)
    assert all(len(digests) == 1 for digests in contents.values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "tidegate.channel/2"}, "reads 'tidegate.channel/1'"),
        ({"offers": [{}]}, "missing required field"),
        ({"offers": "x"}, "Expected `array`"),
        ({"model": 3}, "Expected `str`"),
    ],
)
def test_a_document_of_another_form_is_refused(change: dict[str, object], says: str) -> None:
    document = to_custom(after(("1.0.0", "stable"))["stable"])
    with pytest.raises(BundleError, match=says):
        from_custom({**document, **change}, origin="tracks/tiny/stable.json")
    nothings: tuple[object, ...] = (None, [], "x")
    for nothing in nothings:
        with pytest.raises(BundleError):
            from_custom(nothing, origin="x")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("rollout", "percent"), 101, "101 percent"),
        (("release",), 0, "do not rise"),
        (("manifest", "sha256"), "../../etc", "expected a SHA-256"),
        (("variants", 0, "sha256"), "F" * 64, "expected a SHA-256"),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused(path: tuple[str | int, ...], value: object, says: str) -> None:
    document = to_custom(after(("1.0.0", "stable"))["stable"])
    place = document["offers"][0]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BundleError, match=says):
        from_custom(document, origin="x")


def test_unknown_fields_of_a_newer_minor_version_are_tolerated() -> None:
    document = to_custom(after(("1.0.0", "stable"))["stable"])
    document["offers"][0]["delta_from"] = {"1": "x"}
    assert from_custom({**document, "more": 1}, origin="x").offers[0].version == "1.0.0"
