"""Start a built image as Kubernetes would, and hold it against the manifests: probes, calls, drain.

    python check_image.py IMAGE DIRECTORY

IMAGE is known to buildah; DIRECTORY holds bundles and takes the place that the storage initialiser fills. Needs Linux,
root, buildah, and this project's development environment. No daemon: the image's file system is mounted and the
command runs in it as process 1 of a process namespace of its own, as the manifest's user without capabilities, root
and bundles read-only, no other directory to write in.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.client import Client

FOLDER = Path(__file__).parent
MANIFESTS = ("serving-runtime.yaml", "serving-runtime-http.yaml")
MODELS = "/mnt/models"
HOST = "127.0.0.1"
START_TIMEOUT_S = 300

CONTAINER = """set -e
mount --bind "$ROOT" "$ROOT"
mkdir -p "$ROOT$PLACE"
mount --bind "$MODELS" "$ROOT$PLACE"
mount -o remount,bind,ro "$ROOT$PLACE"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -o remount,bind,ro "$ROOT"
exec setpriv --no-new-privs --bounding-set=-all,+setuid,+setgid,+sys_chroot --inh-caps=-all \\
  env --ignore-environment $VARIABLES chroot --userspec="$PERSON:$PERSON" "$ROOT" "$@"
"""


def main(words: Sequence[str]) -> int:
    """Check an image against both runtimes."""
    if len(words) != 2:
        sys.stderr.write("usage: check_image.py IMAGE DIRECTORY\n")
        return 2
    image, models = words[0], Path(words[1]).resolve()
    with mounted(image) as (root, config):
        print(f"{image}: {size_mb(root):.0f} MB unpacked, user {config['User']}, {' '.join(config['Entrypoint'])}")
        for name in MANIFESTS:
            check(name, root, config, models)
            print(f"{name}: probes, calls and drain are as they should be")
    return 0


@contextmanager
def mounted(image: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Give an image's file system and configuration."""
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    container = buildah("from", "--pull-never", image)
    try:
        yield Path(buildah("mount", container)), config
    finally:
        buildah("rm", container)


def check(name: str, root: Path, config: Mapping[str, Any], models: Path) -> None:
    """Run one manifest's container, and everything that Kubernetes and clients would ask of it."""
    (container,) = yaml.safe_load((FOLDER / name).read_text())["spec"]["containers"]
    command = [*config["Entrypoint"], *container["args"]]
    person = container["securityContext"]["runAsUser"]
    with running(root, command, config["Env"], person, models) as (process, server):
        assert f"Uid:\t{person}\t{person}" in Path(f"/proc/{server}/status").read_text()
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{server}/status").read_text()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert passes(container[probe]), f"{name}: {probe} fails"
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        call_grpc(ports["h2c"]) if "h2c" in ports else call_http(ports["http1"])
        os.kill(server, signal.SIGTERM)
        assert process.wait(START_TIMEOUT_S) == 0, f"{name}: the drain ended with {process.returncode}"


@contextmanager
def running(
    root: Path, command: Sequence[str], variables: Sequence[str], person: int, models: Path
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a command in an image; give the process to wait for, and the id of the one to signal."""
    shell = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh")
    places = {"ROOT": str(root), "MODELS": str(models), "PLACE": MODELS}
    environment = os.environ | places | {"PERSON": str(person), "VARIABLES": " ".join(variables)}
    with subprocess.Popen([*shell, *command], env=environment, stdout=subprocess.PIPE, text=True) as process:
        hanging = threading.Timer(START_TIMEOUT_S, process.kill)
        hanging.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("listening on "):
                    break
            else:
                raise SystemExit("the container ended before it served; its words are above")
            (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield process, int(server)
        finally:
            hanging.cancel()
            process.kill()


def passes(probe: Mapping[str, Any]) -> bool:
    """Ask as a kubelet would."""
    if "grpc" in probe:
        with grpc.insecure_channel(f"{HOST}:{probe['grpc']['port']}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    if "httpGet" in probe:
        return http(probe["httpGet"]["port"], probe["httpGet"]["path"])[0] == 200
    socket.create_connection((HOST, probe["tcpSocket"]["port"]), timeout=30).close()
    return True


def call_grpc(port: int) -> None:
    """Ask every model for one answer."""
    with Client(f"{HOST}:{port}", timeout_s=30) as client:
        names = [model.name for model in client.models()]
        assert names, "no model is served"
        for name in names:
            inputs = client.model_metadata(name).signature.inputs
            feeds = {
                spec.name: np.zeros([max(1, size) for size in spec.shape], numpy_dtype(spec.dtype)) for spec in inputs
            }
            assert client.infer(name, feeds)


def call_http(port: int) -> None:
    """Ask every model for one answer, with JSON."""
    _, listed = http(port, "/v2/repository/index", {})
    names = [model["name"] for model in listed]
    assert names, "no model is served"
    for name in names:
        _, described = http(port, f"/v2/models/{name}")
        inputs = []
        for spec in described["inputs"]:
            shape = [max(1, size) for size in spec["shape"]]
            data = np.zeros(shape, numpy_dtype(spec["datatype"])).tolist()
            inputs.append({"name": spec["name"], "datatype": spec["datatype"], "shape": shape, "data": data})
        status, answer = http(port, f"/v2/models/{name}/infer", {"inputs": inputs})
        assert status == 200, answer


def http(port: int, path: str, body: object = None) -> tuple[int, Any]:
    """Return status and JSON of a GET, or with a body of a POST."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", data, timeout=30) as answer:
        text = answer.read()
        return answer.status, json.loads(text) if text else None


def size_mb(root: Path) -> float:
    """Return what a file system takes, with the links in it not followed."""
    return float(subprocess.run(["du", "-sm", root], capture_output=True, text=True, check=True).stdout.split()[0])


def buildah(*words: str) -> str:
    """Run buildah and return what it prints."""
    return subprocess.run(["buildah", *words], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
