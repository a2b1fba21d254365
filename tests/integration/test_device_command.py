"""`tidegate device` as its users call it: a process of its own, a real channel on loopback, bundles that run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.bundle import Asset, Budgets, Golden, Manifest, digest, write_bundle
from tidegate.bundle.arrays import pack_arrays
from tidegate.edge.update import Updater
from tidegate.edge.update.lock import exclusive
from tidegate.release.channel import Channel
from tidegate.runtime import load
from tidegate.testing.channels import StaticServer, make_channel, open_keys, serve, write_keys

Files = tuple[Manifest, dict[str, bytes]]


@dataclass
class Shop:
    """An author's channel, served, and a place for a device."""

    home: Path
    channel: Channel
    server: StaticServer
    files: Files

    @property
    def device(self) -> Path:
        return self.home / "kiosk"

    def bundle(self, version: str, **changes: Any) -> Path:
        """Write a bundle whose catalogue alone differs from that of other versions."""
        manifest, contents = self.files
        catalogue = json.dumps({"id": "v", "title": version, "text": version}).encode()
        contents = contents | {"assets/catalogue.jsonl": catalogue}
        asset = Asset(file="assets/catalogue.jsonl", sha256=digest(catalogue), size_bytes=len(catalogue))
        path = self.home / f"{version}.tide"
        changed = msgspec.structs.replace(manifest, version=version, assets={"catalogue": asset}, **changes)
        write_bundle(changed, contents, path)
        return path

    def publish(self, version: str, percent: int = 100, **changes: Any) -> None:
        keys = open_keys(self.home / "keys")
        self.channel.publish(self.bundle(version, **changes), track="stable", percent=percent, keys=keys)

    def run(
        self, *words: str, code: int = 0, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tidegate.cli", "device", *words],
            cwd=self.home,
            env={
                **{name: value for name, value in os.environ.items() if name != "TIDEGATE_DEVICE"},
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def told(self, *words: str, code: int = 0) -> str:
        return self.run(*words, "--directory", "kiosk", code=code).stdout

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.told(*words, "--json", code=code))

    def init(self, *words: str) -> Any:
        return self.json("init", *self.init_words, *words)

    @property
    def init_words(self) -> tuple[str, ...]:
        root = str(self.home / "site" / "metadata" / "1.root.json")
        return ("--channel", self.server.url, "--model", "tones", "--root", root, "--factory", "1.0.0.tide")


@pytest.fixture
def shop(tmp_path: Path, tone_release: Files) -> Iterator[Shop]:
    write_keys(tmp_path / "keys")
    channel = make_channel(tmp_path / "site", tmp_path / "keys")
    with serve(tmp_path / "site") as server:
        shop = Shop(tmp_path, channel, server, with_golden(tmp_path, *tone_release))
        shop.publish("1.0.0")
        yield shop


def with_golden(home: Path, manifest: Manifest, contents: dict[str, bytes]) -> Files:
    """Add the golden fixture: what the model says to one second of noise."""
    write_bundle(manifest, contents, home / "bare.tide")
    audio = np.random.default_rng(3).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    with load(home / "bare.tide") as model:
        expected = model.run({"audio": audio})["probabilities"]
    fixture = pack_arrays({"input/audio": audio, "output/probabilities": expected})
    golden = Golden(file="golden.npz", sha256=digest(fixture), size_bytes=len(fixture), tolerance=1e-4)
    return msgspec.structs.replace(manifest, golden=golden), contents | {"golden.npz": fixture}


def test_a_device_takes_a_release_and_goes_back(shop: Shop) -> None:
    made = shop.init("--hardware", "pi5", "kiosk", "--memory-mb", "64", "--device-id", "kiosk-1")
    assert made["device_id"] == "kiosk-1"
    assert Path(shop.home / made["active"]["file"]).is_file()
    quiet = shop.run("check", "--directory", "kiosk")
    assert "nothing newer for this device: tones 1.0.0" in quiet.stdout
    assert "2 requests" in shop.run("check", "--directory", "kiosk").stderr

    shop.publish("1.1.0")
    assert "release 2 is newer: tones 1.1.0, variant onnx-fp32" in shop.told("check")
    news = shop.json("check", "--explain")
    assert (news["news"], news["offer"]["version"], news["passed_over"]) == (True, "1.1.0", [])
    updated = shop.json("update")
    assert (updated["outcome"], updated["running"]["version"], updated["probe"]["passed"]) == (
        "activated",
        "1.1.0",
        True,
    )
    assert "assets/catalogue.jsonl" in updated["fetched"]["files"]
    assert not [path for path in updated["fetched"]["files"] if path.endswith(".onnx")]

    told = shop.told("status")
    assert "active       1.1.0, release 2, onnx-fp32, since 20" in told
    assert "previous     1.0.0" in told
    assert "trial" in told
    status = shop.json("status")
    assert (status["phase"], status["active"]["version"], status["previous"]["version"]) == ("trial", "1.1.0", "1.0.0")
    assert digest((shop.home / status["active"]["file"]).read_bytes()) == status["active"]["variant_sha256"]
    assert shop.json("settle")["outcome"] == "waiting"

    back = shop.told("rollback", "--reason", "mishears the new names")
    assert "went back from version 1.1.0, release 2: mishears the new names; tones 1.0.0" in back
    status = shop.json("status")
    assert (status["phase"], status["active"]["version"]) == ("idle", "1.0.0")
    assert [(bad["release"], bad["reason"]) for bad in status["quarantined"]] == [(2, "mishears the new names")]
    assert "quarantined  1.1.0, release 2" in shop.told("status")
    assert "quarantine" in shop.json("check", "--explain")["passed_over"][0]["reason"]
    assert shop.json("update")["outcome"] == "up to date"
    shop.publish("1.2.0")
    assert shop.json("update")["running"]["version"] == "1.2.0"

    history = shop.json("history")
    assert {"1.0.0", "1.1.0", "1.2.0"} <= {entry["version"] for entry in history}
    assert shop.json("history", "--last", "2") == history[-2:]
    assert history[-1]["at"] in shop.told("history")


def test_a_version_that_is_too_slow_here_fails_its_probe_and_is_not_tried_again(shop: Shop) -> None:
    shop.init()
    shop.publish("1.1.0", budgets=Budgets(latency_p95_ms=1e-6))
    failed = shop.told("update", code=1)
    assert "version 1.1.0, release 2 failed its probe and is in quarantine" in failed
    assert "tones 1.0.0 (release 0) runs" in failed
    shop.told("update")
    assert "nothing newer" in shop.told("check")
    assert "release 2" in shop.told("status").partition("quarantined")[2]


def test_why_newer_versions_are_passed_over(shop: Shop) -> None:
    shop.init("--device-id", "kiosk-1", "--memory-mb", "64")
    shop.publish("1.1.0", percent=0)
    shop.publish("1.2.0", budgets=Budgets(rss_mb=65))
    variants = shop.files[0].variants
    shop.publish("1.3.0", variants=tuple(msgspec.structs.replace(one, hardware=("pi4",)) for one in variants))
    assert "--explain tells" in shop.told("check")
    told = shop.told("check", "--explain")
    for reason in (
        "it is rolled out to 0 % of the devices so far",
        "it needs 65 MB of memory; this device has 64 MB for a model",
        "onnx-fp32 is for pi4 (this device has no hardware tags)",
    ):
        assert reason in told
    assert [one["version"] for one in shop.json("check", "--explain")["passed_over"]] == ["1.3.0", "1.2.0", "1.1.0"]


def test_the_same_content_under_a_new_number_is_noted(shop: Shop) -> None:
    shop.init()
    shop.publish("1.1.0")
    shop.told("update")
    keys = open_keys(shop.home / "keys")
    shop.channel.roll_back("tones", track="stable", version="1.0.0", reason="misses words", keys=keys)
    assert "it takes back release 2: misses words" in shop.told("check")
    assert shop.json("update")["running"]["version"] == "1.0.0"


def test_the_variable_names_the_directory(shop: Shop) -> None:
    environment = {"TIDEGATE_DEVICE": "somewhere"}
    shop.run("init", *shop.init_words, environment=environment)
    assert "tones" in shop.run("status", environment=environment).stdout
    assert (shop.home / "somewhere" / "state.json").is_file()


def test_devices_without_a_given_id_have_different_ones(shop: Shop) -> None:
    first = shop.init()["device_id"]
    second = json.loads(shop.run("init", *shop.init_words, "--directory", "other", "--json").stdout)["device_id"]
    assert first != second


def test_status_and_roll_back_need_no_channel(shop: Shop) -> None:
    shop.init()
    shop.publish("1.1.0")
    shop.told("update")
    (shop.home / "site" / "metadata" / "timestamp.json").unlink()
    assert "404 for timestamp.json" in shop.run("update", "--directory", "kiosk", code=1).stderr
    assert shop.json("status")["active"]["version"] == "1.1.0"
    assert shop.json("rollback")["running"]["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["status"], 2, "no device directory was named"),
        (["status", "--directory", "site"], 1, "is not a device"),
        (["check", "--directory", "gone"], 1, "is not a device"),
        (["history", "--directory", "kiosk", "--last", "0"], 2, "--last is 0"),
        (["init", "--directory", "kiosk", "--model", "tones"], 2, "--channel"),
        (["update", "--frobnicate"], 2, "--frobnicate"),
    ],
)
def test_mistakes_are_told(words: list[str], code: int, says: str, shop: Shop) -> None:
    shop.init()
    done = shop.run(*words, code=code)
    assert done.stdout == ""
    assert says in done.stderr


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"--root": "gone.json"}, 1, "no file gone.json"),
        ({"--root": "1.0.0.tide"}, 2, "root"),
        ({"--factory": "gone.tide"}, 1, "gone.tide"),
        ({"--model": "bells"}, 2, "bells"),
        ({"--channel": "site"}, 2, "not an http or https address"),
        ({"--track": "Stable!"}, 2, "track 'Stable!'"),
        ({"--device-id": ""}, 2, "device_id is empty"),
        ({"--memory-mb": "-1"}, 2, "memory_mb is -1.0"),
        ({"--variant": "tflite-int8"}, 1, "tflite-int8"),
        ({"--directory": "keys"}, 2, "keys"),
    ],
)
def test_init_refuses_what_cannot_become_a_device(changes: dict[str, str], code: int, says: str, shop: Shop) -> None:
    words = dict(zip(shop.init_words[::2], shop.init_words[1::2], strict=True)) | {"--directory": "kiosk"} | changes
    done = shop.run("init", *(word for pair in words.items() for word in pair), code=code)
    assert says in done.stderr
    assert "what to do: " in done.stderr
    assert not shop.device.exists() or not any(shop.device.iterdir())


