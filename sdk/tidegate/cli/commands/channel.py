"""`tidegate channel`: make a channel, move releases along its tracks, take them back, keep it fresh, look at it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.actions import add_action
from tidegate.cli.channel_report import print_channel, warn
from tidegate.cli.drafts import add_draft, check_new_draft, print_draft, write_draft_file
from tidegate.cli.printing import print_json, print_table
from tidegate.cli.pruning import configure_prune
from tidegate.cli.signing import (
    add_change,
    add_channel,
    add_deltas,
    add_keys,
    add_lifetimes,
    by_role,
    key_ring,
    lifetimes,
    print_change,
)
from tidegate.errors import ConfigError
from tidegate.release.lifetimes import ROLES, Lifetimes

if TYPE_CHECKING:
    from tidegate.release.creation import RoleKeys

DESCRIPTION = """A channel is a directory of static files that any web server can serve: signed metadata in metadata/,
content in targets/. Devices trust it by the first root, metadata/1.root.json, which is shipped with the app.

promote   offer on a track what another track offers, or raise the share of the devices that an offer reaches
rollback  offer older content again, under a higher release counter, to every device; withdraw what is newer
withdraw  stop a version: nobody installs it any more
refresh   sign the timestamp again with the online keys alone; run it more often than the timestamp lives
prune     remove files that no client can ask for any more; with --releases, retire old releases first"""

EXAMPLE = """tidegate channel init --channel site --keys keys
tidegate channel init --channel site --threshold root=2 --keys keys --draft site.draft
tidegate channel promote voice-commands --channel site --from beta --track stable --percent 5 --keys keys
tidegate channel promote voice-commands --channel site --track stable --percent 50 --keys keys
tidegate channel rollback voice-commands --channel site --track stable --to 1.0.0 --reason "misses words" --keys keys
tidegate channel withdraw voice-commands --channel site --version 1.1.0 --reason "wrong labels" --keys keys
tidegate channel refresh --channel site --keys keys/snapshot.pem --keys keys/timestamp.pem
tidegate channel refresh --targets --channel site --keys keys
tidegate channel prune --channel site --releases 5 --keys keys --dry-run
tidegate channel prune --channel site
tidegate channel show --channel site --check"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _configure_init(add_action(actions, "channel", "init", summary="make an empty channel", examples=EXAMPLE))

    promote = add_action(
        actions, "channel", "promote", summary="offer on another track, or to more devices", examples=EXAMPLE
    )
    promote.add_argument("model", metavar="MODEL", help="name in the manifest")
    promote.add_argument("--track", required=True, help="where it is to be offered")
    promote.add_argument("--from", dest="source", metavar="TRACK", help="where it is offered; without: raise the share")
    promote.add_argument("--version", help="default: the newest")
    promote.add_argument("--percent", type=int, default=100, help="share of the devices, 0 to 100 (default 100)")
    add_deltas(promote)
    add_change(promote)
    promote.set_defaults(act=_promote)

    rollback = add_action(actions, "channel", "rollback", summary="offer older content again", examples=EXAMPLE)
    rollback.add_argument("model", metavar="MODEL", help="name in the manifest")
    rollback.add_argument("--track", required=True, help="where")
    rollback.add_argument("--to", required=True, metavar="VERSION", help="of any track of the model")
    rollback.add_argument("--reason", required=True, help="why, in a few words")
    add_deltas(rollback)
    add_change(rollback)
    rollback.set_defaults(act=_roll_back)

    withdraw = add_action(actions, "channel", "withdraw", summary="stop a version", examples=EXAMPLE)
    withdraw.add_argument("model", metavar="MODEL", help="name in the manifest")
    withdraw.add_argument("--version", required=True, help="which")
    withdraw.add_argument("--track", help="only there; default: on every track")
    withdraw.add_argument("--reason", required=True, help="why, in a few words")
    add_change(withdraw)
    withdraw.set_defaults(act=_withdraw)

    refresh = add_action(actions, "channel", "refresh", summary="sign the timestamp again", examples=EXAMPLE)
    refresh.add_argument("--targets", action="store_true", help="sign the targets again too; needs their keys")
    add_channel(refresh)
    add_keys(refresh)
    add_draft(refresh)
    refresh.set_defaults(act=_refresh)

    configure_prune(
        add_action(actions, "channel", "prune", summary="remove what no client can ask for", examples=EXAMPLE)
    )

    show = add_action(actions, "channel", "show", summary="show tracks, releases, expiries", examples=EXAMPLE)
    show.add_argument("--check", action="store_true", help="read every file; exit with 1 if there is any warning")
    add_channel(show)
    show.set_defaults(act=_show)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    code: int = arguments.act(arguments)
    return code


def _configure_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE=FILE.pub",
        help="who may sign for a role; may repeat; default: each ROLE*.pub in the --keys directories",
    )
    parser.add_argument("--threshold", action="append", default=[], metavar="ROLE=N", help="default: 1; may repeat")
    add_lifetimes(parser)
    add_channel(parser)
    add_keys(parser)
    add_draft(parser)
    parser.set_defaults(act=_init)


