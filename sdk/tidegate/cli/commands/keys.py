"""`tidegate keys`: make signing keys, look at them, change who may sign for a channel."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidegate.cli.printing import print_json, print_table
from tidegate.cli.signing import VARIABLE, add_channel, add_keys, add_lifetimes, ask_new_passphrase, key_ring, lifetimes
from tidegate.release.lifetimes import ROLES

DESCRIPTION = f"""Signing keys of a channel: ed25519, two files each. FILE.pem is the private key, encrypted with a
passphrase (from {VARIABLE}, or a prompt), mode 0600. FILE.pub is the public key. An existing file is never overwritten.

`rotate` adds and removes keys of one role, or changes how many must sign. It needs the root keys, and the new keys of
the role, but not those that are removed. With --role root and nothing to change, it renews the root's expiry."""

EXAMPLE = """tidegate keys create keys/root.pem keys/targets.pem keys/snapshot.pem keys/timestamp.pem
tidegate keys show keys/*.pub
tidegate keys create keys/timestamp-2.pem
tidegate keys rotate --channel site --role timestamp --add keys/timestamp-2.pub --remove 1f0c9b2d --keys keys
tidegate keys rotate --channel site --role root --add keys/root-2.pub --threshold 2 --keys keys"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = actions.add_parser("create", help="make key pairs")
    create.add_argument("files", nargs="+", type=Path, metavar="FILE.pem", help="private key to make")
    create.add_argument("--json", action="store_true", help="print the result as JSON")
    create.set_defaults(act=_create)

    show = actions.add_parser("show", help="print the ids of keys")
    show.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .pub file, or a .pem file beside its own")
    show.add_argument("--json", action="store_true", help="print the result as JSON")
    show.set_defaults(act=_show)

    rotate = actions.add_parser("rotate", help="change who may sign for a role")
    add_channel(rotate)
    rotate.add_argument("--role", required=True, choices=ROLES, help="whose keys")
    rotate.add_argument("--add", type=Path, action="append", default=[], metavar="FILE.pub", help="may repeat")
    rotate.add_argument(
        "--remove", action="append", default=[], metavar="KEYID", help="its first 8 digits do; may repeat"
    )
    rotate.add_argument("--threshold", type=int, metavar="N", help="how many must sign; default as before")
    add_lifetimes(rotate)
    add_keys(rotate)
    rotate.set_defaults(act=_rotate)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    arguments.act(arguments)
    return 0


def _create(arguments: argparse.Namespace) -> None:
    from tidegate.release.keys import create_key

    made = [(file, create_key(file, ask_new_passphrase(file)).keyid) for file in arguments.files]
    _print_keys(made, arguments.json)


def _show(arguments: argparse.Namespace) -> None:
    from tidegate.release.keys import read_public_key

    _print_keys([(file, read_public_key(file).keyid) for file in arguments.files], arguments.json)


def _rotate(arguments: argparse.Namespace) -> None:
    from tidegate.release.keys import read_public_key
    from tidegate.release.repository import lifetimes_of, read_repository
    from tidegate.release.rotation import rotate

    before = lifetimes_of(read_repository(arguments.channel).root.signed)
    after = rotate(
        arguments.channel,
        arguments.role,
        key_ring(arguments),
        add=[read_public_key(file) for file in arguments.add],
        remove=arguments.remove,
        threshold=arguments.threshold,
        lifetimes=lifetimes(arguments.lifetime, before) if arguments.lifetime else None,
    )
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


def _print_keys(keys: list[tuple[Path, str]], as_json: bool) -> None:
    if as_json:
        print_json([{"file": str(file), "keyid": keyid} for file, keyid in keys])
    else:
        print_table(("file", "key id"), [(str(file), keyid) for file, keyid in keys])
