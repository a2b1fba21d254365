"""`tidegate COMMAND …`: find the command, run it, turn its errors into messages and exit codes.

Exit codes: 0 it worked, 1 it failed, 2 it was used wrongly, 3 wait: not enough data to say (`evaluate`, `build`,
`profile judge`), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn, Protocol, cast

from tidegate.cli.printing import complain
from tidegate.errors import ConfigError, ResourceError, TidegateError

COMMANDS: dict[str, str] = {
    "convert": "make TFLite and ONNX variants of a trained model",
    "build": "make one checked bundle of a trained model or of model files",
    "profile": "make a reference profile of evaluation data, judge later data by it",
    "inspect": "show what a bundle says about itself",
    "export": "write a bundle as an MLflow model or an OCI image layout",
    "evaluate": "metrics with bounds, parity of variants, verdict on acceptance criteria",
    "verify": "check digests, schema and the golden fixture on every runnable variant",
    "run": "run a model once on arrays from an .npz file",
    "predict": "run a bundle on every row of a file or directory",
    "listen": "audio in, transcript and search results out",
    "serve": "serve bundles over gRPC",
    "access": "make, list and revoke the keys of a server's callers",
    "label": "show and move the labels of a server's models",
    "call": "call a model on a server once",
    "recognize": "have a server say what is spoken in WAV files",
    "conformance": "hold any server of the Open Inference Protocol against what the protocol says",
    "bench": "measure latency, throughput, memory and CPU time",
    "keys": "make signing keys, change who may sign",
    "publish": "offer a bundle on a track of a channel",
    "channel": "make a channel; promote, roll back, withdraw, refresh, show",
    "device": "follow a channel: check, update, roll back, see what runs and why",
}
"""Each command lives in tidegate.cli.commands.NAME."""

SECOND_FORMS: dict[tuple[str, str], str] = {("bench", "delta"): "bench_delta"}
"""Commands of two words whose first word is a command by itself, with its module. A file of that name: `./delta`."""


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
    try:
        try:
            return _run(words)
        finally:
            _flush()
    except ResourceError as error:  # of _flush
        complain(error)
        sys.stdout = None
        return 1
    except BrokenPipeError:
        # The reader of our output left, as `| head` does; a second complaint at interpreter exit is prevented.
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    arguments = _parse(words)
    try:
        return cast("int", arguments.command.run(arguments))
    except TidegateError as error:
        complain(error)
        return 2 if isinstance(error, ConfigError) else 1


def _flush() -> None:
    """Write what is still buffered: if that fails, it had better fail here than when the interpreter ends.

    Raises:
        BrokenPipeError: nobody reads it.
        ResourceError: it cannot be written, such as to a full disk.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(
            f"standard output cannot be written: {error.strerror}", fix="make room, or send it elsewhere"
        ) from error


class Parser(argparse.ArgumentParser):
    """Says what was wrong in our form, instead of all options and then what was wrong."""

    def error(self, message: str) -> NoReturn:
        """Complain and end with exit code 2."""
        complain(ConfigError(message, fix=f"`{self.prog} --help` shows what it takes"))
        sys.exit(2)


def _parse(words: list[str]) -> argparse.Namespace:
    module = SECOND_FORMS.get((words[0], words[1])) if len(words) > 1 else None
    if module is None:
        return _parser(chosen=words[0] if words else "").parse_args(words)
    command = _command(module)
    parser = Parser(prog=f"tidegate {words[0]} {words[1]}")
    _fill(parser, command)
    return parser.parse_args(words[2:])


def _parser(chosen: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog="tidegate", description="One package for a model, from the notebook to the device and the cloud."
    )
    parser.add_argument("--version", action="version", version=f"tidegate {version('tidegate')}")
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=summary, add_help=False)
            continue
        _fill(commands.add_parser(name, help=summary), _command(name))
    return parser


def _command(module: str) -> Command:
    return cast("Command", importlib.import_module(f"tidegate.cli.commands.{module}"))


def _fill(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.description = command.DESCRIPTION
    parser.epilog = f"example:\n{_indented(command.EXAMPLE)}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    command.configure(parser)
    parser.set_defaults(command=command)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
