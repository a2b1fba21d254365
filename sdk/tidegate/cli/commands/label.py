"""`tidegate label`: where the labels of a served model point, and moving them."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone
from typing import Any

from tidegate.cli.printing import print_json, print_table
from tidegate.cli.server_options import add_server, tls_of, token_of
from tidegate.errors import ConfigError

DESCRIPTION = """Labels such as `stable` and `canary` are names that callers give as version; a call without a version
follows `stable`. A label moves only to a version that is loaded and warm, and every call follows at once. Without a
move this shows the labels, the ready versions and all moves. The server must take commands (`--model-control`); where
it asks for keys, the key needs the role admin."""

EXAMPLE = """tidegate label 127.0.0.1:8001 mlp
tidegate label 127.0.0.1:8001 mlp stable=1.2.0
tidegate label 127.0.0.1:8001 mlp --roll-back stable
tidegate label 127.0.0.1:8001 mlp --remove canary
tidegate label models.example:8443 mlp stable=1.2.0 --tls-ca ca.pem --token-file operator.key"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("target", metavar="HOST:PORT", help="the server")
    parser.add_argument("model", metavar="MODEL", help="name of the model")
    parser.add_argument("move", nargs="?", metavar="LABEL=VERSION", help="point a label at a version")
    parser.add_argument("--roll-back", metavar="LABEL", help="point it where it pointed before its latest move")
    parser.add_argument("--remove", metavar="LABEL", help="take it away")
    parser.add_argument("--timeout-s", type=float, default=30.0, metavar="S", help="for the call; default 30")
    add_server(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show or move."""
    from tidegate.client.channel import ChannelSettings
    from tidegate.client.connection import Connection
    from tidegate.client.settings import RetrySettings
    from tidegate.wire.services import ADMIN

    name, request = _asked(arguments)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    settings = ChannelSettings(
        arguments.target,
        arguments.timeout_s,
        4 * 2**20,
        tls_of(arguments),
        token_of(arguments),
        RetrySettings(),
    )
    connection = Connection(settings)
    try:
        answer = connection.call(ADMIN, name, request, arguments.timeout_s)
    finally:
        connection.close()
    if name == "ListLabels":
        _show(answer, as_json=arguments.json)
    else:
        _show_move(answer, as_json=arguments.json)
    return 0


def _asked(arguments: argparse.Namespace) -> tuple[str, Any]:
    """Return the method and its request."""
    from tidegate.v1 import admin_pb2

    given = [value for value in (arguments.move, arguments.roll_back, arguments.remove) if value]
    if len(given) > 1:
        raise ConfigError(f"{len(given)} moves at once; expected one", fix="call once for each")
    model = arguments.model
    if arguments.roll_back:
        return "RollBackLabel", admin_pb2.LabelRequest(model_name=model, label=arguments.roll_back)
    if arguments.remove:
        return "RemoveLabel", admin_pb2.LabelRequest(model_name=model, label=arguments.remove)
    if not arguments.move:
        return "ListLabels", admin_pb2.ListLabelsRequest(model_name=model)
    label, _, version = arguments.move.partition("=")
    if not (label and version):
        raise ConfigError(f"move {arguments.move!r}; expected LABEL=VERSION", fix="such as stable=1.2.0")
    return "SetLabel", admin_pb2.SetLabelRequest(model_name=model, label=label, version=version)


def _show(answer: Any, *, as_json: bool) -> None:
    labels, versions = dict(sorted(answer.labels.items())), list(answer.versions)
    history = [_row(move) for move in answer.history]
    if as_json:
        keys = ("time", "label", "version", "before")
        print_json(
            {"labels": labels, "versions": versions, "history": [dict(zip(keys, row, strict=True)) for row in history]}
        )
        return
    print(f"ready: {', '.join(versions) or 'none'}")
    print_table(("label", "version"), list(labels.items()))
    if history:
        print()
        print_table(("time", "label", "to", "from"), history)


def _show_move(move: Any, *, as_json: bool) -> None:
    if as_json:
        print_json({"model": move.model_name, "label": move.label, "version": move.version, "before": move.before})
        return
    print(f"{move.model_name}: {move.label} {move.before or 'nowhere'} -> {move.version or 'nowhere'}")


def _row(move: Any) -> tuple[str, str, str, str]:
    at = datetime.fromtimestamp(move.time_s, timezone.utc).isoformat(timespec="seconds")
    return at, move.label, move.version or "-", move.before or "-"
