"""What `tidegate serve` makes of its arguments and of serve.toml together: the channel."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tidegate.cli.commands import serve
from tidegate.cli.serving import Models, models_of
from tidegate.cloud.repository import RepositorySettings
from tidegate.errors import ConfigError, NotFoundError

FILE = """
[channel]
url = "https://models.example/site"
root = "root.json"
models = ["linear", "mlp"]
directory = "store"
"""


def models(*words: str) -> Models:
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    return models_of(parser.parse_args(words), RepositorySettings())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_bytes(b"the root")
    path = tmp_path / "serve.toml"
    path.write_text(FILE)
    return path


def test_a_channel_in_the_file(file: Path) -> None:
    found = models("--config", str(file))
    assert found.channel is not None
    assert found.channel.url == "https://models.example/site"
    assert found.channel.trusted_root == b"the root"
    assert found.channel.models == ("linear", "mlp")
    assert found.channel.directory == file.parent / "store"
    assert (found.channel.track, found.channel.server_id) == ("stable", "server")
    assert (found.bundles, found.watch_interval_s) == ((), 60.0)


def test_the_arguments_say_which_server_this_is(file: Path) -> None:
    found = models("--config", str(file), "--server-id", "east", "--channel-track", "beta", "--watch-s", "5")
    assert found.channel is not None
    assert (found.channel.track, found.channel.server_id, found.watch_interval_s) == ("beta", "east", 5.0)


def test_a_channel_of_the_arguments_comes_before_that_of_the_file(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_bytes(b"another root")
    words = ["--channel", "https://other.example", "--channel-root", str(own), "--channel-model", "tagger"]
    found = models("--config", str(file), *words, "--channel-dir", str(tmp_path))
    assert found.channel is not None
    assert (found.channel.url, found.channel.models) == ("https://other.example", ("tagger",))


@pytest.mark.parametrize("words", [["--server-id", "east"], ["--channel-track", "beta"], ["--channel", "https://x"]])
def test_half_a_channel_is_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        models(str(tmp_path), *words)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ('[channel]\nurl = "https://x"\n', ConfigError, "missing required field `root`"),
        (FILE + "tracks = 1\n", ConfigError, "unknown field `tracks`"),
        (FILE.replace("root.json", "gone.json"), NotFoundError, r"gone\.json is not there"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(file: Path, text: str, error: type[Exception], said: str) -> None:
    file.write_text(text)
    with pytest.raises(error, match=said):
        models("--config", str(file))
