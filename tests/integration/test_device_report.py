"""Devices that report to a real server on loopback: signed and not, told of news from a real channel, refused pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.listening import write_wav
from tests.served import linear_bundle
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Bundle, Golden, Manifest, PrefilterSettings, digest, write_bundle
from tidegate.bundle.arrays import pack_arrays
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud import Server
from tidegate.cloud.announce import ChannelAnnouncer, FixedReleases
from tidegate.cloud.device_keys import DeviceKeys
from tidegate.cloud.devices import Reception
from tidegate.edge import Listener
from tidegate.edge.update import DeviceSettings, Reporter, Running, Updater, create_report_key, initialise
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import Quarantined, read_record, write_record
from tidegate.errors import InputError, StateError, UnavailableError
from tidegate.release.channel import Channel
from tidegate.runtime import Model, load
from tidegate.testing.channels import StaticServer, make_channel, open_keys, serve, write_keys
from tidegate.wire.pairing import EXPECTS_HEADER, SignalPath, misfit
from tidegate.wire.report import LATEST_HEADER, REPORT_HEADER, SIGNATURE_HEADER, Headers, Latest, format_report, header

Say = Callable[..., NDArray[np.float32]]
Files = tuple[Manifest, dict[str, bytes]]

RATE_HZ = 16_000
PATIENT_S = 60.0
EXAMPLES = Path(__file__).parents[2] / "examples" / "voice_commands"


class Recording:
    """A source that plays an array."""

    sample_rate_hz = RATE_HZ

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        yield from np.array_split(self._samples, len(self._samples) // 512)

    def close(self) -> None:
        pass


def with_golden(home: Path, manifest: Manifest, contents: dict[str, bytes]) -> Files:
    """Add what the model says to one second of noise: a factory version must prove itself."""
    write_bundle(manifest, contents, home / "bare.tide")
    audio = np.random.default_rng(3).normal(0, 0.1, (1, RATE_HZ)).astype(np.float32)
    with load(home / "bare.tide") as model:
        expected = model.run({"audio": audio})["probabilities"]
    fixture = pack_arrays({"input/audio": audio, "output/probabilities": expected})
    golden = Golden(file="golden.npz", sha256=digest(fixture), size_bytes=len(fixture), tolerance=1e-4)
    return msgspec.structs.replace(manifest, golden=golden), contents | {"golden.npz": fixture}


class World:
    """An author's channel on a web server, a device that follows it, and what the device runs."""

    def __init__(self, home: Path, channel: Channel, web: StaticServer, files: Files) -> None:
        self.home, self.channel, self.web, self.files = home, channel, web, files
        self.device = home / "kiosk"
        self.root = (home / "site" / "metadata" / "1.root.json").read_bytes()

    def bundle(self, version: str) -> Path:
        manifest, contents = self.files
        path = self.home / f"{version}.tide"
        write_bundle(msgspec.structs.replace(manifest, version=version), contents, path)
        return path

    def publish(self, version: str, percent: int = 100) -> None:
        keys = open_keys(self.home / "keys")
        self.channel.publish(self.bundle(version), track="stable", percent=percent, keys=keys)

    def set_up_device(self) -> None:
        settings = DeviceSettings(device_id="kiosk-1", url=self.web.url, model="tones")
        initialise(self.device, settings, self.root, self.home / "1.0.0.tide")
        create_report_key(self.device, "kiosk-1")

    def announcer(self, interval_s: float = 0.05) -> ChannelAnnouncer:
        return ChannelAnnouncer(self.web.url, self.root, interval_s=interval_s)


@pytest.fixture
def world(tmp_path: Path, tone_release: Files) -> Iterator[World]:
    write_keys(tmp_path / "keys")
    channel = make_channel(tmp_path / "site", tmp_path / "keys")
    with serve(tmp_path / "site") as web:
        world = World(tmp_path, channel, web, with_golden(tmp_path, *tone_release))
        world.publish("1.0.0")
        world.set_up_device()
        yield world


@pytest.fixture
def running(world: World) -> Iterator[Callable[[], Running]]:
    with Bundle.open(world.home / "1.0.0.tide") as bundle, load(bundle) as model:
        yield lambda: running_of(model)


