"""The example of device updates runs: the app swaps its model while it works, the systemd units do what they say."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Asset, Bundle, digest, write_bundle
from tidegate.edge.update import DeviceSettings, Updater, initialise
from tidegate.testing.channels import make_channel, open_keys, serve, write_keys

EXAMPLE = Path(__file__).parents[2] / "examples" / "device_updates"
VOICE = EXAMPLE.parent / "voice_commands"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A device with 1.0.0, whose channel offers 1.1.0, and whose trials are short."""
    write_keys(tmp_path / "keys")
    channel = make_channel(tmp_path / "site", tmp_path / "keys")
    factory = VOICE / "voice-commands.tide"
    for bundle in (factory, next_version(factory, tmp_path / "next.tide")):
        channel.publish(bundle, track="stable", keys=open_keys(tmp_path / "keys"))
    with serve(tmp_path / "site") as server:
        settings = DeviceSettings(
            device_id="kiosk-1",
            url=server.url,
            model="voice-commands",
            # A busy machine may be slow, and that is not what this is about.
            trial={"minimum_calls": 20, "minimum_s": 0.0, "maximum_over_budget_rate": 1.0},
        )
        root = (tmp_path / "site" / "metadata" / "1.root.json").read_bytes()
        initialise(tmp_path / "kiosk", settings, root, factory)
        yield tmp_path / "kiosk"


def next_version(bundle: Path, path: Path) -> Path:
    """Write the same release with one more entry in its catalogue."""
    with Bundle.open(bundle) as old:
        contents = {file.path: old.read(file.path) for file in old.files}
        asset = old.manifest.assets["catalogue"]
        contents[asset.file] += (
            json.dumps({"id": "thanks", "title": "Thank you", "text": "yes thanks"}).encode() + b"\n"
        )
        new = Asset(file=asset.file, sha256=digest(contents[asset.file]), size_bytes=len(contents[asset.file]))
        manifest = msgspec.structs.replace(old.manifest, version="1.1.0", release=2, assets={"catalogue": new})
    write_bundle(manifest, contents, path)
    return path


class App:
    """The example's app in a process of its own; what it says on either stream comes as one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def hear(self, first_words: str) -> list[str]:
        """Return what it says up to the line that begins with these words."""
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(first_words):
                return said
            if line.startswith(("probe failed", "refused", "rolled back")) or len(said) > 20_000:
                break
        pytest.fail(f"never said {first_words!r}, but: {''.join(said[-20:])}")


@contextmanager
def app(device: Path, *words: str) -> Iterator[App]:
    with subprocess.Popen(
        [sys.executable, EXAMPLE / "app.py", "--device", device, "--wav", VOICE / "demo.wav", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield App(process)
        finally:
            process.kill()


def test_the_app_waits_while_it_is_on_hold_then_swaps_and_keeps_the_new_model(device: Path) -> None:
    hold = device.parent / "hold"
    hold.touch()
    with app(device, "--pace-s", "0.01", "--check-every-s", "0.1", "--hold", str(hold)) as running:
        said = running.hear("postponed: 1.0.0 runs.")
        assert f"{hold} is there" in said[-1]
        assert any(line.startswith("1.0.0  ") for line in said)
        hold.unlink()
        running.hear("activated: 1.1.0 runs.")
        running.hear("1.1.0  ")
        running.hear("committed: 1.1.0 runs.")
        running.process.send_signal(signal.SIGINT)
        running.hear("stopped")
        assert running.process.wait(timeout=60) == 0
    status = Updater(device).status()
    assert (status.phase.value, status.active.version, status.factory.version) == ("idle", "1.1.0", "1.0.0")
    assert not status.quarantined


def test_a_channel_that_is_gone_does_not_stop_the_app(device: Path) -> None:
    settings = json.loads((device / "device.json").read_text())
    settings |= {"url": "http://127.0.0.1:9", "fetch": {"attempts": 1}}
    (device / "device.json").write_text(json.dumps(settings))
    with app(device, "--pace-s", "0.01", "--check-every-s", "0.1") as running:
        running.hear("no update: ")
        running.hear("1.0.0  ")
        running.process.send_signal(signal.SIGINT)
        running.hear("stopped")
        assert running.process.wait(timeout=60) == 0


def unit(name: str) -> ConfigParser:
    parsed = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(EXAMPLE / name)
    return parsed


def test_the_service_runs_an_update_of_the_device_that_it_names(device: Path) -> None:
    service = unit("tidegate-update.service")["Service"]
    command = shlex.split(service["ExecStart"])
    name, _, place = service["Environment"].partition("=")
    assert Path(command[0]).name == "tidegate"
    assert place.startswith(f"{service['ReadWritePaths']}/")
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli", *command[1:]],
        env={**os.environ, name: str(device)},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert "version 1.1.0, release 2 is active" in done.stdout


def test_the_timer_starts_the_service() -> None:
    timer = unit("tidegate-update.timer")
    assert (EXAMPLE / timer["Timer"]["Unit"]).is_file()
    assert timer["Install"]["WantedBy"] == "timers.target"
