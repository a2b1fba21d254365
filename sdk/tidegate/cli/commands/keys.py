"""`tidegate keys`: make signing keys, look at them, change who may sign for a channel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tidegate.cli.actions import add_action
from tidegate.cli.channel_report import print_channel
from tidegate.cli.drafts import (
    add_draft,
    check_new_draft,
    print_content,
    print_draft,
    print_signatures,
    read_draft_file,
    write_draft_file,
)
from tidegate.cli.printing import print_json, print_table
from tidegate.cli.signing import VARIABLE, add_channel, add_keys, add_lifetimes, ask_new_passphrase, key_ring, lifetimes
from tidegate.release.lifetimes import ROLES

DESCRIPTION = f"""Signing keys of a channel: ed25519, two files each. FILE.pem is the private key, encrypted with a
passphrase (from {VARIABLE}, or a prompt), mode 0600. FILE.pub is the public key. An existing file is never overwritten.

`rotate` adds and removes keys of one role, or changes how many must sign. It needs the root keys, and the new keys of
the role, but not those that are removed. With --role root and nothing to change, it renews the root's expiry.

`sign` and `apply` are for roles that ask for several keys whose holders keep them apart. A command with --draft FILE
writes down what is to be signed. Each holder looks at it and signs it with `sign`; without --keys it is only shown.
`apply`, where the online keys are, checks it against the channel and makes it live."""

EXAMPLE = """tidegate keys create keys/root.pem keys/targets.pem keys/snapshot.pem keys/timestamp.pem
tidegate keys show keys/*.pub
tidegate keys create keys/timestamp-2.pem
tidegate keys rotate --channel site --role timestamp --add keys/timestamp-2.pub --remove 1f0c9b2d --keys keys
tidegate keys rotate --channel site --role root --add keys/root-2.pub --threshold 2 --keys keys
tidegate keys rotate --channel site --role root --keys anna.pem --draft root-2.draft
tidegate keys sign root-2.draft
tidegate keys sign root-2.draft --keys ben.pem
tidegate keys apply root-2.draft --channel site
tidegate keys apply beta-1.2.0.draft --channel site --keys keys/snapshot.pem --keys keys/timestamp.pem"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = add_action(actions, "keys", "create", summary="make key pairs", examples=EXAMPLE)
    create.add_argument("files", nargs="+", type=Path, metavar="FILE.pem", help="private key to make")
    create.add_argument("--json", action="store_true", help="print the result as JSON")
    create.set_defaults(act=_create)

    show = add_action(actions, "keys", "show", summary="print the ids of keys", examples=EXAMPLE)
    show.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .pub file, or a .pem file beside its own")
    show.add_argument("--json", action="store_true", help="print the result as JSON")
    show.set_defaults(act=_show)

    rotate = add_action(actions, "keys", "rotate", summary="change who may sign for a role", examples=EXAMPLE)
    add_channel(rotate)
    rotate.add_argument("--role", required=True, choices=ROLES, help="whose keys")
    rotate.add_argument("--add", type=Path, action="append", default=[], metavar="FILE.pub", help="may repeat")
    rotate.add_argument(
        "--remove", action="append", default=[], metavar="KEYID", help="its first 8 digits do; may repeat"
    )
    rotate.add_argument("--threshold", type=int, metavar="N", help="how many must sign; default as before")
    add_lifetimes(rotate)
    add_keys(rotate)
    add_draft(rotate)
    rotate.set_defaults(act=_rotate)

    sign = add_action(actions, "keys", "sign", summary="look at a draft, and sign it", examples=EXAMPLE)
    sign.add_argument("draft", type=Path, metavar="FILE", help="what a command with --draft wrote")
    sign.add_argument("--json", action="store_true", help="print the result as JSON")
    add_keys(sign, required=False)
    sign.set_defaults(act=_sign)

    apply = add_action(actions, "keys", "apply", summary="carry out a draft that is signed", examples=EXAMPLE)
    apply.add_argument("draft", type=Path, metavar="FILE", help="what a command with --draft wrote")
    add_channel(apply)
    add_keys(apply, required=False)
    apply.set_defaults(act=_apply)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    arguments.act(arguments)
    return 0


def _create(arguments: argparse.Namespace) -> None:
    from tidegate.release.keys import check_new_key, create_key

    for file in arguments.files:
        check_new_key(file)
    made = [(file, create_key(file, ask_new_passphrase(file)).keyid) for file in arguments.files]
    _print_keys(made, arguments.json)


def _show(arguments: argparse.Namespace) -> None:
    from tidegate.release.keys import read_public_key

    _print_keys([(file, read_public_key(file).keyid) for file in arguments.files], arguments.json)


def _rotate(arguments: argparse.Namespace) -> None:
    from tidegate.release.keys import read_public_key
    from tidegate.release.repository import lifetimes_of, read_repository
    from tidegate.release.rotation import draft_rotation, rotate

    check_new_draft(arguments.draft)
    before = lifetimes_of(read_repository(arguments.channel).root.signed)
    change: dict[str, Any] = {
        "add": [read_public_key(file) for file in arguments.add],
        "remove": arguments.remove,
        "threshold": arguments.threshold,
        "lifetimes": lifetimes(arguments.lifetime, before) if arguments.lifetime else None,
    }
    if arguments.draft is not None:
        draft = draft_rotation(arguments.channel, arguments.role, key_ring(arguments), **change)
        write_draft_file(arguments.draft, draft)
        print_draft(arguments.draft, draft, arguments.json)
        return
    after = rotate(arguments.channel, arguments.role, key_ring(arguments), **change)
    root = after.root.signed
    role = root.roles[arguments.role]
    if arguments.json:
        print_json(
            {
                "role": arguments.role,
                "keyids": role.keyids,
                "threshold": role.threshold,
                "root_version": root.version,
                "root_expires": root.expires,
            }
        )
        return
    print(
        f"root {root.version}: {arguments.role} needs {role.threshold} of "
        f"{', '.join(keyid[:8] for keyid in role.keyids)}; root expires {root.expires:%Y-%m-%d %H:%M} UTC"
    )


def _sign(arguments: argparse.Namespace) -> None:
    from tidegate.release.draft import check_may_sign, sign

    draft = read_draft_file(arguments.draft)
    if arguments.keys:
        keys = key_ring(arguments)
        check_may_sign(draft, keys)
        if not arguments.json:
            print_content(arguments.draft, draft)  # before a passphrase is asked for
        sign(draft, keys)
        write_draft_file(arguments.draft, draft)
        if not arguments.json:
            print_signatures(arguments.draft, draft)
            return
    print_draft(arguments.draft, draft, arguments.json)


def _apply(arguments: argparse.Namespace) -> None:
    from tidegate.release.applying import apply
    from tidegate.release.moments import utc_now
    from tidegate.release.report import report

    draft = read_draft_file(arguments.draft)
    after = report(apply(arguments.channel, draft, key_ring(arguments)), utc_now())
    if arguments.json:
        print_json({"roles": after.roles, "tracks": after.tracks, "staged": after.staged, "warnings": after.warnings})
        return
    print_channel(after)


def _print_keys(keys: list[tuple[Path, str]], as_json: bool) -> None:
    if as_json:
        print_json([{"file": str(file), "keyid": keyid} for file, keyid in keys])
    else:
        print_table(("file", "key id"), [(str(file), keyid) for file, keyid in keys])
