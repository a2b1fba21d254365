"""Is a device still right, whatever has happened to it? What must hold after every kill and every fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.device_scenes import GOOD, SHIFTS, Scene
from tests.forked import in_child
from tests.update_site import use

from tidegate.edge.update import ActiveModel, State, Updater
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import Record, read_record, read_slot
from tidegate.edge.update.slots import needed_files, verify
from tidegate.errors import BundleError, NotFoundError, StateError
from tidegate.testing.backend_contract import BIAS, WEIGHTS

UPDATES = 4
"""In a row, that may be needed: one ends a trial, one is in vain for a file that was damaged."""
ROWS = np.random.default_rng(11).normal(0, 1, (1, 64)).astype(np.float32)


def examine(scene: Scene, device: Path, *, thoroughly: bool = True) -> str:
    """Hold a device against everything that must be true, and return the version that answers.

    Args:
        scene: what it was doing.
        device: its directory, which the examination changes.
        thoroughly: also bring it to the newest version, and look for what is left over.

    Raises:
        AssertionError: something is not as it must be.
    """
    if scene.device is None:
        if not Layout(device).state.exists():
            # Not a device yet: the same command makes it one.
            in_child(lambda: scene.command(device))
        elif thoroughly:
            in_child(lambda: scene.command(device))
    check_nothing_unverified(scene, device)
    version = in_child(lambda: answering(scene, device))
    assert version in scene.may_run, f"{version} answers; expected one of {sorted(scene.may_run)}"
    if thoroughly:
        in_child(lambda: _bring_to_newest(scene, device))
        assert in_child(lambda: answering(scene, device)) in scene.leads_to
        in_child(lambda: _check_no_leak(scene, device))
    return version


def check_nothing_unverified(scene: Scene, device: Path) -> None:
    """What is active is a manifest that the author signed, with every file as signed; and the factory version is whole.

    A scene that damaged the active version by hand is held to what is not damaged.
    """
    layout = Layout(device)
    signed = scene.manifests
    factory = read_slot(layout.factory)
    assert factory.manifest_sha256 == signed["1.0.0"]
    verify(layout.store, factory)
    record = _readable(layout)
    if record is None:
        return
    for slot in (record.active, record.previous, record.factory):
        if slot is not None:
            assert slot.manifest_sha256 == signed[slot.version], slot
    if scene.device is not None and not _is_damaged(scene.device, record):
        verify(layout.store, record.active)


def answering(scene: Scene, device: Path) -> str:
    """Start the model as an app does, and return which version its answer and its manifest say it is."""
    with ActiveModel(device) as model:
        output = model(ROWS)
        plain = ROWS @ WEIGHTS + BIAS
        found = [version for version, shift in SHIFTS.items() if np.allclose(output, plain + shift, atol=1e-3)]
        assert found == [model.manifest.version], (found, model.manifest.version)
        assert model.slot.manifest_sha256 == scene.manifests[found[0]]
        return found[0]


def _bring_to_newest(scene: Scene, device: Path) -> None:
    outcomes: list[str] = []
    for _ in range(UPDATES):
        try:
            outcomes.append(Updater(device).update().outcome)
        except BundleError as error:
            outcomes.append(error.message)
        record = read_record(Layout(device).state)
        if record.phase is State.TRIAL:
            use(device, GOOD)
            outcomes.append(Updater(device).settle().outcome)
        elif outcomes[-1] in ("up to date", "noted", "probe failed"):
            break
    record = read_record(Layout(device).state)
    assert record.phase is State.IDLE, outcomes
    assert record.active.version in scene.leads_to, outcomes
    verify(Layout(device).store, record.active)


def _check_no_leak(scene: Scene, device: Path) -> None:
    """After the next collection nothing lies about that nobody needs, and the way back leads somewhere."""
    layout = Layout(device)
    try:
        Updater(device).rollback("to see what is left over")
    except StateError:
        Updater(device).status()
        # Nothing older, so nothing was collected: everything that is here belongs to the one version or is an offer's.
        assert read_record(layout.state).active.version == "1.0.0"
        return
    record = read_record(layout.state)
    check_nothing_unverified(scene, device)
    files = {path.name for path in (device / "store" / "files").iterdir()}
    assert files == needed_files(layout.store, record.slots)
    partial = device / "store" / "partial"
    assert not partial.is_dir() or list(partial.iterdir()) == []
    Updater(device).check()
    left = [path.name for path in device.rglob("*") if path.name.endswith(".part") or path.name.startswith("tmp")]
    assert left == [], left
    root = layout.metadata / "root.json"
    assert root.exists()


def _readable(layout: Layout) -> Record | None:
    try:
        return read_record(layout.state)
    except (BundleError, NotFoundError):
        return None


def _is_damaged(before: Path, record: Record) -> bool:
    """Return whether the scene itself damaged what is active in this record."""
    try:
        verify(Layout(before).store, record.active)
    except NotFoundError:
        return False
    except BundleError:
        return True
    return False