def _init(arguments: argparse.Namespace) -> int:
    from tidegate.release.channel import Channel

    channel, roles, keys = Channel(arguments.channel), _role_keys(arguments), key_ring(arguments)
    chosen = lifetimes(arguments.lifetime, Lifetimes())
    if arguments.draft is not None:
        check_new_draft(arguments.draft)
        draft = channel.draft_creation(roles, keys, chosen)
        write_draft_file(arguments.draft, draft)
        print_draft(arguments.draft, draft, arguments.json)
        return 0
    made = channel.create(roles, keys, chosen)
    root = arguments.channel / "metadata" / "1.root.json"
    if arguments.json:
        print_json({"root": str(root), "keyids": {role: made.root.signed.roles[role].keyids for role in ROLES}})
    else:
        print(f"{root}  ship this file with the app: it is what devices trust")
    return 0


def _role_keys(arguments: argparse.Namespace) -> dict[str, RoleKeys]:
    from tidegate.release.creation import RoleKeys
    from tidegate.release.keys import read_public_key

    named = {role: [Path(file) for file in files] for role, files in by_role(arguments.role, "--role").items()}
    thresholds = {role: _number(role, words) for role, words in by_role(arguments.threshold, "--threshold").items()}
    found = {}
    for role in ROLES:
        files = named.get(role) or [file for place in arguments.keys for file in sorted(place.glob(f"{role}*.pub"))]
        if not files:
            raise ConfigError(
                f"no key was named for the role {role}, and no {role}*.pub is in a directory that --keys names",
                fix=f"add --role {role}=FILE.pub",
            )
        found[role] = RoleKeys([read_public_key(file) for file in files], thresholds.get(role, 1))
    return found


def _number(role: str, words: list[str]) -> int:
    if len(words) != 1 or not words[0].isdecimal():
        raise ConfigError(f"--threshold {role}={','.join(words)} is not one number", fix=f"give such as {role}=2")
    return int(words[0])


def _promote(arguments: argparse.Namespace) -> int:
    from tidegate.release.channel import Channel

    check_new_draft(arguments.draft)
    change = Channel(arguments.channel).promote(
        arguments.model,
        track=arguments.track,
        source=arguments.source,
        version=arguments.version,
        percent=arguments.percent,
        keys=key_ring(arguments),
        staged=arguments.staged,
        in_turns=arguments.draft is not None,
        delta_bases=arguments.deltas,
    )
    print_change(change, arguments)
    return 0


def _roll_back(arguments: argparse.Namespace) -> int:
    from tidegate.release.channel import Channel

    check_new_draft(arguments.draft)
    change = Channel(arguments.channel).roll_back(
        arguments.model,
        track=arguments.track,
        version=arguments.to,
        reason=arguments.reason,
        keys=key_ring(arguments),
        staged=arguments.staged,
        in_turns=arguments.draft is not None,
        delta_bases=arguments.deltas,
    )
    print_change(change, arguments)
    return 0


def _withdraw(arguments: argparse.Namespace) -> int:
    from tidegate.release.channel import Channel

    check_new_draft(arguments.draft)
    change = Channel(arguments.channel).withdraw(
        arguments.model,
        version=arguments.version,
        track=arguments.track,
        reason=arguments.reason,
        keys=key_ring(arguments),
        staged=arguments.staged,
        in_turns=arguments.draft is not None,
    )
    print_change(change, arguments)
    return 0


def _refresh(arguments: argparse.Namespace) -> int:
    from tidegate.release.channel import Channel
    from tidegate.release.moments import utc_now
    from tidegate.release.report import report

    channel, keys = Channel(arguments.channel), key_ring(arguments)
    if arguments.draft is not None:
        if not arguments.targets:
            raise ConfigError("the online roles are not signed in turns", fix="add --targets, or leave --draft out")
        check_new_draft(arguments.draft)
        draft = channel.draft_refresh(keys)
        write_draft_file(arguments.draft, draft)
        print_draft(arguments.draft, draft, arguments.json)
        return 0
    after = report(channel.refresh(keys, renew_targets=arguments.targets), utc_now())
    if arguments.json:
        print_json({"roles": after.roles, "warnings": after.warnings})
        return 0
    print_table(
        ("role", "version", "expires"),
        [(role.role, str(role.version), f"{role.expires:%Y-%m-%d %H:%M} UTC") for role in after.roles],
    )
    warn(after)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from tidegate.release.channel import Channel
    from tidegate.release.moments import utc_now
    from tidegate.release.report import report

    found = report(Channel(arguments.channel).read(), utc_now(), check_files=arguments.check)
    if arguments.json:
        print_json(found)
    else:
        print_channel(found)
    return 1 if arguments.check and found.warnings else 0
