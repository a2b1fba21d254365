"""Labels on a running server: by command, kept over restarts, the same in every worker; settings of each model."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.certificates import Authority
from tests.served import PROCESS_TIMEOUT_S, linear_bundle, server_process, with_golden

from tidegate.bundle import GoldenFixture
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.access import AccessFile, new_key, write_access_file
from tidegate.cloud.batching import BatchSettings
from tidegate.cloud.lifecycle import State
from tidegate.cloud.limits import Safety
from tidegate.cloud.repository import LoadSettings, RepositorySettings
from tidegate.cloud.serve_file import read_serve_file
from tidegate.cloud.tls import TlsFiles
from tidegate.cloud.version_status import GONE_KEPT, Statuses, VersionStatus
from tidegate.cloud.versions import MOVES_KEPT, Labels, Latest, Specific
from tidegate.errors import ConfigError, NotFoundError, StateError, TidegateError
from tidegate.v1 import admin_pb2

ONES = np.ones((1, 4), np.float32)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Versions 1.1.0 and 1.2.0 of `linear`, whose factors are 1 and 2."""
    directory = tmp_path / "models"
    directory.mkdir()
    for minor in (1, 2):
        linear_bundle(directory, version=f"1.{minor}.0", factor=float(minor))
    return directory


def factor(address: str, version: str = "") -> float:
    with Client(address, timeout_s=PROCESS_TIMEOUT_S) as client:
        return float(client.infer("linear", {"x": ONES}, version=version)["y"][0, 0])


