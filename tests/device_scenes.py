"""What a device is doing when it is killed or its disk refuses: a device before, a command, and what may come of it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from tests.forked import ended
from tests.update_site import Site, use

from tidegate.bundle import Bundle, digest
from tidegate.edge.update import ActiveModel, Record, State, Updater, initialise
from tidegate.edge.update.counters import Counters
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.probe_job import Failed, Job, Measured
from tidegate.edge.update.probe_worker import measure
from tidegate.edge.update.record import read_record, write_record
from tidegate.edge.update.report_identity import create_report_key, new_session
from tidegate.errors import BundleError, TidegateError
from tidegate.testing.channels import StaticServer, make_channel, open_keys

GOOD = Counters(calls=100, answers=100)
BAD = Counters(calls=100, failed=90, last_problem="it crashed")
SHIFTS = {"1.0.0": 0.0, "1.1.0": 1.0, "1.2.0": 2.0, "1.3.0": 3.0}
"""What each version adds to its answers, so that an answer tells which version gave it."""


@dataclass(frozen=True)
class Scene:
    """One command on one device."""

    site: Site
    device: Path | None
    """as it is before; None: nothing is there yet"""
    command: Callable[[Path], object]
    may_run: frozenset[str]
    """versions that may answer, whenever the command is killed"""
    leads_to: frozenset[str]
    """versions, one of which the next `update` brings"""

    @property
    def manifests(self) -> dict[str, str]:
        """Digest of the author's manifest by version: what may run, and nothing else."""
        found = {}
        for version in SHIFTS:
            path = self.site.home / f"{version}-onnx.tide"
            if path.exists():
                with Bundle.open(path) as bundle:
                    found[version] = digest(bundle.manifest_bytes)
        return found


Build = Callable[[Site], Scene]


@contextmanager
def server_process(directory: Path) -> Iterator[str]:
    """Serve a directory from a process of its own, so that this one has no threads and may fork; give its URL."""
    command = (sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(directory))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            port = re.search(r"port (\d+)", server.stdout.readline())
            assert port is not None
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            server.kill()


def make_scene(name: str, home: Path, keys: Path, url: str) -> Scene:
    """Set up a channel and a device for one of `SCENES`; `url` is where `home` is served."""
    home.mkdir(parents=True)
    site = Site(home, make_channel(home / "site", keys), open_keys(keys), StaticServer(f"{url}/site"))
    site.publish("1.0.0")
    scene = SCENES[name](site)
    try:
        record = None if scene.device is None else record_of(scene.device)
    except BundleError:
        record = None
    if scene.device is not None and record is not None:
        # Else it depends on the second whether a look at the channel has something to write.
        write_record(Layout(scene.device).state, msgspec.structs.replace(record, last_check=None))
    return scene


def _initialise(site: Site) -> Scene:
    root = (site.channel.path / "metadata" / "1.root.json").read_bytes()
    site.publish("1.1.0", shift=1.0)

    def command(device: Path) -> None:
        if not Layout(device).state.exists():
            initialise(device, site.settings(), root, site.home / "1.0.0-onnx.tide")
        if not (device / "report.key").exists():
            create_report_key(device, "kiosk-1")
        new_session(device)

    return _scene(site, None, command, "1.0.0", "1.1.0")


def _check(site: Site) -> Scene:
    device = site.device()
    site.publish("1.1.0", shift=1.0)
    return _scene(site, device, lambda path: Updater(path).check(explain=True), "1.0.0", "1.1.0")


def _fetch_all(site: Site) -> Scene:
    device = site.device()
    site.channel.publish(site.bundle("1.1.0", shift=1.0), track="stable", keys=site.keys, delta_bases=0)
    return _scene(site, device, update, "1.0.0 1.1.0", "1.1.0")


def _fetch_delta(site: Site) -> Scene:
    device = _committed(site, "1.1.0")
    site.publish("1.2.0", shift=2.0)
    return _scene(site, device, update, "1.1.0 1.2.0", "1.2.0")


def _same_content(site: Site) -> Scene:
    device = _committed(site, "1.1.0")
    site.publish("1.2.0", shift=2.0)
    site.channel.roll_back("dense", track="stable", version="1.1.0", reason="again", keys=site.keys)
    return _scene(site, device, update, "1.1.0", "1.1.0")


def _authorised_roll_back(site: Site) -> Scene:
    device = _committed(site, "1.1.0", "1.2.0")
    site.channel.roll_back("dense", track="stable", version="1.1.0", reason="too eager", keys=site.keys)
    return _scene(site, device, update, "1.2.0 1.1.0", "1.1.0")


def _roll_back_of_a_trial(site: Site) -> Scene:
    device = _on_trial(site)
    site.channel.roll_back("dense", track="stable", version="1.0.0", reason="deaf", keys=site.keys)
    return _scene(site, device, update, "1.2.0 1.1.0 1.0.0", "1.0.0")


def _withdrawal_of_a_trial(site: Site) -> Scene:
    device = _on_trial(site)
    site.channel.withdraw("dense", version="1.2.0", reason="deaf", keys=site.keys)
    return _scene(site, device, update, "1.2.0 1.1.0", "1.1.0")


def _probe_fails(site: Site) -> Scene:
    device = _committed(site, "1.1.0")
    site.publish_unproven("1.2.0", shift=2.0, wrong=5.0)
    return _scene(site, device, update, "1.1.0", "1.1.0")


def _commit(site: Site) -> Scene:
    device = _on_trial(site)
    use(device, GOOD)
    return _scene(site, device, settle, "1.2.0", "1.2.0")


def _trial_fails(site: Site) -> Scene:
    device = _on_trial(site)
    use(device, BAD)
    # An app leaves a version that fails its trial by itself, before the updater does.
    return _scene(site, device, settle, "1.1.0", "1.1.0")


