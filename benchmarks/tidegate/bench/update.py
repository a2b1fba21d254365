"""What an update costs a device: requests, bytes on the wire, time and memory, by kind of change.

    python -m tidegate.bench.update BEFORE HEAD FULL

BEFORE, HEAD and FULL are three files of one model: as it is, with a new head, and trained again as a whole, such as
`examples/weight_deltas/measure.py --keep DIR` writes. They become releases on a fresh channel with fresh keys, served
on loopback; a device takes each of them from BEFORE with its default settings, probe included. Bytes are what the
server sent, with status lines and headers.
"""

from __future__ import annotations

import argparse
import http.server
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tidegate.edge.update import DeviceSettings, Updater, initialise
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.probe import ProbeSettings, probe
from tidegate.release.channel import Channel
from tidegate.release.keys import KeyRing
from tidegate.testing.channels import make_channel, open_keys, write_keys

MODEL = "bench"
LABELS = "\n".join(f"label {number}" for number in range(100))
_CHILD = """
import re, sys, time
def peak_resident_bytes():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+)", file.read())[1]) * 1024
before, began = peak_resident_bytes(), time.process_time()
from tidegate.edge.update import Updater
Updater
imported, import_s = peak_resident_bytes(), time.process_time() - began
Updater(sys.argv[1]).check()
checked, check_s = peak_resident_bytes(), time.process_time() - began - import_s
Updater(sys.argv[1]).update()
updated = peak_resident_bytes()
print(before, imported, import_s, checked, check_s, updated)
"""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one kind of change; times are medians."""

    kind: str
    outcome: str
    requests: int
    wire_bytes: int
    fetched: tuple[str, ...]
    """files of the release, those made from a delta with `by delta`"""
    update_ms: float
    probe_ms: float | None
    """of the update's time, about; null when nothing was probed"""
    rollback_ms: float | None
    runs: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Of the updater in a fresh process, medians: CPU time, and peak of resident memory over what was before it."""

    before_mb: float
    """the bare interpreter"""
    import_mb: float
    import_cpu_ms: float
    check_mb: float
    check_cpu_ms: float
    update_mb: float
    runs: int


@dataclass
class Wire:
    """What a server sent."""

    url: str = ""
    requests: int = 0
    sent_bytes: int = 0


@contextmanager
def counted(directory: Path) -> Iterator[Wire]:
    """Serve a directory and count."""
    wire = Wire()

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            write = self.wfile.write

            def count(data: Any) -> int:
                wire.sent_bytes += len(data)
                return write(data)

            self.wfile.write = count  # type: ignore[method-assign]

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            wire.requests += 1

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on standard error."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        wire.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield wire
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Workshop:
    """A channel with one release, and what may come after it."""

    def __init__(self, home: Path, before: Path) -> None:
        """Publish `before` as 1.0.0."""
        self.home = home
        self.before = before
        write_keys(home / "keys")
        self.keys: KeyRing = open_keys(home / "keys")
        self.first = self.bundle("1.0.0", before)
        make_channel(home / "site", home / "keys").publish(self.first, track="stable", keys=self.keys)

    def bundle(self, version: str, model: Path, labels: str = LABELS) -> Path:
        """Build a release of a model file, as its author would."""
        from tidegate.convert.build import build
        from tidegate.convert.spec import read_spec

        place = self.home / version
        place.mkdir()
        shutil.copy(model, place / model.name)
        (place / "labels.txt").write_text(labels, encoding="utf-8")
        precision = next((one for one in ("int8", "fp16") if one in model.stem), "fp32")
        (place / "bundle.toml").write_text(
            f'[bundle]\nname = "{MODEL}"\nversion = "{version}"\n'
            f'[[variant]]\nid = "only"\nfile = "{model.name}"\nprecision = "{precision}"\n'
            f'[assets]\nlabels = "labels.txt"\n',
            encoding="utf-8",
        )
        return build(read_spec(place / "bundle.toml"), place / "bundle.tide").path

    def with_change(self, name: str, change: Callable[[Channel], object]) -> Path:
        """Return a copy of the site on which something changed."""
        site = self.home / f"site {name}"
        shutil.copytree(self.home / "site", site)
        change(Channel(site))
        return site

    def device(self, url: str) -> Path:
        """Return a new device that runs 1.0.0."""
        directory = Path(tempfile.mkdtemp(dir=self.home)) / "device"
        root = (self.home / "site" / "metadata" / "1.root.json").read_bytes()
        settings = DeviceSettings(device_id="bench-1", url=url, model=MODEL)
        initialise(directory, settings, root, self.first)
        return directory

    def publish(self, bundle: Path) -> Callable[[Channel], object]:
        """Return the change that offers a bundle to all."""
        return lambda channel: channel.publish(bundle, track="stable", keys=self.keys)

    def there_and_back(self, bundle: Path) -> Callable[[Channel], object]:
        """Return the change that offers a bundle, and then what was there before under a newer counter."""

        def change(channel: Channel) -> None:
            channel.publish(bundle, track="stable", keys=self.keys)
            channel.roll_back(MODEL, track="stable", version="1.0.0", reason="bench", keys=self.keys)

        return change


def measure(workshop: Workshop, kind: str, change: Callable[[Channel], object], runs: int) -> Cost:
    """Take one change on fresh devices."""
    site = workshop.with_change(kind, change)
    updates, probes, rollbacks = [], [], []
    for _ in range(runs):
        with counted(workshop.home) as wire:
            device = workshop.device(f"{wire.url}/site")
            Updater(device).update()
            _follow(device, f"{wire.url}/{site.name.replace(' ', '%20')}")
            wire.requests = wire.sent_bytes = 0
            result, elapsed_ms = _timed(Updater(device).update)
        updates.append(elapsed_ms)
        if result.outcome == "activated":
            active = result.running
            probes.append(_timed(partial(probe, device, active, ProbeSettings()))[1])
            rollbacks.append(_timed(partial(Updater(device).rollback, "bench"))[1])
    report = result.fetched
    return Cost(
        kind=kind,
        outcome=result.outcome,
        requests=wire.requests,
        wire_bytes=wire.sent_bytes,
        fetched=tuple(f"{file}{' by delta' * (file in report.deltas_used)}" for file in report.files) if report else (),
        update_ms=statistics.median(updates),
        probe_ms=statistics.median(probes) if probes else None,
        rollback_ms=statistics.median(rollbacks) if rollbacks else None,
        runs=runs,
    )


def measure_memory(workshop: Workshop, runs: int) -> Memory:
    """Import, check and update in fresh processes; the update takes the site's change `full retrain`."""
    rows = []
    for _ in range(runs):
        with counted(workshop.home) as wire:
            device = workshop.device(f"{wire.url}/site%20full%20retrain")
            words = (sys.executable, "-c", _CHILD, str(device))
            done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603 our own program
        rows.append([float(word) for word in done.stdout.split()])
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    before, imported, import_s, checked, check_s, updated = medians
    return Memory(
        before_mb=before / 1e6,
        import_mb=(imported - before) / 1e6,
        import_cpu_ms=import_s * 1e3,
        check_mb=(checked - before) / 1e6,
        check_cpu_ms=check_s * 1e3,
        update_mb=(updated - before) / 1e6,
        runs=runs,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.update", description=__doc__)
    for name in ("before", "head", "full"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as home:
        workshop = Workshop(Path(home), options.before)
        changes: dict[str, Callable[[Channel], object]] = {
            "no change": lambda channel: None,
            "same content": workshop.there_and_back(workshop.bundle("1.0.1", options.head)),
            "labels only": workshop.publish(workshop.bundle("1.1.0", options.before, LABELS + "\none more")),
            "head only": workshop.publish(workshop.bundle("1.2.0", options.head)),
            "full retrain": workshop.publish(workshop.bundle("1.3.0", options.full)),
        }
        for kind, change in changes.items():
            _tell(measure(workshop, kind, change, options.runs), options.json)
        _tell(measure_memory(workshop, options.runs), options.json)
    return 0


def _tell(result: Cost | Memory, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(result).decode(), flush=True)
    elif isinstance(result, Memory):
        print(
            f"import: {result.import_cpu_ms:.0f} ms of CPU, {result.import_mb:.1f} MB over {result.before_mb:.1f} MB; "
            f"check: {result.check_cpu_ms:.0f} ms of CPU, peak {result.check_mb:.1f} MB over it; "
            f"update: peak {result.update_mb:.1f} MB over it"
        )
    else:
        print(
            f"{result.kind:14} {result.outcome:11} {result.requests:2} requests {result.wire_bytes:>10,} bytes  "
            f"update {result.update_ms:7.0f} ms  probe {result.probe_ms or 0:6.0f} ms  "
            f"roll back {result.rollback_ms or 0:5.0f} ms  {', '.join(result.fetched)}",
            flush=True,
        )


def _follow(device: Path, url: str) -> None:
    from tidegate.edge.update.settings import read_settings, write_settings

    path = Layout(device).settings
    write_settings(path, replace(read_settings(path), url=url))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    raise SystemExit(main())
