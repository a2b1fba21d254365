"""What the commands that sign have in common: where the keys are, how their passphrases are asked, what was changed."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.drafts import add_draft, print_draft, write_draft_file
from tidegate.cli.printing import print_json
from tidegate.errors import ConfigError
from tidegate.release.lifetimes import ROLES, Lifetimes

if TYPE_CHECKING:
    from tidegate.release.channel import Change
    from tidegate.release.keys import KeyRing

VARIABLE = "TIDEGATE_PASSPHRASE"

_SECONDS = {"s": 1, "h": 3600, "d": 86_400}


def add_channel(parser: argparse.ArgumentParser) -> None:
    """Add `--channel` and `--json`."""
    parser.add_argument("--channel", type=Path, required=True, metavar="DIR", help="the channel's directory")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_keys(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--keys`."""
    parser.add_argument(
        "--keys",
        type=Path,
        action="append",
        default=None if required else [],
        required=required,
        metavar="PATH",
        help=f"a key's .pem file or a directory of them; may repeat; passphrase from {VARIABLE} or a prompt",
    )


def add_change(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes that changes an offer."""
    add_channel(parser)
    add_keys(parser)
    parser.add_argument(
        "--staged",
        action="store_true",
        help="sign with the offline keys only; `tidegate channel refresh` makes it live where the online keys are",
    )
    add_draft(parser)


def add_deltas(parser: argparse.ArgumentParser) -> None:
    """Add `--deltas`."""
    parser.add_argument(
        "--deltas",
        type=int,
        default=3,
        metavar="N",
        help="make deltas from the N releases before this one on the track (default %(default)s; 0: none)",
    )


def add_lifetimes(parser: argparse.ArgumentParser) -> None:
    """Add `--lifetime`."""
    parser.add_argument(
        "--lifetime",
        action="append",
        default=[],
        metavar="ROLE=TIME",
        help="how long a role's signature is good for, such as timestamp=12h or root=365d; may repeat",
    )


def key_ring(arguments: argparse.Namespace) -> KeyRing:
    """Return the keys that `--keys` names."""
    from tidegate.release.keys import KeyRing

    return KeyRing(arguments.keys, ask_passphrase)


def ask_passphrase(private_file: Path) -> str:
    """Return the passphrase of a key, from the environment or the terminal.

    Raises:
        ConfigError: neither has it.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"{private_file} needs its passphrase", fix=f"set {VARIABLE}, or run it in a terminal")
    return _prompt(f"passphrase of {private_file}: ")


def ask_new_passphrase(private_file: Path) -> str:
    """Return the passphrase for a new key; a terminal asks twice.

    Raises:
        ConfigError: there is none, or the two differ.
    """
    first = ask_passphrase(private_file)
    if VARIABLE not in os.environ and _prompt("the same again: ") != first:
        raise ConfigError("the two passphrases differ", fix="try again")
    return first


def _prompt(words: str) -> str:
    try:
        return getpass.getpass(words, stream=sys.stderr)
    except EOFError as error:
        sys.stderr.write("\n")
        raise ConfigError(
            "the input ended where a passphrase was expected", fix=f"type it, or set {VARIABLE}"
        ) from error


def lifetimes(words: list[str], before: Lifetimes) -> Lifetimes:
    """Return `before` with what `ROLE=TIME` words change.

    Raises:
        ConfigError: a word is not of that form.
    """
    seconds = before.as_dict()
    for word in words:
        role, _, time = word.partition("=")
        found = _seconds_in(time)
        if role not in ROLES or found is None:
            raise ConfigError(f"{word!r} is not ROLE=TIME", fix="give such as timestamp=12h; units are s, h, d")
        seconds[role] = found
    return Lifetimes.from_dict(seconds)


def duration(word: str) -> timedelta:
    """Return a time such as `7d`.

    Raises:
        ConfigError: it is not of that form.
    """
    seconds = _seconds_in(word)
    if seconds is None:
        raise ConfigError(f"{word!r} is not a time", fix="give such as 7d or 12h; units are s, h, d")
    return timedelta(seconds=seconds)


def _seconds_in(time: str) -> int | None:
    number, unit = time[:-1], time[-1:]
    return int(number) * _SECONDS[unit] if number.isdecimal() and unit in _SECONDS else None


def by_role(words: list[str], option: str) -> dict[str, list[str]]:
    """Collect `ROLE=VALUE` words.

    Raises:
        ConfigError: a word is not of that form.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        role, _, value = word.partition("=")
        if role not in ROLES or not value:
            raise ConfigError(f"{option} {word!r} is not ROLE=VALUE", fix=f"roles are {', '.join(ROLES)}")
        found.setdefault(role, []).append(value)
    return found


def print_change(change: Change, arguments: argparse.Namespace) -> None:
    """Print what a command did to the channel, and with `--draft` write the draft."""
    if change.draft is not None:
        write_draft_file(arguments.draft, change.draft)
    if arguments.json:
        print_json(
            {
                "live": change.live,
                "changed": dict(change.offers),
                "files_written": change.written.files,
                "files_reused": change.written.reused,
                "bytes_written": change.written.size_bytes,
                "note": change.note,
                "draft": None if change.draft is None else str(arguments.draft),
            }
        )
        return
    for track, offer in change.offers:
        state = f"withdrawn: {offer.withdrawn.reason}" if offer.withdrawn else f"{offer.rollout.percent} %"
        back = f", takes back release {offer.rollback_of}" if offer.rollback_of else ""
        print(f"{track}: version {offer.version}, release {offer.release}, {state}{back}")
    if not change.offers:
        print("nothing to change")
    files = "1 file" if change.written.files == 1 else f"{change.written.files} files"
    sys.stderr.write(f"{files} written ({change.written.size_bytes:,} bytes), {change.written.reused} there already\n")
    if change.note:
        sys.stderr.write(f"{change.note}\n")
    if change.draft is not None:
        print_draft(arguments.draft, change.draft, as_json=False)
    elif not change.live:
        sys.stderr.write("signed, not live: run `tidegate channel refresh` where the online keys are\n")
