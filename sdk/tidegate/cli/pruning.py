"""`tidegate channel prune`: retire old releases and remove the files that no client can ask for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tidegate.cli.drafts import add_draft, check_new_draft, print_draft, write_draft_file
from tidegate.cli.printing import print_json
from tidegate.cli.signing import add_channel, add_keys, duration, key_ring
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.release.channel import Change
    from tidegate.release.pruning import Pruned


def configure_prune(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--releases",
        type=int,
        metavar="N",
        help="first retire all but the newest N releases of each track, and those that some device still needs; "
        "takes the keys of targets, snapshot and timestamp",
    )
    parser.add_argument(
        "--grace",
        default="7d",
        metavar="TIME",
        help="what clients saw within this time stays, and every younger file (default %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go; sign and remove nothing")
    add_channel(parser)
    add_keys(parser, required=False)
    parser.add_argument("--staged", action="store_true", help="with --releases: sign with the offline keys only")
    add_draft(parser)
    parser.set_defaults(act=_prune)


def _prune(arguments: argparse.Namespace) -> int:
    from tidegate.release.pruning import prune

    _check(arguments)
    grace = duration(arguments.grace)
    change = _retire(arguments)
    pruned = prune(arguments.channel, grace=grace, dry_run=arguments.dry_run)
    if arguments.json:
        print_json(
            {
                "dry_run": arguments.dry_run,
                "retired": []
                if change is None
                else [{"track": track, "offer": offer} for track, offer in change.offers],
                "live": change is None or change.live,
                "note": "" if change is None else change.note,
                "files": pruned.files,
                "size_bytes": pruned.size_bytes,
                "draft": None if change is None or change.draft is None else str(arguments.draft),
            }
        )
        return 0
    _print(change, pruned, arguments)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.releases is None and (arguments.draft is not None or arguments.staged):
        raise ConfigError("without --releases nothing is signed", fix="leave --draft and --staged out")
    if arguments.releases is not None and not arguments.keys and not arguments.dry_run:
        raise ConfigError("--releases signs new targets, and no key is named", fix="add --keys, or --dry-run")


def _retire(arguments: argparse.Namespace) -> Change | None:
    from tidegate.release.pruning import retire

    if arguments.releases is None:
        return None
    if not arguments.dry_run:
        check_new_draft(arguments.draft)
    change = retire(
        arguments.channel,
        arguments.releases,
        key_ring(arguments),
        staged=arguments.staged,
        in_turns=arguments.draft is not None,
        dry_run=arguments.dry_run,
    )
    if change.draft is not None:
        write_draft_file(arguments.draft, change.draft)
    return change


def _print(change: Change | None, pruned: Pruned, arguments: argparse.Namespace) -> None:
    would = "would be " if arguments.dry_run else ""
    if change is not None:
        for track, offer in change.offers:
            print(f"{track}: version {offer.version}, release {offer.release} {would}retired")
        if not change.offers:
            print("no release to retire")
        if change.note:
            then = f"; they go once no client has seen them for {arguments.grace}: run `tidegate channel prune` then"
            sys.stderr.write(f"{change.note}{then}\n")
    for file in pruned.files:
        print(file)
    sys.stderr.write(f"{len(pruned.files)} files ({pruned.size_bytes:,} bytes) {would}removed\n")
    if change is None or arguments.dry_run:
        return
    if change.draft is not None:
        print_draft(arguments.draft, change.draft, as_json=False)
    elif not change.live:
        sys.stderr.write("signed, not live: run `tidegate channel refresh` where the online keys are\n")