def _roll_back_by_hand(site: Site) -> Scene:
    device = _committed(site, "1.1.0", "1.2.0")
    return _scene(site, device, lambda path: Updater(path).rollback("mishears"), "1.2.0 1.1.0", "1.2.0 1.1.0")


def _damaged(site: Site) -> Scene:
    device = _committed(site, "1.1.0", "1.2.0")
    file = Layout(device).store.path(record_of(device).active.variant_sha256)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return _scene(site, device, update, "1.1.0 1.2.0", "1.2.0")


def _recovery(phase: State) -> Build:
    def build(site: Site) -> Scene:
        if phase in (State.FETCHING, State.PROBING):
            device = _committed(site, "1.1.0")
            site.publish("1.2.0", shift=2.0)
            _kill_in(device, phase)
            return _scene(site, device, status, "1.1.0", "1.2.0")
        device = _committed(site, "1.1.0", "1.2.0")
        write_record(Layout(device).state, msgspec.structs.replace(record_of(device), phase=phase))
        Layout(device).store.put(b"of a version that nobody needs")
        if phase is State.ROLLING_BACK:
            # As a roll-back that needs no verdict leaves it: the offer may be taken again.
            return _scene(site, device, status, "1.2.0 1.1.0", "1.1.0")
        return _scene(site, device, status, "1.2.0", "1.2.0")

    return build


def _recovery_of_a_record(site: Site) -> Scene:
    device = _committed(site, "1.1.0", "1.2.0")
    state = Layout(device).state
    state.write_bytes(state.read_bytes().replace(b'"idle"', b'"waltzing"'))
    return _scene(site, device, status, "1.0.0 1.1.0", "1.2.0")


def _app(site: Site) -> Scene:
    device = _on_trial(site)

    def command(path: Path) -> None:
        rows = np.zeros((1, 64), np.float32)
        with ActiveModel(path, check_interval_s=0) as model:
            for _ in range(3):
                model(rows)
            model.report_failure("test")
            model.refresh()

    return _scene(site, device, command, "1.2.0 1.1.0", "1.2.0")


SCENES: dict[str, Build] = {
    "init": _initialise,
    "check": _check,
    "update, all files": _fetch_all,
    "update, delta": _fetch_delta,
    "update, same content": _same_content,
    "update, authorised roll-back": _authorised_roll_back,
    "update, authorised roll-back in a trial": _roll_back_of_a_trial,
    "update, withdrawn in a trial": _withdrawal_of_a_trial,
    "update, probe fails": _probe_fails,
    "update, active version damaged": _damaged,
    "settle, commit": _commit,
    "settle, roll back": _trial_fails,
    "rollback": _roll_back_by_hand,
    "recovery from fetching": _recovery(State.FETCHING),
    "recovery from probing": _recovery(State.PROBING),
    "recovery from committed": _recovery(State.COMMITTED),
    "recovery from rolling back": _recovery(State.ROLLING_BACK),
    "recovery of the record": _recovery_of_a_record,
    "app": _app,
}


def update(device: Path) -> object:
    """Run one update."""
    return Updater(device).update()


def settle(device: Path) -> object:
    """Run one settlement."""
    return Updater(device).settle()


def status(device: Path) -> object:
    """Do nothing but recover."""
    return Updater(device).status()


def record_of(device: Path) -> Record:
    """Read the record as it stands."""
    return read_record(Layout(device).state)


def _scene(site: Site, device: Path | None, command: Callable[[Path], object], may_run: str, leads_to: str) -> Scene:
    return Scene(site, device, command, frozenset(may_run.split()), frozenset(leads_to.split()))


def _committed(site: Site, *versions: str) -> Path:
    """Return a device that has taken and kept these versions one after the other."""
    device = site.device()
    assert update(device).outcome == "noted"  # type: ignore[attr-defined]
    for version in versions:
        site.publish(version, shift=SHIFTS[version])
        assert update(device).outcome == "activated"  # type: ignore[attr-defined]
        use(device, GOOD)
        assert settle(device).outcome == "committed"  # type: ignore[attr-defined]
    return device


def _on_trial(site: Site) -> Path:
    device = _committed(site, "1.1.0")
    site.publish("1.2.0", shift=2.0)
    assert update(device).outcome == "activated"  # type: ignore[attr-defined]
    return device


def _kill_in(device: Path, phase: State) -> None:
    """Let an updater die in the middle of this phase."""

    def die_there(*_: object) -> None:
        if record_of(device).phase is phase:
            os.kill(os.getpid(), signal.SIGKILL)

    how, what = ended(lambda: Updater(device, conditions=die_there, on_progress=die_there).update())
    assert how == "died of SIGKILL", what


class _InThisThread:
    """Runs what is submitted at once: one order of calls, whatever the scheduler does."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _InThisThread:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 it is the caller's, as with a real pool
            future.set_exception(error)
        return future


@contextmanager
def one_thread() -> Iterator[None]:
    """Fetch files one after the other, so that every run makes the same calls in the same order."""
    with patch("tidegate.fetch.download.ThreadPoolExecutor", _InThisThread):
        yield


@contextmanager
def probe_in_this_process() -> Iterator[None]:
    """Measure and compare candidates here, without the second that a fresh interpreter takes to start.

    That the child's crash, hang or hunger fails the probe is tested in test_probe.py and test_bad_models.py.
    """

    def measured(job: Job, *_: object, **__: object) -> Measured | Failed:
        try:
            return measure(job, io.BytesIO())
        except TidegateError as error:
            return Failed(token=job.token, kind=type(error).__name__, message=error.message)

    with patch("tidegate.edge.update.probe.in_child", measured):
        yield