def running_of(model: Model) -> Running:
    assert model.manifest is not None
    return Running.of(model.manifest, model.variant_id, model.runtime)


def stream_to(client: Client, signal_path: SignalPath | None = None) -> None:
    client.recognize(sample_rate_hz=RATE_HZ, signal_path=signal_path).close()


def infer(client: Client) -> None:
    client.infer("tones", {"audio": np.zeros((1, RATE_HZ), np.float32)})


def test_the_server_knows_what_runs_and_the_device_learns_of_news(world: World, running: Callable[[], Running]) -> None:
    reporter = Reporter(running, world.device)
    updater = Updater(world.device)
    keys = DeviceKeys(world.device / "report.pub")
    with (
        world.announcer() as announcer,
        Server([world.home / "1.0.0.tide"], reception=Reception(announcer, keys)) as server,
        Client(server.address, timeout_s=PATIENT_S, report=reporter.headers) as client,
    ):
        stream_to(client)
        (heard,) = server.reception.all()
        assert heard.verified
        report = heard.report
        assert (report.device, report.model, report.version, report.release) == ("kiosk-1", "tones", "1.0.0", 0)
        assert (report.state, report.track, report.variant) == ("committed", "stable", "onnx-fp32")
        assert report.sha256 == world.files[0].variants[0].sha256
        assert report.runtime.startswith("onnx")
        assert report.since.endswith("Z")

        assert announcer.wait_until_known("tones", "stable", 1, PATIENT_S)
        infer(client)
        assert client.latest == Latest("tones", "stable", 1, "1.0.0")

        world.publish("1.1.0")
        assert announcer.wait_until_known("tones", "stable", 2, PATIENT_S)
        stream_to(client)
        assert client.latest == Latest("tones", "stable", 2, "1.1.0")
        assert updater.note_latest(client.latest)
        assert not updater.note_latest(client.latest)
        offer = updater.check().offer
        assert offer is not None
        assert offer.release == 2
        assert [one.report.counter for one in server.reception.all()] == [3]


def test_a_lie_of_the_server_changes_nothing_on_the_device(world: World, running: Callable[[], Running]) -> None:
    reporter, updater = Reporter(running, world.device), Updater(world.device)
    state = (world.device / "state.json").read_bytes()
    lie = Latest("tones", "stable", 900, "9.0.0")
    with (
        Server([world.home / "1.0.0.tide"], reception=Reception(FixedReleases([lie]))) as server,
        Client(server.address, timeout_s=PATIENT_S, report=reporter.headers) as client,
    ):
        infer(client)
        assert client.latest == lie
    assert updater.note_latest(lie)
    assert (world.device / "state.json").read_bytes() == state
    found = updater.check()
    assert found.offer is None
    assert found.running.version == "1.0.0"


def test_a_ramp_is_announced_to_those_it_reaches(world: World, running: Callable[[], Running]) -> None:
    world.publish("1.1.0", percent=0)
    reporter = Reporter(running, world.device)
    with (
        world.announcer() as announcer,
        Server([world.home / "1.0.0.tide"], reception=Reception(announcer)) as server,
        Client(server.address, timeout_s=PATIENT_S, report=reporter.headers) as client,
    ):
        infer(client)
        assert announcer.wait_until_known("tones", "stable", 2, PATIENT_S)
        infer(client)
        assert client.latest == Latest("tones", "stable", 1, "1.0.0")


def test_a_channel_that_goes_away_leaves_what_was_known(world: World, running: Callable[[], Running]) -> None:
    warnings: list[str] = []
    report = Reporter(running, world.device).report()
    with serve(world.home / "site") as web:
        announcer = ChannelAnnouncer(web.url, world.root, interval_s=0.05, on_warning=warnings.append)
        announcer.start()
        assert announcer.latest(report) is None
        assert announcer.wait_until_known("tones", "stable", 1, PATIENT_S)
    assert announcer.wait_until_failed(PATIENT_S)
    assert announcer.latest(report) == Latest("tones", "stable", 1, "1.0.0")
    announcer.close()
    assert len(warnings) == 1
    assert "announcing what was known before" in warnings[0]


