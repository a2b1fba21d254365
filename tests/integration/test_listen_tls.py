"""`tidegate listen --cloud` with a server that encrypts and asks for keys."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.certificates import Authority

from tidegate.cli.main import main
from tidegate.client import TlsSettings
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.access import AccessFile, new_key, write_access_file
from tidegate.cloud.limits import Safety
from tidegate.cloud.tls import TlsFiles
from tidegate.edge import Listener
from tidegate.errors import ConfigError

Say = Callable[..., NDArray[np.float32]]
WORDS = ["yes", "no", "up"]


@pytest.fixture
def recording(say: Say, tmp_path: Path) -> Path:
    samples = say([(word, 1.0 + 2.0 * number) for number, word in enumerate(WORDS)], 7.0)
    path = tmp_path / "words.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return path


def safe_server(bundle: Path, directory: Path) -> tuple[Server, list[str], str]:
    """Return a server with mutual TLS and keys, what a device says to be let in, and a key that fits."""
    authority = Authority(directory)
    server, device = authority.pair("server"), authority.pair("device")
    entry, key = new_key(roles=("infer",), models=("tones",))
    write_access_file(directory / "keys.json", AccessFile(keys=(entry,)))
    safety = Safety(tls=TlsFiles(server.cert, server.key, authority.path), access_file=directory / "keys.json")
    options = ["--cloud-tls-ca", authority.path, "--cloud-tls-cert", device.cert, "--cloud-tls-key", device.key]
    return Server([bundle], settings=ServerSettings(safety=safety)), [str(option) for option in options], key


def listen(
    bundle: Path, recording: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[list[tuple[str, str]], str]:
    """Run the command; return text and who decided for each segment, and standard error."""
    assert main(["listen", str(bundle), "--wav", str(recording), "--json", *options]) == 0
    printed = capsys.readouterr()
    segments = [line for line in map(json.loads, printed.out.splitlines()) if "text" in line]
    return [(segment["text"], segment["decided_by"]) for segment in segments], printed.err


def test_a_device_with_certificate_and_key_is_let_in(
    tone_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, options, key = safe_server(tone_bundle, tmp_path)
    token = tmp_path / "token"
    token.write_text(f"{key}\n")
    with server:
        options += ["--cloud", server.address, "--cloud-token-file", str(token)]
        heard, _ = listen(tone_bundle, recording, options, capsys)
    assert heard == [(word, "cloud") for word in WORDS]


def test_a_device_with_a_wrong_key_decides_itself_and_says_why(
    tone_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, options, _ = safe_server(tone_bundle, tmp_path)
    token = tmp_path / "token"
    token.write_text("tg_0000000000_wrong\n")
    with server:
        options += ["--cloud", server.address, "--cloud-token-file", str(token)]
        heard, warned = listen(tone_bundle, recording, options, capsys)
    assert heard == [(word, "edge") for word in WORDS]
    assert "is not known to this server" in warned


@pytest.mark.parametrize("option", [["--cloud-tls"], ["--cloud-token-file", "TOKEN"]])
def test_options_of_a_server_without_a_server_are_refused(
    tone_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("abc")
    given = [str(token) if part == "TOKEN" else part for part in option]
    assert main(["listen", str(tone_bundle), "--wav", str(recording), *given]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no server" in printed.err


def test_a_token_is_not_sent_in_the_clear(tone_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="token"):
        Listener.open(tone_bundle, cloud="models.example:8443", cloud_token="abc")
    Listener.open(tone_bundle, cloud="models.example:8443", cloud_tls=TlsSettings(), cloud_token="abc").close()