def shown(capsys: pytest.CaptureFixture[str], address: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["label", address, "linear", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_labels_are_moved_by_command_and_kept_over_restarts(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--label", "linear:stable=1.1.0", "--labels-file", str(tmp_path / "labels.json")]
    with server_process([models], *options) as server:
        assert factor(server.address) == 1
        assert main(["label", server.address, "linear", "stable=1.2.0"]) == 0
        assert capsys.readouterr().out == "linear: stable 1.1.0 -> 1.2.0\n"
        assert main(["label", server.address, "linear", "canary=1.1.0"]) == 0
        assert (factor(server.address), factor(server.address, "canary")) == (2, 1)
        assert main(["label", server.address, "linear", "stable=3.0.0"]) == 1
        assert "is not ready" in capsys.readouterr().err
        assert main(["label", server.address, "linear", "stable"]) == 2
        assert main(["label", server.address, "linear", "--roll-back", "stable", "--remove", "canary"]) == 2
        assert main(["label", server.address, "nobody"]) == 1
    with server_process([models], *options) as server:
        assert factor(server.address) == 2, "what was moved by hand is not overruled"
        assert shown(capsys, server.address)["labels"] == {"canary": "1.1.0", "stable": "1.2.0"}
        assert main(["label", server.address, "linear", "--roll-back", "stable"]) == 0
        assert main(["label", server.address, "linear", "--remove", "canary"]) == 0
        assert factor(server.address) == 1
        found = shown(capsys, server.address)
        assert (found["labels"], found["versions"]) == ({"stable": "1.1.0"}, ["1.1.0", "1.2.0"])
        assert len(found["history"]) == 5  # type: ignore[arg-type]
        assert main(["label", server.address, "linear"]) == 0
        assert "stable" in capsys.readouterr().out


def test_commands_that_call_a_server_show_certificate_and_key(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    server_pair, operator = authority.pair("server"), authority.pair("operator")
    entry, key = new_key(roles=("admin", "infer"), models=("*",))
    write_access_file(tmp_path / "keys.json", AccessFile(keys=(entry,)))
    token = tmp_path / "operator.token"
    token.write_text(f"{key}\n")
    tls = TlsFiles(server_pair.cert, server_pair.key, authority.path)
    safety = Safety(tls=tls, access_file=tmp_path / "keys.json")
    shows = ["--tls-ca", str(authority.path), "--tls-cert", str(operator.cert), "--tls-key", str(operator.key)]
    with Server([models], settings=ServerSettings(safety=safety)) as server:
        for command in (
            ["label", server.address, "linear", "stable=1.1.0"],
            ["call", server.address, "linear"],
            ["bench", "--server", server.address, "--model", "linear", "--min-duration-s", "0", "--min-calls", "1"],
            ["conformance", server.address, "--model", "linear", "--source", "grpc"],
        ):
            assert main([*command, *shows]) == 2
            printed = capsys.readouterr()
            assert "no key was sent" in printed.err
            assert "--token-file FILE" in printed.err
            assert printed.out == ""
            assert main([*command, *shows, "--token-file", str(token)]) == 0
            assert "linear" in capsys.readouterr().out


def test_a_wrong_version_is_told_of_versions_and_labels_apart(models: Path) -> None:
    held = RepositorySettings(labels={"linear": {"stable": "1.1.0"}})
    with (
        Server([models], repository=held) as server,
        Client(server.address, timeout_s=PROCESS_TIMEOUT_S) as client,
        pytest.raises(NotFoundError, match=r"versions: 1\.1\.0, 1\.2\.0; labels: stable$"),
    ):
        client.model_metadata("linear", "7")


def test_every_worker_follows_a_label(models: Path) -> None:
    with server_process([models], "--label", "linear:stable=1.1.0", "--workers", "2") as server:
        assert {factor(server.address) for _ in range(10)} == {1}
        assert main(["label", server.address, "linear", "stable=1.2.0"]) == 0
        while {factor(server.address) for _ in range(10)} != {2}:
            assert server.process.poll() is None
        assert {factor(server.address, "stable") for _ in range(10)} == {2}


def test_a_server_that_takes_no_commands_moves_no_label(models: Path) -> None:
    with Server([models], settings=ServerSettings(model_control=False)) as server:
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/tidegate.v1.Admin/SetLabel")
            request = admin_pb2.SetLabelRequest(model_name="linear", label="stable", version="1.1.0")
            with pytest.raises(grpc.RpcError) as refused:
                call(request.SerializeToString(), timeout=PROCESS_TIMEOUT_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.repository.labels_by_model.moves == ()


def test_a_label_whose_version_is_missing_keeps_the_server_from_starting(models: Path) -> None:
    held = RepositorySettings(labels={"linear": {"stable": "3.0.0"}})
    with pytest.raises(StateError, match="is not ready"):
        Server([models], repository=held).start()


def test_a_labelled_version_is_loaded_whatever_the_policy_says(models: Path) -> None:
    held = RepositorySettings(policy=Latest(1), labels={"linear": {"stable": "1.1.0"}})
    with Server([models], repository=held) as server:
        assert server.repository.versions("linear") == ("1.1.0", "1.2.0")
        server.repository.set_label("linear", "stable", "1.2.0")
        assert server.reload().unloaded == (("linear", "1.1.0"),)


def test_what_was_loaded_and_unloaded_by_hand_stays_so(models: Path, tmp_path: Path) -> None:
    held = RepositorySettings(policy=Latest(1), label_file=tmp_path / "labels.json")
    with Server([models], repository=held) as server:
        server.repository.load("linear", "1.1.0")
        server.repository.unload("linear", "1.2.0")
        assert server.reload().loaded == ()
        assert server.repository.versions("linear") == ("1.1.0",)
    with Server([models], repository=held) as server:
        assert server.repository.versions("linear") == ("1.1.0",)
        assert server.repository.load("linear") == ("1.1.0", "1.2.0")


def test_the_last_good_version_stays_when_its_successor_is_broken(models: Path, tmp_path: Path) -> None:
    held = RepositorySettings(policy=Latest(1))
    wrong = GoldenFixture({"x": ONES}, {"y": 9 * ONES, "total": np.full((1, 1), 36, np.float32)})
    with Server([models], repository=held) as server:
        assert server.repository.versions("linear") == ("1.2.0",)
        broken = with_golden(linear_bundle(tmp_path, version="1.3.0"), wrong, 1e-6)
        broken = broken.replace(models / "broken.tide")
        for _ in range(2):
            report = server.reload()
            assert (len(report.failed), report.unloaded) == (1, ())
            assert factor(server.address) == 2
        linear_bundle(tmp_path, version="1.3.0", factor=3.0).replace(broken)
        assert server.reload().loaded == (("linear", "1.3.0"),)
        assert factor(server.address) == 3


def test_a_file_has_the_settings_of_each_model(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(
        'memory_limit_mb = 100\nlabels_file = "labels.json"\n'
        '[models.linear]\nversions = "specific:1.1.0"\nmaximum_rows = 8\npreferred_rows = [4, 8]\n'
        "maximum_delay_ms = 2\nmaximum_queue = 7\npriority_levels = 2\ndefault_priority = 2\n"
        'labels = { stable = "1.1.0" }\n'
        '[models.linear.padding]\ninputs = ["x"]\nbuckets = [4, 8]\n'
    )
    held = read_serve_file(path).repository(RepositorySettings(), tmp_path)
    batching = held.loading.batching_by_model["linear"]
    assert (batching.maximum_rows, batching.preferred_rows, batching.maximum_delay_ms) == (8, (4, 8), 2)
    assert (batching.queue.maximum_length, batching.queue.priority_levels) == (7, 2)
    assert batching.padding is not None
    assert held.policy_by_model == {"linear": Specific(frozenset({"1.1.0"}))}
    assert (held.maximum_memory_bytes, held.label_file) == (100 * 2**20, tmp_path / "labels.json")
    path.write_text(path.read_text().partition("[models.linear.padding]")[0])
    with server_process([models], "--config", str(path)) as server:
        assert (factor(server.address), factor(server.address, "stable")) == (1, 1)
        with pytest.raises(NotFoundError):
            factor(server.address, "1.2.0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.linear]\nrows = 3\n", "unknown field `rows`"),
        ("[models.linear]\nmaximum_rows = 'x'\n", "Expected `int`"),
        ("[models", "is not TOML"),
        ("[models.linear]\nmaximum_rows = 0\n", "expected 1 or more"),
        ("[models.linear]\nversions = 'newest'\n", "version policy"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_serve_file(path).repository(RepositorySettings(), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["models", "--label", "stable=1.0.0"],
        ["--channel", "http://127.0.0.1:9"],
        ["models", "--memory-limit-mb", "-1"],
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(options: list[str]) -> None:
    assert main(["serve", *options]) == 2


def test_settings_of_one_model_reach_its_scheduler(models: Path) -> None:
    loading = LoadSettings(batching_by_model={"linear": BatchSettings(maximum_rows=1)})
    with Server([models], repository=RepositorySettings(loading=loading)) as server:
        assert not server.repository.find("linear").batcher.batched


def test_statuses_and_moves_are_not_kept_for_ever() -> None:
    statuses, labels = Statuses(), Labels()
    statuses.note(VersionStatus("m", "9.0.0", State.READY))
    for number in range(GONE_KEPT + 10):
        statuses.note(VersionStatus("m", f"1.{number}.0", State.UNLOADED))
    assert [status.version for status in statuses.all()] == [
        "9.0.0",
        *(f"1.{number}.0" for number in range(10, GONE_KEPT + 10)),
    ]
    labels.move("m", "canary", "1.0.0", 0.0)
    for number in range(MOVES_KEPT + 10):
        labels.move("m", "stable", f"1.{number}.0", float(number))
    assert (len(labels.history("m", "stable")), len(labels.history("m", "canary"))) == (MOVES_KEPT, 1)
    assert labels.previous("m", "stable") == f"1.{MOVES_KEPT + 8}.0"


def test_a_label_file_of_another_kind_is_refused(models: Path, tmp_path: Path) -> None:
    for text in ("{}", "[]", '{"schema": "other/1"}', "\xff"):
        (tmp_path / "labels.json").write_text(text, encoding="latin-1")
        with pytest.raises(TidegateError, match=r"labels\.json"):
            Server([models], repository=RepositorySettings(label_file=tmp_path / "labels.json")).start()
