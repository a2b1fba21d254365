"""`tidegate keys`, `publish` and `channel` as a user types them: output, JSON, exit codes, no traceback."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import digest
from tidegate.cli.main import COMMANDS, main
from tidegate.release.lifetimes import ROLES
from tidegate.testing.channels import PlainDevice, serve, write_tiny_bundle

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `home` is a copy of: opening a key is slow on purpose."""
    directory = tmp_path_factory.mktemp("made")
    keys = directory / "keys"
    keys.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEGATE_PASSPHRASE", "correct horse")
        assert main(["keys", "create", *(str(keys / f"{role}.pem") for role in ROLES)]) == 0
        assert main(["channel", "init", "--channel", str(directory / "site"), "--keys", str(keys)]) == 0
    for version in ("1.0.0", "1.1.0"):
        write_tiny_bundle(directory / f"{version}.tide", version=version, weights=version.encode())
    return directory


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with keys, a channel and two bundles; the passphrase in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_PASSPHRASE", "correct horse")
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def tidegate(capsys: Capture, *words: str, code: int = 0) -> str:
    """Run a command, which must end with `code`; return its standard output."""
    capsys.readouterr()
    assert main(words) == code, capsys.readouterr().err
    return capsys.readouterr().out


def as_json(capsys: Capture, *words: str, code: int = 0) -> Any:
    return json.loads(tidegate(capsys, *words, "--json", code=code))


CHANGE = ("--channel", "site", "--keys", "keys")


def test_a_release_goes_from_beta_to_stable_and_back(home: Path, capsys: Capture) -> None:
    assert "version 1.0.0, release 1, 100 %" in tidegate(capsys, "publish", "1.0.0.tide", "--track", "stable", *CHANGE)
    published = as_json(capsys, "publish", "1.1.0.tide", "--track", "beta", *CHANGE)
    assert published["live"] is True
    assert published["changed"]["beta"]["release"] == 2

    move = ("channel", "promote", "tiny", "--track", "stable")
    assert "release 3, 5 %" in tidegate(capsys, *move, "--from", "beta", "--percent", "5", *CHANGE)
    assert "release 3, 50 %" in tidegate(capsys, *move, "--percent", "50", *CHANGE)
    back = ("channel", "rollback", "tiny", "--track", "stable", "--to", "1.0.0", "--reason", "misses words")
    assert "release 4, 100 %, takes back release 3" in tidegate(capsys, *back, *CHANGE)
    assert tidegate(capsys, *back, *CHANGE) == "nothing to change\n"
    stop = ("channel", "withdraw", "tiny", "--version", "1.1.0", "--reason", "wrong labels")
    assert "beta: version 1.1.0, release 2, withdrawn: wrong labels" in tidegate(capsys, *stop, *CHANGE)

    shown = tidegate(capsys, "channel", "show", "--channel", "site", "--check")
    assert [line.split()[:4] for line in shown.splitlines() if line.startswith("tiny")] == [
        ["tiny", "beta", "2", "1.1.0"],
        ["tiny", "stable", "4", "1.0.0"],
        ["tiny", "stable", "3", "1.1.0"],
        ["tiny", "stable", "1", "1.0.0"],
    ]
    report = as_json(capsys, "channel", "show", "--channel", "site")
    assert report["warnings"] == []
    assert [role["state"] for role in report["roles"]] == ["valid"] * 4
    with serve(home / "site") as server:
        root = (home / "site" / "metadata" / "1.root.json").read_bytes()
        assert PlainDevice(home / "device", server.url, root).install("tiny", "stable", "onnx-fp32").offer.release == 4


def test_an_online_machine_makes_live_what_the_author_staged(home: Path, capsys: Capture) -> None:
    author = ("--channel", "site", "--keys", "keys/targets.pem")
    online = ("--channel", "site", "--keys", "keys/snapshot.pem", "--keys", "keys/timestamp.pem")
    assert as_json(capsys, "publish", "1.0.0.tide", "--track", "stable", "--staged", *author)["live"] is False
    assert as_json(capsys, "channel", "show", "--channel", "site")["staged"] is True
    tidegate(capsys, "channel", "show", "--channel", "site", "--check", code=1)
    assert [role["version"] for role in as_json(capsys, "channel", "refresh", *online)["roles"]] == [1, 2, 2, 2]
    assert as_json(capsys, "channel", "show", "--channel", "site")["staged"] is False
    tidegate(capsys, "channel", "refresh", "--targets", *online, code=2)


