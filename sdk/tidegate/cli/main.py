"""`tidegate COMMAND …`: find the command, run it, turn its errors into messages and exit codes.

Exit codes: 0 it worked, 1 it failed, 2 it was used wrongly, 3 wait: not enough data to say (`evaluate`), 130
interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol, cast

from tidegate.errors import ConfigError, TidegateError

COMMANDS: dict[str, str] = {
    "build": "pack model files into one checked bundle",
    "inspect": "show what a bundle says about itself",
    "export": "write a bundle as an MLflow model or an OCI image layout",
    "evaluate": "metrics with bounds, parity of variants, verdict on acceptance criteria",
    "verify": "check digests, schema and the golden fixture on every runnable variant",
    "run": "run a model once on arrays from an .npz file",
    "listen": "audio in, transcript and search results out",
    "serve": "serve bundles over gRPC",
    "call": "call a model on a server once",
    "bench": "measure latency, throughput, memory and CPU time",
    "keys": "make signing keys, change who may sign",
    "publish": "offer a bundle on a track of a channel",
    "channel": "make a channel; promote, roll back, withdraw, refresh, show",
}
"""Each command lives in tidegate.cli.commands.NAME."""


class Command(Protocol):
    """What a command's module offers."""

    DESCRIPTION: str
    EXAMPLE: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(chosen=words[0] if words else "")
    arguments = parser.parse_args(words)
    try:
        return cast("int", arguments.command.run(arguments))
    except TidegateError as error:
        _complain(error)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # The reader of our output left, as `| head` does; a second complaint at interpreter exit is prevented.
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(chosen: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate", description="One package for a model, from the notebook to the device and the cloud."
    )
    parser.add_argument("--version", action="version", version=f"tidegate {version('tidegate')}")
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=summary, add_help=False)
            continue
        command = cast("Command", importlib.import_module(f"tidegate.cli.commands.{name}"))
        sub = commands.add_parser(
            name,
            help=summary,
            description=command.DESCRIPTION,
            epilog=f"example:\n{_indented(command.EXAMPLE)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(sub)
        sub.set_defaults(command=command)
    return parser


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _complain(error: TidegateError) -> None:
    sys.stderr.write(f"tidegate: {error.message}\n")
    if error.fix:
        sys.stderr.write(f"  what to do: {error.fix}\n")
