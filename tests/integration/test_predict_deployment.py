"""The files of examples/deployment: what they start starts, what they probe answers, Ray reads its own."""

from __future__ import annotations

import json
import socket
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from examples.deployment.check_manifests import main, read_schemas
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ray.serve.schema import ServeDeploySchema
from tests.served import linear_bundle, server_process

from tidegate.cli.main import main as tidegate
from tidegate.cloud.ray_settings import RaySettings

FOLDER = Path(__file__).parents[2] / "examples" / "deployment"
PORT = 9000
HTTP_PORT = 8080


def manifest(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return read


def container(runtime: str = "serving-runtime.yaml") -> dict[str, Any]:
    (only,) = manifest(runtime)["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_runtimes_arguments_start_a_server_that_its_probes_find_healthy(tmp_path: Path) -> None:
    linear_bundle(tmp_path)
    words = container()["args"]
    assert words[0] == "/mnt/models"
    assert f"--listen=0.0.0.0:{PORT}" in words
    # The last --listen counts; the test's own port is free, and stays on loopback.
    with server_process([tmp_path], *words[1:], "--listen", "127.0.0.1:0") as server:
        with grpc.insecure_channel(server.address) as channel:
            for probe in ("startupProbe", "readinessProbe"):
                asked = container()[probe]["grpc"]
                assert asked["port"] == PORT
                request = health_pb2.HealthCheckRequest(service=asked.get("service", ""))
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=120)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert container()["livenessProbe"]["tcpSocket"]["port"] == PORT
        host, _, port = server.address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=120).close()


def test_the_http_runtimes_arguments_start_a_server_that_its_probes_find_healthy(tmp_path: Path) -> None:
    linear_bundle(tmp_path)
    asked = container("serving-runtime-http.yaml")
    words = asked["args"]
    assert words[0] == "/mnt/models"
    assert f"--http=0.0.0.0:{HTTP_PORT}" in words
    with server_process([tmp_path], *words[1:], "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0") as server:
        assert server.process.stdout is not None
        _, _, address = server.process.stdout.readline().strip().partition("http on ")
        for probe in ("startupProbe", "readinessProbe"):
            assert asked[probe]["httpGet"]["port"] == HTTP_PORT
            with urllib.request.urlopen(f"http://{address}{asked[probe]['httpGet']['path']}", timeout=120) as answer:
                assert answer.status == 200
        annotations = manifest("serving-runtime-http.yaml")["spec"]["annotations"]
        assert annotations["prometheus.kserve.io/port"] == str(HTTP_PORT)
        path = annotations["prometheus.kserve.io/path"]
        with urllib.request.urlopen(f"http://{address}{path}", timeout=120) as answer:
            assert b"# TYPE" in answer.read()
    assert asked["livenessProbe"]["tcpSocket"]["port"] == asked["ports"][0]["containerPort"] == HTTP_PORT


def test_both_runtimes_run_the_same_container_in_the_same_way() -> None:
    kept = ("name", "image", "resources", "securityContext")
    one, other = container(), container("serving-runtime-http.yaml")
    assert {key: one[key] for key in kept} == {key: other[key] for key in kept}
    assert [word for word in one["args"] if word.startswith("--grace-s")] == [
        word for word in other["args"] if word.startswith("--grace-s")
    ]


def test_the_pod_outlives_the_drain_and_both_files_name_one_runtime() -> None:
    runtime, service = manifest("serving-runtime.yaml"), manifest("inference-service.yaml")
    predictor = service["spec"]["predictor"]
    (grace_s,) = [float(word.partition("=")[2]) for word in container()["args"] if word.startswith("--grace-s")]
    assert predictor["terminationGracePeriodSeconds"] > grace_s
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    (form,) = runtime["spec"]["supportedModelFormats"]
    assert predictor["model"]["modelFormat"] == {"name": form["name"], "version": form["version"]}
    assert predictor["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert container()["name"] == "kserve-container"
    assert [port["containerPort"] for port in container()["ports"]] == [PORT]


def test_the_image_runs_the_server_as_process_1_without_root() -> None:
    instructions = [
        line.split(maxsplit=1)
        for line in (FOLDER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert {word for word, _ in instructions} <= {
        "ARG", "FROM", "COPY", "WORKDIR", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    last = dict(instructions)
    assert last["USER"] == str(container()["securityContext"]["runAsUser"]) != "0"
    assert last["EXPOSE"] == str(PORT)
    assert json.loads(last["ENTRYPOINT"]) == ["tidegate", "serve"]
    assert json.loads(last["CMD"]) == ["/mnt/models", "--listen", f"0.0.0.0:{PORT}", "--insecure"]


def test_ray_reads_its_file_and_so_do_we() -> None:
    schema = ServeDeploySchema.model_validate(manifest("ray-serve.yaml"))
    (application,) = schema.applications
    module, _, name = application.import_path.partition(":")
    assert callable(getattr(import_module(module), name))
    assert RaySettings.of(application.args).max_replicas == 8
    for path in schema.grpc_options.grpc_servicer_functions:
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name))


DEFINITION = """
kind: CustomResourceDefinition
spec:
  group: example.com
  names: {kind: Tide}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [height]
              properties:
                height: {x-kubernetes-int-or-string: true}
                free: {type: object, properties: {}, x-kubernetes-preserve-unknown-fields: true}
                labels: {type: object, additionalProperties: {type: string}}
"""

DOCUMENTS = [
    ("{height: 3, free: {any: 1}, labels: {a: b}}", ""),
    ("{height: 3m}", ""),
    ("{heigth: 3}", "'heigth' was unexpected"),
    ("{height: [3]}", "is not of type"),
    ("{height: 3, labels: {a: 1}}", "is not of type 'string'"),
]


@pytest.mark.parametrize(("spec", "problem"), DOCUMENTS)
def test_the_checker_finds_what_a_definition_does_not_know(
    tmp_path: Path, spec: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds" / "tide.yaml").write_text(DEFINITION)
    document = tmp_path / "tide.yaml"
    document.write_text(f"apiVersion: example.com/v1\nkind: Tide\nmetadata: {{name: a}}\nspec: {spec}\n")
    assert list(read_schemas(tmp_path / "crds")) == [("example.com/v1", "Tide")]
    assert main([str(tmp_path / "crds"), str(document)]) == (1 if problem else 0)
    assert problem in capsys.readouterr().err


REFUSED = [
    (["--listen", "127.0.0.1:9000"], "Ray Serve opens its port on every interface"),
    (["--listen", "0.0.0.0:9000"], "Ray Serve has no TLS"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--workers", "2"], "--workers does not work with --engine ray"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--http", "0.0.0.0:8000"], "--http does not work with --engine ray"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--keep-requests", "kept"], "--keep-requests does not work"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--max-message-mb", "8"], "--max-message-mb does not work"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--reflection"], "--reflection does not work"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--no-reflection", "--replicas", "0:x"], "--replicas is '0:x'"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--replicas", "two"], "--replicas is 'two'"),
    (["--listen", "0.0.0.0:9000", "--insecure", "--replicas", "3:2"], "min_replicas is 3 and max_replicas 2"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_ray_cannot_keep_is_refused(
    tmp_path: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tidegate(["serve", str(linear_bundle(tmp_path)), "--engine", "ray", *words]) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert message in told.err


@pytest.mark.parametrize("words", [["--replicas", "2"], ["--ray-address", "auto"]])
def test_what_only_ray_keeps_is_refused_without_it(
    tmp_path: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert tidegate(["serve", str(linear_bundle(tmp_path)), *words]) == 2
    assert f"{words[0]} needs --engine ray" in capfd.readouterr().err
