"""`tidegate access`: make, list and revoke the keys by which a server knows its callers."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tidegate.cli.actions import add_action
from tidegate.cli.printing import print_json, print_table
from tidegate.cloud.access import (
    ANY_MODEL,
    ROLES,
    AccessFile,
    Key,
    new_key,
    read_access_file,
    write_access_file,
)
from tidegate.errors import ConfigError, NotFoundError

DESCRIPTION = """Keys of a server's callers, for `tidegate serve --access FILE`. The file holds a hash of each key; the
key itself is printed once, when it is made. A server that runs reads the file again within a second of a change.

Roles: infer runs models, admin loads and unloads them and changes settings, metrics reads the metrics. Any of them may
read what the models are like. A key is for the models that it names, or for all."""

EXAMPLE = """tidegate access create keys.json --role infer --model voice-commands --holder "app in the lobby"
tidegate access create keys.json --role infer --role admin --days 90
tidegate access list keys.json
tidegate access revoke keys.json 4f1c09a2be"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = add_action(actions, "access", "create", summary="make a key and print it", examples=EXAMPLE)
    create.add_argument("file", type=Path, metavar="FILE", help="made when it is not there")
    create.add_argument("--role", action="append", required=True, choices=ROLES, help="may repeat")
    create.add_argument("--model", action="append", metavar="NAME", help="may repeat; default: all models")
    create.add_argument("--holder", default="", metavar="TEXT", help="who gets it, for you to remember")
    create.add_argument("--days", type=int, metavar="N", help="until it expires; default: never")
    create.add_argument("--json", action="store_true", help="print the result as JSON")
    create.set_defaults(act=_create)

    listed = add_action(actions, "access", "list", summary="show the keys, without their secrets", examples=EXAMPLE)
    listed.add_argument("file", type=Path, metavar="FILE", help="as `create` wrote it")
    listed.add_argument("--json", action="store_true", help="print the result as JSON")
    listed.set_defaults(act=_list)

    revoke = add_action(actions, "access", "revoke", summary="take a key away", examples=EXAMPLE)
    revoke.add_argument("file", type=Path, metavar="FILE", help="as `create` wrote it")
    revoke.add_argument("ids", nargs="+", metavar="ID", help="as `list` shows it")
    revoke.add_argument("--json", action="store_true", help="print the result as JSON")
    revoke.set_defaults(act=_revoke)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    code: int = arguments.act(arguments)
    return code


def _create(arguments: argparse.Namespace) -> int:
    if arguments.days is not None and arguments.days < 1:
        raise ConfigError(f"--days is {arguments.days}; expected 1 or more", fix="leave it out for a key that stays")
    before = read_access_file(arguments.file) if arguments.file.exists() else AccessFile()
    key, secret = new_key(
        tuple(role for role in ROLES if role in arguments.role),
        tuple(dict.fromkeys(arguments.model or (ANY_MODEL,))),
        holder=arguments.holder,
        expires="" if arguments.days is None else _in_days(arguments.days),
    )
    write_access_file(arguments.file, AccessFile(keys=(*before.keys, key)))
    if arguments.json:
        print_json({"id": key.id, "key": secret, "roles": key.roles, "models": key.models, "expires": key.expires})
    else:
        print(secret)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    keys = read_access_file(arguments.file).keys
    if arguments.json:
        print_json([_shown(key) for key in keys])
        return 0
    print_table(
        ("id", "roles", "models", "created", "expires", "holder"),
        [
            (key.id, ",".join(key.roles), ",".join(key.models), key.created[:10], key.expires[:10] or "-", key.holder)
            for key in keys
        ],
    )
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    before = read_access_file(arguments.file)
    known = {key.id for key in before.keys}
    for name in arguments.ids:
        if name not in known:
            raise NotFoundError(f"{arguments.file} has no key {name!r}", fix=f"tidegate access list {arguments.file}")
    left = tuple(key for key in before.keys if key.id not in arguments.ids)
    write_access_file(arguments.file, AccessFile(keys=left))
    if arguments.json:
        print_json({"revoked": arguments.ids, "left": len(left)})
    else:
        print(f"revoked {', '.join(arguments.ids)}; {len(left)} left")
    return 0


def _shown(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "roles": key.roles,
        "models": key.models,
        "created": key.created,
        "expires": key.expires,
        "holder": key.holder,
    }


def _in_days(days: int) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).isoformat(timespec="seconds")
