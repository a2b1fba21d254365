"""An app whose model is kept up to date while it runs.

    python examples/device_updates/app.py --device kiosk --wav demo.wav

Two threads. The main one listens to a recording, over and over, and calls the model: `ActiveModel` runs whatever
version is active, and swaps between two calls. The other one looks for news every few hours: `Updater` fetches, proves
and switches, and later judges the trial by what the main thread's calls were like. They share nothing but the device's
directory, so the second could as well be the systemd timer beside this file.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidegate.edge import WavSource
from tidegate.edge.update import ActiveModel, Updater
from tidegate.errors import TidegateError
from tidegate.fetch.progress import Progress

POWER = Path("/sys/class/power_supply")


def main() -> int:
    arguments = parse()
    stop = threading.Event()
    updater = Updater(
        arguments.device,
        conditions=lambda: on_hold(arguments.hold) or low_battery(arguments.lowest_battery_percent),
        on_progress=show_progress,
    )
    follower = threading.Thread(target=follow, args=(updater, arguments.check_every_s, stop), name="updater")
    follower.start()
    try:
        with ActiveModel(arguments.device) as model:
            listen(model, arguments.wav, rounds=arguments.rounds, pace_s=arguments.pace_s)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        stop.set()
        follower.join()
    return 0


def listen(model: ActiveModel, wav: Path, *, rounds: int, pace_s: float) -> None:
    """The app's work: name the label that fits each second best."""
    done = 0
    while rounds == 0 or done < rounds:
        for second in windows(wav):
            scores = model.run({"audio": second[np.newaxis, :]})["probabilities"][0]
            label = model.manifest.labels[int(scores.argmax())]
            print(f"{model.manifest.version}  {label:<10} {float(scores.max()):.2f}", flush=True)
            time.sleep(pace_s)
        done += 1


def windows(wav: Path) -> Iterator[NDArray[np.float32]]:
    """One second after the other, float32 [16000]."""
    samples = np.concatenate(list(WavSource(wav).chunks()))
    for first in range(0, len(samples) - 15_999, 16_000):
        yield samples[first : first + 16_000]


def follow(updater: Updater, every_s: float, stop: threading.Event) -> None:
    """Look for news until the app ends. Whatever goes wrong here, the model that runs keeps running."""
    while not stop.is_set():
        try:
            result = updater.update()
            say(f"{result.outcome}: {result.running.version} runs. {result.reason}")
        except TidegateError as error:
            say(f"no update: {error.message}. {error.fix or ''}")
        stop.wait(every_s)


def on_hold(hold: Path | None) -> str | None:
    """Why not now, or None: whoever knows that the line is metered or a customer is served makes a file."""
    return f"{hold} is there" if hold is not None and hold.exists() else None


def low_battery(lowest_percent: int, power: Path = POWER) -> str | None:
    """Why not now, or None. Linux tells of batteries in /sys; a machine without one is never low."""
    for battery in power.glob("*/capacity"):
        try:
            percent = int(battery.read_text())
            discharging = (battery.parent / "status").read_text().strip() == "Discharging"
        except (OSError, ValueError):  # unplugged just now, or a driver that does not know
            continue
        if discharging and percent < lowest_percent:
            return f"the battery is at {percent} %; expected {lowest_percent} % or a charger"
    return None


def show_progress(progress: Progress) -> None:
    say(f"fetched {progress.done_bytes:,} of {progress.total_bytes:,} bytes")


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", type=Path, required=True, metavar="DIR", help="made by `tidegate device init`")
    parser.add_argument("--wav", type=Path, required=True, metavar="FILE", help="a recording at 16 kHz")
    parser.add_argument("--rounds", type=int, default=0, help="times to play it (default: until Ctrl-C)")
    parser.add_argument("--pace-s", type=float, default=1.0, help="time between two calls (default: as live audio)")
    parser.add_argument("--check-every-s", type=float, default=4 * 3600.0, help="default: 4 hours")
    parser.add_argument("--hold", type=Path, metavar="FILE", help="no update while this file is there")
    parser.add_argument("--lowest-battery-percent", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
