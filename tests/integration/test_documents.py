"""All code in README and docs runs: Python blocks in one interpreter each, `$` lines of console blocks in a shell.

A console block runs from its first line to its last in one directory that holds `examples/`. A server (`SERVERS`) stays
up until its block is over. `make` and `pip` lines are left to CI and to the wheel test, which run the same things.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.edge.update import DeviceSettings, initialise
from tidegate.testing.channels import make_channel, open_keys, serve, write_keys

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")])
FENCE = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK_TIMEOUT_S = 840
"""Some blocks start TensorFlow several times."""

LEFT_TO_OTHER_TESTS = ("make", "pip", "git", "cd", "python3", ".venv/bin/pip", "apt-get", "sudo", "source", ".")
DEMO = ROOT / "examples" / "voice_commands"
KIOSK = "kiosk"
"""Name of the device directory that Python blocks may use; there is one, with a channel, for those that name it."""
SERVERS = {"tidegate serve": "listening", "python -m http.server": "Serving HTTP"}
"""First words of a command that serves until its block is over, and what it says when it is ready."""


def blocks(language: str) -> list[ParameterSet]:
    found = []
    for document in DOCUMENTS:
        for number, match in enumerate(FENCE.finditer(document.read_text(encoding="utf-8")), 1):
            if match[1] == language:
                found.append(pytest.param(match[2], id=f"{document.relative_to(ROOT)}:{number}"))
    return found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel that offers the demo's bundle on `stable`."""
    home = tmp_path_factory.mktemp("channel")
    write_keys(home / "keys")
    channel = make_channel(home / "site", home / "keys")
    channel.publish(DEMO / "voice-commands.tide", track="stable", keys=open_keys(home / "keys"))
    return home / "site"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    for name in ("voice-commands.tide", "voice-commands-cloud.tide", "demo.wav"):
        (tmp_path / name).symlink_to(DEMO / name)
    return tmp_path


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(code: str, directory: Path, site: Path) -> None:
    with device_of(site, directory) if f'"{KIOSK}"' in code else nullcontext():
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout, "an example shows something"


@contextmanager
def device_of(site: Path, directory: Path) -> Iterator[None]:
    with serve(site) as server:
        initialise(
            directory / KIOSK,
            DeviceSettings(device_id="kiosk-1", url=server.url, model="voice-commands"),
            (site / "metadata" / "1.root.json").read_bytes(),
            DEMO / "voice-commands.tide",
        )
        yield


@pytest.mark.timeout(BLOCK_TIMEOUT_S + 60)
@pytest.mark.parametrize("session", blocks("console"))
def test_console_block_runs(session: str, directory: Path) -> None:
    commands = [line[2:] for line in session.splitlines() if line.startswith("$ ")]
    assert commands, "a console block has at least one `$` line"
    with ExitStack() as servers:
        for command in together(commands):
            if is_server(command):
                servers.enter_context(serving(command.removesuffix(" &"), directory))
                continue
            done = subprocess.run(
                ["bash", "-e", "-c", command],
                cwd=directory,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=BLOCK_TIMEOUT_S,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def together(commands: list[str]) -> list[str]:
    """Join what stands between servers into one shell script, so that a variable set in one line holds in the next."""
    scripts: list[str] = []
    for command in commands:
        if shlex.split(command)[0] in LEFT_TO_OTHER_TESTS:
            continue
        if is_server(command) or not scripts or is_server(scripts[-1]):
            scripts.append(command)
        else:
            scripts[-1] += f"\n{command}"
    return scripts


def is_server(command: str) -> bool:
    return command.startswith(tuple(SERVERS))


@contextmanager
def serving(command: str, directory: Path) -> Iterator[None]:
    with subprocess.Popen(
        shlex.split(command), cwd=directory, env=environment(), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        ready = next(words for first, words in SERVERS.items() if command.startswith(first))
        try:
            assert ready in server.stdout.readline()
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=120)