def test_made_up_names_do_not_keep_real_ones_from_being_announced(world: World, running: Callable[[], Running]) -> None:
    report = Reporter(running, world.device).report()
    with world.announcer(interval_s=3600) as announcer:
        for number in range(1000):
            announcer.latest(msgspec.structs.replace(report, model=f"../made-up-{number}"))
        for _ in range(600):
            if announcer.latest(report) or announcer.wait_until_known("tones", "stable", 1, 0.1):
                break
        assert announcer.latest(report) == Latest("tones", "stable", 1, "1.0.0")
        assert announcer.problem == ""
    # One check, whatever the reports ask for.
    assert len(world.web.requests) == len(set(world.web.requests)) == 4


def test_a_root_that_is_not_the_channels_announces_nothing(world: World, running: Callable[[], Running]) -> None:
    stranger = world.home / "stranger"
    write_keys(stranger / "keys")
    make_channel(stranger / "site", stranger / "keys")
    root = (stranger / "site" / "metadata" / "1.root.json").read_bytes()
    report = Reporter(running, world.device).report()
    with ChannelAnnouncer(world.web.url, root, interval_s=0.05) as announcer:
        assert announcer.latest(report) is None
        assert announcer.wait_until_failed(PATIENT_S)
        assert announcer.latest(report) is None


def _once(headers: Headers) -> Callable[[], Headers]:
    return lambda: headers


@pytest.mark.parametrize("call", [infer, stream_to])
def test_wrong_and_repeated_signatures_are_refused_on_every_way_in(
    world: World, running: Callable[[], Running], call: Callable[[Client], None]
) -> None:
    reporter = Reporter(running, world.device)
    headers = reporter.headers()
    value = header(headers, REPORT_HEADER)
    assert value is not None
    forged = ((REPORT_HEADER, value.replace('"1.0.0"', '"2.0.0"')), headers[1])
    torn = ((REPORT_HEADER, value[:-20]), headers[1])
    reception = Reception(None, DeviceKeys(world.device / "report.pub"))
    with Server([world.home / "1.0.0.tide"], reception=reception) as server:
        for sent, message in ((forged, "is not that of the key registered"), (torn, "is not a tidegate.report/1")):
            with (
                Client(server.address, timeout_s=PATIENT_S, report=_once(sent)) as client,
                pytest.raises(InputError, match=message),
            ):
                call(client)
        assert reception.all() == ()
        with Client(server.address, timeout_s=PATIENT_S, report=_once(headers)) as client:
            call(client)
            with pytest.raises(InputError, match="was sent before"):
                call(client)
        with Client(server.address, timeout_s=PATIENT_S, report=_once(headers[:1])) as client:
            call(client)
        assert [heard.verified for heard in reception.all()] == [True, False]


def test_a_call_without_a_report_is_answered_as_before(tmp_path: Path) -> None:
    reception = Reception(FixedReleases([Latest("linear", "stable", 2, "2.0.0")]))
    with Server([linear_bundle(tmp_path)], reception=reception) as server, Client(server.address) as client:
        client.infer("linear", {"x": np.zeros((1, 4), np.float32)})
        assert client.latest is None
    assert reception.all() == ()


