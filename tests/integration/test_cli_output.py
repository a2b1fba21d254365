"""What every command does when its output is not wanted, when it is interrupted, and when it is used wrongly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.processes import children_of, has_loaded
from tests.served import PROCESS_TIMEOUT_S, linear_bundle
from tests.waiting import wait_until

from tidegate.cli.__main__ import start
from tidegate.cli.main import COMMANDS, main

COMMAND = [sys.executable, "-m", "tidegate.cli"]

# A shell starts what runs in the background with interrupts ignored, and tests may run there.
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from tidegate.cli.__main__ import start\n"
    "sys.exit(start())",
]

# Buffered, as for a user: with this variable set, Python writes each line at once.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("words", [["--help"], ["access", "create", "keys.json", "--role", "infer"]])
def test_a_reader_that_left_is_no_traceback(words: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            cwd=tmp_path,
            timeout=PROCESS_TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_under_the_output_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            timeout=PROCESS_TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_an_interrupt_is_no_traceback(tmp_path: Path) -> None:
    bundle = linear_bundle(tmp_path)
    command = [*INTERRUPTIBLE, "bench", str(bundle), "--min-duration-s", "600", "--json"]
    # Its own group, as in a terminal, where Ctrl-C reaches the process that measures as well.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    ) as process:
        try:
            # Then this process does nothing but wait; Python may lose an interrupt that comes while it starts another.
            wait_until(lambda: any(has_loaded(child, "onnxruntime") for child in children_of(process.pid)))
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=PROCESS_TIMEOUT_S)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_word_that_is_not_known_is_one_clear_message(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--no-such-option"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first.startswith("tidegate: ")
    assert "--help` shows what it takes" in second


class Interrupts:
    """A finder of modules in whose way an interrupt comes."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "tidegate.cli.main":
            raise KeyboardInterrupt


def test_an_interrupt_while_the_command_is_imported_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tidegate.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    assert start() == 130