def test_keys_are_rotated_and_thresholds_set(home: Path, capsys: Capture) -> None:
    tidegate(capsys, "keys", "create", "keys/timestamp-2.pem", "keys/root-2.pem")
    old, new = (
        entry["keyid"] for entry in as_json(capsys, "keys", "show", "keys/timestamp.pub", "keys/timestamp-2.pem")
    )
    rotated = as_json(
        capsys, "keys", "rotate", "--role", "timestamp", "--add", "keys/timestamp-2.pub", "--remove", old[:8], *CHANGE
    )
    assert rotated["keyids"] == [new]
    words = (
        "keys",
        "rotate",
        "--role",
        "root",
        "--add",
        "keys/root-2.pub",
        "--threshold",
        "2",
        "--lifetime",
        "root=30d",
    )
    assert "root needs 2 of" in tidegate(capsys, *words, *CHANGE)
    alone = ("--channel", "site", "--keys", "keys/root.pem")
    tidegate(capsys, "keys", "rotate", "--role", "root", *alone, code=2)
    assert as_json(capsys, "channel", "show", "--channel", "site")["roles"][0]["threshold"] == 2


def test_a_channel_with_two_root_holders(home: Path, capsys: Capture) -> None:
    tidegate(capsys, "keys", "create", "keys/root-2.pem")
    made = as_json(
        capsys, "channel", "init", "--channel", "other", "--threshold", "root=2", "--lifetime", "timestamp=12h",
        "--role", "targets=keys/targets.pub", "--keys", "keys",
    )  # fmt: skip
    assert len(made["keyids"]["root"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["publish", "gone.tide", "--track", "stable", *CHANGE], 1, "gone.tide"),
        (["publish", "1.0.0.tide", "--track", "stable", "--percent", "101", *CHANGE], 2, "101 percent"),
        (["publish", "1.0.0.tide", "--track", "Stable!", *CHANGE], 2, "track 'Stable!'"),
        (["publish", "1.0.0.tide", "--track", "a", "--channel", "site", "--keys", "keys/root.pem"], 2, "role targets"),
        (["publish", "1.0.0.tide", "--track", "a", "--channel", "keys", "--keys", "keys"], 1, "holds no channel"),
        (["publish", "1.0.0.tide", "--track", "a", "--channel", "gone", "--keys", "keys"], 1, "not a directory"),
        (["channel", "promote", "tiny", "--track", "stable", *CHANGE], 1, "no model 'tiny'; it has none"),
        (["channel", "show", "--channel", "keys"], 1, "holds no channel"),
        (["channel", "init", "--channel", "site", "--keys", "keys"], 2, "is a channel already"),
        (["channel", "init", "--channel", "new", "--keys", "keys", "--threshold", "root=2"], 2, "threshold of 2"),
        (["channel", "init", "--channel", "new", "--keys", "keys", "--threshold", "root=x"], 2, "not one number"),
        (["channel", "init", "--channel", "new", "--keys", "keys", "--lifetime", "root=1y"], 2, "not ROLE=TIME"),
        (["channel", "init", "--channel", "new", "--keys", "site"], 2, "no key was named for the role root"),
        (["channel", "init", "--channel", "new", "--keys", "keys", "--role", "boss=x"], 2, "not ROLE=VALUE"),
        (["keys", "create", "keys/root.pem"], 2, "never overwritten"),
        (["keys", "show", "keys/gone.pub"], 1, "is not there"),
        (["keys", "rotate", "--role", "root", "--remove", "00000000", *CHANGE], 1, "has no key '00000000'"),
        (["keys", "rotate", "--role", "targets", "--threshold", "2", *CHANGE], 2, "2 of 1 keys"),
        (
            [
                *("keys", "rotate", "--role", "timestamp", "--add", "keys/targets.pub", "--threshold", "2"),
                *("--lifetime", "timestamp=12h", *CHANGE),
            ],
            2,
            "a threshold of 2 for timestamp; expected 1: one machine signs it by itself",
        ),
        (
            [
                *("channel", "init", "--channel", "new", "--keys", "keys", "--threshold", "snapshot=2"),
                *("--role", "snapshot=keys/snapshot.pub", "--role", "snapshot=keys/targets.pub"),
            ],
            2,
            "a threshold of 2 for snapshot",
        ),
        (["keys", "rotate", "--role", "targets", "--threshold", "0", *CHANGE], 2, "0 of 1 keys"),
        (["keys", "create", "gone/root.pem"], 1, "gone is not a directory"),
        (["channel", "init", "--channel", "new", "--keys", "keys", "--draft", "no/x"], 1, "no is not a directory"),
        (["publish", "1.0.0.tide", "--track", "a", "--draft", "keys/root.pem", *CHANGE], 2, "never overwritten"),
        (["channel", "init", "--channel", "1.0.0.tide", "--keys", "keys"], 2, "is a file; expected a directory"),
    ],
)
def test_mistakes_are_told_with_what_to_do(words: list[str], code: int, says: str, home: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(words) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert "what to do: " in told.err
    assert not Path("new/metadata/timestamp.json").exists()


@pytest.mark.parametrize("words", [["channel"], ["keys"], ["channel", "rollback", "tiny"], ["publish"]])
def test_missing_words_are_used_wrongly(words: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


ACTIONS = {
    "keys": ["create", "show", "rotate", "sign", "apply"],
    "channel": ["init", "promote", "rollback", "withdraw", "refresh", "show"],
    "access": ["create", "list", "revoke"],
    "device": ["init", "check", "update", "settle", "status", "rollback", "history"],
    "profile": ["make", "show", "judge", "schema"],
}


@pytest.mark.parametrize(("command", "action"), [(name, action) for name in ACTIONS for action in ACTIONS[name]])
def test_the_help_of_every_action_shows_an_example(command: str, action: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, action, "--help"])
    assert ended.value.code == 0
    assert f"tidegate {command} {action} " in capsys.readouterr().out.split("example:")[1]


@pytest.mark.parametrize("name", ["keys", "publish", "channel"])
def test_help_shows_an_example(name: str, capsys: Capture) -> None:
    assert name in COMMANDS
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"tidegate {name}" in capsys.readouterr().out.split("example:")[1]


def test_without_a_terminal_and_without_the_variable_nobody_waits_for_a_passphrase(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TIDEGATE_PASSPHRASE"}
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli", "channel", "refresh", *CHANGE],
        cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=COMMAND_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs its passphrase" in done.stderr
    assert "Traceback" not in done.stderr


def in_terminal(answers: list[bytes], *words: str) -> tuple[int, str]:
    """Run a command in a terminal of its own without the variable; type one answer at each prompt."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("TIDEGATE_PASSPHRASE", None)
        os.execv(sys.executable, [sys.executable, "-m", "tidegate.cli", *words])
    told = b""
    typed = 0
    with suppress(OSError):  # the terminal is gone when the process is
        while piece := os.read(terminal, 4096):
            told += piece
            if typed < len(answers) and told.count(b": ") > typed and told.endswith(b": "):
                os.write(terminal, answers[typed])
                typed += 1
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told.decode()


def test_in_a_terminal_each_key_asks_for_its_own_passphrase(home: Path) -> None:
    code, told = in_terminal([b"several words\n", b"several words\n"], "keys", "create", "keys/own.pem")
    assert (code, "several" in told) == (0, False)
    code, told = in_terminal([b"several words\n", b"other words\n"], "keys", "create", "keys/two.pem")
    assert (code, "the two passphrases differ" in told) == (2, True)
    code, told = in_terminal([b"\x04"], "keys", "create", "keys/two.pem")
    assert (code, "the input ended where a passphrase was expected" in told, "Traceback" in told) == (2, True, False)
    code, told = in_terminal([], "keys", "create", "keys/two.pem", "gone/three.pem")
    assert (code, "passphrase of" in told) == (1, False), "what cannot be made is told before anything is asked"
    assert not Path("keys/two.pub").exists()
    code, told = in_terminal([b"correct horse\n"] * 2, "channel", "refresh", *CHANGE)
    assert (code, told.count("passphrase of")) == (0, 1)


def test_the_wrong_passphrase(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("TIDEGATE_PASSPHRASE", "wrong horse")
    assert main(["channel", "refresh", *CHANGE]) == 2
    told = capsys.readouterr().err
    assert "does not open keys/timestamp.pem" in told
    assert "unset it when keys have passphrases of their own" in told


def test_a_damaged_file_of_an_older_release_is_mended(home: Path, capsys: Capture) -> None:
    for version in ("1.0.0", "1.1.0"):
        tidegate(capsys, "publish", f"{version}.tide", "--track", "stable", *CHANGE)
    sha256 = digest(b"1.0.0")
    stored = home / "site" / "targets" / "files" / f"{sha256}.{sha256}"
    stored.write_bytes(b"other")
    show = ("channel", "show", "--channel", "site", "--check")
    assert "publish its bundle again on the same track" in as_json(capsys, *show, code=1)["warnings"][0]
    before = (home / "site" / "metadata" / "timestamp.json").read_bytes()
    assert "nothing to change" in tidegate(capsys, "publish", "1.0.0.tide", "--track", "stable", *CHANGE)
    assert stored.read_bytes() == b"1.0.0"
    assert (home / "site" / "metadata" / "timestamp.json").read_bytes() == before
    tidegate(capsys, "publish", "1.0.0.tide", "--track", "stable", *CHANGE, code=1)
    assert as_json(capsys, *show)["warnings"] == []


def test_damaged_files_that_no_bundle_holds_are_told_apart(home: Path, capsys: Capture) -> None:
    tidegate(capsys, "publish", "1.0.0.tide", "--track", "stable", *CHANGE)
    (track,) = (home / "site" / "targets" / "tracks" / "tiny").iterdir()
    track.write_bytes(b"other")
    (warning,) = as_json(capsys, "channel", "show", "--channel", "site", "--check", code=1)["warnings"]
    assert "devices do not need it" in warning


def test_damaged_metadata_is_told_with_the_publishers_remedy(home: Path, capsys: Capture) -> None:
    (home / "site" / "metadata" / "1.root.json").write_bytes(b"{")
    capsys.readouterr()
    assert main(["channel", "show", "--channel", "site"]) == 1
    told = capsys.readouterr().err
    assert "1.root.json: " in told
    assert "it is damaged, or was altered after it was signed" in told
    assert "restore the channel's metadata from a copy" in told
