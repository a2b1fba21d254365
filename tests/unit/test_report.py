"""The report's form and limits, its signature, replays, the rule of the pair, hints, and how state is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle.manifest import FrontEnd, Manifest, PrefilterSettings
from tidegate.cloud.announce import MOST_WAITING, ChannelAnnouncer, FixedReleases, newest_for
from tidegate.cloud.device_keys import RECHECK_S, DeviceKeys
from tidegate.cloud.devices import SESSIONS, WINDOW, Reception, ReplayGuard
from tidegate.edge.update.hint import SHORTEST_REST_S, UpdateHint
from tidegate.edge.update.record import SCHEMA as DEVICE_SCHEMA
from tidegate.edge.update.record import Quarantined, Record, Slot, write_record
from tidegate.edge.update.report import Reporter, Running
from tidegate.edge.update.report_identity import KEY_FILE, PUBLIC_FILE, create_report_key, new_session
from tidegate.edge.update.settings import DeviceSettings, write_settings
from tidegate.edge.update.states import State
from tidegate.errors import ConfigError, InputError, NotFoundError, StateError
from tidegate.release import FileReference, Offer, Rollout, Track, Withdrawal, in_cohort
from tidegate.wire.pairing import SignalPath, check_pair, misfit, prefilter_digest
from tidegate.wire.report import (
    LARGEST_REPORT_BYTES,
    LATEST_HEADER,
    REPORT_HEADER,
    SCHEMA,
    SIGNATURE_HEADER,
    DeviceReport,
    Headers,
    Latest,
    RunState,
    format_report,
    parse_latest,
    parse_report,
)
from tidegate.wire.report_signature import PublicKey, ReportKey, is_signed_by

SHA = "ab" * 32
AT = "2026-11-21T19:15:43Z"
USUAL = DeviceReport(
    schema=SCHEMA,
    device="kiosk-1",
    model="voice-commands",
    version="1.1.0",
    release=7,
    track="stable",
    variant="tflite-int8",
    sha256=SHA,
    runtime="litert 2.1.0",
    front_end="audio/16000",
    prefilter="energy/c9783022173aa0ef",
    state="committed",
    since=AT,
    session=12,
    counter=345,
)


# The form.


def test_a_usual_report_is_read_as_it_was_written_and_is_small() -> None:
    value = format_report(USUAL)
    assert parse_report(value) == USUAL
    assert len(value) < 500


WORD = st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters='"\\\x7f'), min_size=1)


@given(
    st.builds(
        DeviceReport,
        schema=st.just(SCHEMA),
        device=WORD.map(lambda text: text[:64]),
        model=WORD.map(lambda text: text[:64]),
        version=WORD.map(lambda text: text[:48]),
        release=st.integers(0, 2**40 - 1),
        state=st.sampled_from(["committed", "trial", "rolled-back", "not-active", "unknown", "unmanaged"]),
        sha256=st.just(SHA),
        counter=st.integers(0, 2**40 - 1),
    )
)
def test_every_valid_report_travels_and_comes_back(report: DeviceReport) -> None:
    value = format_report(report)
    assert value.isascii()
    assert value.isprintable()
    assert parse_report(value) == report


def test_the_longest_report_fits() -> None:
    longest = DeviceReport(
        schema=SCHEMA,
        device="d" * 64,
        model="m" * 64,
        version="1" * 48,
        release=2**40 - 1,
        track="t" * 32,
        variant="v" * 64,
        sha256=SHA,
        runtime="r" * 48,
        front_end="f" * 24,
        prefilter="p" * 48,
        state="rolled-back",
        since="s" * 24,
        session=2**40 - 1,
        counter=2**40 - 1,
    )
    assert len(format_report(longest)) <= LARGEST_REPORT_BYTES


def _with(**changes: object) -> str:
    return json.dumps(json.loads(format_report(USUAL)) | changes)


def test_fields_of_a_later_version_are_left_alone() -> None:
    assert parse_report(_with(battery=80)) == USUAL


@pytest.mark.parametrize(
    "value",
    [
        "",
        "kiosk-1",
        "[]",
        "{}",
        "[" * 700,
        _with(schema="tidegate.report/2"),
        _with(device="two words"),
        _with(device="d" * 65),
        _with(device='quo"te'),
        _with(device="line\n"),
        _with(device="line\nbreak"),
        _with(device="umlaut-ü"),
        _with(model=None),
        _with(release=-1),
        _with(release=2**40),
        _with(release=True),
        _with(release=7.5),
        _with(sha256="ab"),
        _with(sha256=SHA.upper()),
        _with(sha256=SHA + "\n"),
        _with(state="fine"),
        _with(counter="3"),
        _with(padding="x" * LARGEST_REPORT_BYTES),
        "\ud800",
    ],
)
def test_what_is_not_a_report_is_the_callers_error(value: str) -> None:
    with pytest.raises(InputError, match="tidegate-device-report"):
        parse_report(value)


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_report(text)


def test_a_name_that_cannot_travel_is_told_on_the_device() -> None:
    with pytest.raises(ConfigError, match="cannot travel"):
        format_report(replace(USUAL, device="Küche 3"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("voice-commands stable 8 1.2.0", Latest("voice-commands", "stable", 8, "1.2.0")),
        ("m t 0 1.0.0-rc.1+a later words", Latest("m", "t", 0, "1.0.0-rc.1+a")),
        ("", None),
        ("voice-commands stable 8", None),
        ("voice-commands stable -8 1.2.0", None),
        ("voice-commands stable 8.5 1.2.0", None),
        ("voice-commands stable 9999999999999 1.2.0", None),
        ("../x stable 8 1.2.0", None),
        ("voice-commands Stable 8 1.2.0", None),
        ("voice-commands stable 8 1.2.0\n", None),
    ],
)
def test_a_hint_is_read_or_is_none(value: str, expected: Latest | None) -> None:
    assert parse_latest(value) == expected
    if expected is not None:
        assert parse_latest(expected.to_header()) == expected


# The signature.


def test_a_signature_holds_for_exactly_the_bytes_that_were_signed() -> None:
    key, other = ReportKey.generate(), ReportKey.generate()
    value = format_report(USUAL)
    signature = key.sign(value)
    assert is_signed_by(key.public("kiosk-1"), value, signature)
    assert not is_signed_by(key.public("kiosk-1"), value.replace("1.1.0", "1.2.0"), signature)
    assert not is_signed_by(other.public("kiosk-1"), value, signature)
    assert len(value) + len(signature) < 500


@pytest.mark.parametrize("signature", ["", "AAAA", "not base64!", "=" * 88, "Å" * 88])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    with pytest.raises(InputError, match="64 bytes in base64"):
        is_signed_by(ReportKey.generate().public("kiosk-1"), "{}", signature)


def test_the_signature_is_that_of_rfc_8032() -> None:
    # Section 7.1, test 1: the private key and its public key.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert ReportKey(seed).public("kiosk-1").key.hex() == public


@pytest.mark.parametrize("device", ["", "two words", "d" * 65, 'quo"te', "ü"])
def test_a_device_whose_id_cannot_travel_gets_no_key(device: str) -> None:
    with pytest.raises(ConfigError, match="cannot be reported"):
        ReportKey.generate().public(device)


@pytest.mark.parametrize("line", ["", "kiosk-1", "kiosk-1 ed25519 AAAA", "kiosk-1 rsa " + "A" * 43 + "=", "a b c d"])
def test_a_line_that_is_no_key_is_told_with_its_place(line: str) -> None:
    with pytest.raises(ConfigError, match="keys:3"):
        PublicKey.from_line(line, origin="keys:3")


def test_without_the_package_the_message_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['nacl'] = None; sys.modules['nacl.signing'] = None\n"
        "from tidegate.wire.report import DeviceReport, format_report\n"
        "report = DeviceReport(schema='tidegate.report/1', model='m', version='1.0.0', state='unmanaged')\n"
        "print(format_report(report))\n"
        "from tidegate.wire.report_signature import ReportKey\n"
        "from tidegate.errors import DependencyError\n"
        "try: ReportKey.generate()\n"
        "except DependencyError as error: print(error.fix)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    report, fix = done.stdout.splitlines()
    assert parse_report(report).model == "m"
    assert "tidegate[signed-report]" in fix


# Replays.


def _taken(guard: ReplayGuard, session: int, counter: int, device: str = "kiosk-1") -> bool:
    try:
        guard.check(device, session, counter)
    except InputError:
        return False
    return True


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, WINDOW - 1)), max_size=60))
def test_within_the_window_each_report_counts_once_in_any_order(sent: list[tuple[int, int]]) -> None:
    guard = ReplayGuard()
    seen: set[tuple[int, int]] = set()
    for report in sent:
        assert _taken(guard, *report) is (report not in seen)
        seen.add(report)


def test_what_is_too_old_to_tell_is_refused() -> None:
    guard = ReplayGuard()
    assert _taken(guard, 1, 10_000)
    assert _taken(guard, 1, 10_001 - WINDOW)
    assert not _taken(guard, 1, 10_000 - WINDOW)
    assert not _taken(guard, 1, 10_000)
    assert _taken(guard, 1, 2**40)
    assert not _taken(guard, 1, 10_001)


def test_a_session_that_was_pushed_out_does_not_come_back() -> None:
    guard = ReplayGuard()
    for session in range(1, SESSIONS + 2):
        assert _taken(guard, session, 1)
    assert not _taken(guard, 1, 2)
    assert _taken(guard, 2, 2)


def test_devices_do_not_meet() -> None:
    guard = ReplayGuard()
    assert _taken(guard, 1, 1, "kiosk-1")
    assert _taken(guard, 1, 1, "kiosk-2")


# The reception.


def _headers(report: DeviceReport, key: ReportKey | None = None) -> Headers:
    value = format_report(report)
    signed = () if key is None else ((SIGNATURE_HEADER, key.sign(value)),)
    return (("user-agent", "test"), (REPORT_HEADER, value), *signed)


def _key_file(path: Path, *keys: PublicKey) -> Path:
    path.write_text("# the kiosks\n\n" + "".join(f"{key.to_line()} a comment\n" for key in keys))
    return path


def test_a_call_without_a_report_is_not_heard() -> None:
    reception = Reception(FixedReleases([Latest("m", "t", 1, "1.0.0")]))
    heard = reception.hear([("user-agent", "test")])
    assert heard is None
    assert reception.answer(heard) == []
    assert reception.all() == ()


def test_verified_and_not_are_told_apart_and_neither_hides_the_other(tmp_path: Path) -> None:
    key = ReportKey.generate()
    reception = Reception(None, DeviceKeys(_key_file(tmp_path / "keys", key.public("kiosk-1"))), clock=lambda: 5.0)
    signed = reception.hear(_headers(USUAL, key))
    claimed = reception.hear(_headers(replace(USUAL, version="9.9.9")))
    stranger = reception.hear(_headers(replace(USUAL, device="kiosk-2"), ReportKey.generate()))
    assert signed is not None
    assert (signed.verified, signed.why_not_verified, signed.at_s) == (True, "", 5.0)
    assert claimed is not None
    assert (claimed.verified, claimed.why_not_verified) == (False, "not signed")
    assert stranger is not None
    assert not stranger.verified
    assert "no key is registered for device kiosk-2" in stranger.why_not_verified
    assert [(one.report.version, one.verified) for one in reception.all() if one.report.device == "kiosk-1"] == [
        ("1.1.0", True),
        ("9.9.9", False),
    ]


def test_a_wrong_signature_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    key = ReportKey.generate()
    reception = Reception(None, DeviceKeys(_key_file(tmp_path / "keys", key.public("kiosk-1"))))
    with pytest.raises(InputError, match="signature of the report of device kiosk-1 is not that of the key"):
        reception.hear(_headers(USUAL, ReportKey.generate()))
    assert reception.all() == ()
    with pytest.raises(InputError, match="without tidegate-device-report"):
        reception.hear([(SIGNATURE_HEADER, "AAAA")])


def test_a_signed_report_is_taken_once_and_an_unsigned_one_cannot_use_up_its_counter(tmp_path: Path) -> None:
    key = ReportKey.generate()
    reception = Reception(None, DeviceKeys(_key_file(tmp_path / "keys", key.public("kiosk-1"))))
    assert reception.hear(_headers(replace(USUAL, session=2**40 - 1, counter=2**40 - 1))) is not None
    assert reception.hear(_headers(USUAL, key)) is not None
    with pytest.raises(InputError, match="session 12, counter 345, was sent before"):
        reception.hear(_headers(USUAL, key))
    assert reception.hear(_headers(replace(USUAL, counter=346), key)) is not None


def test_without_keys_a_signature_proves_nothing() -> None:
    heard = Reception().hear(_headers(USUAL, ReportKey.generate()))
    assert heard is not None
    assert not heard.verified


def test_the_answer_is_that_of_the_reports_model_and_track() -> None:
    reception = Reception(FixedReleases([Latest("voice-commands", "stable", 8, "1.2.0")]))
    heard = reception.hear(_headers(USUAL))
    assert reception.answer(heard) == [(LATEST_HEADER, "voice-commands stable 8 1.2.0")]
    other = reception.hear(_headers(replace(USUAL, track="beta")))
    assert reception.answer(other) == []


def test_keys_are_read_from_a_directory_too_and_again_when_they_change(tmp_path: Path) -> None:
    now = [0.0]
    warnings: list[str] = []
    first, second = ReportKey.generate(), ReportKey.generate()
    _key_file(tmp_path / "a.pub", first.public("kiosk-1"))
    keys = DeviceKeys(tmp_path, on_warning=warnings.append, clock=lambda: now[0])
    value = format_report(USUAL)
    _key_file(tmp_path / "b.pub", second.public("kiosk-2"))
    assert "no key" in keys.check("kiosk-2", value, second.sign(value))
    now[0] += RECHECK_S
    assert keys.check("kiosk-2", value, second.sign(value)) == ""
    (tmp_path / "a.pub").unlink()
    now[0] += RECHECK_S
    assert "no key" in keys.check("kiosk-1", value, first.sign(value))
    (tmp_path / "c.pub").write_text("rubbish\n")
    now[0] += RECHECK_S
    assert keys.check("kiosk-2", value, second.sign(value)) == ""
    assert len(warnings) == 1
    assert "rubbish" in warnings[0]


def test_keys_that_cannot_be_meant_are_told_at_the_start(tmp_path: Path) -> None:
    key, other = ReportKey.generate(), ReportKey.generate()
    with pytest.raises(NotFoundError):
        DeviceKeys(tmp_path / "absent")
    with pytest.raises(ConfigError, match="second key"):
        DeviceKeys(_key_file(tmp_path / "two", key.public("kiosk-1"), other.public("kiosk-1")))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a file of device keys"):
        DeviceKeys(tmp_path / "binary")


# The pair.


@pytest.mark.parametrize(
    ("device", "server", "reason"),
    [
        (("audio/16000", "energy/aa"), ("audio/16000", "energy/aa"), ""),
        (("audio/16000", "energy/aa"), ("audio/16000", ""), ""),
        (("", ""), ("audio/16000", "energy/aa"), ""),
        (("audio/16000", "energy/aa"), ("", ""), ""),
        (("audio/8000", "energy/aa"), ("audio/16000", "energy/aa"), "hears audio/8000, the server's model audio/16000"),
        (("audio/16000", "energy/aa"), ("audio/16000", "energy/bb"), "prefilter energy/aa, .* energy/bb"),
        (("audio/8000", "energy/aa"), ("audio/16000", "energy/bb"), "audio/8000.*; .*energy/aa"),
    ],
)
def test_the_rule_of_the_pair(device: tuple[str, str], server: tuple[str, str], reason: str) -> None:
    here, there = SignalPath(*device), SignalPath(*server)
    assert SignalPath.from_header(there.to_header()) == there
    if not reason:
        assert misfit(here, there) == ""
        check_pair(here, there, device_bundle="a 1", server_model="b 2")
        return
    with pytest.raises(StateError, match=reason) as caught:
        check_pair(here, there, device_bundle="a 1", server_model="b 2")
    assert "a 1" in caught.value.message
    assert "b 2" in caught.value.message
    assert caught.value.fix


PREFILTER = PrefilterSettings(kind="energy")


@pytest.mark.parametrize(
    "other",
    [
        PrefilterSettings(kind="webrtc"),
        PrefilterSettings(kind="energy", options={"margin_db": 6}),
        PrefilterSettings(kind="energy", pre_roll_ms=301),
        PrefilterSettings(kind="energy", minimum_speech_ms=61),
        PrefilterSettings(kind="energy", hangover_ms=401),
        PrefilterSettings(kind="energy", maximum_segment_ms=10_001),
    ],
)
def test_every_setting_is_in_the_digest(other: PrefilterSettings) -> None:
    assert prefilter_digest(other) != prefilter_digest(PREFILTER)


def test_the_digest_is_of_what_is_meant_not_of_how_it_is_written() -> None:
    spelled = PrefilterSettings(
        kind="energy", options={}, pre_roll_ms=300, minimum_speech_ms=60, hangover_ms=400, maximum_segment_ms=10_000
    )
    assert prefilter_digest(spelled) == prefilter_digest(PREFILTER) == "c9783022173aa0ef"
    one = PrefilterSettings(kind="energy", options={"a": 1, "b": 2.0})
    other = PrefilterSettings(kind="energy", options={"b": 2, "a": 1.0})
    assert prefilter_digest(one) == prefilter_digest(other)


def test_new_fields_of_the_prefilter_cannot_be_forgotten() -> None:
    # The digest spells out the fields that have defaults; a new one belongs there, and into the value above.
    assert set(PrefilterSettings.__struct_fields__) == {
        "kind",
        "options",
        "pre_roll_ms",
        "minimum_speech_ms",
        "hangover_ms",
        "maximum_segment_ms",
    }


# What the server knows of releases.


def _offer(release: int, percent: int = 100, *, withdrawn: bool = False) -> Offer:
    return Offer(
        release=release,
        version=f"1.{release}.0",
        bundle_schema="tidegate.bundle/1",
        manifest=FileReference(sha256=SHA, size_bytes=1),
        variants=(),
        rollout=Rollout(percent=percent, salt="a1b2c3d4e5f60718"),
        offered_at=AT,
        withdrawn=Withdrawal(reason="bad", at=AT) if withdrawn else None,
    )


def _track(*offers: Offer) -> Track:
    return Track(schema="tidegate.channel/1", model="m", track="stable", offers=offers)


@given(st.text(), st.integers(0, 100))
def test_a_device_is_told_of_what_its_roll_out_reaches(device: str, percent: int) -> None:
    newest = newest_for(_track(_offer(1), _offer(2, percent)), device)
    reached = percent == 100 or (device != "" and in_cohort(device, "a1b2c3d4e5f60718", percent))
    assert newest == Latest("m", "stable", 2 if reached else 1, "1.2.0" if reached else "1.1.0")


def test_what_was_withdrawn_is_not_announced() -> None:
    assert newest_for(_track(_offer(1), _offer(2, withdrawn=True)), "kiosk-1") == Latest("m", "stable", 1, "1.1.0")
    assert newest_for(_track(_offer(2, withdrawn=True)), "kiosk-1") is None
    assert newest_for(_track(), "kiosk-1") is None


@pytest.mark.parametrize(
    ("url", "tracks", "interval_s"),
    [
        ("ftp://example.com", ["stable"], 300.0),
        ("https://example.com", [], 300.0),
        ("https://example.com", ["Stable"], 300.0),
        ("https://example.com", ["stable"], 0.0),
        ("https://example.com", ["stable"], float("nan")),
        ("https://example.com", ["stable"], float("inf")),
    ],
)
def test_an_announcer_refuses_what_cannot_be_meant(url: str, tracks: list[str], interval_s: float) -> None:
    with pytest.raises(ConfigError):
        ChannelAnnouncer(url, b"{}", tracks, interval_s=interval_s)


def test_reports_of_made_up_models_are_not_kept_without_end() -> None:
    announcer = ChannelAnnouncer("https://example.com", b"{}")
    for number in range(MOST_WAITING * 2):
        assert announcer.latest(replace(USUAL, model=f"m{number}")) is None
    assert announcer.waiting == MOST_WAITING
    assert announcer.latest(replace(USUAL, track="beta")) is None
    announcer.close()


# What the device says.


def _slot(release: int, sha256: str = SHA, *, version: str = "1.1.0", track: str = "stable") -> Slot:
    return Slot(
        model="voice-commands",
        track=track,
        release=release,
        version=version,
        manifest_sha256="cd" * 32,
        variant="tflite-int8",
        variant_sha256=sha256,
        installed_at=AT,
        activated_at=AT,
    )


OTHER = "ef" * 32
FACTORY = _slot(1, OTHER, version="1.0.0")
RUNNING = Running(
    "voice-commands", "1.1.0", 2, "tflite-int8", SHA, "litert 2.1.0", SignalPath("audio/16000", "energy/aa")
)


def _device(directory: Path, record: Record | None) -> Path:
    directory.mkdir(exist_ok=True)
    write_settings(
        directory / "device.json",
        DeviceSettings(device_id="kiosk-1", url="https://example.com/site", model="voice-commands"),
    )
    if record is not None:
        write_record(directory / "state.json", record)
    return directory


def _record(phase: State, active: Slot, **changes: object) -> Record:
    record = Record(schema=DEVICE_SCHEMA, phase=phase, active=active, factory=FACTORY)
    return replace(record, counters={"stable": active.release}, **changes)


QUARANTINED = (Quarantined(release=9, version="1.9.0", reason="slow", at=AT),)
CASES: list[tuple[Record | None, RunState, int]] = [
    (_record(State.IDLE, _slot(7)), "committed", 7),
    (_record(State.COMMITTED, _slot(7)), "committed", 7),
    # A candidate that failed its probe was never activated: nothing was rolled back.
    (_record(State.IDLE, _slot(7), quarantined=QUARANTINED), "committed", 7),
    (_record(State.FETCHING, _slot(7), candidate=_slot(8, OTHER)), "committed", 7),
    (_record(State.TRIAL, _slot(7)), "trial", 7),
    (replace(_record(State.IDLE, _slot(7)), counters={"stable": 9}, quarantined=QUARANTINED), "rolled-back", 7),
    # The counter of the track that it came from is another one.
    (replace(_record(State.IDLE, _slot(7)), counters={"stable": 7, "beta": 9}), "committed", 7),
    (_record(State.ROLLING_BACK, _slot(7)), "not-active", 7),
    (_record(State.IDLE, _slot(8, OTHER, version="1.2.0"), previous=_slot(7)), "not-active", 7),
    # Nothing in the record is what runs: the manifest's own counter.
    (_record(State.IDLE, _slot(8, OTHER, version="1.2.0")), "not-active", 2),
    (None, "unknown", 2),
]


@pytest.mark.parametrize(("record", "state", "release"), CASES)
def test_the_report_says_how_what_runs_stands_to_the_record(
    tmp_path: Path, record: Record | None, state: RunState, release: int
) -> None:
    report = Reporter(lambda: RUNNING, _device(tmp_path / "device", record)).report()
    assert (report.device, report.track, report.state, report.release) == ("kiosk-1", "stable", state, release)
    assert (report.version, report.sha256) == ("1.1.0", SHA)


def test_what_runs_comes_from_the_process_and_not_from_the_record(tmp_path: Path) -> None:
    directory = _device(tmp_path / "device", _record(State.IDLE, _slot(7)))
    running = [RUNNING]
    reporter = Reporter(lambda: running[0], directory)
    assert not reporter.changed()
    reporter.headers()
    assert not reporter.changed()
    running[0] = Running("voice-commands", "1.0.0", 1, "tflite-int8", OTHER, "litert 2.1.0", SignalPath())
    assert reporter.changed()
    report = reporter.report()
    assert (report.version, report.release, report.state) == ("1.0.0", 1, "not-active")


def test_a_record_that_is_replaced_is_read_again_and_a_torn_one_is_unknown(tmp_path: Path) -> None:
    directory = _device(tmp_path / "device", _record(State.TRIAL, _slot(7)))
    reporter = Reporter(lambda: RUNNING, directory)
    reporter.headers()
    write_record(directory / "state.json", _record(State.IDLE, _slot(7)))
    assert reporter.changed()
    assert reporter.report().state == "committed"
    (directory / "state.json").write_bytes(b'{"schema": "tidega')
    assert reporter.report().state == "unknown"


def test_a_listener_without_an_updater_reports_without_a_name() -> None:
    reporter = Reporter(lambda: RUNNING)
    ((name, value),) = reporter.headers()
    report = parse_report(value)
    assert name == REPORT_HEADER
    assert (report.state, report.device, report.session, report.counter) == ("unmanaged", "", 0, 0)
    assert reporter.why_unsigned


def test_a_bundle_whose_model_cannot_run_here_is_reported_without_a_variant(tone_manifest: Manifest) -> None:
    running = Running.of(tone_manifest)
    assert (running.variant, running.sha256) == ("", "")
    report = Reporter(lambda: running).report()
    assert parse_report(format_report(report)) == report
    assert report.front_end == "audio/16000"


def test_the_signal_path_is_that_of_the_manifest(tone_manifest: Manifest) -> None:
    from msgspec.structs import replace as changed

    front_end = FrontEnd(kind="audio", sample_rate_hz=8000, inside_graph=True)
    path = SignalPath.of(changed(tone_manifest, front_end=front_end, prefilter=None))
    assert path == SignalPath("audio/8000", "")


def test_each_report_of_a_device_is_signed_and_counted(tmp_path: Path) -> None:
    directory = _device(tmp_path / "device", _record(State.IDLE, _slot(7)))
    public = create_report_key(directory, "kiosk-1")
    assert (directory / KEY_FILE).stat().st_mode & 0o777 == 0o600
    keys = DeviceKeys(directory / PUBLIC_FILE)
    reception = Reception(None, keys)
    for session in (1, 2):
        reporter = Reporter(lambda: RUNNING, directory)
        assert reporter.why_unsigned == ""
        for counter in (1, 2):
            headers = reporter.headers()
            heard = reception.hear(headers)
            assert heard is not None
            assert heard.verified
            assert (heard.report.session, heard.report.counter) == (session, counter)
    assert public.device == "kiosk-1"
    with pytest.raises(ConfigError, match="there already"):
        create_report_key(directory, "kiosk-1")


def test_a_damaged_key_is_told_at_the_start(tmp_path: Path) -> None:
    directory = _device(tmp_path / "device", None)
    for content in (b"not base64!", b"AAAA\n"):
        (directory / KEY_FILE).write_bytes(content)
        with pytest.raises(ConfigError):
            Reporter(lambda: RUNNING, directory)


def test_when_no_session_can_be_taken_the_report_goes_unsigned(tmp_path: Path) -> None:
    directory = _device(tmp_path / "device", _record(State.IDLE, _slot(7)))
    create_report_key(directory, "kiosk-1")
    (directory / "report-sessions").write_text("in the way")
    reporter = Reporter(lambda: RUNNING, directory)
    assert "no session number could be taken" in reporter.why_unsigned
    ((_, value),) = reporter.headers()
    assert parse_report(value).session == 0


def test_session_numbers_rise_whoever_takes_them(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tidegate.edge.update.report_identity import new_session\n"
        "for _ in range(20): print(new_session(Path(sys.argv[1])))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in running]
    taken = [[int(line) for line in output.split()] for output in outputs]
    numbers = [number for one in taken for number in one]
    assert len(set(numbers)) == len(numbers) == 60
    assert all(one == sorted(one) for one in taken)
    assert new_session(tmp_path) == max(numbers) + 1


# Hints.


def test_a_hint_is_followed_once_and_not_too_often() -> None:
    now = [100.0]
    hint = UpdateHint(clock=lambda: now[0])
    record = _record(State.IDLE, _slot(7))

    def note(release: int, model: str = "voice-commands", track: str = "stable") -> bool:
        return hint.note(Latest(model, track, release, "1.2.0"), record)

    assert not note(7)
    assert not note(8, model="other")
    assert not note(8, track="beta")
    assert note(8)
    assert not note(8)
    assert not note(9)
    now[0] += SHORTEST_REST_S
    assert not note(8)
    assert note(9)


def test_a_device_that_went_back_does_not_follow_a_hint_to_what_it_left() -> None:
    record = replace(_record(State.IDLE, _slot(7)), counters={"stable": 9}, quarantined=QUARANTINED)
    assert not UpdateHint().note(Latest("voice-commands", "stable", 9, "1.9.0"), record)
    assert UpdateHint().note(Latest("voice-commands", "stable", 10, "1.10.0"), record)