def test_a_device_is_made_once(shop: Shop) -> None:
    shop.init()
    before = shop.json("status")
    assert "what to do: " in shop.run("init", *shop.init_words, "--directory", "kiosk", code=2).stderr
    assert shop.json("status") == before


def test_a_server_that_is_gone_fails_the_check_and_nothing_else(shop: Shop) -> None:
    shop.init()
    settings = json.loads((shop.device / "device.json").read_text())
    settings["url"] = "http://127.0.0.1:9"
    settings["fetch"] |= {"attempts": 1}
    (shop.device / "device.json").write_text(json.dumps(settings))
    failed = shop.run("check", "--directory", "kiosk", code=1)
    assert "127.0.0.1:9" in failed.stderr
    assert "what to do: " in failed.stderr
    status = shop.json("status")
    assert status["active"]["version"] == "1.0.0"
    assert status["last_check"]["problem"]


def test_the_command_says_what_the_library_says(shop: Shop) -> None:
    shop.init()
    status = Updater(shop.device).status()
    assert shop.json("status")["active"]["variant_sha256"] == status.active.variant_sha256


def test_who_is_at_work_is_told_and_status_is_shown_all_the_same(shop: Shop) -> None:
    shop.init()
    with exclusive(shop.device / "lock"):
        refused = shop.run("update", "--directory", "kiosk", code=1)
        assert f"process {os.getpid()} is at work" in refused.stderr
        told = shop.told("status")
    assert f"process {os.getpid()} is at work" in told.splitlines()[0]
    assert "active       1.0.0" in told
