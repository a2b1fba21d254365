"""`tidegate device`: make a directory a device; look for a newer model, install it, go back, see what runs and why."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.actions import add_action
from tidegate.cli.devices import (
    check_lines,
    history_rows,
    passed_over_rows,
    result_lines,
    slot_json,
    status_json,
    status_lines,
)
from tidegate.cli.files import read_file
from tidegate.cli.printing import Bars, print_json, print_table
from tidegate.cli.quiet import foreign_output_hidden
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.edge.update import Updater, UpdateResult
    from tidegate.fetch.progress import Progress

VARIABLE = "TIDEGATE_DEVICE"

DESCRIPTION = f"""A device is a directory that holds the installed versions of one model and follows one track of a
channel. --directory names it, or the variable {VARIABLE}.

init      make the directory a device: channel, trusted root, the factory version that never goes away
check     is there a newer version for this device? Two requests; changes nothing that runs
update    check, fetch, prove in a child process, switch; first settle what is on trial
settle    commit the version on trial or go back, by the health counters of the app
status    what is active, previous, factory, quarantined: file, digest, variant, since when, why
rollback  go back to the version before; needs no network
history   what happened, oldest first

exit codes: 0 it worked, also when there is nothing newer or it is not the time; 1 it failed, also when a new version
failed its probe or its trial and the old one runs on; 2 used wrongly"""

EXAMPLE = """tidegate device init --directory kiosk --channel https://models.example.com/site --model voice-commands \\
    --root 1.root.json --factory voice-commands.tide --hardware pi5 --memory-mb 64