def test_foreign_headers_of_other_clients_do_no_harm(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path)]) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for headers, code in (
            ([("x-request-id", "1"), ("trace-bin", b"\x00\xff")], grpc.StatusCode.NOT_FOUND),
            ([(REPORT_HEADER, "{}")], grpc.StatusCode.INVALID_ARGUMENT),
            ([(SIGNATURE_HEADER, "AAAA")], grpc.StatusCode.INVALID_ARGUMENT),
            ([(REPORT_HEADER, "x" * 5000)], grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=headers, timeout=PATIENT_S)
            assert caught.value.code() is code


# Pairs.


def speech_bundle(
    directory: Path, files: Files, *, version: str = "1.0.0", name: str = "tones", hangover_ms: int
) -> Path:
    manifest, contents = files
    prefilter = PrefilterSettings(kind="energy", hangover_ms=hangover_ms)
    path = directory / f"{name}-{version}.tide"
    write_bundle(msgspec.structs.replace(manifest, name=name, version=version, prefilter=prefilter), contents, path)
    return path


def test_a_listener_and_a_server_that_do_not_belong_together(tmp_path: Path, tone_release: Files, say: Say) -> None:
    here = speech_bundle(tmp_path, tone_release, hangover_ms=400)
    there = speech_bundle(tmp_path, tone_release, name="tones-cloud", hangover_ms=700)
    warnings: list[str] = []
    with (
        Server([there]) as server,
        Listener.open(here, cloud=server.address, cloud_timeout_s=PATIENT_S, on_warning=warnings.append) as listener,
    ):
        results = list(listener.listen(Recording(say([("yes", 1.0)], 3.0))))
    assert [(result.text, result.decided_by) for result in results] == [("yes", "edge")]
    (warning,) = warnings
    assert "tones 1.0.0" in warning
    assert "tones-cloud 1.0.0" in warning
    assert "do not belong together" in warning
    for path in (here, there):
        with Bundle.open(path) as bundle:
            assert SignalPath.of(bundle.manifest).prefilter in warning


def test_a_device_that_cannot_decide_itself_is_told_what_to_do(tmp_path: Path, tone_release: Files, say: Say) -> None:
    manifest, contents = tone_release
    # A variant that no runtime of this machine can load: the device has its server only.
    variant = msgspec.structs.replace(manifest.variants[0], minimum_runtime="999.0")
    here = speech_bundle(tmp_path, (msgspec.structs.replace(manifest, variants=(variant,)), contents), hangover_ms=400)
    there = speech_bundle(tmp_path, tone_release, name="tones-cloud", hangover_ms=700)
    with (
        Server([there]) as server,
        Listener.open(here, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener,
        pytest.raises(UnavailableError, match="do not belong together") as caught,
    ):
        list(listener.listen(Recording(say([("yes", 1.0)], 3.0))))
    assert "tidegate device update" in (caught.value.fix or "")


def test_the_device_refuses_too_when_the_server_was_told_nothing(tmp_path: Path, tone_release: Files) -> None:
    there = speech_bundle(tmp_path, tone_release, hangover_ms=700)
    with Server([there]) as server, Client(server.address, timeout_s=PATIENT_S) as client:
        stream_to(client)
        with Bundle.open(there) as bundle:
            stream_to(client, signal_path=SignalPath.of(bundle.manifest))
        with pytest.raises(StateError, match="hears audio/8000, the server's model audio/16000"):
            stream_to(client, signal_path=SignalPath("audio/8000", ""))
        assert server.open_streams <= 3


def test_of_two_versions_the_server_takes_the_one_that_belongs_to_the_device(
    tmp_path: Path, tone_release: Files, say: Say
) -> None:
    old = speech_bundle(tmp_path, tone_release, version="1.0.0", hangover_ms=400)
    new = speech_bundle(tmp_path, tone_release, version="2.0.0", hangover_ms=700)
    with Server([old, new]) as server:
        for path, version in ((old, "1.0.0"), (new, "2.0.0")):
            with Listener.open(path, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener:
                results = list(listener.listen(Recording(say([("yes", 1.0)], 3.0))))
            assert [(result.decided_by, result.version) for result in results] == [("cloud", version)]


def test_a_model_without_a_prefilter_takes_any(tmp_path: Path, tone_release: Files, say: Say) -> None:
    manifest, contents = tone_release
    here = speech_bundle(tmp_path, tone_release, hangover_ms=450)
    there = tmp_path / "open.tide"
    write_bundle(msgspec.structs.replace(manifest, name="open", prefilter=None), contents, there)
    with (
        Server([there]) as server,
        Listener.open(here, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener,
    ):
        results = list(listener.listen(Recording(say([("yes", 1.0)], 3.0))))
    assert [result.decided_by for result in results] == ["cloud"]


def test_the_shipped_pair_belongs_together() -> None:
    paths = []
    for name in ("voice-commands.tide", "voice-commands-cloud.tide"):
        with Bundle.open(EXAMPLES / name) as bundle:
            paths.append(SignalPath.of(bundle.manifest))
    assert misfit(*paths) == ""
    assert paths[0].prefilter


def test_what_goes_over_the_wire_is_as_documented(world: World, running: Callable[[], Running]) -> None:
    reporter = Reporter(running, world.device)
    latest = Latest("tones", "stable", 3, "1.3.0")
    with (
        Server([world.home / "1.0.0.tide"], reception=Reception(FixedReleases([latest]))) as server,
        Client(server.address, timeout_s=PATIENT_S, report=reporter.headers) as client,
        client.recognize(sample_rate_hz=RATE_HZ) as stream,
    ):
        answered = stream.answer_headers
    assert header(answered, "tidegate-accepted") == "tones 1.0.0"
    assert header(answered, EXPECTS_HEADER) == SignalPath.of(world.files[0]).to_header()
    assert header(answered, LATEST_HEADER) == "tones stable 3 1.3.0"
    assert sum(len(name) + len(value) for name, value in reporter.headers()) < 600
    assert len(format_report(reporter.report())) < 500


def test_a_listener_tells_once_of_a_newer_release_and_not_of_one_that_failed_here(world: World, say: Say) -> None:
    told: list[Latest] = []
    newer, condemned = Latest("tones", "stable", 3, "1.3.0"), Latest("tones", "stable", 4, "1.4.0")
    layout = Layout(world.device)
    record = read_record(layout.state)
    failed = Quarantined(release=4, version="1.4.0", reason="test", at="2026-01-01T00:00:00Z")
    write_record(layout.state, msgspec.structs.replace(record, quarantined=(failed,)))
    for latest in (newer, newer, condemned):
        with (
            Server([world.home / "1.0.0.tide"], reception=Reception(FixedReleases([latest]))) as server,
            Listener.open(
                device=world.device, cloud=server.address, cloud_timeout_s=PATIENT_S, on_newer=told.append
            ) as listener,
        ):
            for _ in range(2):
                assert [result.text for result in listener.listen(Recording(say([("yes", 1.0)], 3.0)))] == ["yes"]
            assert listener.latest == latest
    assert told == [newer, newer], "once for each listener"


def test_the_command_says_what_to_do_about_a_newer_release(
    world: World, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = world.home / "yes.wav"
    write_wav(recording, say([("yes", 1.0)], 3.0))
    latest = Latest("tones", "stable", 3, "1.3.0")
    words = ["listen", "--device", str(world.device), "--wav", str(recording)]
    command = f"tidegate device update --directory {world.device}"
    with Server([world.home / "1.0.0.tide"], reception=Reception(FixedReleases([latest]))) as server:
        for form in ([], ["--json"]):
            assert main([*words, "--cloud", server.address, *form]) == 0
            told = capsys.readouterr()
            assert told.err.count("newer release for this device: tones 1.3.0 (release 3 on stable)") == 1
            assert f"run `{command}`" in told.err
    events = [json.loads(line) for line in told.out.splitlines()]
    assert [event["newer"] for event in events if "newer" in event] == [
        {"model": "tones", "track": "stable", "release": 3, "version": "1.3.0", "update": command}
    ]


# The command line.


def _serve(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", "serve", *words, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serve_announces_and_checks(world: World, running: Callable[[], Running]) -> None:
    reporter = Reporter(running, world.device)
    root = world.home / "site" / "metadata" / "1.root.json"
    process = _serve(
        *(str(world.home / "1.0.0.tide"), "--announce", world.web.url, "--announce-root", str(root)),
        *("--announce-track", "stable", "--device-keys", str(world.device / "report.pub")),
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with Client(address, timeout_s=PATIENT_S, report=reporter.headers) as client:
            for _ in range(100_000):
                infer(client)
                if client.latest is not None:
                    break
            assert client.latest == Latest("tones", "stable", 1, "1.0.0")
            headers = reporter.headers()
        forged = _once((headers[0], (SIGNATURE_HEADER, "A" * 86 + "==")))
        with (
            Client(address, timeout_s=PATIENT_S, report=forged) as client,
            pytest.raises(InputError, match="not that of the key registered"),
        ):
            infer(client)
    finally:
        process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--announce", "http://127.0.0.1:9/site"], 2, "go together"),
        (["--announce-track", "stable"], 2, "go together"),
        (["--announce", "ftp://example.com", "--announce-root", "ROOT"], 2, "address"),
        (["--device-keys", "absent"], 1, "absent: no such file"),
    ],
)
def test_serve_that_cannot_be_meant(world: World, words: Sequence[str], code: int, message: str) -> None:
    root = str(world.home / "site" / "metadata" / "1.root.json")
    process = _serve(str(world.home / "1.0.0.tide"), *(root if word == "ROOT" else word for word in words))
    out, errors = process.communicate()
    assert (process.returncode, out) == (code, ""), errors
    assert message in errors
    assert "Traceback" not in errors


def test_init_makes_the_key_that_the_server_registers(world: World) -> None:
    root = str(world.home / "site" / "metadata" / "1.root.json")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tidegate.cli", "device", "init", "--directory", str(world.home / "second")),
            *("--channel", world.web.url, "--model", "tones", "--root", root),
            *("--factory", str(world.home / "1.0.0.tide"), "--device-id", "kiosk-2", "--sign-reports", "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    line = json.loads(done.stdout)["report_key"]
    assert line == (world.home / "second" / "report.pub").read_text().strip()
    with Bundle.open(world.home / "1.0.0.tide") as bundle:
        reporter = Reporter(lambda: Running.of(bundle.manifest), world.home / "second")
    reception = Reception(None, DeviceKeys(world.home / "second"))
    heard = reception.hear(reporter.headers())
    assert heard is not None
    assert (heard.verified, heard.report.device) == (True, "kiosk-2")


def test_a_listener_that_follows_a_device_reports_its_active_version(world: World, say: Say) -> None:
    reception = Reception(None, DeviceKeys(world.device / "report.pub"))
    with (
        Server([world.home / "1.0.0.tide"], reception=reception) as server,
        Listener.open(device=world.device, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener,
    ):
        results = list(listener.listen(Recording(say([("yes", 1.0)], 3.0))))
    assert [result.decided_by for result in results] == ["cloud"]
    (heard,) = reception.all()
    assert heard.verified
    assert (heard.report.device, heard.report.version, heard.report.state) == ("kiosk-1", "1.0.0", "committed")


class SpeechAroundASwitch:
    """Says a word, then keeps quiet until the server has heard of another version, then says one more."""

    sample_rate_hz = RATE_HZ

    def __init__(self, word: NDArray[np.float32], switch: Callable[[], object], is_heard: Callable[[], bool]) -> None:
        self._word, self._switch, self._is_heard = word, switch, is_heard

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        yield from np.array_split(self._word, len(self._word) // 512)
        self._switch()
        quiet = np.random.default_rng(5).normal(0, 0.001, 512).astype(np.float32)
        for _ in range(1_000_000):
            if self._is_heard():
                break
            yield quiet
        yield from np.array_split(self._word, len(self._word) // 512)

    def close(self) -> None:
        pass


def test_an_update_while_listening_reaches_the_server(world: World, say: Say) -> None:
    world.publish("1.1.0")
    updater = Updater(world.device)
    reception = Reception(None, DeviceKeys(world.device / "report.pub"))

    def is_heard() -> bool:
        return any(heard.report.version == "1.1.0" for heard in reception.all())

    source = SpeechAroundASwitch(say([("yes", 1.0)], 3.0), updater.update, is_heard)
    with (
        Server([world.home / "1.0.0.tide"], reception=reception) as server,
        Listener.open(device=world.device, cloud=server.address, cloud_timeout_s=PATIENT_S) as listener,
    ):
        results = list(listener.listen(source))
    (heard,) = reception.all()
    assert (heard.verified, heard.report.version, heard.report.release) == (True, "1.1.0", 2)
    assert heard.report.state == "trial"
    assert [result.text for result in results] == ["yes", "yes"]
    assert results[0].decided_by == "cloud"
