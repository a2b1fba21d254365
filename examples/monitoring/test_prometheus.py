"""A real Prometheus reads the rules, scrapes a real server, and answers the dashboard's queries.

Run by `make monitoring-test`; needs the programs `prometheus` and `promtool` (Debian: apt install prometheus).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.http_server import call, infer_body
from tests.served import linear_bundle, server_process

from tidegate.client import Client
from tidegate.errors import NotFoundError

HERE = Path(__file__).parent
PATIENCE_S = 60


def program(name: str) -> str:
    """Return the path of a program; its absence is a failure here, not a reason to skip."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: apt install prometheus"
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "tidegate.rules.yml"),
        ("test", "rules", "tidegate.rules.test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([program("promtool"), *arguments], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_what_a_server_shows(tmp_path: Path) -> None:
    with server_process([linear_bundle(tmp_path)], "--metrics", "127.0.0.1:0") as running:
        text = call(second_address(running), "GET", "/metrics").body
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


class Seen(NamedTuple):
    """Addresses of Prometheus, and of the server that it scrapes."""

    prometheus: str
    http: str
    grpc: str


@pytest.fixture
def prometheus(tmp_path: Path, tone_bundle: Path) -> Iterator[Seen]:
    """Prometheus that scrapes a server of two workers every second."""
    options = ("--workers", "2", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with server_process([linear_bundle(tmp_path), tone_bundle], *options) as running:
        http_address, metrics_address = second_address(running), second_address(running)
        config = (HERE / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:8002", metrics_address).replace("_interval: 15s", "_interval: 1s")
        (tmp_path / "prometheus.yml").write_text(config)
        shutil.copy(HERE / "tidegate.rules.yml", tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [
            program("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--web.listen-address={address}",
        ]
        command += [f"--storage.tsdb.path={tmp_path / 'data'}", "--log.level=warn"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield Seen(address, http_address, running.address)
            finally:
                process.kill()


def second_address(running: Any) -> str:
    """Return the address in the next line of the server's output."""
    line: str = running.process.stdout.readline()
    return line.rpartition(" ")[2].strip()


def load(seen: Seen, stop: threading.Event) -> None:
    """Make calls of every kind, good and bad, until told to stop."""
    body = infer_body("x", "FP32", [1, 4], [1, 2, 3, 4])
    audio = np.zeros(16_000, np.int16)
    while not stop.is_set():
        for wanted in ("linear/infer", "none/infer", "linear/nothing"):
            call(seen.http, "POST", f"/v2/models/{wanted}", body)
        # A connection stays with one worker.
        with Client(seen.grpc) as client:
            with client.recognize(sample_rate_hz=16_000, interim_results=True) as stream:
                stream.begin(1, 0)
                stream.send(0, audio)
                stream.end(1, len(audio))
                stream.wait(1, PATIENCE_S)
            with contextlib.suppress(NotFoundError):
                client.recognize_recording(audio, sample_rate_hz=16_000, model="none")


def test_prometheus_scrapes_the_workers_and_answers_every_query_of_the_dashboard(prometheus: Seen) -> None:
    address = prometheus.prometheus
    until_true(lambda: value(address, 'up{job="tidegate"}') == [1.0])
    stop = threading.Event()
    with contextlib.ExitStack() as ending:
        caller = threading.Thread(target=load, args=(prometheus, stop))
        ending.callback(caller.join)
        ending.callback(stop.set)
        caller.start()
        until_true(lambda: value(address, 'sum(rate(tidegate_request_seconds_count{code="OK"}[10s])) > 0') != [])
        until_true(lambda: value(address, "tidegate:request_seconds:p99_5m >= 0") != [])
        until_true(lambda: value(address, "sum(rate(tidegate_speech_refused_total[10s])) > 0") != [])
    assert value(address, "count(count by (worker) (tidegate_ready))") == [2.0]
    assert value(address, 'sum(tidegate_request_seconds_count{model="",code="NOT_FOUND"}) > 0') != []
    rules = get(address, "/api/v1/rules")["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
    assert {alert["labels"]["alertname"] for alert in get(address, "/api/v1/alerts")["alerts"]} == set()
    empty = []
    for panel in json.loads((HERE / "tidegate-dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$__all", ".*")
            for name in ("instance", "model", "feature"):
                query = query.replace(f"${name}", ".*")
            if not get(address, "/api/v1/query", query=query)["result"]:
                empty.append(target["legendFormat"])
    # The model has no reference profile and no label; all other queries find something.
    assert {text for text in empty if not text.startswith("{{feature}}")} == {
        "{{model}} {{version}} = {{label}}",
        "{{model}} not of the profile's form",
    }


def test_an_alarm_is_raised_when_the_server_goes_away(tmp_path: Path, prometheus: Seen) -> None:
    address = prometheus.prometheus
    until_true(lambda: value(address, "tidegate_ready") == [1.0, 1.0])
    config = (tmp_path / "prometheus.yml").read_text()
    assert "127.0.0.1:" in config
    # Nobody listens on port 1.
    metrics_address = config.split('targets: ["')[1].split('"')[0]
    (tmp_path / "prometheus.yml").write_text(config.replace(metrics_address, "127.0.0.1:1"))
    rules = (tmp_path / "tidegate.rules.yml").read_text()
    (tmp_path / "tidegate.rules.yml").write_text(rules.replace("for: 1m", "for: 1s"))
    subprocess.run(["kill", "-HUP", process_id(address)], check=True)
    until_true(lambda: ("TidegateDown", "firing") in alerts(address))


def process_id(address: str) -> str:
    """Return the process of the Prometheus at an address."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"--web.listen-address={address}" in command:
            return entry.name
    raise AssertionError("Prometheus is not running")


def alerts(address: str) -> set[tuple[str, str]]:
    return {(alert["labels"]["alertname"], alert["state"]) for alert in get(address, "/api/v1/alerts")["alerts"]}


def value(address: str, query: str) -> list[float]:
    return [float(found["value"][1]) for found in get(address, "/api/v1/query", query=query)["result"]]


def get(address: str, path: str, **query: str) -> Any:
    with urllib.request.urlopen(f"http://{address}{path}?{urllib.parse.urlencode(query)}", timeout=30) as reply:
        answer = json.load(reply)
    assert answer["status"] == "success", answer
    return answer["data"]


def until_true(condition: Any) -> None:
    """Ask again until Prometheus, which scrapes once a second, knows."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            if condition():
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.2)
    raise AssertionError("it did not come about")