tidegate device check --directory kiosk --explain
tidegate device update --directory kiosk
tidegate device settle --directory kiosk
tidegate device status --directory kiosk --json
tidegate device rollback --directory kiosk --reason "mishears the new names"
tidegate device history --directory kiosk"""

_FAILURES = ("probe failed", "refused", "rolled back")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _configure_init(add_action(actions, "device", "init", summary="make a directory a device", examples=EXAMPLE))

    check = add_action(
        actions, "device", "check", summary="is there a newer version for this device?", examples=EXAMPLE
    )
    check.add_argument("--explain", action="store_true", help="say why newer versions were passed over")
    _add_device(check, _check)

    _add_device(
        add_action(actions, "device", "update", summary="install the newest version that fits", examples=EXAMPLE),
        _update,
    )
    _add_device(
        add_action(actions, "device", "settle", summary="commit the version on trial, or go back", examples=EXAMPLE),
        _settle,
    )
    _add_device(add_action(actions, "device", "status", summary="what runs, and why", examples=EXAMPLE), _status)

    rollback = add_action(
        actions, "device", "rollback", summary="go back to the version before, without a network", examples=EXAMPLE
    )
    rollback.add_argument("--reason", default="asked for on the command line", help="why, in a few words")
    _add_device(rollback, _roll_back)

    history = add_action(actions, "device", "history", summary="what happened, oldest first", examples=EXAMPLE)
    history.add_argument("--last", type=int, metavar="N", help="only the newest N lines")
    _add_device(history, _history)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    code: int = arguments.act(arguments)
    return code


def _configure_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channel", required=True, metavar="URL", help="address of the channel's directory")
    parser.add_argument("--model", required=True, metavar="NAME", help="name in the manifest")
    parser.add_argument("--track", default="stable", help="which track to follow (default %(default)s)")
    parser.add_argument(
        "--root", type=Path, required=True, metavar="FILE", help="the channel's metadata/1.root.json: what to trust"
    )
    parser.add_argument(
        "--factory", type=Path, required=True, metavar="BUNDLE", help="the version to start with and to fall back to"
    )
    parser.add_argument(
        "--variant", default="", metavar="ID", help="of the factory bundle (default: the first that runs)"
    )
    parser.add_argument(
        "--device-id", metavar="ID", help="decides the place in a roll-out; one for each device (default: a random one)"
    )
    parser.add_argument(
        "--hardware", nargs="+", action="extend", default=[], metavar="TAG", help="tags of this device, such as pi5"
    )
    parser.add_argument("--memory-mb", type=float, metavar="N", help="what a model may take (default: not looked at)")
    parser.add_argument(
        "--sign-reports", action="store_true", help="make a key that signs what the device reports to a server"
    )
    _add_device(parser, _init)


def _add_device(parser: argparse.ArgumentParser, act: object) -> None:
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help=f"of the device (default: the variable {VARIABLE})"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(act=act)


def _directory(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Path:
    named: Path | None = arguments.directory
    if named is None and environment.get(VARIABLE):
        named = Path(environment[VARIABLE])
    if named is None:
        raise ConfigError("no device directory was named", fix=f"add --directory DIR, or set {VARIABLE}")
    return named


def _init(arguments: argparse.Namespace) -> int:
    from tidegate.edge.update import DeviceSettings, create_report_key, initialise
    from tidegate.wire.report_signature import require

    directory = _directory(arguments)
    settings = DeviceSettings(
        device_id=uuid.uuid4().hex if arguments.device_id is None else arguments.device_id,
        url=arguments.channel.rstrip("/"),
        model=arguments.model,
        track=arguments.track,
        hardware=tuple(arguments.hardware),
        memory_mb=arguments.memory_mb,
    )
    if arguments.sign_reports:
        require()
    root = read_file(arguments.root, "--root")
    with foreign_output_hidden():
        slot = initialise(directory, settings, root, arguments.factory, variant=arguments.variant)
    public = create_report_key(directory, settings.device_id).to_line() if arguments.sign_reports else ""
    if arguments.json:
        result = {"directory": str(directory), "device_id": settings.device_id, "active": slot_json(directory, slot)}
        print_json(result | ({"report_key": public} if public else {}))
        return 0
    print(f"{directory} is a device: {slot.model} {slot.version} ({slot.variant}) is active and its factory version")
    print(f"  device id {settings.device_id}, track {settings.track} of {settings.url}")
    if public:
        print(f"  key of its reports, for `tidegate serve --device-keys`: {public}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    with _Screen() as screen:
        found = screen.updater(_directory(arguments)).check(explain=arguments.explain)
    if arguments.json:
        print_json(
            {
                "news": found.news,
                "running": found.running,
                "offer": found.offer,
                "variant": found.variant,
                "same_content": found.same_content,
                "passed_over": found.passed_over,
                "requests": found.requests,
                "received_bytes": found.received_bytes,
            }
        )
        return 0
    print("\n".join(check_lines(found, explained=arguments.explain)))
    if found.passed_over:
        print()
        print_table(("release", "version", "passed over because"), passed_over_rows(found.passed_over))
    sys.stderr.write(f"{found.requests} requests, {found.received_bytes:,} bytes\n")
    return 0


def _update(arguments: argparse.Namespace) -> int:
    with _Screen() as screen:
        result = screen.updater(_directory(arguments)).update()
    return _finish(arguments, result)


def _settle(arguments: argparse.Namespace) -> int:
    with _Screen() as screen:
        result = screen.updater(_directory(arguments)).settle()
    return _finish(arguments, result)


def _roll_back(arguments: argparse.Namespace) -> int:
    with _Screen() as screen:
        result = screen.updater(_directory(arguments)).rollback(arguments.reason)
    _print_result(arguments, result)
    return 0


def _finish(arguments: argparse.Namespace, result: UpdateResult) -> int:
    _print_result(arguments, result)
    return 1 if result.outcome in _FAILURES else 0


def _print_result(arguments: argparse.Namespace, result: UpdateResult) -> None:
    if arguments.json:
        print_json(result)
    else:
        print("\n".join(result_lines(result)))


def _status(arguments: argparse.Namespace) -> int:
    directory = _directory(arguments)
    with _Screen() as screen:
        status = screen.updater(directory).status()
    if arguments.json:
        print_json(status_json(directory, status))
    else:
        print("\n".join(status_lines(directory, status)))
    return 0


def _history(arguments: argparse.Namespace) -> int:
    if arguments.last is not None and arguments.last < 1:
        raise ConfigError(f"--last is {arguments.last}; expected 1 or more", fix="leave it out for all")
    with _Screen() as screen:
        entries = screen.updater(_directory(arguments)).history()
    shown = entries if arguments.last is None else entries[-arguments.last :]
    if arguments.json:
        print_json(shown)
    else:
        print_table(("at", "event", "release", "version", "reason"), history_rows(shown))
    return 0


class _Screen:
    """Progress on standard error while an updater works. A context manager."""

    def __init__(self) -> None:
        self._bars = Bars()

    def updater(self, directory: Path) -> Updater:
        from tidegate.edge.update import Updater

        return Updater(directory, on_progress=self._show)

    def _show(self, progress: Progress) -> None:
        self._bars.show("fetching, kB", progress.done_bytes // 1000, progress.total_bytes // 1000)

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.__exit__()
